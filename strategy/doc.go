// Package strategy issues, reads, rotates and revokes access tokens. It knows neither HTTP
// nor MongoDB.
//
// An access token is opaque: a random secret that carries no data. The client holds the
// secret; the [Store] holds only its SHA-256 digest, the ID of the user and the time of
// issue. Reading a token looks its digest up, so deleting the row revokes the token at once.
//
// [Database] is the strategy that applications use:
//
//	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{Lifetime: 12 * time.Hour})
//	secret, session, err := sessions.WriteToken(ctx, user)  // log in
//	session, err := sessions.ReadToken(ctx, token)          // on every request
//	err := sessions.DestroyToken(ctx, token)                // log out
//
// ReadToken checks the format of a token without I/O, asks the [Store] for the row and the
// [UserSource] for the user, and then checks lifetime, idle timeout, user and token version
// itself. An expired token is refused to the millisecond, whether or not the store has
// removed its row.
//
// # Users
//
// The application's user type implements [User]. account.User is a ready one to embed.
//
// A user's token version ends sessions without touching their rows. A token keeps the version
// of the user that logged in, and is valid only while the two are equal. Raising the version
// in the same write as a change of the password therefore invalidates every token issued
// earlier, and every login in flight.
//
// # Stores
//
// Package memstore keeps tokens in memory, for tests and examples; package mongostore keeps
// them in MongoDB. A store of your own must pass the suite in package storetest.
//
// # Errors
//
// Only an error that wraps [ErrInvalidToken] means that a token is not valid. Any other error
// of [Database.ReadToken] means that the store could not tell: the request must be refused,
// and the client must keep its token.
package strategy
