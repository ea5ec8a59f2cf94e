package oidc_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/internal/oidctest"
)

// otherKey is a key that no provider has published.
var otherKey = oidctest.NewKey()

// Nobody is logged in by a token that is not for this login.
func TestInvalidIDTokenIsRejected(t *testing.T) {
	claim := func(name string, value any) func(*rig) {
		return func(r *rig) {
			r.idp.Claims = func(claims map[string]any) {
				if value == nil {
					delete(claims, name)
				} else {
					claims[name] = value
				}
			}
		}
	}
	answer := func(change func(map[string]any)) func(*rig) {
		return func(r *rig) { r.idp.Token = change }
	}
	for _, c := range []struct {
		name    string
		falsify func(*rig)
		code    string
	}{
		{"issuer of another provider", claim("iss", "https://evil.example.com"), oidc.CodeBadToken},
		{"no issuer", claim("iss", nil), oidc.CodeBadToken},
		{"issuer with a slash", func(r *rig) {
			r.idp.Claims = func(claims map[string]any) { claims["iss"] = r.idp.Issuer + "/" }
		}, oidc.CodeBadToken},
		{"audience of another client", claim("aud", "another-app"), oidc.CodeBadToken},
		{"no audience", claim("aud", nil), oidc.CodeBadToken},
		{"several audiences without an authorized party", claim("aud", []string{"another-app", oidctest.ClientID}), oidc.CodeBadToken},
		{"authorized party is another client", claim("azp", "another-app"), oidc.CodeBadToken},
		{"nonce of another login", claim("nonce", strings.Repeat("A", 43)), oidc.CodeBadToken},
		{"empty nonce", claim("nonce", ""), oidc.CodeBadToken},
		{"no nonce", claim("nonce", nil), oidc.CodeBadToken},
		{"expired", claim("exp", time.Now().Add(-time.Second).Unix()), oidc.CodeExpired},
		{"no expiry", claim("exp", nil), oidc.CodeExpired},
		{"not valid yet", claim("nbf", time.Now().Add(time.Hour).Unix()), oidc.CodeBadToken},
		{"no subject", claim("sub", nil), oidc.CodeBadToken},
		{"a subject without end", claim("sub", strings.Repeat("x", 256)), oidc.CodeBadToken},
		{"hash of another access token", claim("at_hash", strings.Repeat("A", 22)), oidc.CodeBadToken},
		{"claims of wrong types", claim("email", 7), oidc.CodeBadToken},
		{"signed by another key", func(r *rig) { r.idp.Sign = oidctest.SignWith(otherKey) }, oidc.CodeBadToken},
		{"signed by an unknown key", func(r *rig) {
			r.idp.Sign = oidctest.SignWith(otherKey)
			r.idp.Header = func(header map[string]any) { header["kid"] = "2" }
		}, oidc.CodeBadToken},
		{"not signed", func(r *rig) {
			r.idp.Sign = func([]byte) []byte { return nil }
			r.idp.Header = func(header map[string]any) { header["alg"] = "none" }
		}, oidc.CodeBadToken},
		{"signed by the client secret", func(r *rig) {
			r.idp.Header = func(header map[string]any) { header["alg"] = "HS256" }
			r.idp.Sign = func(input []byte) []byte {
				mac := hmac.New(sha256.New, []byte(oidctest.ClientSecret))
				mac.Write(input)
				return mac.Sum(nil)
			}
			r.idp.Metadata = func(document map[string]any) {
				document["id_token_signing_alg_values_supported"] = []string{"HS256", "none", "RS256"}
			}
		}, oidc.CodeBadToken},
		{"of another algorithm than the provider names", func(r *rig) {
			r.idp.Metadata = func(document map[string]any) {
				document["id_token_signing_alg_values_supported"] = []string{"ES256"}
			}
		}, oidc.CodeBadToken},
		{"missing", answer(func(body map[string]any) { delete(body, "id_token") }), oidc.CodeBadToken},
		{"not a string", answer(func(body map[string]any) { body["id_token"] = 7 }), oidc.CodeBadToken},
		{"malformed", answer(func(body map[string]any) { body["id_token"] = "x.y.z" }), oidc.CodeBadToken},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, setup{})
			c.falsify(r)
			b := r.browser(t)
			want(t, b.through("/auth/idp/authorize"), 400, c.code)
			r.wantEvents(t, "login.denied oauth_token")
			if got := b.me(); got.ID != uuid.Nil {
				t.Errorf("logged in as %+v", got)
			}
			if _, there := b.cookies[cookie]; there {
				t.Error("the state cookie is there after the callback")
			}
		})
	}
}

func TestIDTokenForSeveralAudiencesNeedsThisParty(t *testing.T) {
	r := newRig(t, setup{})
	r.idp.Claims = func(claims map[string]any) {
		claims["aud"], claims["azp"] = []string{"another-app", oidctest.ClientID}, oidctest.ClientID
	}
	want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
}

func TestCallbackWithoutItsStateIsRejected(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *browser, q url.Values)
		code   string
		events string // default: oauth_state
	}{
		{"no state", func(_ *browser, q url.Values) { q.Del("state") }, oidc.CodeBadToken, ""},
		{"malformed state", func(_ *browser, q url.Values) { q.Set("state", "x") }, oidc.CodeBadToken, ""},
		{"two states", func(_ *browser, q url.Values) { q.Add("state", q.Get("state")) }, oidc.CodeBadToken, ""},
		{"another state", func(_ *browser, q url.Values) { q.Set("state", strings.Repeat("A", 43)) }, oidc.CodeInvalidState, ""},
		{"no cookie", func(b *browser, _ url.Values) { delete(b.cookies, cookie) }, oidc.CodeInvalidState, ""},
		{"malformed cookie", func(b *browser, _ url.Values) { b.cookies[cookie] = "x" }, oidc.CodeInvalidState, ""},
		{"cookie with another redirect", func(b *browser, _ url.Values) { b.cookies[cookie] += "Lw" }, oidc.CodeInvalidState, ""},
		{"cookie that lasts longer", func(b *browser, _ url.Values) {
			parts := strings.Split(b.cookies[cookie], ".")
			parts[2] = "9999999999"
			b.cookies[cookie] = strings.Join(parts, ".")
		}, oidc.CodeInvalidState, ""},
		{"cookie of another login", func(b *browser, _ url.Values) { b.begin("/auth/idp/authorize") }, oidc.CodeInvalidState, ""},
		{"an hour later", func(b *browser, _ url.Values) { b.r.sleep(time.Hour) }, oidc.CodeExpired, ""},
		{"no code", func(_ *browser, q url.Values) { q.Del("code") }, oidc.CodeBadToken, "oauth_token"},
		{"empty code", func(_ *browser, q url.Values) { q.Set("code", "") }, oidc.CodeBadToken, "oauth_token"},
		{"two codes", func(_ *browser, q url.Values) { q.Add("code", "x") }, oidc.CodeBadToken, "oauth_token"},
		{"another code", func(_ *browser, q url.Values) { q.Set("code", "x") }, oidc.CodeBadToken, "oauth_token"},
		{"the user refused", func(_ *browser, q url.Values) { q.Set("error", "access_denied"); q.Del("code") }, "access_denied", "oauth_provider"},
		{"an error beside a code", func(_ *browser, q url.Values) { q.Set("error", "server_error") }, "server_error", "oauth_provider"},
		{"an error of its own", func(_ *browser, q url.Values) { q.Set("error", `<script>"`) }, oidc.CodeProvider, "oauth_provider"},
		// RFC 9207
		{"issuer of another provider", func(_ *browser, q url.Values) { q.Set("iss", "https://evil.example.com") }, oidc.CodeInvalidState, ""},
		{"no issuer, though the provider names it", func(_ *browser, q url.Values) { q.Del("iss") }, oidc.CodeInvalidState, ""},
		{"two issuers", func(_ *browser, q url.Values) { q.Add("iss", "https://evil.example.com") }, oidc.CodeInvalidState, ""},
		{"empty issuer", func(_ *browser, q url.Values) { q.Set("iss", "") }, oidc.CodeInvalidState, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, setup{})
			b := r.browser(t)
			callback, err := url.Parse(visit(t, b.begin("/auth/idp/authorize")))
			if err != nil {
				t.Fatal(err)
			}
			q := callback.Query()
			c.change(b, q)
			exchanged := r.idp.Requests("/token")
			want(t, b.get(callback.Path+"?"+q.Encode()), 400, c.code)
			why := c.events
			if why == "" {
				why = "oauth_state"
			}
			r.wantEvents(t, "login.denied "+why)
			if why != "oauth_token" && r.idp.Requests("/token") != exchanged {
				t.Error("the code was redeemed")
			}
			if got := b.me(); got.ID != uuid.Nil {
				t.Errorf("logged in as %+v", got)
			}
		})
	}
}

func TestProviderThatDoesNotNameItselfIsAccepted(t *testing.T) {
	r := newRig(t, setup{})
	r.idp.Metadata = func(document map[string]any) {
		delete(document, "authorization_response_iss_parameter_supported")
	}
	r.idp.Redirect = func(params url.Values) { params.Del("iss") }
	want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
}

// An attacker sends the callback of their own login to another user (login CSRF).
func TestCallbackOfAnotherBrowserIsRejected(t *testing.T) {
	r := newRig(t, setup{})
	attacker, victim := r.browser(t), r.browser(t)
	callback := visit(t, attacker.begin("/auth/idp/authorize"))
	own := victim.begin("/auth/idp/authorize")
	want(t, victim.get(callback), 400, "OAUTH_INVALID_STATE")
	if got := victim.me(); got.ID != uuid.Nil {
		t.Errorf("the victim is logged in as %+v", got)
	}
	// It does not end what the victim began.
	want(t, victim.get(visit(t, own)), 204, "")
}

func TestCallbackIsForOneUse(t *testing.T) {
	r := newRig(t, setup{})
	b := r.browser(t)
	to := b.begin("/auth/idp/authorize")
	kept := b.cookies[cookie]
	callback := visit(t, to)
	want(t, b.get(callback), 204, "")
	r.heard()
	want(t, b.get(callback), 400, "OAUTH_INVALID_STATE")
	b.cookies[cookie] = kept
	want(t, b.get(callback), 400, "ACCESS_TOKEN_DECODE_ERROR") // the provider has redeemed the code
	r.wantEvents(t, "login.denied oauth_state", "login.denied oauth_token")
}

// A code that was stolen from another browser's callback is bound to that browser's challenge.
func TestCodeOfAnotherLoginIsRejected(t *testing.T) {
	r := newRig(t, setup{})
	victim, attacker := r.browser(t), r.browser(t)
	stolen, err := url.Parse(visit(t, victim.begin("/auth/idp/authorize")))
	if err != nil {
		t.Fatal(err)
	}
	own, err := url.Parse(visit(t, attacker.begin("/auth/idp/authorize")))
	if err != nil {
		t.Fatal(err)
	}
	q := own.Query()
	q.Set("code", stolen.Query().Get("code"))
	want(t, attacker.get(own.Path+"?"+q.Encode()), 400, "ACCESS_TOKEN_DECODE_ERROR")
}

// A provider that an attacker runs must not get the code of another one, nor log its users in there.
func TestMixedUpProvidersAreRejected(t *testing.T) {
	evil := oidctest.New(t, ann)
	r := newRig(t, setup{another: evil})
	b := r.browser(t)
	callback := visit(t, b.begin("/auth/idp/authorize"))
	w := b.get(strings.Replace(callback, "/auth/idp/", "/auth/other/", 1))
	want(t, w, 400, "OAUTH_INVALID_STATE")
	if n := evil.Requests("/token"); n != 0 {
		t.Errorf("the other provider got %d codes", n)
	}
	// The other way round: a callback of the honest provider with the answer of the other one.
	callback = visit(t, b.begin("/auth/other/authorize"))
	want(t, b.get(strings.Replace(callback, "/auth/other/", "/auth/idp/", 1)), 400, "OAUTH_INVALID_STATE")
	if n := r.idp.Requests("/token"); n != 0 {
		t.Errorf("the honest provider got %d codes", n)
	}
	// An honest flow with the other provider makes an account of its own.
	evil.User.Email = "eve@example.com"
	want(t, b.through("/auth/other/authorize"), 204, "")
	if got := b.me(); got.Email != "eve@example.com" {
		t.Errorf("logged in as %+v", got)
	}
}

func TestRedirectsOnlyToAllowedPaths(t *testing.T) {
	r := newRig(t, setup{})
	for _, to := range []string{
		"https://evil.example.com", "//evil.example.com", `/\evil.example.com`, `\\evil.example.com`, "/account", "/account?tab=1&x", "/account?tab=1#x",
		"/../", "/ ", "/%2F", "javascript:alert(1)", "", app + "/",
	} {
		b := r.browser(t)
		w := b.get("/auth/idp/authorize?redirect_to=" + url.QueryEscape(to))
		if to == "" { // the callback answers
			if w.Code != 303 || !strings.HasPrefix(w.Header().Get("Location"), r.idp.Issuer+"/") {
				t.Errorf("an empty path: got %d to %q, want the provider", w.Code, w.Header().Get("Location"))
			}
			continue
		}
		want(t, w, 400, "OAUTH_INVALID_REDIRECT")
		if b.cookies[cookie] != "" {
			t.Errorf("%q: got a state cookie", to)
		}
	}
	// The provider's answer cannot name another path.
	b := r.browser(t)
	w := b.get("/auth/idp/authorize?redirect_to=/")
	w = b.get(visit(t, w.Header().Get("Location")) + "&redirect_to=" + url.QueryEscape("https://evil.example.com"))
	if got := w.Header().Get("Location"); w.Code != 303 || got != "/" {
		t.Errorf("got %d to %q, want 303 to /", w.Code, got)
	}
}

func TestPagesOfOtherSitesCannotBegin(t *testing.T) {
	r := newRig(t, setup{})
	for site, ok := range map[string]bool{"cross-site": false, "same-site": false, "same-origin": true, "none": true, "": true} {
		b := r.browser(t)
		if site != "" {
			b.header.Set("Sec-Fetch-Site", site)
		}
		w := b.get("/auth/idp/authorize?redirect_to=/")
		if ok {
			if w.Code != 303 {
				t.Errorf("%s: got %d %s, want 303", site, w.Code, w.Body)
			}
			continue
		}
		want(t, w, 403, "CROSS_ORIGIN_REQUEST")
		r.wantEvents(t, "login.denied cross_origin")
	}
}

func TestFailingProviderIsUnavailable(t *testing.T) {
	fail := func(path string, status int, body string) func(*rig) {
		return func(r *rig) {
			r.idp.Fail = func(w http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path != path {
					return false
				}
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(status)
				_, _ = w.Write([]byte(body))
				return true
			}
		}
	}
	for _, c := range []struct {
		name    string
		breakIt func(*rig)
	}{
		{"the token endpoint fails", fail("/token", 500, `{"error":"server_error"}`)},
		{"the token endpoint answers with no JSON", fail("/token", 200, "<html>")},
		{"the token endpoint has no token", fail("/token", 200, "{}")},
		{"the token endpoint redirects", fail("/token", 307, "")},
		{"the client secret is wrong", fail("/token", 401, `{"error":"invalid_client"}`)},
		{"the keys cannot be read", fail("/keys", 500, "")},
		{"the keys are no JSON", fail("/keys", 200, "<html>")},
		{"the user info fails", func(r *rig) {
			fail("/userinfo", 500, "")(r)
			r.idp.Claims = func(claims map[string]any) { delete(claims, "email") }
		}},
		{"an answer without end", fail("/token", 200, `{"access_token":"x","x":"`+strings.Repeat("x", 2<<20)+`"}`)},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, setup{})
			b := r.browser(t)
			c.breakIt(r)
			want(t, b.through("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
			r.wantEvents(t, "store.failed")
			if got := b.me(); got.ID != uuid.Nil {
				t.Errorf("logged in as %+v", got)
			}
		})
	}
}

// A provider can let its users name claims.
func TestClaimsInAnotherCaseAreOthers(t *testing.T) {
	r := newRig(t, setup{})
	r.idp.Claims = func(claims map[string]any) {
		delete(claims, "email_verified")
		claims["Email_Verified"], claims["EMAIL"], claims["AZP"] = true, "eve@example.com", "another-app"
	}
	b := r.browser(t)
	want(t, b.through("/auth/idp/authorize"), 204, "")
	if got := b.me(); got.Email != ann.Email || got.Verified {
		t.Errorf("logged in as %s, verified %v; want the address of email, not verified", got.Email, got.Verified)
	}
	r.idp.Claims = func(claims map[string]any) {
		claims["\u017fub"] = "another" // a long s, which package json takes for an s
	}
	want(t, r.browser(t).through("/auth/idp/authorize"), 400, "ACCESS_TOKEN_DECODE_ERROR")
}

// Anybody can cause such an event, as often as requests come.
func TestAnswersOfProvidersDoNotFillLogs(t *testing.T) {
	for _, path := range []string{"/.well-known/openid-configuration", "/keys", "/userinfo", "/token"} {
		for _, status := range []int{200, 500} {
			t.Run(fmt.Sprintf("%s answers %d", path, status), func(t *testing.T) {
				r := newRig(t, setup{})
				r.idp.Claims = func(claims map[string]any) { delete(claims, "email") }
				r.idp.Fail = func(w http.ResponseWriter, req *http.Request) bool {
					if req.URL.Path != path {
						return false
					}
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(status)
					_, _ = w.Write([]byte(strings.Repeat("ä", 1<<18)))
					return true
				}
				b := r.browser(t)
				w := b.get("/auth/idp/authorize")
				if w.Code == 200 {
					b.through("/auth/idp/authorize")
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.events) == 0 {
					t.Error("no event tells of the failure")
				}
				for _, e := range r.events {
					if e.Err == nil || len(e.Err.Error()) > 2000 || !utf8.ValidString(e.Err.Error()) {
						t.Errorf("%s has an error of %d bytes, want at most 2,000, in UTF-8", e.Kind, len(fmt.Sprint(e.Err)))
					}
				}
			})
		}
	}
}

// A provider that is down at the start is asked again; what it says must be its own.
func TestDiscoveryIsTriedAgain(t *testing.T) {
	r := newRig(t, setup{})
	for name, metadata := range map[string]func(map[string]any){
		"another issuer":         func(d map[string]any) { d["issuer"] = "https://evil.example.com" },
		"no token endpoint":      func(d map[string]any) { delete(d, "token_endpoint") },
		"a plain token endpoint": func(d map[string]any) { d["token_endpoint"] = "http://evil.example.com/token" },
		"a plain page":           func(d map[string]any) { d["authorization_endpoint"] = "http://evil.example.com/" },
		"a script":               func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" },
		"plain keys":             func(d map[string]any) { d["jwks_uri"] = "http://evil.example.com/keys" },
		"a plain user info":      func(d map[string]any) { d["userinfo_endpoint"] = "http://evil.example.com/me" },
		"endpoints of one type":  func(d map[string]any) { d["token_endpoint"] = 7 },
	} {
		r.idp.Metadata = metadata
		w := r.browser(t).get("/auth/idp/authorize")
		if w.Code != 503 {
			t.Errorf("%s: got %d %s, want 503", name, w.Code, w.Body)
		}
	}
	r.idp.Metadata = nil
	r.heard()
	for range 3 {
		want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
	}
	if got := r.idp.Requests("/.well-known/openid-configuration"); got != 9 {
		t.Errorf("the discovery document was read %d times, want 9", got)
	}
}

func TestProviderThatHangsIsUnavailable(t *testing.T) {
	r := newRig(t, setup{config: func(cfg *oidc.Config[member]) { cfg.ProviderTimeout = 30 * time.Millisecond }})
	done := make(chan struct{})
	defer close(done)
	r.idp.Fail = func(_ http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/.well-known/openid-configuration" {
			select {
			case <-done:
			case <-req.Context().Done():
			}
		}
		return false
	}
	want(t, r.browser(t).get("/auth/idp/authorize"), 503, "SERVICE_UNAVAILABLE")
}

// The client secret goes where the discovery document says.
func TestClientAuthenticates(t *testing.T) {
	for name, methods := range map[string][]string{"default": nil, "basic": {"client_secret_post", "client_secret_basic"}, "post": {"client_secret_post"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, setup{})
			r.idp.Metadata = func(document map[string]any) {
				if methods != nil {
					document["token_endpoint_auth_methods_supported"] = methods
				}
			}
			basic := false
			r.idp.Fail = func(_ http.ResponseWriter, req *http.Request) bool {
				if req.URL.Path == "/token" {
					_, _, basic = req.BasicAuth()
				}
				return false
			}
			want(t, r.browser(t).through("/auth/idp/authorize"), 204, "")
			if basic != (name != "post") {
				t.Errorf("the secret was in the header: %v", basic)
			}
			if n := r.idp.Requests("/token"); n != 1 {
				t.Errorf("the code was sent %d times, want once", n)
			}
		})
	}
}
