package ginauth_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
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
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header["Cookie"] = []string{header}
		token, err := ginauth.TokenOf(ginauth.Cookie{}, r)
		values := make(map[string]bool)
		for _, cookie := range r.CookiesNamed(name) {
			values[cookie.Value] = true
		}
		switch {
		case len(values) > 1:
			if token != "" || !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("several values: got %q and %v, want %v", token, err, strategy.ErrInvalidToken)
			}
		case err != nil:
			t.Errorf("got the error %v, want none", err)
		case token != "" && (!values[token] || !strings.Contains(header, token)):
			t.Errorf("got %q, want it to be in the header", token)
		case token == "" && len(values) == 1 && !values[""]:
			t.Errorf("got no token, want one of %v", values)
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
		{inMIME, ann + "--x--\r\n"},
		{inMIME, ann},
		{inMIME, ann[:len(ann)/2]},
		{inMIME, ann + part("username", "bob") + "--x--"},
		{inMIME, strings.Replace(ann, "ann", "\x00\xff", 1) + "--x--"},
		{inMIME, "--x\r\nContent-Disposition: form-data; name=\"username\"; filename=\"a\"\r\n\r\nann\r\n--x--"},
		{inMIME, "--x\r\n\r\nno name\r\n--x--"},
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
		switch mediaType, _, _ := mime.ParseMediaType(contentType); mediaType {
		case inJSON:
			checkJSON(t, body, username, password)
		case inForm:
			checkForm(t, body, username, password)
		case "multipart/form-data":
		default:
			t.Errorf("got the type %q accepted", contentType)
		}
	})
}

// checkJSON compares what was read with what encoding/json makes of an accepted
// body as a whole.
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

// memberNames returns the names in a JSON object, also those that are there
// twice. It counts the depth of every token.
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

// checkForm compares what was read with what net/url makes of an accepted body.
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
