package ginauth

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// AccountsConfig configures the routes of accounts. The zero value is safe.
type AccountsConfig struct {
	// ConcealTaken answers a registration with 202 for new and for taken addresses alike, and
	// leaves the rest to the mail; see account.Manager's RequestRegistration. It needs a
	// Mailer. Default false: 201 with the user, or 400 REGISTER_USER_ALREADY_EXISTS, which
	// tells everybody who has an account.
	ConcealTaken bool

	// ChangeEmailAtOnce lets PATCH /me change the address at once, and makes the account
	// unverified, as fastapi-users does. A mistyped address locks the user out of password
	// resets. Default false: the address changes when the user has proved to own it.
	ChangeEmailAtOnce bool

	// MaxAge is how old a login may be that changes a password or an address without
	// current_password, or deletes its account; see [Fresh]. Default 10 minutes.
	MaxAge time.Duration
}

// Hooks let the application's own fields come and go through the routes of accounts, field by
// field. What no hook names is neither read nor shown. Hooks must be safe for concurrent use.
// One that returns an error is answered as [Auth.Refuse] answers it; use [Body.Invalid] for an
// invalid field. The zero value has no own fields.
type Hooks[U any] struct {
	// Register sets the own fields of a new account. What it sets in the fields of
	// account.User is ignored.
	Register func(ctx context.Context, user *U, body *Body) error

	// Patch changes the own fields of an account, for PATCH /me and PATCH /{id}; ctx has the
	// session of the user who asks. It may be called more than once, and must not call the
	// account.Manager. What it sets in the fields of account.User is ignored.
	Patch func(ctx context.Context, user *U, body *Body) error

	// View returns the own fields that clients see, by their names in JSON.
	View func(user U) map[string]any
}

// WithHooks returns an Auth whose routes of accounts use hooks. Both Auths are otherwise the
// same.
func (a *Auth[U]) WithHooks(hooks Hooks[U]) *Auth[U] {
	other := *a
	other.hooks = hooks
	return &other
}

// WithAccounts returns an Auth with the routes of accounts: [Auth.RegisterRoutes],
// [Auth.VerifyRoutes], [Auth.ResetPasswordRoutes] and [Auth.UserRoutes]. latchkey.New calls it.
// Both Auths are otherwise the same. It returns an error if an ID cannot be read from a path:
// the ID type must be a string, an integer, or an encoding.TextUnmarshaler such as uuid.UUID
// and bson.ObjectID.
func WithAccounts[U strategy.User[ID], ID comparable](a *Auth[U], m *account.Manager[U, ID]) (*Auth[U], error) {
	if m == nil {
		return nil, errors.New("ginauth: WithAccounts: the Manager is nil")
	}
	var id ID
	switch kind := reflect.TypeFor[ID]().Kind(); any(&id).(type) {
	case encoding.TextUnmarshaler:
	default:
		if kind != reflect.String && (kind < reflect.Int || kind > reflect.Uint64) {
			return nil, fmt.Errorf("ginauth: WithAccounts: an ID of the type %T cannot be read from a path: give the type a method UnmarshalText", id)
		}
	}
	other := *a
	other.accounts = manager[U, ID]{m}
	return &other, nil
}

// accounts is an account.Manager for callers that do not know the type of IDs.
type accounts[U any] interface {
	Register(ctx context.Context, user U, password string) (U, error)
	RequestRegistration(ctx context.Context, user U, password string) error
	RequestVerification(ctx context.Context, email string) error
	Verify(ctx context.Context, token string) (U, error)
	RequestPasswordReset(ctx context.Context, email string) error
	ResetPassword(ctx context.Context, token, password string) (U, error)
	RequestEmailChange(ctx context.Context, user U, email string) error
	ValidatePassword(ctx context.Context, password string) error
	List(ctx context.Context, query account.Query) (account.Page[U], error)

	// find returns the user with an ID as it is in a path.
	find(ctx context.Context, id string) (U, error)
	update(ctx context.Context, user U, update account.Update) (U, error)
	// updateOwn is update on the condition that the user's tokens were not revoked since the
	// user was read.
	updateOwn(ctx context.Context, user U, update account.Update) (U, error)
	edit(ctx context.Context, user U, edit func(*U) error) (U, error)
	remove(ctx context.Context, user U) error
	email(user U) string
	setEmail(user *U, email string)
	// view adds the fields of the account to a body.
	view(user U, body map[string]any)
	// idSchema returns the JSON Schema of an ID.
	idSchema() map[string]any
}

// manager implements accounts.
type manager[U strategy.User[ID], ID comparable] struct{ *account.Manager[U, ID] }

func (m manager[U, ID]) find(ctx context.Context, text string) (U, error) {
	id, ok := parseID[ID](text)
	if !ok {
		var none U
		return none, account.ErrUserNotFound
	}
	return m.ByID(ctx, id)
}

// parseID reads an ID from a path. It accepts only the spelling that the ID has as text, in
// either case.
func parseID[ID comparable](text string) (id ID, ok bool) {
	var none ID
	v := reflect.ValueOf(&id).Elem()
	if u, is := any(&id).(encoding.TextUnmarshaler); is {
		ok = u.UnmarshalText([]byte(text)) == nil
		if m, is := any(id).(encoding.TextMarshaler); is && ok {
			spelling, err := m.MarshalText()
			ok = err == nil && strings.EqualFold(string(spelling), text)
		}
	} else {
		switch {
		case v.Kind() == reflect.String:
			v.SetString(text)
			ok = true
		case v.CanInt():
			n, err := strconv.ParseInt(text, 10, v.Type().Bits())
			v.SetInt(n)
			ok = err == nil && text == strconv.FormatInt(n, 10)
		case v.CanUint():
			n, err := strconv.ParseUint(text, 10, v.Type().Bits())
			v.SetUint(n)
			ok = err == nil && text == strconv.FormatUint(n, 10)
		}
	}
	return id, ok && id != none
}

func (m manager[U, ID]) update(ctx context.Context, user U, update account.Update) (U, error) {
	return m.Update(ctx, user.UserID(), update)
}

func (m manager[U, ID]) updateOwn(ctx context.Context, user U, update account.Update) (U, error) {
	update.IfVersion = new(user.TokenVersion())
	return m.Update(ctx, user.UserID(), update)
}

func (m manager[U, ID]) edit(ctx context.Context, user U, edit func(*U) error) (U, error) {
	return m.Edit(ctx, user.UserID(), edit)
}

func (m manager[U, ID]) remove(ctx context.Context, user U) error {
	return m.Delete(ctx, user.UserID())
}

func (m manager[U, ID]) email(user U) string { return m.Account(&user).Email }

func (m manager[U, ID]) setEmail(user *U, email string) { m.Account(user).Email = email }

func (m manager[U, ID]) view(user U, body map[string]any) {
	a := m.Account(&user)
	body["id"], body["email"] = a.ID, a.Email
	body["is_active"], body["is_verified"], body["is_superuser"] = a.Active, a.Verified, a.Superuser
}

func (m manager[U, ID]) idSchema() map[string]any { return idSchema[ID]() }

// idSchema returns the JSON Schema of an ID, by what the zero ID is in JSON.
func idSchema[ID comparable]() map[string]any {
	var id ID
	encoded, err := json.Marshal(id)
	_, isUUID := any(id).(uuid.UUID)
	switch {
	case err != nil || len(encoded) == 0:
	case isUUID:
		return typed("string", "uuid")
	case encoded[0] == '"':
		return typed("string")
	case encoded[0] == '0':
		return typed("integer")
	}
	return object{}
}
