package ginauth

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// The errors that the methods of an [Auth] return and Config.OnUnauthorized is
// given, beside those of strategy and account.
var (
	// ErrNoCredentials means that a request carries no token.
	ErrNoCredentials = errors.New("no credentials")
	// ErrNotFresh means that the route asks for a more recent login; see [Fresh].
	ErrNotFresh = errors.New("the login was too long ago")
	// ErrCrossOrigin means that a page of another origin may have made a browser
	// send the request; see Config.TrustedOrigins.
	ErrCrossOrigin = errors.New("cross-origin request")
	// ErrNotVerified means that the password was right, and that the user is not
	// verified and has to be; see Config.RequireVerified.
	ErrNotVerified = errors.New("user is not verified")
)

var (
	errBadRequest   = errors.New("malformed credentials")
	errForbidden    = errors.New("forbidden")
	errMediaType    = errors.New("unsupported media type")
	errBodyTooLarge = errors.New("body too large")
	errBodyTooSlow  = errors.New("body too slow")
	errUnavailable  = errors.New("unavailable")
)

// expected returns which of the reasons that a call may give is in an error.
// Every other error becomes errUnavailable, whatever it wraps: a failure of the
// application's database, service or check decides nothing.
func expected(err error, reasons ...error) error {
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return reason
		}
	}
	return &unavailable{err}
}

// unavailable is errUnavailable with its cause, which it does not wrap.
type unavailable struct{ cause error }

func (e *unavailable) Error() string        { return e.cause.Error() }
func (e *unavailable) Is(target error) bool { return target == errUnavailable }

// cause returns an error for those who asked for something to be done.
func cause(err error) error {
	if u, ok := err.(*unavailable); ok {
		return u.cause
	}
	return err
}

// passwordRefused is expected for those who check a password.
func passwordRefused(err error) error {
	var tooMany *account.TooManyAttemptsError
	switch {
	case errors.As(err, &tooMany):
		return tooMany
	case errors.Is(err, account.ErrTooManyAttempts):
		return &account.TooManyAttemptsError{} // it does not say for how long
	}
	return expected(err, account.ErrBadCredentials)
}

// answer is how an error looks to the client.
type answer struct {
	code int
	// detail is a code, or fields says what is wrong with the body.
	detail string
	fields fieldErrors
	// challenge says whether WWW-Authenticate goes with it, and params what is in
	// it beside the realm.
	challenge bool
	params    string
	// retryAfter is when to try again, at least a second; 0 where that is of no use.
	retryAfter time.Duration
}

// staleError means that the route asks for a more recent login (RFC 9470).
type staleError struct{ maxAge time.Duration }

func (e *staleError) Error() string { return ErrNotFresh.Error() }
func (e *staleError) Unwrap() error { return ErrNotFresh }

// scopeError means that the token's scopes do not cover the route (RFC 6750
// §3.1). Without scopes, the route takes no token with scopes.
type scopeError struct{ scopes []string }

func (e *scopeError) Error() string { return "insufficient scope" }

// status is the one place that turns an error into an answer. What it does not
// know is a failure of ours: 503, and never a log-out.
func status(err error) answer {
	// Those of a flood come first, and allocate nothing.
	switch {
	case errors.Is(err, ErrNoCredentials):
		return answer{code: http.StatusUnauthorized, detail: "Unauthorized", challenge: true}
	case errors.Is(err, strategy.ErrInvalidToken):
		return answer{code: http.StatusUnauthorized, detail: "Unauthorized", challenge: true, params: invalidToken}
	case errors.Is(err, errBadRequest):
		return answer{code: http.StatusBadRequest, detail: "Bad Request", challenge: true, params: invalidRequest}
	}
	return statusOfRest(err)
}

// The params of a flood's challenges.
const invalidToken, invalidRequest = `error="invalid_token"`, `error="invalid_request"`

func statusOfRest(err error) answer {
	var (
		invalid fieldErrors
		stale   *staleError
		scope   *scopeError
		tooMany *account.TooManyAttemptsError
	)
	switch {
	case errors.As(err, &stale):
		return answer{code: http.StatusUnauthorized, detail: "INSUFFICIENT_USER_AUTHENTICATION", challenge: true,
			params: fmt.Sprintf(`error="insufficient_user_authentication", max_age="%d"`, max(0, int64(stale.maxAge/time.Second)))}
	case errors.As(err, &scope):
		params := `error="insufficient_scope"`
		if len(scope.scopes) > 0 {
			params += fmt.Sprintf(`, scope="%s"`, strings.Join(scope.scopes, " "))
		}
		return answer{code: http.StatusForbidden, detail: "Forbidden", challenge: true, params: params}
	case errors.Is(err, strategy.ErrSessionNotFound):
		return answer{code: http.StatusNotFound, detail: "NOT_FOUND"}
	case errors.Is(err, strategy.ErrTooManySessions):
		return answer{code: http.StatusConflict, detail: "TOO_MANY_SESSIONS"}
	case errors.Is(err, ErrCrossOrigin):
		return answer{code: http.StatusForbidden, detail: "CROSS_ORIGIN_REQUEST"}
	case errors.Is(err, errForbidden):
		return answer{code: http.StatusForbidden, detail: "Forbidden"}
	case errors.Is(err, account.ErrBadCredentials), errors.Is(err, strategy.ErrUserInactive):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_BAD_CREDENTIALS"}
	case errors.Is(err, ErrNotVerified):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_USER_NOT_VERIFIED"}
	case errors.As(err, &tooMany):
		return answer{code: http.StatusTooManyRequests, detail: "TOO_MANY_ATTEMPTS", retryAfter: max(tooMany.RetryAfter, time.Second)}
	case errors.As(err, &invalid):
		return answer{code: http.StatusUnprocessableEntity, fields: invalid}
	case errors.Is(err, errMediaType):
		return answer{code: http.StatusUnsupportedMediaType, detail: "UNSUPPORTED_MEDIA_TYPE"}
	case errors.Is(err, errBodyTooLarge):
		return answer{code: http.StatusRequestEntityTooLarge, detail: "BODY_TOO_LARGE"}
	case errors.Is(err, errBodyTooSlow):
		return answer{code: http.StatusRequestTimeout, detail: "REQUEST_TIMEOUT"}
	}
	return answer{code: http.StatusServiceUnavailable, detail: "SERVICE_UNAVAILABLE", retryAfter: time.Second}
}

// refuse answers a request with an error and keeps the handlers that follow from
// running.
func (a *Auth[U]) refuse(c *gin.Context, err error) {
	a.boundBody(c)
	ans := status(err)
	if ans.retryAfter > 0 {
		c.Header("Retry-After", strconv.FormatInt(int64((ans.retryAfter+time.Second-1)/time.Second), 10))
	}
	if ans.challenge && a.realm != "" {
		c.Writer.Header()["Www-Authenticate"] = a.challenge(ans.params)
	}
	if ans.fields != nil {
		c.AbortWithStatusJSON(ans.code, gin.H{"detail": ans.fields})
		return
	}
	c.Abort()
	c.Writer.Header()["Content-Type"] = contentTypeJSON
	c.Status(ans.code)
	// An error means that the client has gone. No code needs escaping.
	for _, part := range [...]string{`{"detail":"`, ans.detail, `"}`} {
		_, _ = c.Writer.WriteString(part)
	}
}

var contentTypeJSON = []string{"application/json; charset=utf-8"}

// challenge is the value of a WWW-Authenticate header.
func (a *Auth[U]) challenge(params string) []string {
	if ready := a.challenges[params]; ready != nil {
		return ready
	}
	value := `Bearer realm="` + a.realm + `"`
	if params != "" {
		value += ", " + params
	}
	return []string{value}
}
