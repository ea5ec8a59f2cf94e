package ginauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

var (
	errNoCredentials = errors.New("no credentials")
	errBadRequest    = errors.New("malformed credentials")
	errForbidden     = errors.New("forbidden")
	errNotVerified   = errors.New("user is not verified")
	errMediaType     = errors.New("unsupported media type")
	errBodyTooLarge  = errors.New("body too large")
	errUnavailable   = errors.New("unavailable")
	errCrossOrigin   = errors.New("cross-origin request")
)

// expected returns which of the reasons that a call may give is in an error.
// Every other error is errUnavailable, whatever it wraps: a failure of the
// application's database, service or check decides nothing.
func expected(err error, reasons ...error) error {
	for _, reason := range reasons {
		if errors.Is(err, reason) {
			return reason
		}
	}
	return errUnavailable
}

// answer is how an error looks to the client.
type answer struct {
	code   int
	detail any
	// challenge says whether WWW-Authenticate goes with it, and params what is in
	// it beside the realm.
	challenge bool
	params    string
}

// staleError means that the route asks for a more recent login (RFC 9470).
type staleError struct{ maxAge time.Duration }

func (e *staleError) Error() string { return "the login was too long ago" }

// scopeError means that the token's scopes do not cover the route (RFC 6750
// §3.1). Without scopes, the route takes no token with scopes.
type scopeError struct{ scopes []string }

func (e *scopeError) Error() string { return "insufficient scope" }

// status is the one place that turns an error into an answer. What it does not
// know is a failure of ours: 503, and never a log-out.
func status(err error) answer {
	var (
		invalid fieldErrors
		stale   *staleError
		scope   *scopeError
	)
	switch {
	case errors.Is(err, errNoCredentials):
		return answer{code: http.StatusUnauthorized, detail: "Unauthorized", challenge: true}
	case errors.Is(err, strategy.ErrInvalidToken):
		return answer{code: http.StatusUnauthorized, detail: "Unauthorized", challenge: true, params: `error="invalid_token"`}
	case errors.Is(err, errBadRequest):
		return answer{code: http.StatusBadRequest, detail: "Bad Request", challenge: true, params: `error="invalid_request"`}
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
	case errors.Is(err, errCrossOrigin):
		return answer{code: http.StatusForbidden, detail: "CROSS_ORIGIN_REQUEST"}
	case errors.Is(err, errForbidden):
		return answer{code: http.StatusForbidden, detail: "Forbidden"}
	case errors.Is(err, account.ErrBadCredentials), errors.Is(err, strategy.ErrUserInactive):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_BAD_CREDENTIALS"}
	case errors.Is(err, errNotVerified):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_USER_NOT_VERIFIED"}
	case errors.As(err, &invalid):
		return answer{code: http.StatusUnprocessableEntity, detail: invalid}
	case errors.Is(err, errMediaType):
		return answer{code: http.StatusUnsupportedMediaType, detail: "UNSUPPORTED_MEDIA_TYPE"}
	case errors.Is(err, errBodyTooLarge):
		return answer{code: http.StatusRequestEntityTooLarge, detail: "BODY_TOO_LARGE"}
	}
	return answer{code: http.StatusServiceUnavailable, detail: "SERVICE_UNAVAILABLE"}
}

// refuse answers a request with an error and keeps the handlers that follow from
// running.
func (a *Auth[U]) refuse(c *gin.Context, err error) {
	ans := status(err)
	if ans.code == http.StatusServiceUnavailable {
		c.Header("Retry-After", "1")
	}
	if ans.challenge && a.realm != "" {
		challenge := fmt.Sprintf(`Bearer realm="%s"`, a.realm)
		if ans.params != "" {
			challenge += ", " + ans.params
		}
		c.Header("WWW-Authenticate", challenge)
	}
	c.AbortWithStatusJSON(ans.code, gin.H{"detail": ans.detail})
}
