// Package sqlstore stores Latchkey's access tokens in a SQL database: PostgreSQL, MySQL,
// MariaDB or SQLite, through database/sql. It imports no driver; the application does.
//
// [Migrate] makes the tables. [Schema] has the same files for tools like goose, golang-migrate
// or atlas. Times are stored in milliseconds since 1970, in UTC.
//
// # State
//
// This package is being built. There are [Tokens] (strategy.Store and
// strategy.RevocationLog), [Migrate] and [VerifySchema]. Only SQLite has been tested so far.
// Missing: accounts, login attempts, one-time tokens, API tokens, the removal of expired rows,
// the comparison of indexes by VerifySchema, tests on PostgreSQL and MariaDB, and MySQL's
// schema.
package sqlstore
