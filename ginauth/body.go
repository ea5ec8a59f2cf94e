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
	"slices"
	"strings"
	"unicode/utf8"
)

// maxBody is far more than a name and a password need.
const maxBody = 16 << 10

// loginForm is the body of a login request.
type loginForm struct {
	username, password string
}

// fieldError says what is wrong with a field of the body, in the shape that
// FastAPI's clients know.
type fieldError struct {
	Loc  []string `json:"loc"`
	Msg  string   `json:"msg"`
	Type string   `json:"type"`
}

type fieldErrors []fieldError

func (e fieldErrors) Error() string { return "invalid body" }

func wrong(kind, msg string, loc ...string) fieldError {
	return fieldError{append([]string{"body"}, loc...), msg, kind}
}

// readLogin reads a login request's body: never its URL, which ends up in logs.
func readLogin(w http.ResponseWriter, r *http.Request) (loginForm, error) {
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return loginForm{}, errMediaType
	}
	var decode func([]byte) (fields, error)
	switch mediaType {
	case "application/x-www-form-urlencoded":
		decode = decodeForm
	case "multipart/form-data":
		decode = func(body []byte) (fields, error) { return decodeMultipart(body, params["boundary"]) }
	case "application/json":
		decode = decodeJSON
	default:
		return loginForm{}, errMediaType
	}
	body, err := readBody(w, r)
	if err != nil {
		return loginForm{}, err
	}
	f, err := decode(body)
	if err != nil {
		return loginForm{}, err
	}
	return f.login()
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.Body == nil {
		return nil, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errBodyTooLarge
	case err != nil:
		return nil, fieldErrors{wrong("body_incomplete", "The body could not be read to its end")}
	}
	return body, nil
}

// fields are the fields of a body, each with the values that it was given. A
// value is a string, nil (JSON's null), or something else that is not welcome.
type fields map[string][]any

// login picks the login out of the fields. It reports everything that is wrong
// at once.
func (f fields) login() (loginForm, error) {
	var errs fieldErrors
	text := func(name string, required bool) string {
		if len(f[name]) > 1 {
			return "" // reported below
		}
		var value any
		if len(f[name]) == 1 {
			value = f[name][0]
		}
		s, ok := value.(string)
		switch {
		case value != nil && !ok:
			errs = append(errs, wrong("string_type", "Input should be a valid string", name))
		case required && s == "":
			errs = append(errs, wrong("missing", "Field required", name))
		case !utf8.ValidString(s):
			errs = append(errs, wrong("string_unicode", "Input should be valid UTF-8", name))
		}
		return s
	}
	if grant := text("grant_type", false); grant != "" && grant != "password" {
		errs = append(errs, wrong("string_pattern_mismatch", "grant_type should be 'password'", "grant_type"))
	}
	form := loginForm{username: text("username", true), password: text("password", true)}
	var twice []string
	for name, values := range f {
		if len(values) > 1 {
			twice = append(twice, strings.ToValidUTF8(name, "�"))
		}
	}
	slices.Sort(twice)
	for _, name := range twice {
		errs = append(errs, wrong("duplicate", "Field given more than once", name))
	}
	if len(errs) > 0 {
		return loginForm{}, errs
	}
	return form, nil
}

func decodeForm(body []byte) (fields, error) {
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, fieldErrors{wrong("form_invalid", "The body is not a valid form")}
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
	broken := fieldErrors{wrong("form_invalid", "The body is not valid multipart/form-data")}
	if boundary == "" {
		return nil, broken
	}
	f := make(fields)
	for r := multipart.NewReader(bytes.NewReader(body), boundary); ; {
		part, err := r.NextPart()
		if err == io.EOF { // itself: a body that breaks off wraps it
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
			value = content // a file where a text is wanted
		}
		f[part.FormName()] = append(f[part.FormName()], value)
	}
}

// decodeJSON reads a JSON object member by member, because encoding/json lets
// the last of several members with one name win.
func decodeJSON(body []byte) (fields, error) {
	broken := fieldErrors{wrong("json_invalid", "The body is not a valid JSON object")}
	if !utf8.Valid(body) {
		return nil, broken
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, broken
	}
	f := make(fields)
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, broken
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return nil, broken
		}
		key, ok := name.(string)
		if !ok {
			return nil, broken
		}
		f[key] = append(f[key], value)
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, broken
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, broken
	}
	return f, nil
}
