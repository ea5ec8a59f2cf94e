package account

import (
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

// User holds the fields of an account that Latchkey uses. Embed it in a struct with the
// application's own fields; for MongoDB, with the tag `bson:",inline"`. The struct must not
// have an ID field of its own.
//
// JSON leaves out the password hash and the token version. If you decode a request's JSON
// into a User, the client can set the flags; [Manager.Register] resets them.
type User[ID comparable] struct {
	// ID is the account's ID. The zero value means that it has none yet.
	ID ID `bson:"_id" json:"id"`
	// Email is unique and normalised; see [NormalizeEmail].
	Email string `bson:"email" json:"email"`
	// HashedPassword is the hash of the password, or zero for an account without a password.
	HashedPassword PasswordHash `bson:"hashed_password" json:"-" xml:"-"`
	// Active says whether the account can log in and use its tokens.
	Active bool `bson:"is_active" json:"is_active"`
	// Verified says whether the user has proved to own the e-mail address.
	Verified bool `bson:"is_verified" json:"is_verified"`
	// Superuser says whether the account passes guards that require a superuser.
	Superuser bool `bson:"is_superuser" json:"is_superuser"`
	// CreatedAt is in UTC and whole milliseconds. It is zero, and not in JSON, if another
	// program has made the account without it.
	CreatedAt time.Time `bson:"created_at" json:"created_at,omitzero"`
	// Version is the token version. A token is valid only while the version that its
	// login saw equals the account's: raising the version invalidates every token issued
	// earlier. [Manager.ChangePassword], [Manager.SetPassword], [Manager.Deactivate] and
	// [Manager.RevokeTokens] add 1. New accounts have 0.
	Version int64 `bson:"token_version,omitempty" json:"-" xml:"-"`
}

// UserID returns the account's ID.
func (u User[ID]) UserID() ID { return u.ID }

// IsActive reports whether the account is active.
func (u User[ID]) IsActive() bool { return u.Active }

// IsVerified reports whether the account is verified.
func (u User[ID]) IsVerified() bool { return u.Verified }

// IsSuperuser reports whether the account is a superuser.
func (u User[ID]) IsSuperuser() bool { return u.Superuser }

// TokenVersion returns the account's token version.
func (u User[ID]) TokenVersion() int64 { return u.Version }

// Account returns u. Embedding User promotes the method, so the packages of Latchkey use
// it to find the account inside the application's struct.
func (u *User[ID]) Account() *User[ID] { return u }

// Embeds is a type constraint: a pointer to a struct that embeds [User], or that has these
// methods otherwise. It is inferred; applications do not write it.
type Embeds[U any, ID comparable] interface {
	*U
	// Account returns the account inside the application's user.
	Account() *User[ID]
	strategy.User[ID]
}
