package oidc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
)

func TestFirstLoginMakesAnAccountAndLaterOnesFindIt(t *testing.T) {
	r := newRig(t, setup{})
	b := r.browser(t)
	w := b.through("/auth/idp/authorize")
	want(t, w, 204, "")
	r.wantEvents(t, "oauth.linked", "account.registered")
	first := b.me()
	stored, err := r.accounts.ByID(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if !stored.HashedPassword.IsZero() || !stored.Active || !stored.Verified || stored.Superuser || stored.Email != ann.Email || stored.Name != ann.Subject {
		t.Errorf("got the account %+v, want an active one without a password, with what the provider said", stored)
	}
	if _, there := b.cookies[cookie]; there {
		t.Error("the state cookie is there after the callback")
	}
	r.idp.User.Email = "ann@new.example" // the address does not matter any more
	again := r.browser(t)
	want(t, again.through("/auth/idp/authorize"), 204, "")
	if got := again.me(); got.ID != first.ID || got.Email != ann.Email {
		t.Errorf("the second login is of %v %s, want %v %s", got.ID, got.Email, first.ID, ann.Email)
	}
	if got := r.linked(t, first.ID); !slices.Equal(got, []string{ann.Subject}) {
		t.Errorf("the account is linked to %q, want one subject", got)
	}
}

func TestBearerLoginIsAnsweredWithAToken(t *testing.T) {
	r := newRig(t, setup{bearer: true})
	b := r.browser(t)
	w := b.through("/auth/idp/authorize")
	var body struct {
		Token string `json:"access_token"`
		Type  string `json:"token_type"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != 200 || body.Type != "bearer" {
		t.Fatalf("got %d and the type %q, want 200 with a bearer token", w.Code, body.Type)
	}
	b.bearer = body.Token
	if got := b.me(); got.Email != ann.Email {
		t.Errorf("logged in as %q, want %q", got.Email, ann.Email)
	}
}

func TestAuthorizeAsksWithStateNonceAndChallenge(t *testing.T) {
	r := newRig(t, setup{config: func(cfg *oidc.Config[member]) { cfg.Providers[0].OptionalScopes = []string{"profile", "phone"} }})
	b := r.browser(t)
	w := b.get("/auth/idp/authorize?scopes=profile&scopes=email&fresh=true")
	set := w.Header().Get("Set-Cookie")
	for _, attribute := range []string{cookie + "=", "; Path=/", "; Max-Age=3600", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
		if !strings.Contains(set, attribute) {
			t.Errorf("the state cookie lacks %q", attribute)
		}
	}
	if strings.Contains(set, "Domain") {
		t.Error("the state cookie has a Domain")
	}
	if got := w.Header().Get("Referrer-Policy"); got != "no-referrer" {
		t.Errorf("got Referrer-Policy %q, want no-referrer", got)
	}
	want(t, b.through("/auth/idp/authorize?scopes=profile&scopes=email&fresh=true"), 204, "")
	asked := r.idp.Asked()
	for name, value := range map[string]string{
		"scope": "openid email profile", "redirect_uri": app + "/auth/idp/callback", "code_challenge_method": "S256", "prompt": "login", "max_age": "0",
	} {
		if got := asked.Get(name); got != value {
			t.Errorf("asked with %s %q, want %q", name, got, value)
		}
	}
	seen := map[string]bool{}
	for range 3 {
		to, err := url.Parse(b.begin("/auth/idp/authorize"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"state", "nonce", "code_challenge"} {
			value := to.Query().Get(name)
			if len(value) != 43 || seen[value] {
				t.Errorf("%s is missing, short or used before", name)
			}
			seen[value] = true
		}
	}
	want(t, b.get("/auth/idp/authorize?scopes=admin"), 400, "OAUTH_INVALID_SCOPE")
}

func TestLinkOnAPageLogsInAndRedirects(t *testing.T) {
	r := newRig(t, setup{})
	for _, path := range []string{"/", "/account?tab=1"} {
		b := r.browser(t)
		b.header.Set("Sec-Fetch-Site", "same-origin")
		w := b.get("/auth/idp/authorize?redirect_to=" + url.QueryEscape(path))
		if w.Code != 303 {
			t.Fatalf("got %d %s, want 303", w.Code, w.Body)
		}
		b.header.Set("Sec-Fetch-Site", "cross-site") // the callback comes from the provider
		w = b.get(visit(t, w.Header().Get("Location")))
		if got := w.Header().Get("Location"); w.Code != 303 || got != path {
			t.Errorf("got %d to %q, want 303 to %q", w.Code, got, path)
		}
		if b.me().Email != ann.Email {
			t.Error("nobody is logged in")
		}
	}
}

func TestExistingAddressIsNotTakenOver(t *testing.T) {
	for _, c := range []struct {
		name     string
		trust    bool
		provider bool // has verified the address
		account  func(*member)
		linked   bool
	}{
		{"by default", false, true, nil, false},
		{"both have verified it, and linking by address is on", true, true, nil, true},
		{"the provider has not verified it", true, false, nil, false},
		{"the account has not verified it", true, true, func(m *member) { m.Verified = false }, false},
		{"the account is not active", true, true, func(m *member) { m.Active = false }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, setup{config: func(cfg *oidc.Config[member]) { cfg.Providers[0].LinkByEmail = c.trust }})
			local := r.register(t, ann.Email, c.account)
			r.idp.User.EmailVerified = c.provider
			r.idp.User.Email = "ANN@Example.com"
			b := r.browser(t)
			w := b.through("/auth/idp/authorize")
			if !c.linked {
				want(t, w, 400, "OAUTH_USER_ALREADY_EXISTS")
				r.wantEvents(t, "login.denied email_taken")
				if got := r.linked(t, local.ID); got != nil || b.me().ID != uuid.Nil {
					t.Errorf("the account is linked to %q and its user logged in: %v; want neither", got, b.me())
				}
				return
			}
			want(t, w, 204, "")
			r.wantEvents(t, "oauth.linked")
			if got := b.me(); got.ID != local.ID {
				t.Errorf("logged in as %v, want the account", got)
			}
		})
	}
}

// Nobody else's account of the same provider, and nobody else's provider, leads to the account.
func TestAccountsAreFoundByIssuerAndSubject(t *testing.T) {
	r := newRig(t, setup{})
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 204, "")
	r.idp.User.Subject = "666"
	other := r.browser(t)
	want(t, other.through("/auth/idp/authorize"), 400, "OAUTH_USER_ALREADY_EXISTS")
	if got := other.me(); got.ID != uuid.Nil {
		t.Errorf("another subject with the same address is logged in as %v", got)
	}
}

func TestSignUpNeedsAnAddress(t *testing.T) {
	for name, email := range map[string]string{"none": "", "no address": "ann", "a name": "Ann <ann@example.com>"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{})
			r.idp.User.Email = email
			want(t, r.browser(t).through("/auth/idp/authorize"), 400, "OAUTH_NOT_AVAILABLE_EMAIL")
			r.wantEvents(t, "login.denied no_email")
		})
	}
}

// The ID token of some providers has no address.
func TestAddressIsReadFromTheUserInfo(t *testing.T) {
	r := newRig(t, setup{})
	r.idp.Claims = func(claims map[string]any) { delete(claims, "email"); delete(claims, "email_verified") }
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 204, "")
	if got := b.me(); got.Email != ann.Email || !got.Verified {
		t.Errorf("logged in as %+v, want the verified address of the user info", got)
	}
	r.idp.UserInfo = func(claims map[string]any) { claims["sub"] = "666" }
	want(t, r.browser(t).through("/auth/idp/authorize"), 400, "ACCESS_TOKEN_DECODE_ERROR")
}

func TestNewAccountIsVerifiedIfTheProviderSaysSo(t *testing.T) {
	for _, c := range []struct {
		claim any
		want  bool
	}{{true, true}, {"true", true}, {false, false}, {"false", false}, {nil, false}, {1, false}} {
		t.Run(fmt.Sprintf("%T %v", c.claim, c.claim), func(t *testing.T) {
			r := newRig(t, setup{})
			r.idp.Claims = func(claims map[string]any) { claims["email_verified"] = c.claim }
			b := r.browser(t)
			want(t, b.through("/auth/idp/authorize"), 204, "")
			if got := b.me().Verified; got != c.want {
				t.Errorf("the account is verified: %v, want %v", got, c.want)
			}
		})
	}
}

func TestUnverifiedAndInactiveUsersAreRefused(t *testing.T) {
	r := newRig(t, setup{auth: ginauth.Config{RequireVerified: true}})
	r.idp.User.EmailVerified = false
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 400, "LOGIN_USER_NOT_VERIFIED")
	r.wantEvents(t, "oauth.linked", "account.registered", "login.denied user_unverified")
	user, err := r.accounts.ByEmail(t.Context(), ann.Email)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.accounts.Update(t.Context(), user.ID, account.Update{Verified: new(true)}); err != nil {
		t.Fatal(err)
	}
	want(t, b.through("/auth/idp/authorize"), 204, "")
	if err := r.accounts.Deactivate(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	r.heard()
	want(t, r.browser(t).through("/auth/idp/authorize"), 400, "LOGIN_BAD_CREDENTIALS")
	r.wantEvents(t, "login.denied user_inactive")
}

func TestNewUserCanRefuse(t *testing.T) {
	r := newRig(t, setup{hook: true, config: func(cfg *oidc.Config[member]) {
		cfg.NewUser = func(_ context.Context, id oidc.Identity) (member, error) {
			var claims struct{ Sub string }
			if err := json.Unmarshal(id.Claims, &claims); err != nil || claims.Sub != ann.Subject || id.Provider != "idp" {
				t.Errorf("got the identity %+v, want the claims of the ID token", id)
			}
			return member{}, &ginauth.CodeError{Status: 403, Code: "INVITE_ONLY"}
		}
	}})
	want(t, r.browser(t).through("/auth/idp/authorize"), 403, "INVITE_ONLY")
	if _, err := r.accounts.ByEmail(t.Context(), ann.Email); err == nil {
		t.Error("there is an account")
	}
}

// What NewUser sets in the fields of the account does not count.
func TestNewUserSetsOwnFieldsOnly(t *testing.T) {
	r := newRig(t, setup{config: func(cfg *oidc.Config[member]) {
		cfg.NewUser = func(context.Context, oidc.Identity) (member, error) {
			return member{Name: "Ann", User: account.User[uuid.UUID]{
				ID: uuid.Max, Email: "eve@example.com", Superuser: true, Version: 7, HashedPassword: account.NewPasswordHash("x"),
			}}, nil
		}
	}})
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 204, "")
	got, err := r.accounts.ByEmail(t.Context(), ann.Email)
	if err != nil {
		t.Fatal(err)
	}
	wanted := member{Name: "Ann", User: account.User[uuid.UUID]{ID: got.ID, Email: ann.Email, Active: true, Verified: true, CreatedAt: got.CreatedAt}}
	if !reflect.DeepEqual(got, wanted) || got.ID == uuid.Max {
		t.Errorf("got %+v, want %+v", got, wanted)
	}
}

// A login is as fresh as the provider says.
func TestLoginIsAsFreshAsTheProviderSays(t *testing.T) {
	r := newRig(t, setup{})
	for _, c := range []struct {
		name  string
		ago   time.Duration
		fresh bool
	}{{"just now", time.Second, true}, {"an hour ago", time.Hour, false}, {"in the future", -time.Hour, true}} {
		t.Run(c.name, func(t *testing.T) {
			r.idp.Claims = func(claims map[string]any) { claims["auth_time"] = r.now().Add(-c.ago).Unix() }
			b := r.browser(t)
			want(t, b.through("/auth/idp/authorize"), 204, "")
			w := b.get("/auth/associate/idp/authorize")
			if fresh := w.Code == 200; fresh != c.fresh {
				t.Errorf("got %d %s, want a fresh login: %v", w.Code, w.Body, c.fresh)
			}
		})
	}
}

// Many browsers log in as one new user: there is one account.
func TestConcurrentFirstLoginsMakeOneAccount(t *testing.T) {
	r := newRig(t, setup{})
	const n = 8
	var callbacks [n]string
	var browsers [n]*browser
	for i := range n {
		browsers[i] = r.browser(t)
		callbacks[i] = visit(t, browsers[i].begin("/auth/idp/authorize"))
	}
	done := make(chan int)
	for i := range n {
		go func() { done <- browsers[i].get(callbacks[i]).Code }()
	}
	codes := map[int]int{}
	for range n {
		codes[<-done]++
	}
	if codes[204] == 0 || codes[204]+codes[503] != n { // 503: the account of the link was not there yet
		t.Errorf("got the statuses %v, want logins, and 503 at most while the account is made", codes)
	}
	page, err := r.accounts.List(t.Context(), account.Query{})
	if err != nil || len(page.Users) != 1 {
		t.Errorf("there are %d accounts, want 1", len(page.Users))
	}
	for _, b := range browsers {
		if got := b.me(); got.ID != uuid.Nil && got.ID != page.Users[0].ID {
			t.Errorf("a browser is logged in as %v", got)
		}
	}
}

// A sign-up that fails half way does not lock the user out.
func TestHalfASignUpIsMended(t *testing.T) {
	t.Run("the address was taken meanwhile", func(t *testing.T) {
		r := newRig(t, setup{})
		r.users.insert = func(context.Context, member) error { return account.ErrEmailTaken }
		want(t, r.browser(t).through("/auth/idp/authorize"), 400, "OAUTH_USER_ALREADY_EXISTS")
		r.users.insert = nil
		want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
	})
	t.Run("the account was not stored", func(t *testing.T) {
		r := newRig(t, setup{})
		r.users.insert = func(context.Context, member) error { return errDown }
		want(t, r.browser(t).through("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
		r.users.insert = nil
		want(t, r.browser(t).through("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
		r.sleep(time.Minute)
		want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
	})
	t.Run("the account was stored, but the answer was lost", func(t *testing.T) {
		r := newRig(t, setup{})
		r.users.insert = func(ctx context.Context, m member) error {
			if err := r.users.Users.Insert(ctx, m); err != nil {
				return err
			}
			return errDown
		}
		want(t, r.browser(t).through("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
		want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
	})
}

func TestDeletedAccountLosesItsLinks(t *testing.T) {
	r := newRig(t, setup{})
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 204, "")
	first := b.me()
	if w := b.do("DELETE", "/users/me"); w.Code != 204 {
		t.Fatalf("got %d %s, want 204", w.Code, w.Body)
	}
	if got := r.linked(t, first.ID); got != nil {
		t.Errorf("links to %q remain", got)
	}
	want(t, b.through("/auth/idp/authorize"), 204, "")
	if got := b.me(); got.ID == first.ID || got.Email != ann.Email {
		t.Errorf("logged in as %+v, want a new account", got)
	}
}

func TestFailingDatabaseIsUnavailable(t *testing.T) {
	wrapped := fmt.Errorf("%w, and it wraps %w", errDown, account.ErrBadCredentials) // decides nothing
	for name, breakIt := range map[string]func(*rig){
		"find": func(r *rig) {
			r.links.find = func(context.Context, string, string) (account.OAuthAccount[uuid.UUID], error) {
				return account.OAuthAccount[uuid.UUID]{}, wrapped
			}
		},
		"insert": func(r *rig) {
			r.links.insert = func(context.Context, account.OAuthAccount[uuid.UUID]) error { return wrapped }
		},
		"users": func(r *rig) { r.users.down = wrapped },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{})
			b := r.browser(t)
			breakIt(r)
			w := b.through("/auth/idp/authorize")
			want(t, w, 503, "SERVICE_UNAVAILABLE")
			if w.Header().Get("Retry-After") == "" {
				t.Error("there is no Retry-After")
			}
			r.wantEvents(t, "store.failed")
		})
	}
}

// A store that hangs is given up after Config.Timeout.
func TestHangingStoreIsUnavailable(t *testing.T) {
	r := newRig(t, setup{config: func(cfg *oidc.Config[member]) { cfg.Timeout = 20 * time.Millisecond }})
	r.links.find = func(ctx context.Context, _, _ string) (account.OAuthAccount[uuid.UUID], error) {
		<-ctx.Done()
		return account.OAuthAccount[uuid.UUID]{}, ctx.Err()
	}
	want(t, r.browser(t).through("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
}
