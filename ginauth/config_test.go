package ginauth_test

import (
	"net/http"
	"strconv"
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
		{"__Http- without Secure", of(ginauth.Cookie{Name: "__Http-app", InsecureHTTP: true}), name},
		{"__HTTP- without Secure", of(ginauth.Cookie{Name: "__HTTP-app", InsecureHTTP: true}), name},
		{"__Host-Http- without Secure", of(ginauth.Cookie{Name: "__Host-Http-app", InsecureHTTP: true}), name},
		{"__secure- without Secure", of(ginauth.Cookie{Name: "__secure-app", InsecureHTTP: true}), name},

		{"a path without a leading slash", of(ginauth.Cookie{Name: "app", Path: "api"}), path},
		{"a semicolon in the path", of(ginauth.Cookie{Name: "app", Path: "/;Domain=example.com"}), path},
		{"an invalid domain", of(ginauth.Cookie{Name: "app", Domain: "example.com; Secure"}), domain},
		{"SameSite=None without Secure", of(ginauth.Cookie{Name: "app", SameSite: http.SameSiteNoneMode, InsecureHTTP: true}), sameSite},
		{"Partitioned without Secure", of(ginauth.Cookie{Name: "app", Partitioned: true, InsecureHTTP: true}), "Cookie.Partitioned"},
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
		{"frames of other sites", ginauth.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}, "__Host-latchkey", "; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"},
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

func TestTrustedOriginThatNeverMatchesIsAnError(t *testing.T) {
	h := newRig(t)
	for _, origin := range []string{
		"", "*", "null", "app.example.com", "//app.example.com", "https://", "https:app.example.com", "mailto:a@example.com",
		"https://app.example.com/", "https://app.example.com/path", "https://app.example.com?", "https://app.example.com?a=b",
		"https://app.example.com#", "https://app.example.com#a", "https://ann@app.example.com", "https://ann:pw@app.example.com",
		"https://@app.example.com", "https://*.example.com", "https://*", "https://app.*.com", "https://app.example.com.", "https://.example.com",
		"https://a..example.com", "https://app.example.com:*", "https://app.example.com:65536", "https://app.example.com:-1",
		"https://app example.com", " https://app.example.com", "https://app.example.com ", "https://a,b.example.com", "https://app.example.com\n",
		"https://xn--a\u00fc.example.com", "https://\u2603\u00ad\u202e.example.com",
		"https://127.1", "https://127.0.0.01", "https://0x7f.0.0.1", "https://127.0.0.0x1", "https://2130706433", "https://256.0.0.1",
		"https://[::1", "https://[fe80::1%25eth0]", "https://[::ffff:127.0.0.1]", "https://[127.0.0.1]", "https://::1",
		"wss://app.example.com", "ws://app.example.com", "ftp://app.example.com", "file://app.example.com",
	} {
		_, err := ginauth.New(h.sessions, nil, ginauth.Config{TrustedOrigins: []string{"https://app.example.com", origin}})
		if err == nil || !strings.Contains(err.Error(), "Config.TrustedOrigins") || !strings.Contains(err.Error(), strconv.Quote(origin)) {
			t.Errorf("%q: got the error %v, want one that names Config.TrustedOrigins and the entry", origin, err)
		}
	}
}

func TestTrustedOriginMatchesInAnySpelling(t *testing.T) {
	h := newRig(t)
	for origin, sent := range map[string]string{
		"https://app.example.com":       "https://app.example.com",
		"HTTPS://App.Example.COM":       "https://app.example.com",
		"https://app.example.com:443":   "https://app.example.com",
		"https://app.example.com:":      "https://app.example.com",
		"https://app.example.com:0443":  "https://app.example.com",
		"http://app.example.com:80":     "http://app.example.com",
		"http://app.example.com:443":    "http://app.example.com:443",
		"https://app.example.com:8443":  "https://app.example.com:8443",
		"https://Bücher.example":        "https://xn--bcher-kva.example",
		"https://xn--bcher-kva.example": "https://xn--bcher-kva.example",
		"https://my_app.internal":       "https://my_app.internal",
		"http://localhost:5173":         "http://localhost:5173",
		"http://127.0.0.1:5173":         "http://127.0.0.1:5173",
		"http://[0:0::1]:5173":          "http://[::1]:5173",
		"http://[2001:DB8::A]":          "http://[2001:db8::a]",
		"capacitor://localhost":         "capacitor://localhost",
		"chrome-extension://abcdefgh":   "chrome-extension://abcdefgh",
	} {
		r := engine(h.auth(t, ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{}}, TrustedOrigins: []string{origin}}))
		from := func(origin string) option {
			return func(r *http.Request) { fromAnotherSite(r); r.Header.Set("Origin", origin) }
		}
		wantCode(t, origin, request(r, "POST", "/logout", inCookie(h.token(t)), from(sent)), http.StatusNoContent)
		wantCode(t, origin+", other port", request(r, "POST", "/logout", inCookie(h.token(t)), from(sent+"9")), http.StatusForbidden)
	}
}

func FuzzTrustedOrigin(f *testing.F) {
	for _, origin := range []string{
		"https://app.example.com", "HTTPS://App.Example.COM:443", "http://[::1]:80", "https://Bücher.example", "https://\u212a.example",
		"https://faß.de", "https://a\u3002b", "https://１２７.0.0.1", "https://%41.example", "https://xn--.example", "a-b://c",
	} {
		f.Add(origin)
	}
	f.Fuzz(func(t *testing.T, origin string) {
		got, err := ginauth.CanonicalOrigin(origin)
		if err != nil {
			return
		}
		if again, err := ginauth.CanonicalOrigin(got); again != got || err != nil {
			t.Errorf("got %q and the error %v for the canonical %q, want it unchanged", again, err, got)
		}
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(got); err != nil {
			t.Errorf("got %q, which net/http rejects: %v", got, err)
		}
		if got != strings.ToLower(got) || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("*@?#/\\%", r) && r != '/' }) || strings.Count(got, "/") != 2 {
			t.Errorf("got %q, want an origin in lower-case ASCII", got)
		}
	})
}
