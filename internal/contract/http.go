package contract

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// answer is what the contract fixes of an HTTP answer.
type answer struct {
	Code            int
	ContentType     string
	Body            string
	WWWAuthenticate string
	RetryAfter      string
	SetCookie       string
}

// reply is an answer as it came, with all of its headers.
type reply struct {
	answer
	header http.Header
}

const (
	plain   = "text/plain; charset=utf-8"
	inJSON  = "application/json; charset=utf-8"
	noToken = "" // the challenge of RFC 6750 §3.1 has no error code then
)

// noContent is 204 and nothing else.
func noContent() answer { return answer{Code: http.StatusNoContent} }

// welcome is the answer of a guarded route to a user.
func welcome(user Member) answer {
	return answer{Code: http.StatusOK, ContentType: plain, Body: user.Email}
}

// visitor is the answer behind an optional guard to nobody in particular.
func visitor() answer { return answer{Code: http.StatusOK, ContentType: plain, Body: "a visitor"} }

// inactive is the answer of the introspection to a token that is no good.
func inactive() answer {
	return answer{Code: http.StatusOK, ContentType: inJSON, Body: `{"active":false}`}
}

func refused(code int, detail string) answer {
	return answer{Code: code, ContentType: inJSON, Body: fmt.Sprintf(`{"detail":%q}`, detail)}
}

func badCredentials() answer { return refused(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS") }

func forbidden() answer { return refused(http.StatusForbidden, "Forbidden") }

func unavailable() answer {
	a := refused(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	a.RetryAfter = "1"
	return a
}

// unauthorized is 401 with an error code in the challenge, or noToken.
func (w way) unauthorized(oauth string) answer {
	a := refused(http.StatusUnauthorized, "Unauthorized")
	a.WWWAuthenticate = w.challenge(oauth)
	return a
}

// stale is the answer to a login that is not fresh enough (RFC 9470).
func (w way) stale(maxAge int) answer {
	a := refused(http.StatusUnauthorized, "INSUFFICIENT_USER_AUTHENTICATION")
	if challenge := w.challenge("insufficient_user_authentication"); challenge != "" {
		a.WWWAuthenticate = fmt.Sprintf(`%s, max_age="%d"`, challenge, maxAge)
	}
	return a
}

// insufficientScope is the answer to a token whose scopes do not cover the route
// (RFC 6750 §3.1); "" where the route takes no token with scopes.
func (w way) insufficientScope(scope string) answer {
	a := forbidden()
	a.WWWAuthenticate = w.challenge("insufficient_scope")
	if a.WWWAuthenticate != "" && scope != "" {
		a.WWWAuthenticate += fmt.Sprintf(`, scope="%s"`, scope)
	}
	return a
}

// badRequest is the answer to credentials that nobody can read.
func (w way) badRequest() answer {
	a := refused(http.StatusBadRequest, "Bad Request")
	a.WWWAuthenticate = w.challenge("invalid_request")
	return a
}

// loggedOut is the answer to a log-out that succeeded.
func (w way) loggedOut() answer {
	a := noContent()
	a.SetCookie = w.cleared
	return a
}

// notLoggedOut is the answer to a log-out with a token that is no longer good.
func (w way) notLoggedOut() answer {
	a := w.unauthorized("invalid_token")
	a.SetCookie = w.cleared
	return a
}

// option changes a request before it is sent.
type option func(*http.Request)

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func authorization(values ...string) option { return header("Authorization", values...) }

// chunked leaves the body's length out.
func chunked(r *http.Request) { r.ContentLength = -1 }

func (a *app) get(path string, options ...option) reply {
	a.t.Helper()
	return a.send(http.MethodGet, path, nothing, options)
}

func (a *app) post(path string, b body, options ...option) reply {
	a.t.Helper()
	return a.send(http.MethodPost, path, b, options)
}

func (a *app) delete(path string, options ...option) reply {
	a.t.Helper()
	return a.send(http.MethodDelete, path, nothing, options)
}

func (a *app) send(method, path string, b body, options []option) reply {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(b.content))
	if err != nil {
		a.t.Fatal(err)
	}
	if b.contentType != "" {
		req.Header.Set("Content-Type", b.contentType)
	}
	for _, option := range options {
		option(req)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		a.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	if strings.HasPrefix(path, "/auth/") {
		expectNotStored(a.t, method+" "+path, resp)
	}
	return replyOf(resp, string(content))
}

func replyOf(resp *http.Response, content string) reply {
	resp.Header.Del("Date")
	return reply{answer{
		Code:            resp.StatusCode,
		ContentType:     resp.Header.Get("Content-Type"),
		Body:            content,
		WWWAuthenticate: all(resp, "WWW-Authenticate"),
		RetryAfter:      all(resp, "Retry-After"),
		SetCookie:       all(resp, "Set-Cookie"),
	}, resp.Header}
}

func all(resp *http.Response, name string) string {
	return strings.Join(resp.Header.Values(name), "\n")
}

// expectNotStored holds for every answer of the auth routes, errors too.
func expectNotStored(t testing.TB, what string, resp *http.Response) {
	t.Helper()
	if got := all(resp, "Cache-Control"); got != "no-store" {
		t.Errorf("%s: %s: got Cache-Control %q, want no-store", what, resp.Status, got)
	}
	if got := all(resp, "Pragma"); got != "no-cache" {
		t.Errorf("%s: %s: got Pragma %q, want no-cache", what, resp.Status, got)
	}
}

func (a *app) expect(what string, got reply, want answer) {
	a.t.Helper()
	if got.answer != want {
		a.t.Errorf("%s:\n got %+v\nwant %+v", what, got.answer, want)
	}
}

// expectAlike holds where a client must not see a difference: in status, body
// and headers besides Date.
func (a *app) expectAlike(replies map[string]reply) {
	a.t.Helper()
	names := slices.Sorted(maps.Keys(replies))
	first := names[0]
	for _, name := range names[1:] {
		if !reflect.DeepEqual(replies[name], replies[first]) {
			a.t.Errorf("%s:\n got %+v\nwant the answer to %s:\n     %+v", name, replies[name], first, replies[first])
		}
	}
}

// missing is the type of errors for fields that are missing or empty. The other
// types are not in the contract.
const (
	missing = "missing"
	anyType = ""
)

// expectInvalid wants 422 with one error for each place, such as
// "body.username".
func (a *app) expectInvalid(what string, got reply, kind string, places ...string) {
	a.t.Helper()
	shell := got.answer
	shell.Body = ""
	if want := (answer{Code: http.StatusUnprocessableEntity, ContentType: inJSON}); shell != want {
		a.t.Errorf("%s:\n got %+v\nwant %+v and a body", what, got.answer, want)
		return
	}
	var content struct {
		Detail []struct {
			Loc  []string `json:"loc"`
			Msg  string   `json:"msg"`
			Type string   `json:"type"`
		} `json:"detail"`
	}
	dec := json.NewDecoder(strings.NewReader(got.Body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&content); err != nil {
		a.t.Errorf("%s: got the body %s: %v", what, got.Body, err)
	}
	var found []string
	for _, e := range content.Detail {
		found = append(found, strings.Join(e.Loc, "."))
		if e.Msg == "" || e.Type == "" || kind != anyType && e.Type != kind {
			a.t.Errorf("%s: got the error %+v, want a message and the type %q", what, e, kind)
		}
	}
	if !slices.Equal(found, places) {
		a.t.Errorf("%s: got errors at %q, want %q", what, found, places)
	}
}

// body is the body of a request.
type body struct{ contentType, content string }

var nothing body

func rawJSON(content string) body { return body{"application/json", content} }

// encodings are the ways to write a login's fields down; a field may be given
// more than once.
var encodings = []struct {
	name string
	of   func(namesAndValues ...string) body
	// tail can be followed by spaces without a change of the meaning.
	tail string
}{
	{"urlencoded", asForm, "&filler="},
	{"multipart", asMultipart, "\r\n"},
	{"JSON", asJSON, ""},
}

func asForm(namesAndValues ...string) body {
	var fields []string
	for pair := range slices.Chunk(namesAndValues, 2) {
		fields = append(fields, url.QueryEscape(pair[0])+"="+url.QueryEscape(pair[1]))
	}
	return body{"application/x-www-form-urlencoded", strings.Join(fields, "&")}
}

func asMultipart(namesAndValues ...string) body {
	var content bytes.Buffer
	w := multipart.NewWriter(&content)
	for pair := range slices.Chunk(namesAndValues, 2) {
		_ = w.WriteField(pair[0], pair[1]) // no error: it is a buffer
	}
	_ = w.Close()
	return body{w.FormDataContentType(), content.String()}
}

func asJSON(namesAndValues ...string) body {
	var members []string
	for pair := range slices.Chunk(namesAndValues, 2) {
		members = append(members, quoted(pair[0])+": "+quoted(pair[1]))
	}
	return rawJSON("{" + strings.Join(members, ", ") + "}")
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // no error: it is a string
	return string(b)
}

// filledUp returns a body of a size that means the same.
func filledUp(b body, tail string, size int) body {
	b.content += tail
	b.content += strings.Repeat(" ", size-len(b.content))
	return b
}

// between returns what stands between two strings.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}
