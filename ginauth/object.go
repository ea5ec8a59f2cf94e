package ginauth

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"

	"github.com/latchkey-go/latchkey/account"
)

// Body is the JSON object of a request to the routes of accounts. [Hooks] read the
// application's own fields from it, by name. It collects what is wrong, so that the answer
// (422) names all invalid fields. It is for one request and not safe for concurrent use.
type Body struct {
	values map[string]json.RawMessage
	errs   fieldErrors
}

// readBodyObject reads a JSON object from the body.
func readBodyObject(w http.ResponseWriter, r *http.Request) (*Body, error) {
	mediaType, _, err := decoderOf(w, r.Header)
	switch {
	case err != nil:
		return nil, err
	case mediaType != typeJSON:
		return nil, errMediaType
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	members, err := jsonMembers(body)
	if err != nil {
		return nil, err
	}
	b := &Body{values: make(map[string]json.RawMessage, len(members))}
	var twice []string
	for name, values := range members {
		if b.values[name] = values[0]; len(values) > 1 {
			twice = append(twice, name)
		}
	}
	slices.Sort(twice)
	for _, name := range twice {
		b.Invalid(name, "duplicate", "Field given more than once")
	}
	return b, nil
}

// Has reports whether the body has a field, and it is not null.
func (b *Body) Has(name string) bool {
	value, ok := b.values[name]
	return ok && string(value) != "null"
}

// Decode decodes a field into a pointer, as encoding/json does. It leaves the value as it is
// if the field is missing, null or invalid. It reports whether it set the value.
func (b *Body) Decode(name string, into any) bool {
	if !b.Has(name) {
		return false
	}
	fresh := reflect.New(reflect.TypeOf(into).Elem()) // an invalid value must not be half decoded
	if err := json.Unmarshal(b.values[name], fresh.Interface()); err != nil {
		kind, msg := "value_error", "Input is not valid"
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Type != nil {
			kind, msg = typeMessage(wrong.Type.Kind())
		}
		b.Invalid(name, kind, msg)
		return false
	}
	reflect.ValueOf(into).Elem().Set(fresh.Elem())
	return true
}

// Require is [Body.Decode] for a field that must be there.
func (b *Body) Require(name string, into any) bool {
	if !b.Has(name) {
		b.missing(name)
		return false
	}
	return b.Decode(name, into)
}

// Invalid says that a field is invalid. kind is for programs, for example "too_long", and msg
// is for people. The first error of a field counts.
func (b *Body) Invalid(name, kind, msg string) { b.invalid(bodyError(kind, msg, name)) }

func (b *Body) invalid(e FieldError) {
	if !slices.ContainsFunc(b.errs, func(x FieldError) bool { return slices.Equal(x.Loc, e.Loc) }) {
		b.errs = append(b.errs, e)
	}
}

func (b *Body) missing(name string) { b.Invalid(name, "missing", "Field required") }

// text returns a string field that must not be missing or empty.
func (b *Body) text(name string) (s string) {
	if b.Require(name, &s) && s == "" {
		b.missing(name)
	}
	return s
}

// email returns the field email, which must be an address.
func (b *Body) email() string {
	email := b.text("email")
	if email != "" {
		if _, err := account.NormalizeEmail(email); err != nil {
			b.invalid(errNoEmail)
		}
	}
	return email
}

// errNoEmail says that the field email is no address.
var errNoEmail = bodyError("value_error", "Input should be an e-mail address", "email")

// optional returns a field, or nil if it is missing or null.
func optional[T any](b *Body, name string) *T {
	var value T
	if !b.Decode(name, &value) {
		return nil
	}
	return &value
}

// done returns all errors, or nil.
func (b *Body) done() error {
	if len(b.errs) > 0 {
		return b.errs
	}
	return nil
}

func typeMessage(kind reflect.Kind) (code, msg string) {
	switch kind {
	case reflect.String:
		return "string_type", "Input should be a valid string"
	case reflect.Bool:
		return "bool_type", "Input should be a valid boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "int_type", "Input should be a valid integer"
	case reflect.Float32, reflect.Float64:
		return "float_type", "Input should be a valid number"
	case reflect.Slice, reflect.Array:
		return "list_type", "Input should be a valid list"
	}
	return "value_error", "Input is not valid"
}
