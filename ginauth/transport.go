package ginauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

// Transport is a way by which a token comes with a request, and by which a login
// is answered: [Bearer] or [Cookie].
type Transport interface {
	// prepare returns the transport with its defaults, or an error that names
	// the field which is wrong.
	prepare() (transport, error)
}

type transport interface {
	fmt.Stringer
	// token returns the token that a request carries, or "". The error wraps
	// errBadRequest or strategy.ErrInvalidToken.
	token(*http.Request) (string, error)
	// presented returns what a request carries in the place of a token, also what
	// token refuses: a few values at most.
	presented(*http.Request) []string
	// ambient reports whether browsers add the token by themselves, whoever's page
	// makes the request.
	ambient() bool
	// deliver sets the header that carries a new token, if the transport has one.
	// remaining is the time until the token expires; 0: never. With untilClosed the
	// browser forgets the token when it closes.
	deliver(w http.ResponseWriter, token string, remaining time.Duration, untilClosed bool)
	// answer writes the status and the body of a login's answer.
	answer(w http.ResponseWriter, token string, remaining time.Duration)
	// clear makes the client forget the token.
	clear(http.ResponseWriter)
}

// maxCookieAge is the longest that browsers keep a cookie, 400 days (RFC 6265bis
// §5.5): what a remembered login whose token does not expire can have.
const maxCookieAge = 400 * 24 * 60 * 60

// Bearer is the Authorization header (RFC 6750 §2.1). The login answers with the
// token in JSON.
type Bearer struct {
	// Realm stands in WWW-Authenticate. Default "latchkey". It is printable
	// ASCII without quotes and backslashes.
	Realm string
}

func (b Bearer) prepare() (transport, error) {
	if b.Realm == "" {
		b.Realm = "latchkey"
	}
	for _, r := range b.Realm {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return nil, fmt.Errorf("Bearer.Realm: %q has a character that is not allowed", b.Realm)
		}
	}
	return bearer{b.Realm}, nil
}

type bearer struct{ realm string }

func (bearer) String() string { return "Bearer" }

func (bearer) token(r *http.Request) (string, error) {
	switch headers := r.Header["Authorization"]; len(headers) {
	case 0:
		return "", nil
	case 1:
		return parseAuthorization(headers[0])
	default:
		return "", fmt.Errorf("%w: %d Authorization headers", errBadRequest, len(headers))
	}
}

// parseAuthorization returns the token of an Authorization header, or "" where
// its scheme is another one. Schemes have no case (RFC 9110 §11.1).
func parseAuthorization(header string) (string, error) {
	scheme, rest, _ := strings.Cut(header, " ")
	if scheme != "Bearer" && !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token := strings.Trim(rest, " ")
	// Two searches for a byte are quicker than one for several.
	if token == "" || strings.IndexByte(token, ' ') >= 0 || strings.IndexByte(token, '\t') >= 0 {
		return "", fmt.Errorf("%w: Bearer wants one token", errBadRequest)
	}
	return token, nil
}

func (bearer) ambient() bool { return false }

func (b bearer) presented(r *http.Request) []string {
	if token, _ := b.token(r); token != "" {
		return []string{token}
	}
	return nil
}

func (bearer) deliver(http.ResponseWriter, string, time.Duration, bool) {}

func (bearer) answer(w http.ResponseWriter, token string, remaining time.Duration) {
	body := map[string]any{"access_token": token, "token_type": "bearer"}
	if remaining > 0 {
		body["expires_in"] = int64(remaining / time.Second)
	}
	writeJSON(w, http.StatusOK, body)
}

func (bearer) clear(http.ResponseWriter) {}

// Cookie is a cookie for browsers. The login answers 204 with Set-Cookie, and
// the token is nowhere else. An unsafe request (POST, DELETE, …) that it
// authenticates, and a login for it, must come from the application's own origin
// or a trusted one, or from no browser: see Config.TrustedOrigins. The cookie is always HttpOnly, and Secure unless
// InsecureHTTP says otherwise.
type Cookie struct {
	// Name is the cookie's name. Default "__Host-latchkey": browsers take a
	// cookie with this prefix only from the host itself, over TLS, for all
	// paths (RFC 6265bis §4.1.3.2).
	Name string

	// Path is the path below which browsers send the cookie. Default "/".
	Path string

	// Domain lets the hosts below a domain have the cookie too. Default none:
	// only the host that set it.
	Domain string

	// SameSite says with which requests of other sites browsers send the cookie.
	// Default http.SameSiteLaxMode.
	SameSite http.SameSite

	// InsecureHTTP leaves the Secure attribute out, so that browsers send the
	// token over plain HTTP too. The Name needs to be another one then.
	// Development on localhost works without it.
	InsecureHTTP bool
}

func (k Cookie) prepare() (transport, error) {
	if k.Name == "" {
		k.Name = "__Host-latchkey"
	}
	if k.Path == "" {
		k.Path = "/"
	}
	if k.SameSite == 0 || k.SameSite == http.SameSiteDefaultMode {
		k.SameSite = http.SameSiteLaxMode
	}
	secure := !k.InsecureHTTP
	t := cookie{http.Cookie{Name: k.Name, Path: k.Path, Domain: k.Domain, SameSite: k.SameSite, Secure: secure, HttpOnly: true}}
	if err := t.attributes.Valid(); err != nil {
		return nil, fmt.Errorf("Cookie: %w", err)
	}
	// Browsers match the prefixes without regard to case.
	name := strings.ToLower(k.Name)
	switch {
	case k.SameSite < http.SameSiteLaxMode || k.SameSite > http.SameSiteNoneMode:
		return nil, fmt.Errorf("Cookie.SameSite: %d is no mode", k.SameSite)
	case k.SameSite == http.SameSiteNoneMode && !secure:
		return nil, errors.New("Cookie.SameSite: None wants a Secure cookie, and InsecureHTTP is set")
	case !strings.HasPrefix(k.Path, "/"):
		return nil, fmt.Errorf("Cookie.Path: %q does not begin with /", k.Path)
	case strings.HasPrefix(name, "__host-") && (!secure || k.Path != "/" || k.Domain != ""):
		return nil, fmt.Errorf("Cookie.Name: %q wants a Secure cookie with Path / and no Domain", k.Name)
	case strings.HasPrefix(name, "__secure-") && !secure:
		return nil, fmt.Errorf("Cookie.Name: %q wants a Secure cookie", k.Name)
	}
	return t, nil
}

type cookie struct{ attributes http.Cookie }

func (k cookie) String() string { return "Cookie " + k.attributes.Name }

// token refuses several cookies of the name with different values: one of them
// was planted, from a subdomain perhaps, and nobody can tell which.
func (k cookie) token(r *http.Request) (string, error) {
	found := r.CookiesNamed(k.attributes.Name)
	if len(found) == 0 {
		return "", nil
	}
	for _, other := range found[1:] {
		if other.Value != found[0].Value {
			return "", fmt.Errorf("%w: several cookies of one name", strategy.ErrInvalidToken)
		}
	}
	return found[0].Value, nil
}

func (cookie) ambient() bool { return true }

func (k cookie) presented(r *http.Request) (values []string) {
	// Anybody can make cookies up, and each costs a write: a few will do.
	const most = 4
	for _, found := range r.CookiesNamed(k.attributes.Name) {
		if len(values) < most && !slices.Contains(values, found.Value) {
			values = append(values, found.Value)
		}
	}
	return values
}

func (k cookie) deliver(w http.ResponseWriter, token string, remaining time.Duration, untilClosed bool) {
	set := k.attributes
	set.Value = token
	switch {
	case untilClosed:
	case remaining == 0:
		set.MaxAge = maxCookieAge
	default:
		// A cookie with MaxAge 0 has no end, and would outlive the token.
		set.MaxAge = max(1, int(remaining/time.Second))
	}
	http.SetCookie(w, &set)
}

func (cookie) answer(w http.ResponseWriter, _ string, _ time.Duration) {
	w.WriteHeader(http.StatusNoContent)
}

func (k cookie) clear(w http.ResponseWriter) {
	gone := k.attributes
	gone.MaxAge = -1
	gone.Expires = time.Unix(0, 0).UTC()
	http.SetCookie(w, &gone)
}
