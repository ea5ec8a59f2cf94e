package sqlstore

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/spellings"
)

// findAnyCase finds the account whose address has this normal form; see UsersConfig.AnyCase.
func (u *Users[U, ID]) findAnyCase(ctx context.Context, email string) (none U, err error) {
	ctx, cancel := bounded(ctx, u.timeout)
	defer cancel()
	users, unread, err := u.spellings(ctx, email)
	if err != nil {
		return none, wrap("find the account", err)
	}
	for _, user := range users {
		if len(users)+len(unread) == 1 || u.of(&user).Email == email {
			return user, nil
		}
	}
	switch {
	case len(unread) > 0:
		u.report(ctx, unread)
		return none, wrap("find the account", unread[0].cause)
	case len(users) > 0:
		cause := fmt.Errorf("%d accounts have this address in different spellings", len(users))
		for _, user := range users {
			unread = append(unread, invalidAccount[ID]{u.of(&user).ID, cause})
		}
		u.report(ctx, unread)
	}
	return none, wrap("find the account", account.ErrUserNotFound)
}

// spellings returns the accounts whose address has a normal form, and those with a similar one that
// cannot be read.
func (u *Users[U, ID]) spellings(ctx context.Context, email string) (users []U, unread []invalidAccount[ID], err error) {
	var forms []any
	for _, v := range spellings.Variants(email) {
		forms = append(forms, v)
		if upper := upperUnicode(v); upper != v {
			forms = append(forms, upper)
		}
	}
	all, unread, err := u.read(ctx, "LOWER("+u.col.Email+") IN ("+placeholders(len(forms))+")", forms...)
	for _, user := range all { // a collation compares more loosely
		stored := u.of(&user).Email
		if normal, err := account.NormalizeEmail(stored); stored == email || err == nil && normal == email {
			users = append(users, user)
		}
	}
	return users, unread, err
}

// upperUnicode returns an address with its letters outside ASCII in upper case: SQLite's LOWER, and
// PostgreSQL's in the collation "C", leave them as they are.
func upperUnicode(email string) string {
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			return r
		}
		upper, _ := utf8.DecodeRuneInString(strings.ToUpper(string(r)))
		return upper
	}, email)
}

// taken returns an error wrapping ErrEmailTaken if another account than self, which may be nil, has an
// address in another spelling. The unique key is the guarantee for the same spelling; accounts in
// other spellings are older, so there is no race with them.
func (u *Users[U, ID]) taken(ctx context.Context, self *ID, email string) error {
	if !u.anyCase {
		return nil
	}
	users, _, err := u.spellings(ctx, email)
	if err != nil {
		return wrap("find the account", err)
	}
	for _, user := range users {
		if self == nil || u.of(&user).ID != *self {
			return fmt.Errorf("sqlstore: %w", account.ErrEmailTaken)
		}
	}
	return nil
}
