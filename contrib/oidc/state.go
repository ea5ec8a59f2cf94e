package oidc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// cookieName is the name of the cookie that ties a callback to the browser that began.
	cookieName = "__Host-latchkey-oauth"
	// stateLifetime is how long a user may take at the provider.
	stateLifetime = time.Hour
	// maxCookie is the length of the longest cookie that is read.
	maxCookie = 1024
)

// flow is what a callback ends.
type flow byte

const (
	login flow = 'l'
	link  flow = 'a' // "associate" in fastapi-users
)

// state is what the browser keeps from the beginning of a flow to its callback: all of it is in
// one cookie. Everything that goes to the provider is derived from the secret: the parameter state
// from the whole cookie, so that a cookie that was changed matches no callback.
//
// The cookie is not encrypted and has no key of the server's. It holds nothing that its browser may
// not know; a key would not keep attackers from planting a cookie of their own, since the server
// would sign one for them too. What keeps them from it is the prefix __Host- of its name.
type state struct {
	secret   [32]byte
	expires  int64 // Unix seconds
	flow     flow
	provider string
	user     string // who links, see userDigest; "" for a login
	redirect string // the path to go to in the end; "" for an answer
}

// newState returns a state with a new secret.
func newState(f flow, provider, redirect string, now time.Time) state {
	s := state{flow: f, provider: provider, redirect: redirect, expires: now.Add(stateLifetime).Unix()}
	_, _ = rand.Read(s.secret[:]) // never fails, see crypto/rand
	return s
}

var b64 = base64.RawURLEncoding.Strict()

// String returns the value of the cookie. It is a secret of the browser: do not log it.
func (s state) cookie() string {
	return strings.Join([]string{
		"1", b64.EncodeToString(s.secret[:]), strconv.FormatInt(s.expires, 10), string(rune(s.flow)), s.provider, s.user, b64.EncodeToString([]byte(s.redirect)),
	}, ".")
}

// parseState reads the value of a cookie. It accepts only what cookie returns.
func parseState(value string) (s state, ok bool) {
	if len(value) > maxCookie {
		return s, false
	}
	parts := strings.Split(value, ".")
	if len(parts) != 7 || parts[0] != "1" || len(parts[3]) != 1 {
		return s, false
	}
	secret, err := b64.DecodeString(parts[1])
	if err != nil || len(secret) != len(s.secret) {
		return s, false
	}
	copy(s.secret[:], secret)
	if s.expires, err = strconv.ParseInt(parts[2], 10, 64); err != nil {
		return state{}, false
	}
	redirect, err := b64.DecodeString(parts[6])
	if err != nil {
		return state{}, false
	}
	s.flow, s.provider, s.user, s.redirect = flow(parts[3][0]), parts[4], parts[5], string(redirect)
	if s.flow != login && s.flow != link || s.cookie() != value {
		return state{}, false
	}
	return s, true
}

// derive returns a value that only who knows the secret can compute.
func (s state) derive(purpose, text string) string {
	mac := hmac.New(sha256.New, s.secret[:])
	mac.Write([]byte(purpose + "\x00" + text))
	return b64.EncodeToString(mac.Sum(nil))
}

// param is the parameter state of the request (RFC 6749 §10.12).
func (s state) param() string { return s.derive("state", s.cookie()) }

// nonce ties an ID token to the flow (OpenID Connect Core §3.1.2.1).
func (s state) nonce() string { return s.derive("nonce", "") }

// verifier is that of PKCE (RFC 7636 §4.1).
func (s state) verifier() string { return s.derive("verifier", "") }

// userDigest is who links an account. It does not show the user's ID.
func (s state) userDigest(id string) string { return s.derive("user", id) }

// paramLength is the length of param.
var paramLength = b64.EncodedLen(sha256.Size)

// wellFormed reports whether a string can be a param.
func wellFormed(param string) bool {
	if len(param) != paramLength {
		return false
	}
	_, err := b64.DecodeString(param)
	return err == nil
}

// same compares in constant time.
func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// setCookie makes the browser keep the state.
func setCookie(w http.ResponseWriter, value string, maxAge int) {
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		Secure: true, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, // the callback is a navigation that begins at the provider
	})
}

// readCookie returns the state of a request.
func readCookie(r *http.Request) (state, bool) {
	found := r.CookiesNamed(cookieName)
	if len(found) != 1 {
		return state{}, false
	}
	return parseState(found[0].Value)
}
