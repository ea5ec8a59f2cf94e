package ginauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Transport carries tokens: [Bearer] or [Cookie]. It says where a request has its token and
// how a login is answered.
type Transport interface {
	// prepare validates the fields and fills in defaults. An error names the field.
	prepare() (transport, error)
}

type transport interface {
	// String returns the kind and, of a cookie, the name.
	fmt.Stringer
	// carried returns the tokens that a request carries. The error wraps errBadRequest.
	carried(r *http.Request, wellFormed func(token string) bool) (carried, error)
	// header is the header that carries the token.
	header() looked
	// ambient reports whether browsers add the token to the requests of every page, of
	// whatever site.
	ambient() bool
	// deliver sets the header that carries a new token, if the transport has one.
	// remaining is the time until the token expires; 0: never. With untilClosed the
	// browser forgets the token when it closes.
	deliver(w http.ResponseWriter, token string, remaining time.Duration, untilClosed bool)
	// answer writes the status and the body of a login's answer. device is the client's
	// new device token, or "".
	answer(w http.ResponseWriter, token string, remaining time.Duration, device string)
	// device returns the device token that a login presents, or "". field is that of the
	// login's body.
	device(r *http.Request, field string) string
	// deliverDevice sets the header that carries a device token, if the transport has one.
	deliverDevice(w http.ResponseWriter, device string)
	// clear makes the client forget the token.
	clear(http.ResponseWriter)
}

// carried is what a request carries by one transport: different values, which need not be
// tokens. Each costs a look-up, and a client can send many.
type carried struct {
	values [4]string
	n      int
}

func (c *carried) add(value string) {
	if c.n < len(c.values) && !slices.Contains(c.list(), value) {
		c.values[c.n] = value
		c.n++
	}
}

func (c *carried) list() []string { return c.values[:c.n] }

// maxCookieAge is the longest that browsers keep a cookie, 400 days in seconds (RFC 6265bis
// §5.5), for a remembered login whose token does not expire.
const maxCookieAge = 400 * 24 * 60 * 60

// deviceCookieAge is how long browsers keep a device token, 90 days in seconds: the default
// of account.LimiterConfig.DeviceLifetime.
const deviceCookieAge = 90 * 24 * 60 * 60

// Bearer is the Authorization header (RFC 6750 §2.1). The login answers with the token in
// JSON. A new device token is in the same JSON, as "device_token"; the client sends it with
// its next login, in the field device_token of the body. See account.LimiterConfig.
type Bearer struct {
	// Realm is the realm of WWW-Authenticate headers: printable ASCII without quotes and
	// backslashes. Default "latchkey".
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

func (bearer) carried(r *http.Request, _ func(string) bool) (c carried, err error) {
	switch headers := r.Header["Authorization"]; len(headers) {
	case 0:
	case 1:
		var token string
		if token, err = parseAuthorization(headers[0]); token != "" {
			c.add(token)
		}
	default:
		err = fmt.Errorf("%w: %d Authorization headers", errBadRequest, len(headers))
	}
	return c, err
}

// parseAuthorization returns the token of an Authorization header, or "" if it has another
// scheme. Schemes are case-insensitive (RFC 9110 §11.1).
func parseAuthorization(header string) (string, error) {
	scheme, rest, _ := strings.Cut(header, " ")
	if scheme != "Bearer" && !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	token := strings.Trim(rest, " ")
	// Two byte searches are faster than strings.ContainsAny.
	if token == "" || strings.IndexByte(token, ' ') >= 0 || strings.IndexByte(token, '\t') >= 0 {
		return "", fmt.Errorf("%w: want one token after Bearer", errBadRequest)
	}
	return token, nil
}

func (bearer) header() looked { return lookedAtAuthorization }

func (bearer) ambient() bool { return false }

func (bearer) deliver(http.ResponseWriter, string, time.Duration, bool) {}

func (bearer) device(_ *http.Request, field string) string { return field }

func (bearer) deliverDevice(http.ResponseWriter, string) {}

func (bearer) answer(w http.ResponseWriter, token string, remaining time.Duration, device string) {
	body := tokenJSON(token, remaining)
	if device != "" {
		body["device_token"] = device
	}
	writeJSON(w, http.StatusOK, body)
}

// tokenJSON returns the members of an answer that has a token (RFC 6749 §5.1).
func tokenJSON(token string, remaining time.Duration) map[string]any {
	body := map[string]any{"access_token": token, "token_type": "bearer"}
	if remaining > 0 {
		body["expires_in"] = int64(remaining / time.Second)
	}
	return body
}

func (bearer) clear(http.ResponseWriter) {}

// Cookie is a cookie for browsers. The login answers 204 with Set-Cookie; the token is not
// in the body. An unsafe request (POST, DELETE, …) or a WebSocket handshake with the cookie,
// and a login that is answered with it, must come from the application's own origin, from a
// trusted origin or from a client that is not a browser; others get 403. See
// Config.TrustedOrigins. The cookie is always HttpOnly, and Secure unless InsecureHTTP is set.
//
// Logins by password set a second cookie, whose name ends in "-device", with the same
// attributes: the browser's device token. It lasts 90 days from the last login, whatever
// the session does, and is no credential. See account.LimiterConfig.
type Cookie struct {
	// Name is the cookie's name. Default "__Host-latchkey": browsers accept a cookie with
	// this prefix only from the host itself, over TLS, for all paths (RFC 6265bis
	// §4.1.3.2).
	Name string

	// Path is the path below which browsers send the cookie. Default "/".
	Path string

	// Domain makes browsers send the cookie to the subdomains of Domain too. Default
	// none: only to the host that set it.
	Domain string

	// SameSite limits the requests of other sites with which browsers send the cookie.
	// Default http.SameSiteLaxMode.
	SameSite http.SameSite

	// Partitioned gives the cookie a jar of its own for each site that embeds the application
	// in a frame (CHIPS). With SameSite http.SameSiteNoneMode the application then works in
	// frames of other sites where browsers block third-party cookies. It needs a Secure cookie.
	// Default false.
	Partitioned bool

	// InsecureHTTP leaves out the Secure attribute: browsers send the token over plain
	// HTTP too. It needs a Name without the default's prefix. Development on localhost
	// works without it. Default false.
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
	if k.Partitioned && !secure {
		return nil, errors.New("Cookie.Partitioned: browsers reject a partitioned cookie without Secure: unset Partitioned or InsecureHTTP")
	}
	t := cookie{http.Cookie{Name: k.Name, Path: k.Path, Domain: k.Domain, SameSite: k.SameSite, Secure: secure, HttpOnly: true, Partitioned: k.Partitioned}}
	if err := t.attributes.Valid(); err != nil {
		return nil, fmt.Errorf("Cookie: %w", err)
	}
	// Browsers match the prefixes case-insensitively.
	name := strings.ToLower(k.Name)
	switch {
	case k.SameSite < http.SameSiteLaxMode || k.SameSite > http.SameSiteNoneMode:
		return nil, fmt.Errorf("Cookie.SameSite: unknown mode %d", k.SameSite)
	case k.SameSite == http.SameSiteNoneMode && !secure:
		return nil, errors.New("Cookie.SameSite: None requires a Secure cookie, but InsecureHTTP is set")
	case !strings.HasPrefix(k.Path, "/"):
		return nil, fmt.Errorf("Cookie.Path: %q does not begin with /", k.Path)
	case strings.HasPrefix(name, "__host-") && (!secure || k.Path != "/" || k.Domain != ""):
		return nil, fmt.Errorf("Cookie.Name: %q requires a Secure cookie with Path / and no Domain: set another Name, for example \"latchkey\"", k.Name)
	case (strings.HasPrefix(name, "__secure-") || strings.HasPrefix(name, "__http-")) && !secure:
		return nil, fmt.Errorf("Cookie.Name: %q requires a Secure cookie: with InsecureHTTP, set another Name, for example \"latchkey\"", k.Name)
	}
	return t, nil
}

type cookie struct{ attributes http.Cookie }

func (k cookie) String() string { return "Cookie " + k.attributes.Name }

// carried returns the well-formed values of all cookies of the name. A browser sends several
// after a change of Domain or Path, or if a subdomain planted one. If none is well-formed, it
// returns one value, so that the strategy reports it.
func (k cookie) carried(r *http.Request, wellFormed func(string) bool) (c carried, _ error) {
	found := r.CookiesNamed(k.attributes.Name)
	if len(found) == 1 {
		c.add(found[0].Value)
		return c, nil
	}
	var malformed string
	for _, cookie := range found {
		if wellFormed(cookie.Value) {
			c.add(cookie.Value)
		} else if malformed == "" {
			malformed = cookie.Value
		}
	}
	if c.n == 0 && len(found) > 0 {
		c.add(malformed)
	}
	return c, nil
}

func (cookie) header() looked { return lookedAtCookie }

func (cookie) ambient() bool { return true }

func (k cookie) deliver(w http.ResponseWriter, token string, remaining time.Duration, untilClosed bool) {
	set := k.attributes
	set.Value = token
	switch {
	case untilClosed:
	case remaining == 0:
		set.MaxAge = maxCookieAge
	default:
		// MaxAge 0 would make a session cookie, which can outlive the token.
		set.MaxAge = max(1, int(remaining/time.Second))
	}
	http.SetCookie(w, &set)
}

func (k cookie) deviceName() string { return k.attributes.Name + "-device" }

func (k cookie) device(r *http.Request, _ string) string {
	if found := r.CookiesNamed(k.deviceName()); len(found) > 0 {
		return found[0].Value
	}
	return ""
}

func (k cookie) deliverDevice(w http.ResponseWriter, device string) {
	set := k.attributes
	set.Name, set.Value, set.MaxAge = k.deviceName(), device, deviceCookieAge
	http.SetCookie(w, &set)
}

func (cookie) answer(w http.ResponseWriter, _ string, _ time.Duration, _ string) {
	w.WriteHeader(http.StatusNoContent)
}

// clear also clears the cookies that the defaults of Domain, Path and Partitioned would have
// set: the configuration may have changed since the login.
func (k cookie) clear(w http.ResponseWriter) {
	gone := k.attributes
	gone.MaxAge = -1
	gone.Expires = time.Unix(0, 0).UTC()
	for _, gone.Domain = range slices.Compact([]string{k.attributes.Domain, ""}) {
		for _, gone.Path = range slices.Compact([]string{k.attributes.Path, "/"}) {
			for _, gone.Partitioned = range slices.Compact([]bool{k.attributes.Partitioned, false}) {
				http.SetCookie(w, &gone)
			}
		}
	}
}
