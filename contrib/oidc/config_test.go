package oidc_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestConfigErrorsNameTheField(t *testing.T) {
	r := newRig(t, setup{})
	bearer, err := r.auth.AnswerLoginsWith(ginauth.Bearer{})
	if err != nil {
		t.Fatal(err)
	}
	provider := func(change func(*oidc.Provider)) func(*oidc.Config[member]) {
		return func(cfg *oidc.Config[member]) { change(&cfg.Providers[0]) }
	}
	path := func(path string) func(*oidc.Config[member]) {
		return func(cfg *oidc.Config[member]) { cfg.RedirectPaths = []string{"/", path} }
	}
	for _, c := range []struct {
		name   string
		change func(*oidc.Config[member])
		want   string
	}{
		{"no providers", func(cfg *oidc.Config[member]) { cfg.Providers = nil }, "Config.Providers is empty"},
		{"negative timeout", func(cfg *oidc.Config[member]) { cfg.Timeout = -1 }, "Config.Timeout is negative"},
		{"negative provider timeout", func(cfg *oidc.Config[member]) { cfg.ProviderTimeout = -1 }, "Config.ProviderTimeout is negative"},
		{"negative age", func(cfg *oidc.Config[member]) { cfg.MaxAge = -1 }, "Config.MaxAge is negative"},
		{"no name", provider(func(p *oidc.Provider) { p.Name = "" }), "Config.Providers[0]: the Name is"},
		{"a name that is no part of a path", provider(func(p *oidc.Provider) { p.Name = "a/b" }), "Config.Providers[0]: the Name is"},
		{"a name with a parameter of a route", provider(func(p *oidc.Provider) { p.Name = ":a" }), "Config.Providers[0]: the Name is"},
		{"no issuer", provider(func(p *oidc.Provider) { p.Issuer = "" }), "Issuer is"},
		{"a plain issuer", provider(func(p *oidc.Provider) { p.Issuer = "http://id.example.com" }), "want https"},
		{"a plain issuer that looks local", provider(func(p *oidc.Provider) { p.Issuer = "http://localhost.example.com" }), "want https"},
		{"an issuer with a fragment", provider(func(p *oidc.Provider) { p.Issuer = "https://id.example.com#x" }), "without user and fragment"},
		{"no client", provider(func(p *oidc.Provider) { p.ClientID = "" }), "ClientID is empty"},
		{"no callback", provider(func(p *oidc.Provider) { p.RedirectURL = "" }), "RedirectURL is"},
		{"a relative callback", provider(func(p *oidc.Provider) { p.RedirectURL = "/auth/callback" }), "RedirectURL is"},
		{"a plain callback for links", provider(func(p *oidc.Provider) { p.AssociateURL = "http://app.example.com/" }), "AssociateURL is"},
		{"one callback for both", provider(func(p *oidc.Provider) { p.AssociateURL = p.RedirectURL }), "given twice"},
		{"an endpoint without a profile", provider(func(p *oidc.Provider) { p.Endpoint.AuthURL = "https://id.example.com" }), "Endpoint and Profile"},
		{"a profile without an endpoint", provider(func(p *oidc.Provider) { p.Profile = oidc.GitHubProfile("") }), "Endpoint and Profile"},
		{"a profile without a token endpoint", provider(func(p *oidc.Provider) {
			p.Profile, p.Endpoint.AuthURL = oidc.GitHubProfile(""), "https://id.example.com"
		}), "Endpoint.TokenURL is"},
		{"a provider twice", func(cfg *oidc.Config[member]) { cfg.Providers = append(cfg.Providers, cfg.Providers[0]) }, "Config.Providers[1]: the name"},
		{"an issuer twice", func(cfg *oidc.Config[member]) {
			other := cfg.Providers[0]
			other.Name, other.RedirectURL, other.AssociateURL = "other", app+"/other", ""
			cfg.Providers = append(cfg.Providers, other)
		}, "Config.Providers[1]: the issuer"},
		{"a callback of another provider", func(cfg *oidc.Config[member]) {
			other := cfg.Providers[0]
			other.Name, other.Issuer = "other", "https://id.example.com"
			cfg.Providers = append(cfg.Providers, other)
		}, "Config.Providers[1]: the callback"},
		{"another host", path("//evil.example.com"), "Config.RedirectPaths"},
		{"a backslash", path(`/\evil.example.com`), "Config.RedirectPaths"},
		{"a URL", path("https://evil.example.com"), "Config.RedirectPaths"},
		{"a relative path", path("account"), "Config.RedirectPaths"},
		{"an empty path", path(""), "Config.RedirectPaths"},
		{"a line break", path("/\r\nx"), "Config.RedirectPaths"},
		{"a long path", path("/" + strings.Repeat("x", 200)), "Config.RedirectPaths"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := oidc.Config[member]{Providers: []oidc.Provider{providerOf("idp", r.idp)}}
			c.change(&cfg)
			if _, err := oidc.New(r.auth, r.accounts, r.links, cfg); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got the error %v, want one with %q", err, c.want)
			}
		})
	}
	cfg := oidc.Config[member]{Providers: []oidc.Provider{providerOf("idp", r.idp)}, RedirectPaths: []string{"/"}}
	if _, err := oidc.New(bearer, r.accounts, r.links, cfg); err == nil || !strings.Contains(err.Error(), "RedirectPaths") {
		t.Errorf("redirects with a bearer token: got the error %v, want one with RedirectPaths", err)
	}
	if _, err := oidc.New(nil, r.accounts, r.links, cfg); err == nil {
		t.Error("without auth: got no error")
	}
	if _, err := oidc.New[member](r.auth, nil, r.links, cfg); err == nil {
		t.Error("without accounts: got no error")
	}
	if _, err := oidc.New(r.auth, r.accounts, account.OAuthAccountStore[uuid.UUID](nil), cfg); err == nil {
		t.Error("without links: got no error")
	}
}

// gitHub is a provider without OpenID Connect, and its API.
type gitHub struct {
	*httptest.Server
	user, emails string
	status       int
	error        string
}

func newGitHub(t *testing.T) *gitHub {
	g := &gitHub{
		user: `{"id":583231,"login":"ann","name":"Ann"}`, status: 200,
		emails: `[{"email":"old@example.com","verified":true},{"email":"ann@example.com","primary":true,"verified":true}]`,
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Has("nonce") || q.Get("code_challenge") == "" || q.Get("scope") != "user:email" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		http.Redirect(w, r, q.Get("redirect_uri")+"?code=x&state="+q.Get("state"), http.StatusSeeOther)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body := map[string]string{"access_token": "the access token", "token_type": "bearer"}
		if r.PostFormValue("client_secret") != "the secret" || r.PostFormValue("code_verifier") == "" {
			body = map[string]string{"error": "incorrect_client_credentials"}
		}
		if g.error != "" {
			body = map[string]string{"error": g.error}
		}
		_ = json.NewEncoder(w).Encode(body)
	})
	api := func(body *string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer the access token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.WriteHeader(g.status)
			_, _ = w.Write([]byte(*body))
		}
	}
	mux.HandleFunc("GET /user", api(&g.user))
	mux.HandleFunc("GET /user/emails", api(&g.emails))
	g.Server = httptest.NewServer(mux)
	t.Cleanup(g.Close)
	return g
}

func (g *gitHub) rig(t *testing.T) *rig {
	return newRig(t, setup{config: func(cfg *oidc.Config[member]) {
		cfg.Providers = append(cfg.Providers, oidc.Provider{
			Name: "github", Issuer: "https://github.com", ClientID: "the-app", ClientSecret: strategy.NewSecret("the secret"), RedirectURL: app + "/auth/github/callback",
			Scopes: []string{"user:email"}, Endpoint: oauth2.Endpoint{AuthURL: g.URL + "/authorize", TokenURL: g.URL + "/token"}, Profile: oidc.GitHubProfile(g.URL),
		})
	}})
}

func TestLoginThroughAProviderWithoutOpenIDConnect(t *testing.T) {
	g := newGitHub(t)
	r := g.rig(t)
	b := r.browser(t)
	want(t, b.through("/auth/github/authorize?fresh=true"), 204, "")
	first := b.me()
	if first.Email != "ann@example.com" || !first.Verified {
		t.Errorf("logged in as %+v, want the primary address, verified", first)
	}
	if got := r.linked(t, first.ID); len(got) != 1 || got[0] != "583231" {
		t.Errorf("linked to %q, want the user's number", got)
	}
	g.user = `{"id":583231,"login":"renamed"}`
	want(t, b.through("/auth/github/authorize"), 204, "")
	if got := b.me(); got.ID != first.ID {
		t.Errorf("a renamed user logs in as %v, want %v", got.ID, first.ID)
	}
	r.heard()
	g.error = "bad_verification_code"
	want(t, r.browser(t).through("/auth/github/authorize"), 400, "ACCESS_TOKEN_DECODE_ERROR")
	r.wantEvents(t, "login.denied oauth_token")
	g.error = "incorrect_client_credentials"
	want(t, r.browser(t).through("/auth/github/authorize"), 503, "SERVICE_UNAVAILABLE")
}

func TestProfileThatCannotBeReadIsUnavailable(t *testing.T) {
	for name, breakIt := range map[string]func(*gitHub){
		"an error":     func(g *gitHub) { g.status = 500 },
		"no JSON":      func(g *gitHub) { g.user = "<html>" },
		"no id":        func(g *gitHub) { g.user = "{}" },
		"a wrong id":   func(g *gitHub) { g.user = `{"id":"583231"}` },
		"no addresses": func(g *gitHub) { g.emails = "" },
	} {
		t.Run(name, func(t *testing.T) {
			g := newGitHub(t)
			breakIt(g)
			want(t, g.rig(t).browser(t).through("/auth/github/authorize"), 503, "SERVICE_UNAVAILABLE")
		})
	}
	g := newGitHub(t)
	g.emails = `[{"email":"ann@example.com","primary":false,"verified":true}]`
	want(t, g.rig(t).browser(t).through("/auth/github/authorize"), 400, "OAUTH_NOT_AVAILABLE_EMAIL")
}

// Without an account by the provider, nothing is kept for the time of a login.
func TestAbandonedLoginLeavesNothing(t *testing.T) {
	r := newRig(t, setup{})
	b := r.browser(t)
	b.begin("/auth/idp/authorize")
	r.sleep(time.Hour)
	page, err := r.accounts.List(t.Context(), account.Query{})
	if err != nil || len(page.Users) != 0 {
		t.Errorf("got %d accounts, %v, want none", len(page.Users), err)
	}
	r.wantEvents(t)
}
