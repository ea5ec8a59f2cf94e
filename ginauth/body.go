package ginauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody bounds a body, in bytes. A name and a password need far less.
const maxBody = 16 << 10

// fieldErrors are the invalid fields of a request.
type fieldErrors []FieldError

func (e fieldErrors) Error() string { return "invalid body" }

// bodyError returns the error of a field, or of the body as a whole.
func bodyError(kind, msg string, loc ...string) FieldError {
	return FieldError{append([]string{"body"}, loc...), msg, kind}
}

// readOptionalForm is readForm for a request that may be without a body, or with JSON's
// null.
func readOptionalForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	if !hasBody(r) {
		return &form{}, nil
	}
	// A body of unknown length can be empty: read it first.
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	if len(body) == 0 {
		return &form{}, nil
	}
	mediaType, decode, err := decoderOf(w, r.Header)
	if err != nil {
		return nil, err
	}
	if mediaType == typeJSON && string(bytes.TrimSpace(body)) == "null" {
		return &form{}, nil
	}
	return newForm(decode(body))
}

// readForm reads a form from the body. It ignores the URL, which ends up in logs.
func readForm(w http.ResponseWriter, r *http.Request) (*form, error) {
	_, decode, err := decoderOf(w, r.Header)
	if err != nil {
		return nil, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	return newForm(decode(body))
}

// The media types of bodies.
const (
	typeJSON      = "application/json"
	typeForm      = "application/x-www-form-urlencoded"
	typeMultipart = "multipart/form-data"
)

// decoderOf returns the media type of a body, and the function that decodes it.
func decoderOf(w http.ResponseWriter, h http.Header) (mediaType string, decode func([]byte) (fields, error), err error) {
	for _, value := range h["Content-Encoding"] {
		for coding := range strings.SplitSeq(value, ",") {
			if coding = strings.TrimSpace(coding); coding != "" && !strings.EqualFold(coding, "identity") {
				w.Header().Set("Accept-Encoding", "identity") // RFC 9110 §15.5.16
				return "", nil, errMediaType
			}
		}
	}
	mediaType, params, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return "", nil, errMediaType
	}
	switch mediaType {
	case typeForm:
		return mediaType, decodeForm, nil
	case typeMultipart:
		return mediaType, func(body []byte) (fields, error) { return decodeMultipart(body, params["boundary"]) }, nil
	case typeJSON:
		return mediaType, decodeJSON, nil
	}
	return "", nil, errMediaType
}

// readUntil bounds how long the body may take. It matters for a body that is not read too:
// the server reads on to its end before it answers. The zero time removes the bound.
func readUntil(deadline time.Time, w http.ResponseWriter, r *http.Request) {
	// Do not extend the server's own timeout.
	if server, _ := r.Context().Value(http.ServerContextKey).(*http.Server); server == nil || server.ReadTimeout <= 0 {
		_ = http.NewResponseController(w).SetReadDeadline(deadline) // not every server supports it
	}
}

// boundBody bounds the body of a request to the package's routes, or of one that is answered
// without it.
func (a *Auth[U]) boundBody(w http.ResponseWriter, r *http.Request) {
	if hasBody(r) {
		readUntil(time.Now().Add(a.cfg.BodyTimeout), w, r)
	}
}

// boundIgnoredBody bounds the body of a GET or HEAD request that a guard lets through. It has no
// meaning (RFC 9110 §9.3.1), and handlers do not read it.
func (a *Auth[U]) boundIgnoredBody(w http.ResponseWriter, r *http.Request) {
	if hasBody(r) && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		a.boundBody(w, r)
		r.Body = &boundedBody{r.Body, func() { readUntil(time.Time{}, w, r) }}
	}
}

// boundedBody removes the bound when a handler has read the body after all. An old deadline
// would make the server close the connection while it answers.
type boundedBody struct {
	io.ReadCloser
	unbound func()
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.unbound()
	}
	return n, err
}

// hasBody reports whether a request has a body, or may have one of unknown length.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	if r.ContentLength > maxBody {
		return nil, errBodyTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errBodyTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, errBodyTooSlow
	case err != nil:
		return nil, fieldErrors{bodyError("body_incomplete", "The body could not be read to its end")}
	}
	// An old deadline would make the server close the connection while it answers.
	readUntil(time.Time{}, w, r)
	r.Body = http.NoBody
	return bytes.TrimPrefix(body, []byte("\ufeff")), nil // the byte order mark of some editors
}

// fields maps the fields of a body to their values. A value is a string, a bool, nil
// (JSON's null), or of a type that no field accepts.
type fields map[string][]any

// form reads fields and collects their errors.
type form struct {
	fields fields
	errs   fieldErrors
}

func newForm(f fields, err error) (*form, error) {
	if err != nil {
		return nil, err
	}
	return &form{fields: f}, nil
}

// value returns a field's value, or nil if it is missing or occurs twice; done reports
// the latter.
func (f *form) value(name string) any {
	if len(f.fields[name]) != 1 {
		return nil
	}
	return f.fields[name][0]
}

func (f *form) fail(name, kind, msg string) { f.errs = append(f.errs, bodyError(kind, msg, name)) }

// text returns a string field, or "" if it is missing.
func (f *form) text(name string) string {
	value := f.value(name)
	s, ok := value.(string)
	switch {
	case value != nil && !ok:
		f.fail(name, "string_type", "Input should be a valid string")
	case !utf8.ValidString(s):
		f.fail(name, "string_unicode", "Input should be valid UTF-8")
	}
	return s
}

// required returns a string field that must not be missing or empty.
func (f *form) required(name string) string {
	n := len(f.errs)
	s := f.text(name)
	if s == "" && len(f.errs) == n && len(f.fields[name]) < 2 {
		f.fail(name, "missing", "Field required")
	}
	return s
}

// flag returns a boolean field, or false if it is missing. In forms it accepts the spellings
// of browsers and of FastAPI's clients.
func (f *form) flag(name string) bool {
	switch value := f.value(name).(type) {
	case nil:
		return false
	case bool:
		return value
	case string:
		switch strings.ToLower(value) {
		case "true", "1", "on", "yes":
			return true
		case "false", "0", "off", "no", "":
			return false
		}
	}
	f.fail(name, "bool_parsing", "Input should be a valid boolean")
	return false
}

// done returns all errors, or nil.
func (f *form) done() error {
	var twice []string
	for name, values := range f.fields {
		if len(values) > 1 {
			twice = append(twice, strings.ToValidUTF8(name, "�"))
		}
	}
	slices.Sort(twice)
	for _, name := range twice {
		f.fail(name, "duplicate", "Field given more than once")
	}
	if len(f.errs) > 0 {
		return f.errs
	}
	return nil
}

// loginForm is the body of a login request.
type loginForm struct {
	username, password string
	remember           bool
	device             string // the device token of an earlier login
}

func readLogin(w http.ResponseWriter, r *http.Request) (loginForm, error) {
	f, err := readForm(w, r)
	if err != nil {
		return loginForm{}, err
	}
	return f.login()
}

func (f *form) login() (loginForm, error) {
	if grant := f.text("grant_type"); grant != "" && grant != "password" {
		f.fail("grant_type", "string_pattern_mismatch", "grant_type should be 'password'")
	}
	login := loginForm{username: f.required("username"), password: f.required("password"), remember: f.flag("remember"), device: f.text("device_token")}
	if err := f.done(); err != nil {
		return loginForm{}, err
	}
	return login, nil
}

func decodeForm(body []byte) (fields, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fieldErrors{bodyError("form_invalid", "The body is not a valid form")}
	}
	f := make(fields, len(values))
	for name, vs := range values {
		for _, v := range vs {
			f[name] = append(f[name], v)
		}
	}
	return f, nil
}

func decodeMultipart(body []byte, boundary string) (fields, error) {
	broken := fieldErrors{bodyError("form_invalid", "The body is not valid multipart/form-data")}
	if boundary == "" {
		return nil, broken
	}
	f := make(fields)
	for r := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := r.NextPart()
		// A truncated body wraps io.EOF, unless it ends in the header of a part: look for
		// the final boundary.
		if err == io.EOF && bytes.Contains(body, []byte("--"+boundary+"--")) {
			return f, nil
		}
		if err != nil {
			return nil, broken
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, broken
		}
		var value any = string(content)
		if part.FileName() != "" {
			value = content // a file: no field accepts it
		}
		f[part.FormName()] = append(f[part.FormName()], value)
	}
}

// decodeJSON reads the fields of a JSON object.
func decodeJSON(body []byte) (fields, error) {
	members, err := jsonMembers(body)
	if err != nil {
		return nil, err
	}
	f := make(fields, len(members))
	for name, values := range members {
		for _, raw := range values {
			var value any
			if err := json.Unmarshal(raw, &value); err != nil { // a number that is too large
				return nil, errInvalidJSON
			}
			f[name] = append(f[name], value)
		}
	}
	return f, nil
}

var errInvalidJSON = fieldErrors{bodyError("json_invalid", "The body is not a valid JSON object")}

// jsonMembers reads a JSON object member by member. encoding/json would keep only the last of
// the members with one name.
func jsonMembers(body []byte) (map[string][]json.RawMessage, error) {
	if !utf8.Valid(body) {
		return nil, errInvalidJSON
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errInvalidJSON
	}
	members := make(map[string][]json.RawMessage)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errInvalidJSON
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errInvalidJSON
		}
		key, ok := name.(string)
		if !ok {
			return nil, errInvalidJSON
		}
		members[key] = append(members[key], value)
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errInvalidJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errInvalidJSON
	}
	return members, nil
}
