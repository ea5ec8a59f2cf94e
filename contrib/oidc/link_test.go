package oidc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/oidctest"
)

const associate = "/auth/associate/idp/authorize"

func TestUserLinksAnAccount(t *testing.T) {
	r := newRig(t, setup{})
	bob := r.register(t, "bob@example.com", nil) // with another address than the provider's
	b := r.browser(t)
	b.logIn(bob.Email)
	for range 2 { // the second time, it is linked already
		w := b.through(associate)
		var body struct{ ID, Email string }
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 || body.Email != bob.Email || body.ID != bob.ID.String() {
			t.Errorf("got %d %s, want 200 and the user", w.Code, w.Body)
		}
	}
	r.wantEvents(t, "oauth.linked")
	if got := r.linked(t, bob.ID); !slices.Equal(got, []string{ann.Subject}) {
		t.Errorf("the account is linked to %q, want the provider's user", got)
	}
	other := r.browser(t)
	want(t, other.through("/auth/idp/authorize"), 204, "")
	if got := other.me(); got.ID != bob.ID {
		t.Errorf("the provider's user logs in as %v, want the linked account", got)
	}
}

func TestLinkingRedirects(t *testing.T) {
	r := newRig(t, setup{})
	bob := r.register(t, "bob@example.com", nil)
	b := r.browser(t)
	b.logIn(bob.Email)
	w := b.through(associate + "?redirect_to=" + url.QueryEscape("/account?tab=1"))
	if got := w.Header().Get("Location"); w.Code != 303 || got != "/account?tab=1" {
		t.Errorf("got %d to %q, want 303 to the path", w.Code, got)
	}
	want(t, b.get(associate+"?redirect_to=//evil.example.com"), 400, "OAUTH_INVALID_REDIRECT")
}

func TestLinkingNeedsAFreshLoginOfTheSameUser(t *testing.T) {
	r := newRig(t, setup{})
	bob, eve := r.register(t, "bob@example.com", nil), r.register(t, "eve@example.com", nil)
	b := r.browser(t)
	if w := b.get(associate); w.Code != 401 {
		t.Errorf("without a login: got %d %s, want 401", w.Code, w.Body)
	}
	b.logIn(bob.Email)
	callback := visit(t, b.begin(associate))
	b.logIn(eve.Email) // in the same browser
	r.heard()
	want(t, b.get(callback), 400, "OAUTH_INVALID_STATE")
	r.wantEvents(t, "oauth.link_denied oauth_state")
	if n := r.idp.Requests("/token"); n != 0 {
		t.Errorf("the code was redeemed %d times, want 0", n)
	}
	// The state of a login does not link, and the other way round.
	callback = visit(t, b.begin("/auth/idp/authorize"))
	want(t, b.get(strings.Replace(callback, "/auth/", "/auth/associate/", 1)), 400, "OAUTH_INVALID_STATE")
	callback = visit(t, b.begin(associate))
	want(t, b.get(strings.Replace(callback, "/auth/associate/", "/auth/", 1)), 400, "OAUTH_INVALID_STATE")
	callback = visit(t, b.begin(associate))
	token := b.cookies["__Host-latchkey"]
	delete(b.cookies, "__Host-latchkey")
	if w := b.get(callback); w.Code != 401 {
		t.Errorf("a callback without a login: got %d %s, want 401", w.Code, w.Body)
	}
	b.cookies["__Host-latchkey"] = token
	r.sleep(11 * time.Minute)
	want(t, b.get(associate), 401, "INSUFFICIENT_USER_AUTHENTICATION")
	if got := append(r.linked(t, bob.ID), r.linked(t, eve.ID)...); got != nil {
		t.Errorf("accounts are linked to %q", got)
	}
}

func TestLinkOfAnotherAccountIsRejected(t *testing.T) {
	r := newRig(t, setup{})
	want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
	owner, err := r.accounts.ByEmail(t.Context(), ann.Email)
	if err != nil {
		t.Fatal(err)
	}
	bob := r.register(t, "bob@example.com", nil)
	b := r.browser(t)
	b.logIn(bob.Email)
	want(t, b.through(associate), 400, "OAUTH_ACCOUNT_ALREADY_LINKED")
	r.wantEvents(t, "oauth.link_denied oauth_taken")
	if got := r.linked(t, bob.ID); got != nil {
		t.Errorf("the account is linked to %q", got)
	}
	// When the other account is gone, its link does not count. Its deletion was interrupted here.
	if err := r.users.Users.Delete(t.Context(), owner.ID); err != nil {
		t.Fatal(err)
	}
	r.sleep(time.Minute)
	if w := b.through(associate); w.Code != 200 {
		t.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
}

func TestGuardOfLinksAsksForVerifiedUsers(t *testing.T) {
	r := newRig(t, setup{auth: ginauth.Config{RequireVerified: true}})
	bob := r.register(t, "bob@example.com", nil)
	b := r.browser(t)
	b.logIn(bob.Email)
	if _, err := r.accounts.Update(t.Context(), bob.ID, account.Update{Verified: new(false)}); err != nil {
		t.Fatal(err)
	}
	want(t, b.get(associate), 403, "Forbidden")
	want(t, b.get("/auth/associate"), 403, "Forbidden")
}

// list returns the links that the route lists.
func (b *browser) list() []oidc.Link {
	b.t.Helper()
	w := b.get("/auth/associate")
	var body struct{ Links []oidc.Link }
	if err := json.Unmarshal(w.Body.Bytes(), &body); w.Code != 200 || err != nil || body.Links == nil {
		b.t.Fatalf("got %d %s, want the links", w.Code, w.Body)
	}
	return body.Links
}

func TestLastWayInStays(t *testing.T) {
	for _, c := range []struct {
		name     string
		hash     string
		second   string // the issuer of a second link; "-" for none
		unlinked bool
	}{
		{"without a password", "", "-", false},
		{"with a hash that no login can verify", "$unknown$x", "-", false},
		{"without a password, but with another link", "", "", true},
		{"without a password, and with a link to a provider that is not configured", "", "https://gone.example.com", false},
		{"with a password", "$2b$04$abcdefghijklmnopqrstuuIcWMwlr6WHpQ1wcsVxCdwCJnGkDzSSe", "-", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			another := oidctest.New(t, ann)
			r := newRig(t, setup{another: another})
			b := r.browser(t)
			want(t, b.through("/auth/idp/authorize"), 204, "")
			user := b.me()
			if c.hash != "" {
				if err := r.users.Apply(t.Context(), user.ID, account.Change{Password: new(account.NewPasswordHash(c.hash))}); err != nil {
					t.Fatal(err)
				}
			}
			if c.second != "-" {
				issuer := c.second
				if issuer == "" {
					issuer = another.Issuer
				}
				if err := r.links.OAuthAccounts.Insert(t.Context(), account.OAuthAccount[uuid.UUID]{Issuer: issuer, Subject: "7", UserID: user.ID, CreatedAt: r.now()}); err != nil {
					t.Fatal(err)
				}
			}
			links := b.list()
			if links[0].Provider != "idp" || links[0].Email != ann.Email || links[0].ID == "" {
				t.Errorf("got the link %+v", links[0])
			}
			r.heard()
			w := b.do("DELETE", "/auth/associate/"+links[0].ID)
			if !c.unlinked {
				want(t, w, 400, "OAUTH_LAST_LOGIN_METHOD")
				if len(b.list()) != len(links) {
					t.Error("a link is gone")
				}
				// A link that is no way in can be removed.
				if c.second == "https://gone.example.com" {
					if links[1].Provider != "" {
						t.Errorf("got the link %+v, want no provider", links[1])
					}
					want(t, b.do("DELETE", "/auth/associate/"+links[1].ID), 204, "")
				}
				return
			}
			want(t, w, 204, "")
			r.wantEvents(t, "oauth.unlinked")
			want(t, b.do("DELETE", "/auth/associate/"+links[0].ID), 404, "NOT_FOUND")
		})
	}
}

func TestUnlinkingIsForTheOwnerWithAFreshLogin(t *testing.T) {
	r := newRig(t, setup{})
	bob, eve := r.register(t, "bob@example.com", nil), r.register(t, "eve@example.com", nil)
	b, e := r.browser(t), r.browser(t)
	b.logIn(bob.Email)
	if w := b.through(associate); w.Code != 200 {
		t.Fatalf("got %d %s, want 200", w.Code, w.Body)
	}
	id := b.list()[0].ID
	e.logIn(eve.Email)
	want(t, e.do("DELETE", "/auth/associate/"+id), 404, "NOT_FOUND")
	want(t, b.do("DELETE", "/auth/associate/x"), 404, "NOT_FOUND")
	b.header.Set("Sec-Fetch-Site", "cross-site")
	want(t, b.do("DELETE", "/auth/associate/"+id), 403, "CROSS_ORIGIN_REQUEST")
	b.header.Del("Sec-Fetch-Site")
	r.sleep(11 * time.Minute)
	want(t, b.do("DELETE", "/auth/associate/"+id), 401, "INSUFFICIENT_USER_AUTHENTICATION")
	b.logIn(bob.Email)
	want(t, b.do("DELETE", "/auth/associate/"+id), 204, "")
	if got := b.list(); len(got) != 0 {
		t.Errorf("got the links %+v, want none", got)
	}
}

// A database that fails logs nobody out.
func TestFailingDatabaseKeepsLinksAndSessions(t *testing.T) {
	wrapped := fmt.Errorf("%w, and it wraps %w", errDown, account.ErrBadCredentials)
	r := newRig(t, setup{})
	bob := r.register(t, "bob@example.com", nil)
	b := r.browser(t)
	b.logIn(bob.Email)
	r.links.insert = func(context.Context, account.OAuthAccount[uuid.UUID]) error { return wrapped }
	want(t, b.through(associate), 503, "SERVICE_UNAVAILABLE")
	r.links.insert = r.links.OAuthAccounts.Insert
	if w := b.through(associate); w.Code != 200 {
		t.Fatalf("got %d %s, want 200", w.Code, w.Body)
	}
	id := b.list()[0].ID
	r.links.remove = func(context.Context, uuid.UUID, string, string, []string) error { return wrapped }
	want(t, b.do("DELETE", "/auth/associate/"+id), 503, "SERVICE_UNAVAILABLE")
	r.links.list = func(context.Context, uuid.UUID) ([]account.OAuthAccount[uuid.UUID], error) { return nil, wrapped }
	want(t, b.get("/auth/associate"), 503, "SERVICE_UNAVAILABLE")
	want(t, b.do("DELETE", "/auth/associate/"+id), 503, "SERVICE_UNAVAILABLE")
	if b.me().ID != bob.ID {
		t.Error("the user was logged out")
	}
}

// An application's own pages call the methods.
func TestMethodsForPages(t *testing.T) {
	r := newRig(t, setup{})
	bob := r.register(t, "bob@example.com", nil)
	var err error
	var to string
	r.engine.POST("/page/login", func(c *gin.Context) { to, err = r.LoginURL(c, c.Query("provider"), oidc.Begin{RedirectPath: "/"}) })
	guard := r.auth.RequireUser(ginauth.Fresh(time.Minute))
	r.engine.POST("/page/link", guard, func(c *gin.Context) { to, err = r.LinkURL(c, c.Query("provider"), oidc.Begin{RedirectPath: "/"}) })
	r.engine.POST("/page/unguarded", func(c *gin.Context) { to, err = r.LinkURL(c, c.Query("provider"), oidc.Begin{}) })
	r.engine.GET("/page/unguarded", func(c *gin.Context) { _, err = r.Links(c) })
	r.engine.DELETE("/page/unguarded", func(c *gin.Context) { err = r.Unlink(c, "x") })

	b := r.browser(t)
	b.do("POST", "/page/login?provider=idp")
	if err != nil {
		t.Fatal(err)
	}
	w := b.get(visit(t, to))
	if got := w.Header().Get("Location"); w.Code != 303 || got != "/" {
		t.Errorf("got %d to %q, want 303 to /", w.Code, got)
	}
	b.logIn(bob.Email)
	b.do("POST", "/page/link?provider=idp")
	if err != nil {
		t.Fatal(err)
	}
	want(t, b.get(visit(t, to)), 400, "OAUTH_ACCOUNT_ALREADY_LINKED")
	for _, c := range []struct{ method, target string }{
		{"POST", "/page/login?provider=unknown"}, {"POST", "/page/link?provider=unknown"}, {"POST", "/page/unguarded?provider=idp"},
		{"GET", "/page/unguarded"}, {"DELETE", "/page/unguarded"},
	} {
		err = nil
		if b.do(c.method, c.target); err == nil {
			t.Errorf("%s %s: got no error", c.method, c.target)
			continue
		}
		w := httptest.NewRecorder()
		g, _ := gin.CreateTestContext(w)
		g.Request = httptest.NewRequest(c.method, c.target, nil)
		if r.auth.Refuse(g, err); w.Code != 503 {
			t.Errorf("%s %s: got %v, which is answered with %d, want 503", c.method, c.target, err, w.Code)
		}
	}
}

func TestProviderWithoutAssociateURLCannotBeLinked(t *testing.T) {
	r := newRig(t, setup{config: func(cfg *oidc.Config[member]) { cfg.Providers[0].AssociateURL = "" }})
	bob := r.register(t, "bob@example.com", nil)
	b := r.browser(t)
	b.logIn(bob.Email)
	if w := b.get(associate); w.Code != 404 {
		t.Errorf("got %d %s, want 404", w.Code, w.Body)
	}
	if len(b.list()) != 0 {
		t.Error("got links")
	}
}

// An attacker makes an account with the address of a victim, and links it to a user of a provider
// of the attacker's. When the victim takes the account over by a reset, the link ends.
func TestResetOfAnUnverifiedAccountEndsItsLinks(t *testing.T) {
	for _, c := range []struct {
		name     string
		verified bool
		links    []string
		events   []string
	}{
		{"not verified", false, nil, []string{"oauth.unlinked"}},
		{"verified", true, []string{ann.Subject}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, setup{mail: true})
			local := r.register(t, "victim@example.com", func(m *member) { m.Verified = c.verified })
			attacker := r.browser(t)
			attacker.logIn(local.Email)
			if w := attacker.through(associate); w.Code != 200 {
				t.Fatalf("link: got %d %s", w.Code, w.Body)
			}
			if err := r.accounts.RequestPasswordReset(t.Context(), local.Email); err != nil {
				t.Fatal(err)
			}
			secret := <-r.resets
			r.heard()
			if _, err := r.accounts.ResetPassword(t.Context(), secret, "another good password"); err != nil {
				t.Fatal(err)
			}
			if got := slices.DeleteFunc(r.heard(), func(kind string) bool { return !strings.HasPrefix(kind, "oauth") }); !slices.Equal(got, c.events) {
				t.Errorf("got the events %q, want %q", got, c.events)
			}
			if got := r.linked(t, local.ID); !slices.Equal(got, c.links) {
				t.Errorf("the account is linked to %q, want %q", got, c.links)
			}
			b := r.browser(t)
			b.through("/auth/idp/authorize")
			if got := b.me().ID == local.ID; got != c.verified {
				t.Errorf("the linked user logs in to the account: %v, want %v", got, c.verified)
			}
		})
	}
}
