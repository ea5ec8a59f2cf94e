package ginauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/latchkey-go/latchkey/account"
)

// managed returns the account.Manager.
func (a *Auth[U]) managed() (accounts[U], error) {
	if a.accounts == nil {
		return nil, fmt.Errorf("%w: the routes of accounts need WithAccounts", errMisuse)
	}
	return a.accounts, nil
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
	m, err := a.managed()
	if err != nil {
		return err
	}
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	email, password := body.email(), body.text("password")
	var user U
	if err := callHook(r.Context(), a.hooks.Register, &user, body); err != nil {
		return err
	}
	m.setEmail(&user, email)
	if a.cfg.Accounts.ConcealTaken {
		if err := m.RequestRegistration(r.Context(), user, password); err != nil {
			return accountRefused(err, nil)
		}
		writeEncoded(w, http.StatusAccepted, "null")
		return nil
	}
	user, err = m.Register(r.Context(), user, password)
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
	for name, value := range more {
		members[name] = value
	}
	return writeMembers(w, code, members)
}

// view returns what clients see of a user.
func (a *Auth[U]) view(user U) map[string]any {
	members := make(map[string]any)
	if a.hooks.View != nil {
		for name, value := range a.hooks.View(user) {
			members[name] = value
		}
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
	m, err := a.managed()
	if err != nil {
		return err
	}
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	email := body.email()
	if err := body.done(); err != nil {
		return err
	}
	if err := ask(m, r.Context(), email); err != nil {
		return accountRefused(err, nil)
	}
	writeEncoded(w, http.StatusAccepted, "null")
	return nil
}

func (a *Auth[U]) handleVerify(w http.ResponseWriter, r *http.Request) error {
	m, err := a.managed()
	if err != nil {
		return err
	}
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	token := body.text("token")
	if err := body.done(); err != nil {
		return err
	}
	user, err := m.Verify(r.Context(), token)
	if err != nil {
		return accountRefused(err, map[error]string{account.ErrEmailTaken: "UPDATE_USER_EMAIL_ALREADY_EXISTS"})
	}
	return a.writeUser(w, http.StatusOK, user, nil)
}

func (a *Auth[U]) handleResetPassword(w http.ResponseWriter, r *http.Request) error {
	m, err := a.managed()
	if err != nil {
		return err
	}
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	token, password := body.text("token"), body.text("password")
	if err := body.done(); err != nil {
		return err
	}
	if _, err := m.ResetPassword(r.Context(), token, password); err != nil {
		return accountRefused(err, map[error]string{
			account.ErrBadOneTimeToken: "RESET_PASSWORD_BAD_TOKEN",
			account.ErrInvalidPassword: "RESET_PASSWORD_INVALID_PASSWORD",
		})
	}
	writeEncoded(w, http.StatusOK, "null")
	return nil
}
