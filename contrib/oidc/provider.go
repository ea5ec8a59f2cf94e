package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/latchkey-go/latchkey/strategy"
)

// Provider is an identity provider. One that speaks OpenID Connect needs only the fields up to
// RedirectURL; its endpoints and keys are found through its discovery document, which is read at the
// first login. For another OAuth 2.0 provider, set Endpoint and Profile too.
type Provider struct {
	// Name names the provider in paths: lower-case letters, digits and hyphens. Required.
	Name string

	// Issuer is the provider's issuer, as in its ID tokens, such as "https://accounts.google.com".
	// For a provider without OpenID Connect it is the provider's URL, such as "https://github.com".
	// Accounts are found by Issuer and subject: do not change it. Required.
	Issuer string

	// ClientID and ClientSecret are what the provider has given to the application. The secret is
	// in a Secret, which does not print; it can be zero for a public client. ClientID is required.
	ClientID     string
	ClientSecret strategy.Secret

	// RedirectURL is the URL of the login's callback, exactly as registered with the provider:
	// the route itself, or a page of the front end that passes the parameters on. No two providers
	// may share one (RFC 9700 §4.4). Required: https, or http for localhost.
	RedirectURL string

	// AssociateURL is the same for the callback that links an account. Default: accounts cannot
	// be linked to this provider.
	AssociateURL string

	// Scopes are always asked for. Default: openid and email; none with Profile.
	Scopes []string

	// OptionalScopes are those that a client may ask for as well, by ?scopes=.
	OptionalScopes []string

	// LinkByEmail logs a user in to an existing account with the same address, and links it, if
	// both the provider and the account have verified the address. Default false: such a user
	// must log in and link the account. Set it only for a provider that is sure of its addresses:
	// who gets it to name another's address gets the account.
	LinkByEmail bool

	// Endpoint and Profile are for a provider without OpenID Connect, such as GitHub. Profile
	// reads who the user is with a client that sends the access token; it must return the subject:
	// an ID that the provider never gives to another user, not a name or an address. ctx bounds
	// it. See [GitHubProfile].
	Endpoint oauth2.Endpoint
	Profile  func(ctx context.Context, client *http.Client) (Identity, error)
}

// Identity is a user of a provider.
type Identity struct {
	// Provider is the provider's name, and Issuer and Subject are the user. A Profile function
	// need not set Provider and Issuer.
	Provider, Issuer, Subject string
	// Email is the user's address, or "".
	Email string
	// EmailVerified says whether the provider has verified the address. A new account is verified
	// then.
	EmailVerified bool
	// Claims are the claims of the ID token, or what Profile returns: a JSON object, for
	// Config.NewUser.
	Claims json.RawMessage
}

// provider is a Provider in use.
type provider struct {
	Provider
	client *http.Client
	now    func() time.Time
	turn   chan struct{} // held to read the discovery document
	known  atomic.Pointer[metadata]
}

// metadata is what is known of a provider.
type metadata struct {
	endpoint oauth2.Endpoint
	// of OpenID Connect
	discovered  *gooidc.Provider
	keys        *gooidc.RemoteKeySet
	algorithms  []string
	issRequired bool // RFC 9207: the provider names itself in its answers
}

func (p *Provider) check() error {
	name := func(r rune) bool { return r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' }
	switch {
	case p.Name == "" || len(p.Name) > 32 || strings.TrimFunc(p.Name, name) != "" || strings.ContainsFunc(p.Name, func(r rune) bool { return !name(r) }):
		return fmt.Errorf("the Name is %q, want up to 32 lower-case letters, digits and hyphens", p.Name)
	case p.ClientID == "":
		return errors.New("the ClientID is empty: set what the provider has given to the application")
	case (p.Profile == nil) != (p.Endpoint == oauth2.Endpoint{}):
		return errors.New("the Endpoint and Profile must be set together, or neither for OpenID Connect")
	}
	for _, f := range []struct {
		name, url string
		required  bool
	}{
		{"Issuer", p.Issuer, true}, {"RedirectURL", p.RedirectURL, true}, {"AssociateURL", p.AssociateURL, false},
		{"Endpoint.AuthURL", p.Endpoint.AuthURL, p.Profile != nil}, {"Endpoint.TokenURL", p.Endpoint.TokenURL, p.Profile != nil},
	} {
		if f.url == "" && !f.required {
			continue
		}
		if err := checkURL(f.url); err != nil {
			return fmt.Errorf("%s is %q: %w", f.name, f.url, err)
		}
	}
	return nil
}

// checkURL returns an error for a URL that is not https, or http on this machine.
func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return err
	case u.Host == "" || u.User != nil || strings.Contains(s, "#"):
		return errors.New("want an absolute URL without user and fragment")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && (u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()):
		return nil
	}
	return errors.New("want https, or http for localhost")
}

// metadata returns what is known of the provider. The first call reads the discovery document; if
// that fails, the next call tries again.
func (p *provider) metadata(ctx context.Context) (*metadata, error) {
	if m := p.known.Load(); m != nil {
		return m, nil
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, failed("discover "+p.Name, ctx.Err())
	}
	if m := p.known.Load(); m != nil {
		return m, nil
	}
	m, err := p.discover(ctx)
	if err != nil {
		return nil, failed("discover "+p.Name, err)
	}
	p.known.Store(m)
	return m, nil
}

func (p *provider) discover(ctx context.Context) (*metadata, error) {
	discovered, err := gooidc.NewProvider(gooidc.ClientContext(ctx, p.client), p.Issuer)
	if err != nil {
		return nil, err
	}
	var claims struct {
		JWKSURI     string   `json:"jwks_uri"`
		Algorithms  []string `json:"id_token_signing_alg_values_supported"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
		Iss         bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := discovered.Claims(&claims); err != nil {
		return nil, err
	}
	m := &metadata{endpoint: discovered.Endpoint(), discovered: discovered, issRequired: claims.Iss}
	urls := []string{m.endpoint.AuthURL, m.endpoint.TokenURL, claims.JWKSURI}
	if u := discovered.UserInfoEndpoint(); u != "" { // it gets the access token
		urls = append(urls, u)
	}
	for _, u := range urls {
		if err := checkURL(u); err != nil {
			return nil, fmt.Errorf("the discovery document names %q: %w", u, err)
		}
	}
	for _, alg := range claims.Algorithms {
		// Neither "none" nor a MAC, whose key is the client secret.
		if slices.Contains([]string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "EdDSA"}, alg) {
			m.algorithms = append(m.algorithms, alg)
		}
	}
	// Finding the style out by trying would send the code twice, and a code is for one use.
	m.endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if p.ClientSecret.Reveal() == "" || len(claims.AuthMethods) > 0 && !slices.Contains(claims.AuthMethods, "client_secret_basic") {
		m.endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	m.keys = gooidc.NewRemoteKeySet(gooidc.ClientContext(context.Background(), p.client), claims.JWKSURI)
	return m, nil
}

// config returns the configuration of the OAuth client for a flow.
func (p *provider) config(m *metadata, f flow, scopes []string) *oauth2.Config {
	redirect := p.RedirectURL
	if f == link {
		redirect = p.AssociateURL
	}
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret.Reveal(), Endpoint: m.endpoint, RedirectURL: redirect, Scopes: scopes}
}

// url returns where the browser has to go.
func (p *provider) url(m *metadata, s state, scopes []string, fresh bool) string {
	opts := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(s.verifier())}
	if p.Profile == nil {
		opts = append(opts, gooidc.Nonce(s.nonce()))
		if fresh {
			opts = append(opts, oauth2.SetAuthURLParam("prompt", "login"), oauth2.SetAuthURLParam("max_age", "0"))
		}
	}
	return p.config(m, s.flow, scopes).AuthCodeURL(s.param(), opts...)
}

// errRejected means that the provider's answer is not valid. Any other error of exchange means that
// the provider failed.
var (
	errRejected = errors.New("the provider's answer is not valid")
	errExpired  = fmt.Errorf("%w: the ID token has expired", errRejected)
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errRejected, fmt.Errorf(format, args...))
}

// exchange redeems a code. It returns who the user is, and when the provider authenticated the
// user; the zero time if it does not tell.
func (p *provider) exchange(ctx context.Context, m *metadata, s state, code string) (Identity, time.Time, error) {
	ctx = gooidc.ClientContext(ctx, p.client)
	cfg := p.config(m, s.flow, nil)
	token, err := cfg.Exchange(ctx, code, oauth2.VerifierOption(s.verifier()))
	if err != nil {
		return Identity{}, time.Time{}, exchangeError(err)
	}
	var id Identity
	var at time.Time
	if p.Profile != nil {
		if id, err = p.Profile(ctx, cfg.Client(ctx, &oauth2.Token{AccessToken: token.AccessToken, TokenType: token.TokenType})); err != nil {
			return Identity{}, time.Time{}, fmt.Errorf("read the profile: %w", err)
		}
	} else if id, at, err = p.verify(ctx, m, s, token); err != nil {
		return Identity{}, time.Time{}, err
	}
	if id.Subject == "" || len(id.Subject) > 255 {
		return Identity{}, time.Time{}, invalid("the subject has %d bytes, want 1 to 255", len(id.Subject))
	}
	id.Provider, id.Issuer = p.Name, p.Issuer
	return id, at, nil
}

// exchangeError tells a code that the provider rejects from a failure. It does not show the body of
// the provider's answer, which can have tokens.
func exchangeError(err error) error {
	answer, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok {
		return fmt.Errorf("redeem the code: %w", err)
	}
	err = fmt.Errorf("redeem the code: the provider answered %d, error %q, %q", answer.Response.StatusCode, cut(answer.ErrorCode), cut(answer.ErrorDescription))
	switch answer.ErrorCode {
	case "invalid_grant", "bad_verification_code": // the latter is GitHub's, with status 200
		return invalid("%w", err)
	}
	return err
}

func cut(s string) string { return s[:min(len(s), 200)] }

// verify reads an ID token (OpenID Connect Core §3.1.3.7).
func (p *provider) verify(ctx context.Context, m *metadata, s state, token *oauth2.Token) (Identity, time.Time, error) {
	none := Identity{}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return none, time.Time{}, invalid("it has no ID token")
	}
	keys := &keySet{keys: m.keys}
	parsed, err := gooidc.NewVerifier(p.Issuer, keys, &gooidc.Config{ClientID: p.ClientID, SupportedSigningAlgs: m.algorithms, Now: p.now}).Verify(ctx, raw)
	expired := new(gooidc.TokenExpiredError)
	switch {
	case keys.failure() != nil:
		return none, time.Time{}, fmt.Errorf("read the provider's keys: %w", keys.failure())
	case errors.As(err, &expired):
		return none, time.Time{}, errExpired
	case err != nil:
		return none, time.Time{}, invalid("%w", err)
	case !same(parsed.Nonce, s.nonce()):
		return none, time.Time{}, invalid("the ID token is for another login: the nonce differs")
	}
	if parsed.AccessTokenHash != "" {
		if err := parsed.VerifyAccessToken(token.AccessToken); err != nil {
			return none, time.Time{}, invalid("%w", err)
		}
	}
	var claims struct {
		Subject  string  `json:"sub"`
		Email    string  `json:"email"`
		Verified any     `json:"email_verified"`
		AuthTime float64 `json:"auth_time"`
		Party    string  `json:"azp"`
	}
	var everything json.RawMessage
	if err := errors.Join(exactly(parsed, &claims), parsed.Claims(&everything)); err != nil {
		return none, time.Time{}, invalid("read the claims: %w", err)
	}
	if claims.Subject != parsed.Subject {
		return none, time.Time{}, invalid("the ID token has several subjects")
	}
	if claims.Party != p.ClientID && (claims.Party != "" || len(parsed.Audience) > 1) {
		return none, time.Time{}, invalid("the ID token was issued to the client %q", claims.Party)
	}
	id := Identity{Subject: parsed.Subject, Email: claims.Email, EmailVerified: claims.Email != "" && isTrue(claims.Verified), Claims: everything}
	if id.Email == "" && m.discovered.UserInfoEndpoint() != "" {
		info, err := m.discovered.UserInfo(ctx, oauth2.StaticTokenSource(token))
		switch {
		case err != nil:
			return none, time.Time{}, fmt.Errorf("read the user info: %w", err)
		case info.Subject != id.Subject: // OpenID Connect Core §5.3.2
			return none, time.Time{}, invalid("the user info is of another user")
		}
		id.Email, id.EmailVerified = info.Email, info.Email != "" && info.EmailVerified
	}
	var at time.Time
	if claims.AuthTime > 0 && claims.AuthTime < 1<<40 {
		at = time.Unix(int64(claims.AuthTime), 0)
	}
	return id, at, nil
}

// exactly reads claims whose names are as in the tags. Package json also takes those in another
// case, such as an "Email" that the provider lets its users set.
func exactly(token *gooidc.IDToken, claims any) error {
	var all map[string]json.RawMessage
	if err := token.Claims(&all); err != nil {
		return err
	}
	maps.DeleteFunc(all, func(name string, _ json.RawMessage) bool {
		return strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || r >= 'A' && r <= 'Z' })
	})
	encoded, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return json.Unmarshal(encoded, claims)
}

// isTrue reads email_verified: some providers write it as a string.
func isTrue(claim any) bool { return claim == true || claim == "true" }

// keySet verifies one signature, and tells whether the keys could not be read: the verifier hides
// the error.
type keySet struct {
	keys *gooidc.RemoteKeySet
	mu   sync.Mutex
	err  error
}

// VerifySignature implements gooidc.KeySet.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	payload, err := k.keys.VerifySignature(ctx, jwt)
	if err != nil && strings.HasPrefix(err.Error(), "fetching keys") {
		k.mu.Lock()
		k.err = err
		k.mu.Unlock()
	}
	return payload, err
}

func (k *keySet) failure() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// newClient returns the client that talks to providers.
func newClient(transport http.RoundTripper, timeout time.Duration) *http.Client {
	if transport == nil {
		transport = http.DefaultTransport
	}
	return &http.Client{
		Transport: limited{transport}, Timeout: timeout,
		// A redirect would take the client secret or a token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// limited bounds the answers of providers.
type limited struct{ http.RoundTripper }

const maxAnswer = 1 << 20

func (l limited) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = &limitedBody{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

type limitedBody struct {
	io.Reader
	io.Closer
}
