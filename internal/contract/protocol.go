package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/ginauth"
)

// protocol is the contract of one transport.
type protocol struct {
	transport ginauth.Transport
	// withToken sends a token with a request.
	withToken func(token string) option
	// checkLogin checks the answer to a login and returns the token. lifetime is 0 if the
	// token never expires.
	checkLogin func(t testing.TB, got reply, lifetime time.Duration) string
	// checkBriefLogin is checkLogin for a login that is not remembered.
	checkBriefLogin func(t testing.TB, got reply, lifetime time.Duration) string
	// checkEndlessLogin is checkLogin for a remembered login whose token never expires.
	checkEndlessLogin func(t testing.TB, got reply) string
	// challenge returns the WWW-Authenticate header for an error code of RFC 6750, or for
	// noToken.
	challenge func(code string) string
	// cleared is the Set-Cookie header that deletes the client's token.
	cleared string
}

var bearer = protocol{
	transport:         ginauth.Bearer{},
	withToken:         func(token string) option { return authorization("Bearer " + token) },
	checkLogin:        checkJSONLogin,
	checkBriefLogin:   checkJSONLogin,
	checkEndlessLogin: func(t testing.TB, got reply) string { return checkJSONLogin(t, got, 0) },
	challenge: func(code string) string {
		if code == noToken {
			return `Bearer realm="latchkey"`
		}
		return fmt.Sprintf(`Bearer realm="latchkey", error=%q`, code)
	},
}

var cookie = protocol{
	transport:  ginauth.Cookie{},
	withToken:  func(token string) option { return header("Cookie", "theme=dark; __Host-latchkey="+token) },
	checkLogin: checkCookieLogin,
	// The browser deletes the cookie when it closes.
	checkBriefLogin: func(t testing.TB, got reply, _ time.Duration) string { return checkCookieLogin(t, got, 0) },
	// Browsers keep a cookie for 400 days at most.
	checkEndlessLogin: func(t testing.TB, got reply) string { return checkCookieLogin(t, got, 400*24*time.Hour) },
	challenge:         func(string) string { return "" },
	cleared:           "__Host-latchkey=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
}

func checkJSONLogin(t testing.TB, got reply, lifetime time.Duration) string {
	t.Helper()
	var content struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(got.Body), &content); err != nil {
		t.Fatalf("issue a token: got %+v: %v", got.answer, err)
	}
	expires := ""
	if lifetime > 0 {
		expires = fmt.Sprintf(`"expires_in":%d,`, int(lifetime.Seconds()))
	}
	want := answer{
		Code:        http.StatusOK,
		ContentType: inJSON,
		Body:        fmt.Sprintf(`{"access_token":%q,%s"token_type":"bearer"}`, content.AccessToken, expires),
	}
	return checkIssued(t, got, want, content.AccessToken)
}

func checkCookieLogin(t testing.TB, got reply, lifetime time.Duration) string {
	t.Helper()
	pair, _, _ := strings.Cut(got.SetCookie, ";")
	token := strings.TrimPrefix(pair, "__Host-latchkey=")
	maxAge := ""
	if lifetime > 0 {
		maxAge = fmt.Sprintf(" Max-Age=%d;", int(lifetime.Seconds()))
	}
	want := noContent()
	want.SetCookie = fmt.Sprintf("__Host-latchkey=%s; Path=/;%s HttpOnly; Secure; SameSite=Lax", token, maxAge)
	return checkIssued(t, got, want, token)
}

// checkIssued checks an answer that issues a token and returns the token.
func checkIssued(t testing.TB, got reply, want answer, token string) string {
	t.Helper()
	if got.answer != want {
		t.Fatalf("issue a token:\n got %+v\nwant %+v", got.answer, want)
	}
	if _, ok := format.Digest(token); !ok {
		t.Fatalf("issue a token: got %q, which is not a token", token)
	}
	return token
}
