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

// way is a transport, and how its answers and requests must look.
type way struct {
	transport ginauth.Transport
	// carry puts a token into a request.
	carry func(token string) option
	// delivered checks the answer to a successful login and returns the token.
	delivered func(t testing.TB, got reply, lifetime time.Duration) string
	// deliveredBriefly is delivered for a login that is not remembered.
	deliveredBriefly func(t testing.TB, got reply, lifetime time.Duration) string
	// deliveredForGood is delivered for a remembered login that does not expire.
	deliveredForGood func(t testing.TB, got reply) string
	// challenge is the header WWW-Authenticate with an error code, or noToken.
	challenge func(oauth string) string
	// cleared is the header Set-Cookie that makes the client forget the token.
	cleared string
}

var bearer = way{
	transport: ginauth.Bearer{},
	carry:     func(token string) option { return authorization("Bearer " + token) },
	delivered: deliveredInJSON,

	deliveredBriefly: deliveredInJSON,
	deliveredForGood: func(t testing.TB, got reply) string { return deliveredInJSON(t, got, 0) },
	challenge: func(oauth string) string {
		if oauth == noToken {
			return `Bearer realm="latchkey"`
		}
		return fmt.Sprintf(`Bearer realm="latchkey", error=%q`, oauth)
	},
}

var cookie = way{
	transport: ginauth.Cookie{},
	carry:     func(token string) option { return header("Cookie", "theme=dark; __Host-latchkey="+token) },
	delivered: deliveredInCookie,

	deliveredBriefly: func(t testing.TB, got reply, _ time.Duration) string { return deliveredInCookie(t, got, 0) },
	// As long as browsers keep a cookie.
	deliveredForGood: func(t testing.TB, got reply) string { return deliveredInCookie(t, got, 400*24*time.Hour) },
	challenge:        func(string) string { return "" },
	cleared:          "__Host-latchkey=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; Secure; SameSite=Lax",
}

func deliveredInJSON(t testing.TB, got reply, lifetime time.Duration) string {
	t.Helper()
	var content struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(got.Body), &content); err != nil {
		t.Fatalf("log in: got %+v: %v", got.answer, err)
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
	return isToken(t, got, want, content.AccessToken)
}

func deliveredInCookie(t testing.TB, got reply, lifetime time.Duration) string {
	t.Helper()
	pair, _, _ := strings.Cut(got.SetCookie, ";")
	token := strings.TrimPrefix(pair, "__Host-latchkey=")
	maxAge := ""
	if lifetime > 0 {
		maxAge = fmt.Sprintf(" Max-Age=%d;", int(lifetime.Seconds()))
	}
	want := noContent()
	want.SetCookie = fmt.Sprintf("__Host-latchkey=%s; Path=/;%s HttpOnly; Secure; SameSite=Lax", token, maxAge)
	return isToken(t, got, want, token)
}

func isToken(t testing.TB, got reply, want answer, token string) string {
	t.Helper()
	if got.answer != want {
		t.Fatalf("log in:\n got %+v\nwant %+v", got.answer, want)
	}
	if _, err := format.Digest(token); err != nil {
		t.Fatalf("log in: got the token %q: %v", token, err)
	}
	return token
}
