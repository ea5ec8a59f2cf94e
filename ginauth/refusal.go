package ginauth

import (
	"net/http"
	"time"
)

// Refusal is the answer to a request that is not served: by a guard, by one of the package's
// routes, or by [Auth.Refuse]. It is an error that wraps its cause.
type Refusal struct {
	// Status is the HTTP status, that of a CodeError or 400, 401, 403, 404, 408, 409, 413, 415, 422, 429 or 503.
	Status int
	// Code says what is wrong, for programs: a code of the contract, such as
	// LOGIN_BAD_CREDENTIALS. It is "" for a 422, whose Fields say it.
	Code string
	// Reason says in English why a new password was rejected; "" for other refusals. It can be
	// the text of an error of account.Config.CheckPassword.
	Reason string
	// ReasonCode says the same for programs: PASSWORD_TOO_SHORT, PASSWORD_TOO_LONG or
	// PASSWORD_REJECTED.
	ReasonCode string
	// Fields are the invalid fields of a 422.
	Fields []FieldError
	// RetryAfter is when to try again, of a 429 or 503; else 0.
	RetryAfter time.Duration
	// Err is the cause. It can be for the application alone: do not show its text.
	Err error
}

// FieldError is an invalid field of a body or a query.
type FieldError struct {
	// Loc is where the field is: "body" or "query", and its name.
	Loc []string `json:"loc"`
	// Msg says what is wrong, in English.
	Msg string `json:"msg"`
	// Type says the same for programs, for example "missing".
	Type string `json:"type"`
}

// Error implements error.
func (r *Refusal) Error() string { return r.Err.Error() }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// WriteJSON writes the status and the contract's JSON, as without a hook.
func (r *Refusal) WriteJSON(w http.ResponseWriter) {
	answer{code: r.Status, detail: r.Code, reason: r.Reason, why: r.ReasonCode, fields: r.Fields}.write(w)
}
