// Package account keeps accounts with passwords: register, authenticate, change
// a password. It knows neither HTTP nor MongoDB.
//
// An application's user is a struct of its own that embeds [User]:
//
//	type Member struct {
//		account.User[uuid.UUID] `bson:",inline"`
//		Name                    string `bson:"name"`
//	}
//
// [Manager] works on any such struct, over a [Store]: mongostore.Users keeps
// accounts in MongoDB, memstore.Users in memory.
//
// Passwords are hashed with argon2id (RFC 9106). The hashes that fastapi-users
// made (argon2id, or bcrypt before that) verify as they are, and are replaced at
// the next login where the scheme or the parameters are not today's. How many are
// hashed at once is bounded, and a [Limiter] bounds how often they can be guessed.
package account
