package ginauth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"

	"github.com/latchkey-go/latchkey/account"
)

// updateCodes are the codes of the errors of an update.
var updateCodes = map[error]string{
	account.ErrEmailTaken:      "UPDATE_USER_EMAIL_ALREADY_EXISTS",
	account.ErrInvalidPassword: "UPDATE_USER_INVALID_PASSWORD",
}

func (a *Auth[U]) handleMe(w http.ResponseWriter, r *http.Request) error {
	return a.writeUser(w, http.StatusOK, a.identity(r).session.User, nil)
}

func (a *Auth[U]) handlePatchMe(w http.ResponseWriter, r *http.Request) error {
	m := a.accounts
	ctx, current := r.Context(), a.identity(r)
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	user := current.session.User
	password, email, currentPassword := optional[string](body, "password"), optional[string](body, "email"), optional[string](body, "current_password")
	if email, err = a.newEmail(user, email); err != nil {
		return err
	}
	edited := user // finds out what is invalid before anything is changed
	if err := callHook(ctx, a.hooks.Patch, &edited, body); err != nil {
		return err
	}
	if password != nil || email != nil {
		if user, err = a.authorise(ctx, current, currentPassword); err != nil {
			return err
		}
	}
	members := make(map[string]any)
	update := account.Update{Password: password}
	switch {
	case email != nil && a.cfg.Accounts.ChangeEmailAtOnce:
		update.Email = email
	case email != nil:
		if password != nil {
			if err := m.ValidatePassword(ctx, *password); err != nil {
				return accountRefused(err, updateCodes)
			}
		}
		if err := m.RequestEmailChange(ctx, user, *email); err != nil {
			return accountRefused(err, updateCodes)
		}
		members["pending_email"] = *email
	}
	if a.hooks.Patch != nil {
		if edited, err = a.patch(ctx, user, body); err != nil {
			return err
		}
	}
	if update.Password == nil && update.Email == nil {
		return a.writeUser(w, http.StatusOK, edited, members)
	}
	if user, err = m.updateOwn(ctx, user, update); err != nil {
		return accountRefused(err, updateCodes)
	}
	if password != nil {
		issued, err := a.renew(ctx, w, r, current, user)
		if err != nil {
			return err
		}
		if !issued.transport.ambient() {
			maps.Copy(members, tokenJSON(issued.Token.Reveal(), issued.remaining))
		}
	}
	return a.writeUser(w, http.StatusOK, user, members)
}

// newEmail returns the new address of a user, or nil if there is none.
func (a *Auth[U]) newEmail(user U, email *string) (*string, error) {
	if email == nil {
		return nil, nil
	}
	normal, err := account.NormalizeEmail(*email)
	if err != nil {
		return nil, account.ErrInvalidEmail
	}
	if own, err := account.NormalizeEmail(a.accounts.email(user)); err == nil && own == normal {
		return nil, nil
	}
	return &normal, nil
}

// authorise returns the user of a session if its login is fresh, or if the current password is
// right.
func (a *Auth[U]) authorise(ctx context.Context, current *identity[U], password *string) (U, error) {
	user := current.session.User
	if password != nil && a.login != nil {
		user, err := a.login.Reauthenticate(ctx, user, *password)
		if err != nil {
			return user, passwordRefused(err)
		}
		return user, nil
	}
	s := subject{user: user, info: &current.session.SessionInfo, now: a.cfg.Now()}
	if err := Fresh(a.cfg.Accounts.MaxAge).pass(ctx, s); err != nil {
		a.denied(ctx, current.info(), err)
		return user, err
	}
	return user, nil
}

// patch changes the own fields of an account by the hook.
func (a *Auth[U]) patch(ctx context.Context, user U, body *Body) (U, error) {
	var refused error
	edited, err := a.accounts.edit(ctx, user, func(u *U) error {
		refused = callHook(ctx, a.hooks.Patch, u, body)
		return refused
	})
	if refused != nil {
		return edited, refused
	}
	return edited, accountRefused(err, nil)
}

func (a *Auth[U]) handleDeleteMe(w http.ResponseWriter, r *http.Request) error {
	current := a.identity(r)
	if err := a.accounts.remove(r.Context(), current.session.User); err != nil {
		return accountRefused(err, nil)
	}
	current.by.clear(w)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Auth[U]) handleUsers(w http.ResponseWriter, r *http.Request) error {
	asked, err := pageOf(r)
	if err != nil {
		return err
	}
	page, err := a.accounts.List(r.Context(), account.Query{Email: r.URL.Query().Get("email"), After: asked.After, Limit: asked.Limit})
	if err != nil {
		return accountRefused(err, nil)
	}
	users := make([]map[string]any, len(page.Users))
	for i, user := range page.Users {
		users[i] = a.view(user)
	}
	members := map[string]any{"users": users}
	if page.Next != "" {
		members["next"] = page.Next
	}
	return writeMembers(w, http.StatusOK, members)
}

func (a *Auth[U]) handleUser(w http.ResponseWriter, r *http.Request) error {
	user, err := a.accounts.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return accountRefused(err, nil)
	}
	return a.writeUser(w, http.StatusOK, user, nil)
}

func (a *Auth[U]) handlePatchUser(w http.ResponseWriter, r *http.Request) error {
	m, ctx := a.accounts, r.Context()
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	user, err := m.find(ctx, r.PathValue("id"))
	if err != nil {
		return accountRefused(err, nil)
	}
	update := account.Update{
		Active: optional[bool](body, "is_active"), Verified: optional[bool](body, "is_verified"), Superuser: optional[bool](body, "is_superuser"),
		Password: optional[string](body, "password"),
	}
	if update.Email, err = a.newEmail(user, optional[string](body, "email")); err != nil {
		return err
	}
	edited := user // finds out what is invalid before anything is changed
	if err := callHook(ctx, a.hooks.Patch, &edited, body); err != nil {
		return err
	}
	if update != (account.Update{}) {
		if user, err = m.update(ctx, user, update); err != nil {
			return accountRefused(err, updateCodes)
		}
	}
	if a.hooks.Patch != nil {
		if user, err = a.patch(ctx, user, body); err != nil {
			return err
		}
	}
	return a.writeUser(w, http.StatusOK, user, nil)
}

func (a *Auth[U]) handleDeleteUser(w http.ResponseWriter, r *http.Request) error {
	user, err := a.accounts.find(r.Context(), r.PathValue("id"))
	if err == nil {
		err = a.accounts.remove(r.Context(), user)
	}
	if err != nil {
		return accountRefused(err, nil)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// writeMembers answers with a JSON object, which may have values of the application.
func writeMembers(w http.ResponseWriter, code int, members map[string]any) error {
	encoded, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("%w: Hooks.View returned a value that is no JSON: %w", errMisuse, err)
	}
	writeEncoded(w, code, string(encoded))
	return nil
}
