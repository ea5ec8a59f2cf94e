package moving

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/latchkeytest"
	"github.com/latchkey-go/latchkey/strategy"
)

func init() { gin.SetMode(gin.TestMode) }

// Member is the user type.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

// Latchkey is what latchkey.New returns.
type Latchkey = latchkey.Latchkey[Member, uuid.UUID]

// afterLatchkey comes behind lk.Web.OptionalUser(). It admits a request with a session of the old
// library: read returns the user's ID. The user gets a session of Latchkey, and end ends the old one.
func afterLatchkey(lk *Latchkey, read func(c *gin.Context) (uuid.UUID, bool), end func(c *gin.Context)) gin.HandlerFunc {
	return func(c *gin.Context) {
		if _, ok := lk.Web.CurrentUser(c); ok {
			return // with a session of Latchkey
		}
		id, ok := read(c)
		if !ok {
			lk.Web.Refuse(c, ginauth.ErrNoCredentials)
			return
		}
		member, err := lk.Accounts.ByID(c.Request.Context(), id)
		if errors.Is(err, account.ErrUserNotFound) || err == nil && !member.Active {
			end(c)
			err = ginauth.ErrNoCredentials
		}
		if err != nil {
			lk.Web.Refuse(c, err)
			return
		}
		// The user has not entered the password now: a guard with Fresh asks for it.
		issued, err := lk.Web.Login(c, member, strategy.WithAuthenticatedAt(time.Unix(1, 0)))
		if err != nil {
			lk.Web.Refuse(c, err)
			return
		}
		end(c)
		c.Request = c.Request.WithContext(strategy.ContextWithSession(c.Request.Context(), issued.Session))
	}
}

// The page has the code of this package.
func TestPageHasThisCode(t *testing.T) {
	page, err := os.ReadFile("../../../docs/from-other-libraries.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, function := range []string{
			"afterLatchkey", "ginSessionsBefore", "ginSessionsAfter", "ginJWTBefore", "ginJWTAfter", "scsBefore", "scsAfter",
		} {
			_, rest, found := strings.Cut(string(source), "\nfunc "+function+"(")
			body, _, _ := strings.Cut(rest, "\n}\n")
			if found && !strings.Contains(string(page), "\nfunc "+function+"("+body+"\n}\n") {
				t.Errorf("the page does not have the function %s unchanged", function)
			}
		}
	}
}

// notes is a handler behind a guard of Latchkey.
func notes(lk *Latchkey) gin.HandlerFunc {
	return func(c *gin.Context) {
		member, _ := lk.Web.CurrentUser(c)
		c.String(http.StatusOK, "notes of "+member.Name)
	}
}

// browser keeps cookies.
type browser struct {
	t       *testing.T
	cookies map[string]string
}

func newBrowser(t *testing.T) *browser { return &browser{t, make(map[string]string)} }

// do sends a request, and returns the answer. It fails the test if that is another one.
func (b *browser) do(h http.Handler, method, path, body string, want int) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range b.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	for _, c := range w.Result().Cookies() {
		if b.cookies[c.Name] = c.Value; c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		}
	}
	if w.Code != want {
		b.t.Errorf("%s %s: got %d %s, want %d", method, path, w.Code, w.Body, want)
	}
	return w
}

// cookieMoves tests the move of a browser that is logged in with a library of cookies. copied is what
// the new application answers to a copy of the old cookie, after the log-out.
func cookieMoves(t *testing.T, kit *latchkeytest.Kit[Member, uuid.UUID], before, after http.Handler, copied int) {
	t.Helper()
	const cookie = "session"
	ann := kit.NewUser(t, Member{Name: "Ann"})
	b := newBrowser(t)
	b.do(before, "GET", "/notes", "", 401)
	b.do(before, "POST", "/login", "user="+ann.ID.String(), 204)
	b.do(before, "GET", "/notes", "", 200)
	old := b.cookies[cookie]

	if w := b.do(after, "GET", "/notes", "", 200); w.Body.String() != "notes of Ann" {
		t.Errorf("got %s, want the notes of Ann", w.Body)
	}
	if b.cookies[cookie] != "" || b.cookies["__Host-latchkey"] == "" {
		t.Errorf("the browser has %d cookies, want that of Latchkey instead of the old one", len(b.cookies))
	}
	b.do(after, "GET", "/notes", "", 200)
	b.do(after, "GET", "/fresh", "", 401)
	b.do(after, "POST", "/auth/logout", "", 204)
	b.do(after, "GET", "/notes", "", 401)
	b.cookies = map[string]string{cookie: old}
	b.do(after, "GET", "/notes", "", copied)

	bob := kit.NewUser(t, Member{Name: "Bob"})
	b = newBrowser(t)
	b.do(before, "POST", "/login", "user="+bob.ID.String(), 204)
	if err := kit.Accounts.Deactivate(t.Context(), bob.ID); err != nil {
		t.Fatal(err)
	}
	b.do(after, "GET", "/notes", "", 401)
	b = newBrowser(t)
	b.do(before, "POST", "/login", "user="+uuid.NewString(), 204)
	b.do(after, "GET", "/notes", "", 401)
}
