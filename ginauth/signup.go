package ginauth

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/account"
)

// handleAccounts is handle for a handler that needs the account.Manager.
func (a *Auth[U]) handleAccounts(handler func(http.ResponseWriter, *http.Request) error) gin.HandlerFunc {
	return a.handle(func(w http.ResponseWriter, r *http.Request) error {
		if a.accounts == nil {
			return fmt.Errorf("%w: the routes of accounts need WithAccounts", errMisuse)
		}
		return handler(w, r)
	})
}

// accountRefused is expected for the errors of an account.Manager. The errors that it names
// have the code of a route.
func accountRefused(err error, codes map[error]string) error {
	var tooMany *account.TooManyAttemptsError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooMany):
		return tooMany
	case errors.Is(err, account.ErrInvalidPassword): // its text says why
	default:
		err = expected(err, account.ErrEmailTaken, account.ErrInvalidEmail, account.ErrBadOneTimeToken,
			account.ErrAlreadyVerified, account.ErrUserNotFound, account.ErrConflict)
	}
	for reason, code := range codes {
		if errors.Is(err, reason) {
			return &routeError{err, code}
		}
	}
	return err
}

func (a *Auth[U]) handleRegister(w http.ResponseWriter, r *http.Request) error {
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	email, password := body.email(), body.text("password")
	var user U
	if err := callHook(r.Context(), a.hooks.Register, &user, body); err != nil {
		return err
	}
	a.accounts.setEmail(&user, email)
	if a.cfg.Accounts.ConcealTaken {
		if err := a.accounts.RequestRegistration(r.Context(), user, password); err != nil {
			return accountRefused(err, nil)
		}
		writeEncoded(w, http.StatusAccepted, "null")
		return nil
	}
	user, err = a.accounts.Register(r.Context(), user, password)
	if err != nil {
		return accountRefused(err, nil)
	}
	return a.writeUser(w, http.StatusCreated, user, nil)
}

// callHook calls a hook, if there is one, and returns its error or the errors of the body.
func callHook[U any](ctx context.Context, hook func(context.Context, *U, *Body) error, user *U, body *Body) error {
	if hook != nil {
		if err := hook(ctx, user, body); err != nil {
			return err
		}
	}
	return body.done()
}

// writeUser answers with a user, and with more members.
func (a *Auth[U]) writeUser(w http.ResponseWriter, code int, user U, more map[string]any) error {
	members := a.view(user)
	maps.Copy(members, more)
	return writeMembers(w, code, members)
}

// AnswerUser writes the contract's answer with a user, as GET /me does: 200 and JSON, with the
// fields of Hooks.View. It answers 503 without [WithAccounts].
func (a *Auth[U]) AnswerUser(c *gin.Context, user U) {
	noStore(c.Writer)
	err := fmt.Errorf("%w: AnswerUser needs WithAccounts", errMisuse)
	if a.accounts != nil {
		err = a.writeUser(c.Writer, http.StatusOK, user, nil)
	}
	if err != nil {
		a.Refuse(c, err)
	}
}

// view returns what clients see of a user.
func (a *Auth[U]) view(user U) map[string]any {
	members := make(map[string]any)
	if a.hooks.View != nil {
		maps.Copy(members, a.hooks.View(user))
	}
	a.accounts.view(user, members) // last, so that it wins
	return members
}

func (a *Auth[U]) handleRequestVerification(w http.ResponseWriter, r *http.Request) error {
	return a.request(w, r, accounts[U].RequestVerification)
}

func (a *Auth[U]) handleRequestReset(w http.ResponseWriter, r *http.Request) error {
	return a.request(w, r, accounts[U].RequestPasswordReset)
}

// request asks for a message to an address. The answer is the same whether or not it is sent.
func (a *Auth[U]) request(w http.ResponseWriter, r *http.Request, ask func(m accounts[U], ctx context.Context, email string) error) error {
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	email := body.email()
	if err := body.done(); err != nil {
		return err
	}
	if err := ask(a.accounts, r.Context(), email); err != nil {
		return accountRefused(err, nil)
	}
	writeEncoded(w, http.StatusAccepted, "null")
	return nil
}

func (a *Auth[U]) handleVerify(w http.ResponseWriter, r *http.Request) error {
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	token := body.text("token")
	if err := body.done(); err != nil {
		return err
	}
	user, err := a.accounts.Verify(r.Context(), token)
	if err != nil {
		return accountRefused(err, map[error]string{account.ErrEmailTaken: "UPDATE_USER_EMAIL_ALREADY_EXISTS"})
	}
	return a.writeUser(w, http.StatusOK, user, nil)
}

func (a *Auth[U]) handleResetPassword(w http.ResponseWriter, r *http.Request) error {
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	token, password := body.text("token"), body.text("password")
	if err := body.done(); err != nil {
		return err
	}
	if _, err := a.accounts.ResetPassword(r.Context(), token, password); err != nil {
		return accountRefused(err, map[error]string{
			account.ErrBadOneTimeToken: "RESET_PASSWORD_BAD_TOKEN",
			account.ErrInvalidPassword: "RESET_PASSWORD_INVALID_PASSWORD",
		})
	}
	writeEncoded(w, http.StatusOK, "null")
	return nil
}
