package ginauth_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/ginauth"
)

// varyOf returns the names in the Vary headers of an answer, in their order.
func varyOf(w *httptest.ResponseRecorder) (names []string) {
	for _, value := range w.Header().Values("Vary") {
		for name := range strings.SplitSeq(value, ",") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

func wantVary(t *testing.T, what string, w *httptest.ResponseRecorder, want ...string) {
	t.Helper()
	if got := varyOf(w); !slices.Equal(got, want) {
		t.Errorf("%s: got Vary %q, want %q", what, got, want)
	}
}

func wantCacheControl(t *testing.T, what string, w *httptest.ResponseRecorder, want string) {
	t.Helper()
	if got := strings.Join(w.Header().Values("Cache-Control"), " and "); got != want {
		t.Errorf("%s: got Cache-Control %q, want %q", what, got, want)
	}
}

const privately = "private, no-store"

func TestGuardedAnswersVaryByWhatTheGuardLookedAt(t *testing.T) {
	h := newRig(t)
	bearer, cookie := ginauth.Bearer{}, ginauth.Cookie{}
	other := ginauth.Cookie{Name: "__Host-other"}
	token := h.token(t)
	const authorization, cookies, origin, site = "Authorization", "Cookie", "Origin", "Sec-Fetch-Site"
	for _, c := range []struct {
		what       string
		transports []ginauth.Transport
		method     string
		sent       []option
		code       int
		want       []string
	}{
		{"bearer", []ginauth.Transport{bearer}, "GET", []option{inHeader(token)}, 200, []string{authorization}},
		{"bearer, unsafe method", []ginauth.Transport{bearer}, "POST", []option{inHeader(token)}, 200, []string{authorization}},
		{"bearer, no token", []ginauth.Transport{bearer}, "GET", nil, 401, []string{authorization}},
		{"cookie", []ginauth.Transport{cookie}, "GET", []option{inCookie(token)}, 200, []string{cookies}},
		{"cookie, unsafe method", []ginauth.Transport{cookie}, "POST", []option{inCookie(token)}, 200, []string{cookies, origin, site}},
		{"cookie, another site", []ginauth.Transport{cookie}, "POST", []option{inCookie(token), fromAnotherSite}, 403, []string{cookies, origin, site}},
		{"cookie, no token", []ginauth.Transport{cookie}, "POST", nil, 401, []string{cookies}},
		{"the first of both", []ginauth.Transport{bearer, cookie}, "POST", []option{inHeader(token), inCookie(token)}, 200, []string{authorization}},
		{"the second of both", []ginauth.Transport{bearer, cookie}, "GET", []option{inCookie(token)}, 200, []string{authorization, cookies}},
		{"the second of both, unsafe method", []ginauth.Transport{bearer, cookie}, "DELETE", []option{inCookie(token)}, 200, []string{authorization, cookies, origin, site}},
		{"cookie before bearer", []ginauth.Transport{cookie, bearer}, "GET", []option{inCookie(token)}, 200, []string{cookies}},
		{"neither of both", []ginauth.Transport{bearer, cookie}, "GET", nil, 401, []string{authorization, cookies}},
		{"malformed header", []ginauth.Transport{bearer, cookie}, "GET", []option{header("Authorization", "Bearer")}, 400, []string{authorization, cookies}},
		{"two cookies", []ginauth.Transport{other, cookie, bearer}, "GET", []option{inCookie(token)}, 200, []string{cookies}},
	} {
		auth := h.auth(t, ginauth.Config{Transports: c.transports})
		r := gin.New()
		r.Handle(c.method, "/", auth.RequireUser(), welcome)
		r.Handle(c.method, "/optional", auth.OptionalUser(), welcome)
		r.Handle(c.method, "/stacked", auth.OptionalUser(), auth.RequireUser(), auth.RequireUser(), welcome)
		for _, path := range []string{"/", "/stacked", "/optional"} {
			w := request(r, c.method, path, c.sent...)
			if path != "/optional" {
				wantCode(t, c.what+" "+path, w, c.code)
			}
			wantVary(t, c.what+" "+path, w, c.want...)
			wantCacheControl(t, c.what+" "+path, w, privately)
		}
	}
}

func TestGuardLooksAtTheOriginOfAChangedMethod(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, onlyCookie)
	r := guarded(auth.RequireUser(), func(c *gin.Context) { c.Request.Method = "POST" }, auth.RequireUser())
	wantVary(t, "request", request(r, "GET", "/", inCookie(h.token(t))), "Cookie", "Origin", "Sec-Fetch-Site")
}

func TestVaryOfMiddlewareStays(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	shared := append(make([]string, 0, 4), "Origin") // as middleware for CORS sets it
	for _, c := range []struct {
		what   string
		before []string
		want   []string
	}{
		{"one name", []string{"Accept-Encoding"}, []string{"Accept-Encoding", "Authorization", "Cookie", "Origin", "Sec-Fetch-Site"}},
		{"a slice shared by requests", shared, []string{"Origin", "Authorization", "Cookie", "Sec-Fetch-Site"}},
		{"several values in lower case", []string{"accept-encoding , cookie", "AUTHORIZATION"}, []string{"accept-encoding", "cookie", "AUTHORIZATION", "Origin", "Sec-Fetch-Site"}},
		{"all of them", []string{"Origin, Sec-Fetch-Site, Cookie, Authorization"}, []string{"Origin", "Sec-Fetch-Site", "Cookie", "Authorization"}},
		{"a star", []string{"*"}, []string{"*"}},
	} {
		r := gin.New()
		r.Use(func(gc *gin.Context) { gc.Writer.Header()["Vary"] = c.before })
		r.POST("/", auth.RequireUser(), auth.RequireUser(), welcome)
		wantVary(t, c.what, request(r, "POST", "/", inCookie(h.token(t))), c.want...)
	}
	if got := shared[:2][1]; got != "" {
		t.Errorf("the guard wrote %q into the slice of the middleware", got)
	}
}

func TestHandlersSetTheirOwnCaching(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	own := func(value string) gin.HandlerFunc { return func(c *gin.Context) { c.Header("Cache-Control", value) } }
	add := func(c *gin.Context) { c.Writer.Header().Add("Vary", "Accept-Language") }
	for _, c := range []struct {
		what     string
		handlers []gin.HandlerFunc
		want     string
	}{
		{"neither", []gin.HandlerFunc{auth.RequireUser(), add}, privately},
		{"the handler", []gin.HandlerFunc{auth.RequireUser(), add, own("private, max-age=60")}, "private, max-age=60"},
		{"middleware before the guard", []gin.HandlerFunc{own("no-cache"), auth.RequireUser(), add}, "no-cache"},
		{"the handler before another guard", []gin.HandlerFunc{auth.OptionalUser(), add, own("private, max-age=60"), auth.RequireUser()}, "private, max-age=60"},
	} {
		for range 2 { // the headers of one answer must not change the next
			w := request(guarded(c.handlers...), "GET", "/", inHeader(h.token(t)))
			wantCode(t, c.what, w, http.StatusOK)
			wantCacheControl(t, c.what, w, c.want)
			wantVary(t, c.what, w, "Authorization", "Accept-Language")
		}
	}
}

func TestRefusalsAreNotCached(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{
		Transports: []ginauth.Transport{ginauth.Cookie{}},
		OnRefusal:  func(c *gin.Context, _ *ginauth.Refusal) { c.Redirect(http.StatusSeeOther, "/login") },
	})
	w := request(guarded(auth.RequireUser()), "GET", "/")
	wantCode(t, "redirect to the login page", w, http.StatusSeeOther)
	wantVary(t, "redirect to the login page", w, "Cookie")
	wantCacheControl(t, "redirect to the login page", w, privately)
}

func TestPartitionedCookieIsClearedInBothJars(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}}})
	cleared := request(engine(auth), "POST", "/logout", inCookie(h.token(t))).Header().Values("Set-Cookie")
	const attributes = "__Host-latchkey=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Secure; SameSite=None"
	if want := []string{attributes + "; Partitioned", attributes}; !slices.Equal(cleared, want) {
		t.Errorf("got Set-Cookie %q, want %q", cleared, want)
	}
}
