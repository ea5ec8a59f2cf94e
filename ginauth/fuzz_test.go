package ginauth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
)

var bearerHeader = regexp.MustCompile(`(?is)^bearer(?: +([^ \t]+))? *$`)

func FuzzParseAuthorization(f *testing.F) {
	for _, header := range []string{
		"", "Bearer", "Bearer ", "bearer", "Bearer lk_token", "bEaReR  lk_token  ", "Bearer a b", "Bearer a\tb", "Bearer\ta",
		" Bearer a", "Basic YW5uOnNlY3JldA==", "Bearers a", "Bearer \x00", "Bearer \xff", "Bearer a, Bearer b", "BEARER: a", "ſ k",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, err := ginauth.ParseAuthorization(header)
		scheme, _, _ := strings.Cut(header, " ")
		parts := bearerHeader.FindStringSubmatch(header)
		switch {
		case !strings.EqualFold(scheme, "Bearer"):
			if token != "" || err != nil {
				t.Errorf("another scheme: got %q and %v, want neither", token, err)
			}
		case parts == nil || parts[1] == "":
			if token != "" || !errors.Is(err, ginauth.ErrBadRequest) {
				t.Errorf("not one token: got %q and %v, want %v", token, err, ginauth.ErrBadRequest)
			}
		case token != parts[1] || err != nil:
			t.Errorf("got %q and %v, want %q", token, err, parts[1])
		}
	})
}

func FuzzCookie(f *testing.F) {
	const name = "__Host-latchkey"
	for _, header := range []string{
		"", name, name + "=", name + "=lk_token", name + `="lk_token"`, "theme=dark; " + name + "=a", name + "=a; " + name + "=a",
		name + "=a; " + name + "=b", name + "=; " + name + "=b", "__host-latchkey=a", name + " =a", name + "= a ", name + "=a=b",
		name + "=a\x00", name + "=\xff", name + `="a`, name + "=a,b", ";;;=;" + name + "=a", strings.Repeat(name+"=a;", 100),
		name + "=x; " + name + "=lk_a; " + name + "=; " + name + "=lk_b; " + name + "=lk_a; " + name + "=lk_c; " + name + "=lk_d; " + name + "=lk_e",
	} {
		f.Add(header)
	}
	wellFormed := func(token string) bool { return strings.HasPrefix(token, "lk_") }
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Cookie"] = []string{header}
		got, err := ginauth.Carried(ginauth.Cookie{}, r, wellFormed)
		if err != nil {
			t.Errorf("got the error %v, want none", err)
		}
		var all, want []string
		for _, cookie := range r.CookiesNamed(name) {
			all = append(all, cookie.Value)
			if wellFormed(cookie.Value) && !slices.Contains(want, cookie.Value) && len(want) < 4 {
				want = append(want, cookie.Value)
			}
		}
		if len(want) > 0 && !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(want) == 0 && (len(got) != min(1, len(all)) || len(got) == 1 && !slices.Contains(all, got[0])) {
			t.Errorf("got %q, want one of %q", got, all)
		}
		if len(got) == 1 && got[0] == "" && strings.Join(all, "") != "" {
			t.Errorf("got an empty value, want one of %q", all)
		}
	})
}

// FuzzForwardedFor checks the client IP of events and of the request's context: it is an
// IP or empty, and the peer's unless the peer is a trusted proxy.
func FuzzForwardedFor(f *testing.F) {
	for _, seed := range []struct{ peer, forwardedFor, realIP string }{
		{"192.0.2.1:1234", "", ""},
		{"192.0.2.1:1234", "203.0.113.7", "203.0.113.8"},
		{"10.0.0.1:1234", "203.0.113.7", ""},
		{"10.0.0.1:1234", "198.51.100.1, 203.0.113.7", ""},
		{"10.0.0.1:1234", "203.0.113.7, 10.0.0.2,10.0.0.3", ""},
		{"10.0.0.1:1234", "10.0.0.2", "203.0.113.8"},
		{"10.0.0.1:1234", "unknown, 203.0.113.7:80", "203.0.113.8"},
		{"10.0.0.1:1234", "203.0.113.7,", ""},
		{"10.0.0.1:1234", `{"$ne": null}`, "x\r\nX-Forwarded-For: 203.0.113.7"},
		{"10.0.0.1:1234", "203.0.113.007", "0xcb.0.0x71.7"},
		{"10.0.0.1:1234", strings.Repeat("10.0.0.1,", 1000), "\x00"},
		{"[::1]:1234", "2001:DB8::1", ""},
		{"[::1]:1234", "::ffff:203.0.113.7", ""},
		{"[::1]:1234", "fe80::1%eth0", "[2001:db8::1]"},
		{"[::ffff:10.0.0.1]:1234", "203.0.113.7", ""},
		{"[fe80::1%eth0]:1234", "203.0.113.7", ""},
		{"[::1%\n]:1234", "::1%\n", "::1%$where"},
		{"@", "203.0.113.7", ""},
		{"", "203.0.113.7", ""},
		{"10.0.0.1", "203.0.113.7", ""},
		{" 10.0.0.1:1 ", " 203.0.113.7 ", ""},
		{"0:1", "0", ""},
	} {
		f.Add(seed.peer, seed.forwardedFor, seed.realIP)
	}
	h := newRig(f)
	var reported, passedOn string
	auth := h.auth(f, ginauth.Config{OnEvent: func(_ context.Context, e event.Event) { reported = e.ClientIP }})
	token := inHeader(h.token(f))
	look := func(c *gin.Context) { passedOn = event.ClientIP(c.Request.Context()) }
	proxied, platform := guarded(auth.RequireUser(), look), guarded(auth.RequireUser(), look)
	if err := proxied.SetTrustedProxies([]string{"10.0.0.0/8", "::1"}); err != nil {
		f.Fatal(err)
	}
	platform.TrustedPlatform = "X-Platform"
	isTrusted := func(ip netip.Addr) bool {
		ip = ip.Unmap()
		return ip.Is4() && ip.As4()[0] == 10 || ip == netip.IPv6Loopback()
	}
	f.Fuzz(func(t *testing.T, peer, forwardedFor, realIP string) {
		from := func(r *http.Request) {
			r.RemoteAddr = peer
			r.Header["X-Forwarded-For"] = []string{forwardedFor}
			r.Header["X-Real-Ip"] = []string{realIP}
			r.Header["X-Platform"] = []string{forwardedFor}
		}
		ask := func(r *gin.Engine) string {
			reported, passedOn = "", ""
			wantCode(t, "no token", request(r, "GET", "/", from), http.StatusUnauthorized)
			wantCode(t, "valid token", request(r, "GET", "/", from, token), http.StatusOK)
			if reported != passedOn {
				t.Errorf("got the client IP %q in the event and %q in the context, want one", reported, passedOn)
			}
			if _, err := netip.ParseAddr(reported); reported != "" && err != nil {
				t.Errorf("got %q, want an IP or nothing", reported)
			}
			return reported
		}
		ask(platform)
		got := ask(proxied)
		host, _, _ := net.SplitHostPort(strings.TrimSpace(peer))
		ip, err := netip.ParseAddr(host)
		switch {
		case err != nil || ip.Zone() != "":
			if got != "" {
				t.Errorf("got %q of the peer %q, want nothing", got, peer)
			}
		case !isTrusted(ip):
			if got != ip.Unmap().String() {
				t.Errorf("got %q of the peer %q, want the peer's, whatever the headers say", got, peer)
			}
		default:
			items := strings.Split(forwardedFor, ",")
			// The trusted proxy appends the peer that it saw.
			last := strings.TrimSpace(items[len(items)-1])
			if ip, err := netip.ParseAddr(last); err == nil && ip.Zone() == "" && !isTrusted(ip) && got != last {
				t.Errorf("got %q, want %q, the last of %q", got, last, forwardedFor)
			}
			said := append(items, strings.Split(realIP, ",")...)
			if !slices.ContainsFunc(said, func(s string) bool { return strings.TrimSpace(s) == got }) && got != ip.Unmap().String() {
				t.Errorf("got %q, want an address of the headers, or the peer's", got)
			}
		}
	})
}

func FuzzLoginBody(f *testing.F) {
	const (
		inForm = "application/x-www-form-urlencoded"
		inJSON = "application/json"
		inMIME = "multipart/form-data; boundary=x"
	)
	part := func(name, value string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	ann := part("username", "ann") + part("password", "secret")
	for _, seed := range []struct{ contentType, body string }{
		{inForm, "username=ann&password=secret"},
		{inForm, "grant_type=password&username=ann&password=secret&scope=&client_id=a&client_secret=b"},
		{inForm, "username=ann&username=bob&password=secret"},
		{inForm, "username=&password=secret"},
		{inForm, "username=ann&password="},
		{inForm, "username=ann;password=secret"},
		{inForm, "username[$ne]=&password[$ne]="},
		{inForm, "username=%00&password=%ff"},
		{inForm, "username=%zz&password=+"},
		{inForm, strings.Repeat("&", 1000)},
		{inForm + "; charset=utf-8", "username=ann&password=secret"},
		{inJSON, `{"username": "ann", "password": "secret"}`},
		{inJSON, `{"username": "ann", "username": "bob", "password": "secret"}`},
		{inJSON, `{"username": "ann", "user\u006eame": "bob", "password": "secret"}`},
		{inJSON, `{"username": {"$ne": null}, "password": {"$gt": ""}}`},
		{inJSON, `{"username": ["ann"], "password": [["secret"]]}`},
		{inJSON, `[{"username": "ann", "password": "secret"}]`},
		{inJSON, `{"username": "ann\u0000", "password": "\ud800"}`},
		{inJSON, "{\"username\": \"ann\xff\", \"password\": \"secret\"}"},
		{inJSON, `{"scope": ` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `, "username": "ann", "password": "secret"}`},
		{inJSON, strings.Repeat(`{"username":`, 1000)},
		{inJSON, `{"username": "ann", "password": "secret"} x`},
		{inJSON, `{"username": null, "password": 1e999}`},
		{inJSON, ``},
		{inJSON, "\ufeff{\"username\": \"ann\", \"password\": \"secret\"}"},
		{inJSON, "\ufeff\ufeff{}"},
		{inForm, "\ufeffusername=ann&password=secret"},
		{inMIME, "\ufeff" + ann + "--x--"},
		{inMIME, ann + "--x--\r\n"},
		{inMIME, ann},
		{inMIME, ann[:len(ann)/2]},
		{inMIME, ann + part("username", "bob") + "--x--"},
		{inMIME, strings.Replace(ann, "ann", "\x00\xff", 1) + "--x--"},
		{inMIME, "--x\r\nContent-Disposition: form-data; name=\"username\"; filename=\"a\"\r\n\r\nann\r\n--x--"},
		{inMIME, "--x\r\n\r\nno name\r\n--x--"},
		{inMIME, part("username[$ne]", "") + part("password[$ne]", "") + "--x--"},
		{inMIME, ann + "--x\r\nContent-Disposition: form-data; name=\"a"},
		{inMIME, "preamble\r\n" + ann + "--x--\r\nepilogue --x"},
		{inMIME, strings.Replace(ann, "\r\n\r\nann", "\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--", 1) + "--x--"},
		{inMIME, strings.Repeat("--x\r\n\r\n\r\n", 1000) + "--x--"},
		{"multipart/form-data; boundary=\"x y\"", strings.ReplaceAll(ann, "--x", "--x y") + "--x y--"},
		{"multipart/form-data", ann},
		{"multipart/form-data; boundary=", ann},
		{"text/plain", "username=ann&password=secret"},
		{"", "username=ann&password=secret"},
		{inJSON, strings.Repeat(" ", 16<<10) + "{}"},
	} {
		f.Add(seed.contentType, []byte(seed.body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/login?username=eve&password=eve", bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		username, password, err := ginauth.ReadLogin(w, r)
		if err != nil {
			switch code := ginauth.StatusOf(err); {
			case username != "" || password != "":
				t.Errorf("got %q and %q together with the error %v", username, password, err)
			case code != http.StatusUnsupportedMediaType && code != http.StatusRequestEntityTooLarge && code != http.StatusUnprocessableEntity:
				t.Errorf("got the error %v with the status %d, want 413, 415 or 422", err, code)
			case code == http.StatusRequestEntityTooLarge && len(body) <= 16<<10:
				t.Errorf("got 413 for %d bytes, want it beyond 16 KiB alone", len(body))
			}
			return
		}
		for what, got := range map[string]string{"username": username, "password": password} {
			if got == "" || !utf8.ValidString(got) {
				t.Errorf("got the %s %q, want UTF-8 and not empty", what, got)
			}
		}
		if len(body) > 16<<10 {
			t.Errorf("got %d bytes accepted, want at most 16 KiB", len(body))
		}
		body = bytes.TrimPrefix(body, []byte("\ufeff"))
		switch mediaType, _, _ := mime.ParseMediaType(contentType); mediaType {
		case inJSON:
			checkJSON(t, body, username, password)
		case inForm:
			checkForm(t, body, username, password)
		case "multipart/form-data":
			checkMultipart(t, contentType, body, username, password)
		default:
			t.Errorf("got the type %q accepted", contentType)
		}
	})
}

// checkJSON compares the fields with what encoding/json reads of the whole body.
func checkJSON(t *testing.T, body []byte, username, password string) {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(body, &whole); err != nil {
		t.Fatalf("got broken JSON accepted: %v", err)
	}
	if whole["username"] != username || whole["password"] != password {
		t.Errorf("got %q and %q, want %q and %q", username, password, whole["username"], whole["password"])
	}
	if names := memberNames(t, body); len(names) != len(whole) {
		t.Errorf("got members %q accepted, want each once", names)
	}
}

// memberNames returns the names in a JSON object, duplicates included.
func memberNames(t *testing.T, body []byte) []string {
	t.Helper()
	var names []string
	dec := json.NewDecoder(bytes.NewReader(body))
	depth, isName := 0, false
	for {
		token, err := dec.Token()
		if err != nil {
			return names
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			isName = depth == 1
			continue
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth != 1 {
			continue
		}
		if isName {
			names = append(names, token.(string))
		}
		isName = !isName
	}
}

// checkMultipart compares the fields with what mime/multipart reads of the whole body.
func checkMultipart(t *testing.T, contentType string, body []byte, username, password string) {
	t.Helper()
	_, params, _ := mime.ParseMediaType(contentType)
	whole, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).ReadForm(1 << 20)
	if err != nil {
		t.Fatalf("got a broken multipart body accepted: %v", err)
	}
	for name, want := range map[string]string{"username": username, "password": password} {
		if values := whole.Value[name]; len(values) != 1 || values[0] != want || len(whole.File[name]) > 0 {
			t.Errorf("got the %s %q, want the only one of %q and %d files", name, want, values, len(whole.File[name]))
		}
	}
	for name, values := range whole.Value {
		if len(values) > 1 {
			t.Errorf("got the field %q with the values %q accepted, want one", name, values)
		}
	}
}

// checkForm compares the fields with what net/url reads of the body.
func checkForm(t *testing.T, body []byte, username, password string) {
	t.Helper()
	values, err := url.ParseQuery(string(body))
	if err != nil {
		t.Fatalf("got a broken form accepted: %v", err)
	}
	if values.Get("username") != username || values.Get("password") != password {
		t.Errorf("got %q and %q, want %q and %q", username, password, values.Get("username"), values.Get("password"))
	}
	for name, vs := range values {
		if len(vs) > 1 {
			t.Errorf("got the field %q with the values %q accepted, want one", name, vs)
		}
	}
}
