// Package sameuser compares users in tests.
package sameuser

import (
	"reflect"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Equal reports whether two users are equal, their password hashes included, which
// [reflect.DeepEqual] cannot compare.
func Equal[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](a, b U) bool {
	x, y := P(&a).Account(), P(&b).Account()
	if x.HashedPassword.Reveal() != y.HashedPassword.Reveal() {
		return false
	}
	x.HashedPassword, y.HashedPassword = account.PasswordHash{}, account.PasswordHash{}
	return reflect.DeepEqual(a, b)
}

// EqualSessions reports whether two sessions and their users are equal.
func EqualSessions[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](a, b strategy.Session[U]) bool {
	return reflect.DeepEqual(a.SessionInfo, b.SessionInfo) && Equal[U, ID, P](a.User, b.User)
}
