// Package strategy says what an access token is and how it lives: it is
// issued, read, revoked, and it expires. It knows neither HTTP nor MongoDB.
//
// An access token is opaque: a random secret that means nothing by itself. The
// client holds the secret; the [Store] holds only its SHA-256 digest, with the
// user it belongs to and the time it was issued. Reading a token looks the
// digest up, so revoking is deleting a row, and it takes effect at once.
//
// [Database] is the strategy that applications use. It checks the token's
// format without any I/O, asks the [Store] for the row and the [UserSource] for
// the user, and checks the lifetime itself: whatever the store has or has not
// collected yet, an expired token is refused to the millisecond.
//
// The package memstore beside it keeps tokens in memory, for tests and
// examples; mongostore keeps them in MongoDB. A store of your own must pass the
// suite in storetest.
//
// # Errors
//
// Only [ErrInvalidToken] means that the token is not good. Every other error of
// [Strategy.ReadToken] is a failure to find out, and must grant nothing and log
// nobody out.
package strategy
