package ginauth

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/strategy"
)

// Introspection adds POST introspect (RFC 7662) to a router or a group, behind a guard
// with these checks: a gateway or another service asks it whether a token is valid. It
// counts as a use of the token. Introspection returns an error unless [Superuser] or an
// [Auth.CheckUser] is among the checks: the others would let ordinary users inspect every
// token.
func (a *Auth[U]) Introspection(r gin.IRouter, checks ...Check) error {
	if !slices.ContainsFunc(checks, func(check Check) bool { return check.restricts }) {
		return errors.New("ginauth: Introspection needs a check that rejects ordinary users: Superuser or a CheckUser")
	}
	a.mount(r, http.MethodPost, "/introspect", a.introspectOperation(checks), a.handle(a.handleIntrospect))
	return nil
}

func (a *Auth[U]) handleIntrospect(w http.ResponseWriter, r *http.Request) error {
	f, err := readForm(w, r)
	if err != nil {
		return err
	}
	token := f.required("token")
	if err := f.done(); err != nil {
		return err
	}
	s, err := a.strategyOf(nil, token).ReadToken(r.Context(), token)
	switch {
	case errors.Is(err, strategy.ErrInvalidToken):
		writeJSON(w, http.StatusOK, map[string]any{"active": false}) // nothing more: RFC 7662 §2.2
		return nil
	case err != nil:
		return expected(err)
	}
	body := map[string]any{"active": true, "sub": a.strategy.Of(s.User).Subject(), "iat": s.CreatedAt.Unix()}
	if !s.ExpiresAt.IsZero() {
		body["exp"] = s.ExpiresAt.Unix()
	}
	if s.Scoped() {
		body["scope"] = strings.Join(s.Scopes, " ")
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}
