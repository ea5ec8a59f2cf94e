// Package oidc logs users in through identity providers, with OpenID Connect or OAuth 2.0:
//
//	links, err := mongostore.NewOAuthAccounts[uuid.UUID](db, mongostore.OAuthAccountsConfig{})
//	...
//	logins, err := oidc.New(lk.Web, lk.Accounts, links, oidc.Config[Member]{
//		Providers: []oidc.Provider{{
//			Name:         "google",
//			Issuer:       "https://accounts.google.com",
//			ClientID:     "…",
//			ClientSecret: strategy.NewSecret(os.Getenv("GOOGLE_SECRET")),
//			RedirectURL:  "https://app.example.com/auth/google/callback",
//			AssociateURL: "https://app.example.com/auth/associate/google/callback",
//		}},
//		RedirectPaths: []string{"/", "/account"},
//	})
//	...
//	logins.Routes(r.Group("/auth"))                    // GET /auth/google/authorize, …/callback
//	logins.AssociateRoutes(r.Group("/auth/associate")) // to link an account that exists
//
// It is a module of its own, so that other applications do not inherit its dependencies,
// golang.org/x/oauth2 and github.com/coreos/go-oidc.
//
// The routes answer as those of fastapi-users do, so that a front end for them works unchanged. A
// website without a front end links to GET authorize?redirect_to=/account: that redirects to the
// provider, and the callback to /account.
//
// # Accounts
//
// A user of a provider is an issuer and a subject, never an address: the links of accounts to them
// are in an account.OAuthAccountStore. Who logs in for the first time gets a new account without a
// password, unless an account has the address: such a user logs in and links the account, or
// Provider.LinkByEmail does it. Linking and unlinking need a fresh login, and the last way in to an
// account cannot be removed.
//
// # Security
//
// Every flow has a state, a code challenge (PKCE, S256) and, with OpenID Connect, a nonce, all
// derived from one secret in a cookie that is Secure, HttpOnly and only of this host. The issuer in
// a callback is compared (RFC 9207), and so are signature, issuer, audience, authorized party,
// expiry, nonce and the access token's hash of an ID token. Tokens of providers are not stored.
//
// A failing database or provider is answered with 503: nothing is granted, and nobody is logged out.
package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures [Logins].
type Config[U any] struct {
	// Providers are the identity providers. Required.
	Providers []Provider

	// RedirectPaths are the paths of the application to which a callback may redirect, such as
	// "/account". They are compared exactly. Default none: callbacks answer as logins do.
	RedirectPaths []string

	// NewUser returns the account of a new user with the application's own fields; what it sets in
	// the fields of account.User is ignored, except the ID if the Manager makes none. It may be
	// called for a user who gets no account. An error is answered as ginauth's Refuse answers it:
	// to refuse a user, return a *ginauth.CodeError. It must be safe for concurrent use. Default: no
	// own fields.
	NewUser func(ctx context.Context, id Identity) (U, error)

	// MaxAge is how old a login may be that links or unlinks an account. Default 10 minutes.
	MaxAge time.Duration

	// Timeout bounds how long a request waits for the stores. Default 3 seconds.
	Timeout time.Duration

	// ProviderTimeout bounds how long a request waits for a provider. Default 10 seconds.
	ProviderTimeout time.Duration

	// Transport sends the requests to providers. Default http.DefaultTransport.
	Transport http.RoundTripper

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent receives links, and logins that were denied before there was a user; see
	// strategy.Config.OnEvent. Default nil: no events.
	OnEvent func(context.Context, event.Event)
}

// The codes of the answers beside those of ginauth. The first five are those of fastapi-users.
const (
	// CodeInvalidState: the callback does not belong to what this browser began.
	CodeInvalidState = "OAUTH_INVALID_STATE"
	// CodeBadToken: the state, the code or the ID token is not valid.
	CodeBadToken = "ACCESS_TOKEN_DECODE_ERROR"
	// CodeExpired: the user took longer than an hour, or the ID token has expired.
	CodeExpired = "ACCESS_TOKEN_ALREADY_EXPIRED"
	// CodeNoEmail: a new account needs an address, and the provider named none.
	CodeNoEmail = "OAUTH_NOT_AVAILABLE_EMAIL"
	// CodeUserExists: an account has the address. Its user can log in and link it.
	CodeUserExists = "OAUTH_USER_ALREADY_EXISTS"
	// CodeLinkedElsewhere: the user of the provider is linked to another account.
	CodeLinkedElsewhere = "OAUTH_ACCOUNT_ALREADY_LINKED"
	// CodeLastLogin: without the link, nobody could log in to the account.
	CodeLastLogin = "OAUTH_LAST_LOGIN_METHOD"
	// CodeProvider: the provider refused with an error that is not registered. Registered ones,
	// such as access_denied, are passed on.
	CodeProvider = "OAUTH_PROVIDER_ERROR"
	// CodeInvalidRedirect: the path is not in Config.RedirectPaths.
	CodeInvalidRedirect = "OAUTH_INVALID_REDIRECT"
	// CodeInvalidScope: the scope is not in Provider.OptionalScopes.
	CodeInvalidScope = "OAUTH_INVALID_SCOPE"
)

// Logins logs users in through providers. Make one with [New]. It is safe for concurrent use.
type Logins[U strategy.User[ID], ID comparable] struct {
	auth      *ginauth.Auth[U]
	accounts  *account.Manager[U, ID]
	links     account.OAuthAccountStore[ID]
	providers []*provider
	cfg       Config[U]
	mounted   mounted
}

// New returns Logins that end as the logins of auth do: with a bearer token in JSON, or with a
// cookie. auth must have been given the accounts; latchkey.New does so. The links of a deleted
// account are deleted with it, and those of an account that is not verified when its password is
// reset: the user who linked it may not own its address.
//
// New does no I/O: a provider that is down keeps no application from starting. It returns an error
// that names the field if cfg is invalid.
func New[U strategy.User[ID], ID comparable](auth *ginauth.Auth[U], accounts *account.Manager[U, ID], links account.OAuthAccountStore[ID], cfg Config[U]) (*Logins[U, ID], error) {
	switch {
	case auth == nil:
		return nil, errors.New("oidc: auth is nil")
	case accounts == nil:
		return nil, errors.New("oidc: accounts is nil")
	case links == nil:
		return nil, errors.New("oidc: links is nil: pass mongostore.NewOAuthAccounts or sqlstore.NewOAuthAccounts")
	case len(cfg.Providers) == 0:
		return nil, errors.New("oidc: Config.Providers is empty: add a provider")
	case len(cfg.RedirectPaths) > 0 && !auth.AnswersWithCookie():
		return nil, errors.New("oidc: Config.RedirectPaths is set, but auth answers logins with a bearer token, which a redirect would lose: pass an Auth that answers with a cookie, such as latchkey's Web")
	}
	for _, f := range []struct {
		name      string
		value     *time.Duration
		byDefault time.Duration
	}{
		{"MaxAge", &cfg.MaxAge, 10 * time.Minute}, {"Timeout", &cfg.Timeout, 3 * time.Second}, {"ProviderTimeout", &cfg.ProviderTimeout, 10 * time.Second},
	} {
		if *f.value < 0 {
			return nil, fmt.Errorf("oidc: Config.%s is negative: %v", f.name, *f.value)
		}
		if *f.value == 0 {
			*f.value = f.byDefault
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.RedirectPaths = slices.Clone(cfg.RedirectPaths)
	for _, path := range cfg.RedirectPaths {
		if err := checkPath(path); err != nil {
			return nil, fmt.Errorf("oidc: Config.RedirectPaths: %q: %w", path, err)
		}
	}
	o := &Logins[U, ID]{auth: auth, accounts: accounts, links: links, cfg: cfg}
	client := newClient(cfg.Transport, cfg.ProviderTimeout)
	taken := make(map[string]bool) // names, issuers and callbacks
	for i, p := range cfg.Providers {
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("oidc: Config.Providers[%d]: %w", i, err)
		}
		for _, value := range []string{"name " + p.Name, "issuer " + p.Issuer, "callback " + p.RedirectURL, "callback " + p.AssociateURL} {
			if taken[value] {
				return nil, fmt.Errorf("oidc: Config.Providers[%d]: the %s is given twice: each provider needs its own", i, value)
			}
			taken[value] = value != "callback "
		}
		p.Scopes, p.OptionalScopes = slices.Clone(p.Scopes), slices.Clone(p.OptionalScopes)
		one := &provider{Provider: p, client: client, now: cfg.Now, turn: make(chan struct{}, 1)}
		if p.Profile == nil {
			if len(p.Scopes) == 0 {
				one.Scopes = []string{"email"}
			}
			if !slices.Contains(one.Scopes, "openid") {
				one.Scopes = append([]string{"openid"}, one.Scopes...)
			}
		} else {
			m := &metadata{endpoint: p.Endpoint}
			if m.endpoint.AuthStyle == oauth2.AuthStyleAutoDetect { // see discover
				m.endpoint.AuthStyle = oauth2.AuthStyleInParams
			}
			one.known.Store(m)
		}
		o.providers = append(o.providers, one)
	}
	accounts.OnDelete(links.DeleteByUser)
	accounts.OnClaim(o.unlinkAll)
	return o, nil
}

// checkPath returns an error for a path that a browser could take for another site's URL.
func checkPath(path string) error {
	u, err := url.Parse(path)
	switch {
	case err != nil:
		return err
	case len(path) > 200:
		return errors.New("want at most 200 bytes")
	case !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || u.Host != "" || u.Scheme != "":
		return errors.New("want a path of this host, such as \"/account\"")
	case strings.ContainsFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '\\' }):
		return errors.New("want a path in ASCII without backslashes and spaces")
	}
	return nil
}

// provider returns the provider with a name.
func (o *Logins[U, ID]) provider(name string) (*provider, error) {
	for _, p := range o.providers {
		if p.Name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("oidc: there is no provider %q", name)
}

func (o *Logins[U, ID]) now() time.Time { return o.cfg.Now().UTC().Truncate(time.Millisecond) }

// bounded returns the context of the calls of stores: they go on if the client goes away, since half
// of a sign-up is of no use.
func (o *Logins[U, ID]) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), o.cfg.Timeout)
}

func (o *Logins[U, ID]) emit(ctx context.Context, e event.Event) {
	if o.cfg.OnEvent != nil {
		e.Time, e.ClientIP = o.now(), event.ClientIP(ctx)
		o.cfg.OnEvent(ctx, e)
	}
}

// rejected returns an error that is answered with a code.
func rejected(code string, cause error) error { return &ginauth.CodeError{Code: code, Err: cause} }

// maxText is the length of the longest text of a failure. Those of go-oidc have the whole body of a
// provider's answer, and anybody can cause one for each request while a provider fails.
const maxText = 1000

// failed returns a failure, which is answered with 503 whatever err wraps.
func failed(doing string, err error) error {
	text := err.Error()
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	hidden := fmt.Errorf("oidc: %s: %s", doing, text)
	if reported.Is(err) {
		return reported.Mark(hidden)
	}
	return hidden
}
