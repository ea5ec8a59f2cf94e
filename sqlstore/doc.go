// Package sqlstore stores Latchkey's accounts and tokens in a SQL database: PostgreSQL, MySQL,
// MariaDB or SQLite, through database/sql. It imports no driver; the application does.
//
// [New] returns a latchkey.Latchkey on the database: routes, guards, accounts and sessions. It is
// all that most applications need. The stores can also be used one by one:
//
//   - [Tokens] is a strategy.Store and a strategy.RevocationLog.
//   - [Users] is an account.Store and a strategy.UserSource.
//   - [Attempts] is an account.AttemptStore.
//   - [OneTimeTokens] is an account.OneTimeTokenStore.
//   - [OAuthAccounts] is an account.OAuthAccountStore, for contrib/oidc.
//   - [LegacyTokens] is a strategy.LegacyStore: it also accepts the tokens of fastapi-users on
//     SQLAlchemy.
//   - [Purger] deletes expired rows periodically, in one instance at a time.
//
// An application's own table of users serves, also with columns of other names: see
// [Tables.Users] and [Tables.UserColumns].
//
// [Migrate] makes the tables, and [VerifySchema] checks them. [Schema] has the same files for
// tools like goose, golang-migrate or atlas. Times are stored in milliseconds since 1970, in UTC.
//
// Every write after an insert is a conditional UPDATE or DELETE, so no write brings a row back.
// Values that are taken, and writes that the database refuses because of concurrent ones, are
// recognised by the database's error codes; the latter are repeated. The *sql.DB must reach the
// primary server: a replica that lags behind would show tokens that have been revoked. The
// database must make a commit durable before it acknowledges it, as all of them do by default.
//
// # Tested with
//
// SQLite by modernc.org/sqlite, PostgreSQL 15 by pgx, and MariaDB 10.11 by go-sql-driver/mysql, with
// user IDs of each type. MySQL 8 has not been tried.
package sqlstore
