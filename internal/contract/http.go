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
	"regexp"
	"slices"
	"strings"
	"testing"
)

// answer is the part of an HTTP answer that the contract specifies.
type answer struct {
	Code            int
	ContentType     string
	Body            string
	WWWAuthenticate string
	RetryAfter      string
	SetCookie       string
}

// reply is an answer with all of its headers. The device token that a login returns is in
// device alone: only the rows of login attempts are about it.
type reply struct {
	answer
	header http.Header
	device string
}

const (
	plain   = "text/plain; charset=utf-8"
	inJSON  = "application/json; charset=utf-8"
	noToken = "" // without a token, the challenge has no error code (RFC 6750 §3.1)
)

// noContent is 204 without a body or a cookie.
func noContent() answer { return answer{Code: http.StatusNoContent} }

// welcome is the answer of a guarded route to a user.
func welcome(user Member) answer {
	return answer{Code: http.StatusOK, ContentType: plain, Body: user.Email}
}

// anonymous is the answer of a route behind an optional guard to a request without a user.
func anonymous() answer { return answer{Code: http.StatusOK, ContentType: plain, Body: "anonymous"} }

// inactiveToken is the answer of the introspection route to an invalid token.
func inactiveToken() answer {
	return answer{Code: http.StatusOK, ContentType: inJSON, Body: `{"active":false}`}
}

func refused(code int, detail string) answer {
	return answer{Code: code, ContentType: inJSON, Body: fmt.Sprintf(`{"detail":%q}`, detail)}
}

func badCredentials() answer { return refused(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS") }

func notFound() answer { return refused(http.StatusNotFound, "NOT_FOUND") }

func tooLarge() answer { return refused(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE") }

func unsupported() answer {
	return refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
}

func forbidden() answer { return refused(http.StatusForbidden, "Forbidden") }

func unavailable() answer {
	a := refused(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
	a.RetryAfter = "1"
	return a
}

// unauthorized is 401 with an error code, or noToken, in the challenge.
func (p protocol) unauthorized(code string) answer {
	a := refused(http.StatusUnauthorized, "Unauthorized")
	a.WWWAuthenticate = p.challenge(code)
	return a
}

// stale is the answer to a login that is older than maxAge seconds (RFC 9470).
func (p protocol) stale(maxAge int) answer {
	a := refused(http.StatusUnauthorized, "INSUFFICIENT_USER_AUTHENTICATION")
	if challenge := p.challenge("insufficient_user_authentication"); challenge != "" {
		a.WWWAuthenticate = fmt.Sprintf(`%s, max_age="%d"`, challenge, maxAge)
	}
	return a
}

// insufficientScope is the answer to a token whose scopes do not cover the route (RFC 6750
// §3.1). scope is "" if the route accepts no scoped token.
func (p protocol) insufficientScope(scope string) answer {
	a := forbidden()
	a.WWWAuthenticate = p.challenge("insufficient_scope")
	if a.WWWAuthenticate != "" && scope != "" {
		a.WWWAuthenticate += fmt.Sprintf(`, scope="%s"`, scope)
	}
	return a
}

// badRequest is the answer to malformed credentials.
func (p protocol) badRequest() answer {
	a := refused(http.StatusBadRequest, "Bad Request")
	a.WWWAuthenticate = p.challenge("invalid_request")
	return a
}

// loggedOut is the answer to a successful log-out.
func (p protocol) loggedOut() answer {
	a := noContent()
	a.SetCookie = p.cleared
	return a
}

// notLoggedOut is the answer to a log-out with an invalid token.
func (p protocol) notLoggedOut() answer {
	a := p.unauthorized("invalid_token")
	a.SetCookie = p.cleared
	return a
}

// option changes a request before it is sent.
type option func(*http.Request)

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func authorization(values ...string) option { return header("Authorization", values...) }

// chunked sends the body without its length.
func chunked(r *http.Request) { r.ContentLength = -1 }

func (r *rig) get(path string, options ...option) reply {
	r.t.Helper()
	return r.send(http.MethodGet, path, nothing, options)
}

func (r *rig) post(path string, b body, options ...option) reply {
	r.t.Helper()
	return r.send(http.MethodPost, path, b, options)
}

func (r *rig) delete(path string, options ...option) reply {
	r.t.Helper()
	return r.send(http.MethodDelete, path, nothing, options)
}

func (r *rig) send(method, path string, b body, options []option) reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, strings.NewReader(b.content))
	if err != nil {
		r.t.Fatal(err)
	}
	if b.contentType != "" {
		req.Header.Set("Content-Type", b.contentType)
	}
	for _, option := range options {
		option(req)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read the answer: %v", method, path, err)
	}
	if strings.Contains(path, "/auth/") {
		expectNotStored(r.t, method+" "+path, resp)
	}
	return replyOf(resp, string(content))
}

func replyOf(resp *http.Response, content string) reply {
	resp.Header.Del("Date")
	content, device := takeDevice(resp, content)
	return reply{answer{
		Code:            resp.StatusCode,
		ContentType:     resp.Header.Get("Content-Type"),
		Body:            content,
		WWWAuthenticate: all(resp, "WWW-Authenticate"),
		RetryAfter:      all(resp, "Retry-After"),
		SetCookie:       all(resp, "Set-Cookie"),
	}, resp.Header, device}
}

// deviceCookie is the start of the header that sets the device's cookie, whatever the name of
// the session's cookie is.
var (
	deviceCookie = regexp.MustCompile(`^[\w-]+-device=(lkd_\w+); Path=\S+;( Domain=\S+;)? Max-Age=7776000; HttpOnly;( Secure;)? SameSite=\w+$`)
	deviceInJSON = regexp.MustCompile(`"device_token":"(lkd_\w+)",`)
)

// takeDevice removes the device token from a login's answer, and returns the content that is
// left and the token.
func takeDevice(resp *http.Response, content string) (rest, device string) {
	resp.Header["Set-Cookie"] = slices.DeleteFunc(resp.Header["Set-Cookie"], func(set string) bool {
		found := deviceCookie.FindStringSubmatch(set)
		if found != nil {
			device = found[1]
		}
		return found != nil
	})
	if found := deviceInJSON.FindStringSubmatch(content); found != nil {
		return strings.Replace(content, found[0], "", 1), found[1]
	}
	return content, device
}

func all(resp *http.Response, name string) string {
	return strings.Join(resp.Header.Values(name), "\n")
}

// expectNotStored checks that an answer must not be cached: every answer of the auth routes,
// errors too.
func expectNotStored(t testing.TB, what string, resp *http.Response) {
	t.Helper()
	if got := all(resp, "Cache-Control"); got != "no-store" {
		t.Errorf("%s: %s: got Cache-Control %q, want no-store", what, resp.Status, got)
	}
	if got := all(resp, "Pragma"); got != "no-cache" {
		t.Errorf("%s: %s: got Pragma %q, want no-cache", what, resp.Status, got)
	}
}

func (r *rig) expect(what string, got reply, want answer) {
	r.t.Helper()
	if got.answer != want {
		r.t.Errorf("%s:\n got %+v\nwant %+v", what, got.answer, want)
	}
}

// expectAlike checks that the answers have the same status, body and headers, except Date.
func (r *rig) expectAlike(replies map[string]reply) {
	r.t.Helper()
	names := slices.Sorted(maps.Keys(replies))
	first := names[0]
	for _, name := range names[1:] {
		if !reflect.DeepEqual(replies[name], replies[first]) {
			r.t.Errorf("%s:\n got %+v\nwant the answer to %s:\n     %+v", name, replies[name], first, replies[first])
		}
	}
}

// missing is the type of errors for fields that are missing or empty. The contract does not
// specify the other types.
const (
	missing = "missing"
	anyType = ""
)

// expectInvalid checks that the answer is 422 with one error for each place, such as
// "body.username".
func (r *rig) expectInvalid(what string, got reply, kind string, places ...string) {
	r.t.Helper()
	withoutBody := got.answer
	withoutBody.Body = ""
	if want := (answer{Code: http.StatusUnprocessableEntity, ContentType: inJSON}); withoutBody != want {
		r.t.Errorf("%s:\n got %+v\nwant %+v and a body", what, got.answer, want)
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
		r.t.Errorf("%s: got the body %s: %v", what, got.Body, err)
	}
	var found []string
	for _, e := range content.Detail {
		found = append(found, strings.Join(e.Loc, "."))
		if e.Msg == "" || e.Type == "" || kind != anyType && e.Type != kind {
			r.t.Errorf("%s: got the error %+v, want a message and the type %q", what, e, kind)
		}
	}
	if !slices.Equal(found, places) {
		r.t.Errorf("%s: got errors at %q, want %q", what, found, places)
	}
}

// body is the body of a request.
type body struct{ contentType, content string }

var nothing body

func rawJSON(content string) body { return body{"application/json", content} }

// encodings are the encodings of a body's fields. A field may be given more than once.
var encodings = []struct {
	name string
	of   func(namesAndValues ...string) body
	// tail ends a body so that spaces after it do not change the body's meaning.
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
		_ = w.WriteField(pair[0], pair[1]) // no error: it writes to a buffer
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

// filledUp extends a body to a size without changing its meaning.
func filledUp(b body, tail string, size int) body {
	b.content += tail
	b.content += strings.Repeat(" ", size-len(b.content))
	return b
}

// between returns the part of s between two strings.
func between(s, before, after string) string {
	_, s, _ = strings.Cut(s, before)
	s, _, _ = strings.Cut(s, after)
	return s
}
