package ginauth_test

import (
	"bytes"
	"context"
	"io"
	"math"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/strategy"
)

// net/http removes the temporary files of the request that it made, after the handler.
func TestUploadsBehindAGuardLeaveNoTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	temporaryFiles := func() int {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		return len(files)
	}
	const limit = 1 << 10
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := gin.New()
	r.MaxMultipartMemory = limit
	r.POST("/upload", auth.RequireUser(), func(c *gin.Context) {
		if _, err := c.FormFile("file"); err != nil {
			t.Errorf("read the upload: %v", err)
		}
		if temporaryFiles() == 0 {
			t.Error("the upload is in memory, want a temporary file")
		}
		c.Status(http.StatusNoContent)
	})
	server := httptest.NewServer(r)
	defer server.Close()
	token := h.token(t)
	for range 3 {
		req, err := http.NewRequest("POST", server.URL+"/upload", nil)
		if err != nil {
			t.Fatal(err)
		}
		upload(t, req, make([]byte, 10*limit))
		inHeader(token)(req)
		resp, err := server.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Errorf("upload: got %s, want 204", resp.Status)
		}
	}
	server.Close() // waits until the server has finished the requests
	if n := temporaryFiles(); n > 0 {
		t.Errorf("got %d temporary files after the uploads, want none", n)
	}
}

// upload gives a request a multipart body with one file.
func upload(t *testing.T, req *http.Request, content []byte) {
	t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	file, err := form.CreateFormFile("file", "large.bin")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = file.Write(content) // to memory
	if err := form.Close(); err != nil {
		t.Fatal(err)
	}
	req.Body, req.ContentLength = io.NopCloser(&body), int64(body.Len())
	req.Header.Set("Content-Type", form.FormDataContentType())
}

func TestCopiedRequestKeepsItsIdentity(t *testing.T) {
	for what, replace := range map[string]func(*http.Request) *http.Request{
		"Clone":       func(r *http.Request) *http.Request { return r.Clone(r.Context()) },
		"WithContext": func(r *http.Request) *http.Request { return r.WithContext(r.Context()) },
		"derived context": func(r *http.Request) *http.Request {
			return r.Clone(context.WithoutCancel(r.Context()))
		},
		"new headers": func(r *http.Request) *http.Request {
			other := *r
			other.Header = r.Header.Clone()
			other.Header.Set("X-Request-Id", "1")
			return &other
		},
	} {
		for name, transport := range transportsByName {
			t.Run(what+"/"+name, func(t *testing.T) {
				h := newRig(t)
				auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
				r := guarded(auth.RequireUser(), func(c *gin.Context) { c.Request = replace(c.Request) }, func(c *gin.Context) {
					if user, ok := auth.CurrentUser(c); !ok || !sameuser.Equal(user, h.ann) {
						t.Errorf("got the user %+v, want Ann", user)
					}
					issued, err := auth.Renew(c, h.ann)
					if err != nil {
						t.Errorf("Renew: got the error %v, want none", err)
					}
					if _, err := h.sessions.ReadToken(t.Context(), issued.Token.Reveal()); err != nil {
						t.Errorf("read the new token: %v", err)
					}
				}, auth.RequireUser()) // also after Renew has replaced the request's token
				wantCode(t, "request", request(r, "GET", "/", by(transport, h.token(t))), http.StatusOK)
			})
		}
	}
}

func TestRenewTwice(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{})
	r := guarded(auth.RequireUser(), func(c *gin.Context) {
		for range 2 {
			if _, err := auth.Renew(c, h.ann); err != nil {
				t.Errorf("got the error %v, want none", err)
			}
		}
	})
	wantCode(t, "request", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)
}

// A handler can use its context for other requests, for example those of a batch. Its
// identity must not authenticate them in place of their own tokens.
func TestIdentityIsForRequestsWithItsToken(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}})
	bob, err := h.accounts.Create(t.Context(), member{Email: "bob@example.com", Active: true}, password)
	if err != nil {
		t.Fatal(err)
	}
	secret, _, err := h.sessions.WriteToken(t.Context(), bob)
	if err != nil {
		t.Fatal(err)
	}
	anns, bobs := h.token(t), secret.Reveal()
	inner := gin.New()
	inner.GET("/", auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		c.String(http.StatusOK, user.Email)
	})
	inner.GET("/renew", func(c *gin.Context) {
		_, err := auth.Renew(c, h.ann)
		auth.Refuse(c, err)
	})
	for _, c := range []struct {
		what, path string
		with       []option
		code       int
		want       string
	}{
		{"no token", "/", nil, http.StatusUnauthorized, ""},
		{"malformed token", "/", []option{inHeader("x")}, http.StatusUnauthorized, ""},
		{"two headers", "/", []option{inHeader(anns), inHeader(anns)}, http.StatusBadRequest, ""},
		{"another user's token", "/", []option{inHeader(bobs)}, http.StatusOK, bob.Email},
		{"another user's cookie", "/", []option{inCookie(bobs)}, http.StatusOK, bob.Email},
		{"same token", "/", []option{inHeader(anns)}, http.StatusOK, h.ann.Email},
		{"Renew without a token", "/renew", nil, http.StatusServiceUnavailable, ""},
		{"Renew with another user's token", "/renew", []option{inHeader(bobs)}, http.StatusServiceUnavailable, ""},
	} {
		outer := guarded(auth.RequireUser(), func(outer *gin.Context) {
			req := httptest.NewRequestWithContext(outer.Request.Context(), "GET", c.path, nil)
			for _, option := range c.with {
				option(req)
			}
			w := httptest.NewRecorder()
			inner.ServeHTTP(w, req)
			wantCode(t, c.what, w, c.code)
			if c.want != "" && w.Body.String() != c.want {
				t.Errorf("%s: got the user %s, want %s", c.what, w.Body, c.want)
			}
		})
		wantCode(t, "outer request", request(outer, "GET", "/", inHeader(anns)), http.StatusOK)
	}
}

// Middleware between two guards can turn a GET into a POST.
func TestEveryGuardChecksTheOrigin(t *testing.T) {
	h := newRig(t)
	auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}})
	r := guarded(auth.RequireUser(), func(c *gin.Context) { c.Request.Method = "POST" }, auth.RequireUser())
	wantCode(t, "same origin", request(r, "GET", "/", inCookie(h.token(t))), http.StatusOK)
	wantCode(t, "another site", request(r, "GET", "/", inCookie(h.token(t)), fromAnotherSite), http.StatusForbidden)
}

// Two Auths with different settings each find their own identity.
func TestGuardsOfTwoAuthsOnOneRoute(t *testing.T) {
	h := newRig(t)
	api, other := h.auth(t, ginauth.Config{}), h.auth(t, ginauth.Config{})
	r := guarded(api.RequireUser(), other.RequireUser(), func(c *gin.Context) {
		if _, err := api.Renew(c, h.ann); err != nil {
			t.Errorf("got the error %v, want none", err)
		}
	})
	wantCode(t, "request", request(r, "GET", "/", inHeader(h.token(t))), http.StatusOK)
}

// The guard of a cached session allocates the identity, and Gin the client IP.
func TestGuardAllocations(t *testing.T) {
	h := newRig(t)
	cached, err := strategy.NewDatabase(struct{ strategy.Store[uuid.UUID] }{h.tokens}, h.users, strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	defer cached.Close()
	auth, err := ginauth.New[member](cached, nil, ginauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	token := h.token(t)
	req := httptest.NewRequest("GET", "/", nil)
	inHeader(token)(req)
	w := &sink{header: make(http.Header)}
	measure := func(guards ...gin.HandlerFunc) float64 {
		route := silent(guards...)
		if err := route.SetTrustedProxies(nil); err != nil {
			t.Fatal(err)
		}
		var sent http.Request
		least := math.Inf(1)
		for range 10 { // with the race detector, pools lose some of what is put into them
			least = min(least, testing.AllocsPerRun(20, func() {
				clear(w.header)
				sent = *req
				route.ServeHTTP(w, &sent)
			}))
		}
		return least
	}
	bare := measure()
	if got := measure(auth.RequireUser()) - bare; got > 2 {
		t.Errorf("got %v allocations more than without a guard, want at most 2", got)
	}
	if w.code != http.StatusNoContent {
		t.Errorf("got %d, want 204", w.code)
	}
}
