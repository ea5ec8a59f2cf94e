package sqlstore

import (
	"cmp"
	"fmt"
	"strings"
)

// Columns are the names of an account's columns in the table of users, for a table that another
// program made. The zero value is usable: an empty name means the default. Names consist of
// letters, digits and underscores; PostgreSQL distinguishes capital letters in them.
type Columns struct {
	// ID is the column of the account's ID, the primary key or a unique one. Default "id".
	ID string
	// Email is the column of the address, which must be unique. Default "email".
	Email string
	// HashedPassword is the column of the password hash. NULL means no password. Default
	// "hashed_password".
	HashedPassword string
	// Active is the column of the flag. Default "is_active". NULL means an active account.
	Active string
	// Verified and Superuser are the columns of the flags. Defaults "is_verified" and
	// "is_superuser". NULL means false.
	Verified, Superuser string
	// CreatedAt is the column of the creation time. Default "created_at". NULL means the zero
	// time.
	CreatedAt string
	// TokenVersion is the column of the token version. Default "token_version". NULL means 0.
	TokenVersion string
}

// defaultColumns are the names in the schema files.
var defaultColumns = Columns{
	ID: "id", Email: "email", HashedPassword: "hashed_password", Active: "is_active", Verified: "is_verified",
	Superuser: "is_superuser", CreatedAt: "created_at", TokenVersion: "token_version",
}

// withDefaults returns c with the default names filled in, or an error if a name is invalid.
func (c Columns) withDefaults() (Columns, error) {
	defaults := defaultColumns.list()
	fields := []string{"ID", "Email", "HashedPassword", "Active", "Verified", "Superuser", "CreatedAt", "TokenVersion"}
	seen := make(map[string]string) // fields by columns
	for i, name := range c.fields() {
		*name = cmp.Or(*name, defaults[i])
		if err := checkName("Tables.UserColumns."+fields[i], *name); err != nil {
			return c, err
		}
		lower := strings.ToLower(*name)
		if other, taken := seen[lower]; taken {
			return c, fmt.Errorf("sqlstore: Tables.UserColumns.%s and Tables.UserColumns.%s are both %q: give each column a name of its own", other, fields[i], *name)
		}
		seen[lower] = fields[i]
	}
	return c, nil
}

// accountColumns is the number of Columns.
const accountColumns = 8

// fields returns the fields in the order of accountValues and parseAccount.
func (c *Columns) fields() []*string {
	return []*string{&c.ID, &c.Email, &c.HashedPassword, &c.Active, &c.Verified, &c.Superuser, &c.CreatedAt, &c.TokenVersion}
}

// list returns the names, in the order of accountValues and parseAccount.
func (c Columns) list() (names []string) {
	for _, name := range c.fields() {
		names = append(names, *name)
	}
	return names
}

// quoted returns c with each name quoted.
func (c Columns) quoted(dialect Dialect) Columns {
	for _, name := range c.fields() {
		*name = dialect.quote(*name)
	}
	return c
}
