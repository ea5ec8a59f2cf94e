// Package oidctest is an identity provider inside the test process: OpenID Connect with keys of its
// own, and with every answer that a test wants to falsify. It needs the standard library only.
package oidctest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"html/template"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The client that a Provider knows.
const (
	ClientID     = "the-app"
	ClientSecret = "the secret of the app"
)

// User is a user of a Provider.
type User struct {
	Subject       string
	Email         string
	EmailVerified bool
}

// Provider is an identity provider. Its exported fields can be changed before a request, and while
// none is in flight.
type Provider struct {
	// Issuer is the provider's issuer and URL.
	Issuer string
	// User is who logs in.
	User User
	// AskUser shows a page with a button, in place of redirecting at once.
	AskUser bool

	// Now is the clock of ID tokens.
	Now func() time.Time
	// Claims changes the claims of an ID token.
	Claims func(claims map[string]any)
	// Header changes the header of an ID token.
	Header func(header map[string]any)
	// Sign signs an ID token. Default: with the provider's key.
	Sign func(input []byte) []byte
	// Token changes the answer of the token endpoint.
	Token func(answer map[string]any)
	// Redirect changes the parameters of the redirect to the application.
	Redirect func(params url.Values)
	// Metadata changes the discovery document.
	Metadata func(document map[string]any)
	// UserInfo changes the answer of the user info endpoint.
	UserInfo func(claims map[string]any)
	// Fail answers a request in place of the provider, and reports whether it did.
	Fail func(w http.ResponseWriter, r *http.Request) bool

	key    *rsa.PrivateKey
	server *httptest.Server

	mu       sync.Mutex
	codes    map[string]grant
	requests []string
	asked    url.Values
}

// grant is a code that was not redeemed yet.
type grant struct {
	user        User
	redirectURI string
	nonce       string
	challenge   string
}

var sharedKey = sync.OnceValue(NewKey)

// NewKey returns a key for signing.
func NewKey() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
}

// New starts a provider. It ends with the test.
func New(tb testing.TB, user User) *Provider {
	tb.Helper()
	p := &Provider{User: user, Now: time.Now, key: sharedKey(), codes: make(map[string]grant)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", p.discovery)
	mux.HandleFunc("GET /authorize", p.authorize)
	mux.HandleFunc("POST /authorize", p.authorize)
	mux.HandleFunc("POST /token", p.token)
	mux.HandleFunc("GET /keys", p.keys)
	mux.HandleFunc("GET /userinfo", p.userInfo)
	p.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r.URL.Path)
		p.mu.Unlock()
		if p.Fail == nil || !p.Fail(w, r) {
			mux.ServeHTTP(w, r)
		}
	}))
	tb.Cleanup(p.server.Close)
	p.Issuer = p.server.URL
	return p
}

// Close stops the provider: connections to it are refused.
func (p *Provider) Close() { p.server.Close() }

// Requests returns how many requests of a path there were.
func (p *Provider) Requests(path string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.requests {
		if r == path {
			n++
		}
	}
	return n
}

// Asked returns the parameters of the last request for a login.
func (p *Provider) Asked() url.Values {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *Provider) discovery(w http.ResponseWriter, _ *http.Request) {
	document := map[string]any{
		"issuer": p.Issuer, "authorization_endpoint": p.Issuer + "/authorize", "token_endpoint": p.Issuer + "/token",
		"jwks_uri": p.Issuer + "/keys", "userinfo_endpoint": p.Issuer + "/userinfo",
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"authorization_response_iss_parameter_supported": true,
	}
	if p.Metadata != nil {
		p.Metadata(document)
	}
	answer(w, http.StatusOK, document)
}

var page = template.Must(template.New("").Parse(`<!doctype html><title>Provider</title>
<h1>Log in to the app as {{.User.Email}}?</h1>
<form method="post" action="{{.Action}}"><button id="allow">Allow</button></form>`))

func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	redirect, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("response_type") != "code" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	if p.AskUser && r.Method == http.MethodGet {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, map[string]any{"User": p.User, "Action": r.URL.String()})
		return
	}
	code := rand.Text()
	p.mu.Lock()
	p.asked = q
	p.codes[code] = grant{p.User, q.Get("redirect_uri"), q.Get("nonce"), q.Get("code_challenge")}
	p.mu.Unlock()
	params := redirect.Query()
	params.Set("code", code)
	params.Set("state", q.Get("state"))
	params.Set("iss", p.Issuer)
	if p.Redirect != nil {
		p.Redirect(params)
	}
	redirect.RawQuery = params.Encode()
	http.Redirect(w, r, redirect.String(), http.StatusSeeOther)
}

func (p *Provider) token(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if ok { // RFC 6749 §2.3.1
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || secret != ClientSecret {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	p.mu.Lock()
	g, ok := p.codes[r.PostFormValue("code")]
	delete(p.codes, r.PostFormValue("code"))
	p.mu.Unlock()
	challenge := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || r.PostFormValue("redirect_uri") != g.redirectURI || b64(challenge[:]) != g.challenge {
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "The code is not valid"})
		return
	}
	now := p.Now()
	access := rand.Text()
	hash := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": p.Issuer, "sub": g.user.Subject, "aud": ClientID, "nonce": g.nonce, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"at_hash": b64(hash[:16]), "email": g.user.Email, "email_verified": g.user.EmailVerified,
	}
	if p.Claims != nil {
		p.Claims(claims)
	}
	body := map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": p.IDToken(claims)}
	if p.Token != nil {
		p.Token(body)
	}
	answer(w, http.StatusOK, body)
}

// IDToken returns a signed ID token.
func (p *Provider) IDToken(claims map[string]any) string {
	header := map[string]any{"alg": "RS256", "kid": "1"}
	if p.Header != nil {
		p.Header(header)
	}
	input := b64(encode(header)) + "." + b64(encode(claims))
	sign := p.Sign
	if sign == nil {
		sign = SignWith(p.key)
	}
	return input + "." + b64(sign([]byte(input)))
}

// SignWith returns a function for Provider.Sign.
func SignWith(key *rsa.PrivateKey) func([]byte) []byte {
	return func(input []byte) []byte {
		sum := sha256.Sum256(input)
		signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		return signature
	}
}

func (p *Provider) keys(w http.ResponseWriter, _ *http.Request) {
	e := binary.BigEndian.AppendUint32(nil, uint32(p.key.E))
	answer(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256", "n": b64(p.key.N.Bytes()), "e": b64(e[1:]),
	}}})
}

func (p *Provider) userInfo(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
		return
	}
	claims := map[string]any{"sub": p.User.Subject, "email": p.User.Email, "email_verified": p.User.EmailVerified}
	if p.UserInfo != nil {
		p.UserInfo(claims)
	}
	answer(w, http.StatusOK, claims)
}

func answer(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(body))
}

func encode(v map[string]any) []byte {
	encoded, err := json.Marshal(maps.Clone(v))
	if err != nil {
		panic(err)
	}
	return encoded
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
