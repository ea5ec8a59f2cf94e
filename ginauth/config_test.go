package ginauth_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestNewNamesTheWrongField(t *testing.T) {
	const (
		name     = "Cookie.Name"
		domain   = "Cookie.Domain"
		path     = "Cookie.Path"
		sameSite = "Cookie.SameSite"
	)
	of := func(ts ...ginauth.Transport) []ginauth.Transport { return ts }
	for _, c := range []struct {
		what       string
		transports []ginauth.Transport
		field      string
	}{
		{"a nil transport", of(ginauth.Bearer{}, nil), "Config.Transports[1]"},
		{"two Bearers", of(ginauth.Bearer{}, ginauth.Bearer{Realm: "other"}), "Config.Transports[1]"},
		{"two Cookies of one name", of(ginauth.Cookie{}, ginauth.Bearer{}, ginauth.Cookie{Name: "__Host-latchkey"}), "Config.Transports[2]"},

		{"a quote in the realm", of(ginauth.Bearer{Realm: `my "app"`}), "Bearer.Realm"},
		{"a backslash in the realm", of(ginauth.Bearer{Realm: `my\app`}), "Bearer.Realm"},
		{"a line break in the realm", of(ginauth.Bearer{Realm: "my\r\nSet-Cookie: a=b"}), "Bearer.Realm"},
		{"a non-ASCII letter in the realm", of(ginauth.Bearer{Realm: "café"}), "Bearer.Realm"},

		{"a blank in the name", of(ginauth.Cookie{Name: "my app"}), name},
		{"a semicolon in the name", of(ginauth.Cookie{Name: "app;"}), name},
		{"a line break in the name", of(ginauth.Cookie{Name: "app\n"}), name},
		{"__Host- without Secure", of(ginauth.Cookie{InsecureHTTP: true}), name},
		{"__Host- with a Domain", of(ginauth.Cookie{Domain: "example.com"}), name},
		{"__Host- with another Path", of(ginauth.Cookie{Path: "/api"}), name},
		{"__host- without Secure", of(ginauth.Cookie{Name: "__host-app", InsecureHTTP: true}), name},
		{"__HOST- with a Domain", of(ginauth.Cookie{Name: "__HOST-app", Domain: "example.com"}), name},
		{"__hOsT- with another Path", of(ginauth.Cookie{Name: "__hOsT-app", Path: "/api"}), name},
		{"__Secure- without Secure", of(ginauth.Cookie{Name: "__Secure-app", InsecureHTTP: true}), name},
		{"__secure- without Secure", of(ginauth.Cookie{Name: "__secure-app", InsecureHTTP: true}), name},

		{"a path without a leading slash", of(ginauth.Cookie{Name: "app", Path: "api"}), path},
		{"a semicolon in the path", of(ginauth.Cookie{Name: "app", Path: "/;Domain=example.com"}), path},
		{"an invalid domain", of(ginauth.Cookie{Name: "app", Domain: "example.com; Secure"}), domain},
		{"SameSite=None without Secure", of(ginauth.Cookie{Name: "app", SameSite: http.SameSiteNoneMode, InsecureHTTP: true}), sameSite},
		{"an unknown SameSite", of(ginauth.Cookie{SameSite: 17}), sameSite},
		{"a negative SameSite", of(ginauth.Cookie{SameSite: -1}), sameSite},
	} {
		t.Run(c.what, func(t *testing.T) {
			_, err := ginauth.New(newRig(t).sessions, nil, ginauth.Config{Transports: c.transports})
			if err == nil || !strings.Contains(err.Error(), c.field) {
				t.Errorf("got the error %v, want one that names %s", err, c.field)
			}
		})
	}
	h := newRig(t)
	hourly, err := strategy.NewDatabase(h.tokens, h.users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{-1, time.Hour + 1} {
		_, err := ginauth.New(hourly, nil, ginauth.Config{BriefLifetime: d})
		if err == nil || !strings.Contains(err.Error(), "Config.BriefLifetime") {
			t.Errorf("BriefLifetime %v of an hour: got the error %v, want one that names it", d, err)
		}
	}
	_, err = ginauth.New[member](nil, nil, ginauth.Config{})
	if err == nil || !strings.Contains(err.Error(), "strategy") {
		t.Errorf("without a strategy: got the error %v, want one that names it", err)
	}
}

func TestCookiesAreSetAsConfigured(t *testing.T) {
	for _, c := range []struct {
		what   string
		cookie ginauth.Cookie
		name   string
		want   string
	}{
		{"default", ginauth.Cookie{}, "__Host-latchkey", "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"default mode", ginauth.Cookie{SameSite: http.SameSiteDefaultMode}, "__Host-latchkey", "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{"strict", ginauth.Cookie{SameSite: http.SameSiteStrictMode}, "__Host-latchkey", "; Path=/; HttpOnly; Secure; SameSite=Strict"},
		{"other sites", ginauth.Cookie{SameSite: http.SameSiteNoneMode}, "__Host-latchkey", "; Path=/; HttpOnly; Secure; SameSite=None"},
		{"plain HTTP", ginauth.Cookie{Name: "app", InsecureHTTP: true}, "app", "; Path=/; HttpOnly; SameSite=Lax"},
		{"domain", ginauth.Cookie{Name: "app", Domain: "example.com"}, "app", "; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		{"secure prefix and domain", ginauth.Cookie{Name: "__Secure-app", Domain: "example.com"}, "__Secure-app", "; Path=/; Domain=example.com; HttpOnly; Secure; SameSite=Lax"},
		{"path", ginauth.Cookie{Name: "app", Path: "/api"}, "app", "; Path=/api; HttpOnly; Secure; SameSite=Lax"},
	} {
		t.Run(c.what, func(t *testing.T) {
			h := newRig(t)
			auth := h.auth(t, ginauth.Config{Transports: []ginauth.Transport{c.cookie}})
			r := engine(auth)
			set := logIn(r).Header().Get("Set-Cookie")
			token := cookieValue(t, set, c.name)
			if got := strings.TrimPrefix(set, c.name+"="+token); got != c.want {
				t.Errorf("log in: got the attributes %q, want %q", got, c.want)
			}
			inCookie := header("Cookie", c.name+"="+token)
			if got := request(r, "GET", "/me", inCookie).Code; got != http.StatusOK {
				t.Errorf("use the cookie: got %d, want 200", got)
			}
			set = request(r, "POST", "/logout", inCookie).Header().Get("Set-Cookie")
			gone := c.name + "=" + strings.Replace(c.want, "; HttpOnly", "; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly", 1)
			if set != gone {
				t.Errorf("log out: got %q, want %q", set, gone)
			}
		})
	}
}

func TestConfigIsCopied(t *testing.T) {
	h := newRig(t)
	transports := []ginauth.Transport{ginauth.Bearer{}}
	auth := h.auth(t, ginauth.Config{Transports: transports})
	transports[0] = ginauth.Cookie{}
	if got := logIn(engine(auth)).Header().Get("Set-Cookie"); got != "" {
		t.Errorf("log in after the caller changed the slice: got the cookie %q, want none", got)
	}
}

func TestInvalidTrustedOriginIsAnError(t *testing.T) {
	for _, origin := range []string{"", "app.example.com", "https://app.example.com/path", "*"} {
		_, err := ginauth.New(newRig(t).sessions, nil, ginauth.Config{TrustedOrigins: []string{"https://app.example.com", origin}})
		if err == nil || !strings.Contains(err.Error(), "Config.TrustedOrigins") {
			t.Errorf("%q: got the error %v, want one that names Config.TrustedOrigins", origin, err)
		}
	}
}
