package ginauth

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// answer is the answer to an error.
type answer struct {
	code   int
	detail string      // a code of the contract
	reason string      // why a password was rejected, for people
	why    string      // the same, for programs
	fields fieldErrors // the invalid fields, in place of detail
	// challenge asks for a WWW-Authenticate header, and params are its parameters
	// after the realm.
	challenge  bool
	params     string
	retryAfter time.Duration // at least a second; 0: no Retry-After header
}

// The parameters of the challenges that floods of requests get.
const invalidToken, invalidRequest = `error="invalid_token"`, `error="invalid_request"`

// status is the only function that maps an error to an answer. An unknown error is a
// failure: 503, which grants nothing and logs nobody out.
func status(err error) answer {
	if coded, ok := errors.AsType[*CodeError](err); ok {
		code, ok := coded.status()
		if !ok {
			err = fmt.Errorf("%w: a CodeError needs a status of 400 to 499 and a code of letters, digits and underscores", errMisuse)
			return statusOfRest(err)
		}
		return answer{code: code, detail: coded.Code}
	}
	// The answers to a flood of requests come first, and allocate nothing.
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

func statusOfRest(err error) answer {
	if ofRoute, ok := errors.AsType[*routeError](err); ok {
		ans := statusOfRest(ofRoute.error)
		ans.detail = ofRoute.code
		return ans
	}
	var (
		invalid fieldErrors
		stale   *staleError
		scope   *scopeError
		tooMany *account.TooManyAttemptsError
	)
	switch {
	case errors.As(err, &stale):
		return answer{code: http.StatusUnauthorized, detail: "INSUFFICIENT_USER_AUTHENTICATION", challenge: true,
			params: fmt.Sprintf(`error="insufficient_user_authentication", max_age="%d"`, stale.maxAgeSeconds)}
	case errors.As(err, &scope):
		params := `error="insufficient_scope"`
		if len(scope.scopes) > 0 {
			params += fmt.Sprintf(`, scope="%s"`, strings.Join(scope.scopes, " "))
		}
		return answer{code: http.StatusForbidden, detail: "Forbidden", challenge: true, params: params}
	case errors.Is(err, strategy.ErrSessionNotFound):
		return answer{code: http.StatusNotFound, detail: "NOT_FOUND"}
	case errors.Is(err, ErrCrossOrigin):
		return answer{code: http.StatusForbidden, detail: "CROSS_ORIGIN_REQUEST"}
	case errors.Is(err, errForbidden):
		return answer{code: http.StatusForbidden, detail: "Forbidden"}
	case errors.Is(err, account.ErrBadCredentials), errors.Is(err, strategy.ErrUserInactive):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_BAD_CREDENTIALS"}
	case errors.Is(err, ErrNotVerified):
		return answer{code: http.StatusBadRequest, detail: "LOGIN_USER_NOT_VERIFIED"}
	case errors.Is(err, account.ErrEmailTaken):
		return answer{code: http.StatusBadRequest, detail: "REGISTER_USER_ALREADY_EXISTS"}
	case errors.Is(err, account.ErrInvalidPassword):
		_, why, _ := strings.Cut(err.Error(), account.ErrInvalidPassword.Error()+": ")
		return answer{code: http.StatusBadRequest, detail: "REGISTER_INVALID_PASSWORD", reason: cmp.Or(why, err.Error()), why: whyInvalid(err)}
	case errors.Is(err, account.ErrBadOneTimeToken):
		return answer{code: http.StatusBadRequest, detail: "VERIFY_USER_BAD_TOKEN"}
	case errors.Is(err, account.ErrAlreadyVerified):
		return answer{code: http.StatusBadRequest, detail: "VERIFY_USER_ALREADY_VERIFIED"}
	case errors.Is(err, account.ErrInvalidEmail):
		return answer{code: http.StatusUnprocessableEntity, fields: fieldErrors{errNoEmail}}
	case errors.Is(err, account.ErrUserNotFound):
		return answer{code: http.StatusNotFound, detail: "NOT_FOUND"}
	case errors.Is(err, account.ErrConflict), errors.Is(err, errTooMany):
		return answer{code: http.StatusConflict, detail: "CONFLICT"}
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

// whyInvalid returns the code of the reason for which a password was rejected.
func whyInvalid(err error) string {
	switch {
	case errors.Is(err, account.ErrPasswordTooShort):
		return "PASSWORD_TOO_SHORT"
	case errors.Is(err, account.ErrPasswordTooLong):
		return "PASSWORD_TOO_LONG"
	}
	return "PASSWORD_REJECTED"
}

// Refuse answers an error as the contract says, or by Config.OnRefusal, and keeps the handlers that follow from
// running. It answers 503 to an error that does not wrap one of this package, strategy or
// account: a failure, or a method of this package that a handler called where it cannot work,
// such as [Auth.Renew] without a guard. Unless an event has reported the error already, Refuse
// emits one of the kind event.StoreFailed.
func (a *Auth[U]) Refuse(c *gin.Context, err error) {
	abort(c)
	if status(err).code == http.StatusServiceUnavailable {
		if err == nil {
			err = fmt.Errorf("%w: Refuse got no error", errMisuse)
		}
		ctx := requestContext(c)
		session, _ := strategy.SessionFromContext[U](ctx)
		a.failed(ctx, session.SessionInfo, err)
	}
	ans := status(err)
	a.boundBody(c.Writer, c.Request)
	h := c.Writer.Header()
	if ans.retryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((ans.retryAfter+time.Second-1)/time.Second), 10))
	}
	if ans.challenge && a.cfg.realm != "" {
		h["Www-Authenticate"] = a.cfg.challenge(ans.params)
	}
	if a.cfg.OnRefusal == nil {
		ans.write(c.Writer)
		return
	}
	c.Writer.WriteHeader(ans.code) // the default of the hook
	a.cfg.OnRefusal(c, &Refusal{Status: ans.code, Code: ans.detail, Reason: ans.reason, ReasonCode: ans.why, Fields: ans.fields, RetryAfter: ans.retryAfter, Err: err})
}

// write writes the contract's status and body.
func (ans answer) write(w http.ResponseWriter) {
	switch {
	case ans.fields != nil:
		writeJSON(w, ans.code, map[string]any{"detail": ans.fields})
	case ans.reason != "":
		writeJSON(w, ans.code, map[string]any{"detail": map[string]string{"code": ans.detail, "reason": ans.reason, "reason_code": ans.why}})
	default:
		writeEncoded(w, ans.code, `{"detail":"`, ans.detail, `"}`) // no code needs escaping
	}
}

var contentTypeJSON = []string{"application/json; charset=utf-8"}

// writeJSON answers with a JSON body, which must be encodable.
func writeJSON(w http.ResponseWriter, code int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	writeEncoded(w, code, string(encoded))
}

// writeEncoded answers with a JSON body in parts, without allocating.
func writeEncoded(w http.ResponseWriter, code int, parts ...string) {
	w.Header()["Content-Type"] = contentTypeJSON
	w.WriteHeader(code)
	for _, part := range parts {
		_, _ = io.WriteString(w, part) // an error means that the client is gone
	}
}
