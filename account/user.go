package account

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/latchkey-go/latchkey/strategy"
)

// User is what Latchkey needs to know of an account. Embed it in a struct with
// the application's own fields; with MongoDB, inline (`bson:",inline"`).
//
// Its JSON leaves the password hash out. Think before you bind a request's JSON
// to it: the flags are fields like any other. [Manager.Register] resets them.
type User[ID comparable] struct {
	// ID is the account's ID. The zero ID means that it has none yet.
	ID ID `bson:"_id" json:"id"`
	// Email is unique and normalised; see [NormalizeEmail].
	Email string `bson:"email" json:"email"`
	// HashedPassword is a PHC string; empty where the account has no password.
	HashedPassword PasswordHash `bson:"hashed_password" json:"-" xml:"-"`
	// Active accounts can log in and use their tokens; others can do neither.
	Active bool `bson:"is_active" json:"is_active"`
	// Verified means that the e-mail address was shown to be the user's.
	Verified bool `bson:"is_verified" json:"is_verified"`
	// Superuser accounts pass the guards that ask for one.
	Superuser bool `bson:"is_superuser" json:"is_superuser"`
	// CreatedAt is in UTC and whole milliseconds.
	CreatedAt time.Time `bson:"created_at" json:"created_at"`
	// Version is the token version. Raising it invalidates every token issued
	// earlier: a token is valid only while the version that its login saw is the
	// account's. A [Store] raises it with [Store.ReplacePassword] and [Change];
	// applications have no reason to set it. A new account has 0.
	Version int64 `bson:"token_version,omitempty" json:"-" xml:"-"`
}

// UserID returns the account's ID.
func (u User[ID]) UserID() ID { return u.ID }

// IsActive reports whether the account is active.
func (u User[ID]) IsActive() bool { return u.Active }

// IsVerified reports whether the account is verified.
func (u User[ID]) IsVerified() bool { return u.Verified }

// IsSuperuser reports whether the account is a superuser's.
func (u User[ID]) IsSuperuser() bool { return u.Superuser }

// TokenVersion returns the account's token version.
func (u User[ID]) TokenVersion() int64 { return u.Version }

// Account returns u itself. Embedding promotes it: so the packages of Latchkey
// find the account inside the application's struct.
func (u *User[ID]) Account() *User[ID] { return u }

// Embeds is satisfied by a pointer to a struct that embeds [User] (or has these
// methods in another way). It is inferred and never written by applications.
type Embeds[U any, ID comparable] interface {
	*U
	// Account returns the account inside the application's user.
	Account() *User[ID]
	strategy.User[ID]
}

// PasswordHash is a hash of a password as a PHC or bcrypt string. It prints as
// "…redacted" through fmt (but for unexported fields, which fmt reads past their
// methods) and log/slog; string(h) is the hash itself.
type PasswordHash string

// Format implements [fmt.Formatter], so that printing a user shows no hash.
func (PasswordHash) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "…redacted") }

// LogValue implements [slog.LogValuer].
func (PasswordHash) LogValue() slog.Value { return slog.StringValue("…redacted") }
