// Package account manages accounts: it registers users, authenticates them by passwords,
// changes passwords and flags, and deletes accounts. It uses neither HTTP nor MongoDB.
//
// An application's user is a struct that embeds [User]:
//
//	type Member struct {
//		account.User[uuid.UUID] `bson:",inline"`
//		Name                    string `bson:"name"`
//	}
//
//	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{}, sessions)
//	member, err := accounts.Register(ctx, Member{User: account.User[uuid.UUID]{Email: "ann@example.com"}}, password)
//	member, _, err = accounts.Authenticate(ctx, "ann@example.com", password, "")
//
// [Manager] works on any such struct. It keeps accounts in a [Store]: mongostore.Users
// for MongoDB, memstore.Users for memory.
//
// Passwords are hashed with argon2id (RFC 9106). The number of concurrent hashes is
// limited. Hashes of other systems (argon2, bcrypt, scrypt, PBKDF2; see [Manager.ImportHash])
// are valid, and are replaced at the next login if their scheme or parameters are outdated.
//
// Users verify their address, set a forgotten password and change their address with one-time
// tokens, which a [Mailer] of the application sends; see [MailConfig].
//
// Failed logins are limited by account and by network; see [LimiterConfig]. The counters
// are in an [AttemptStore].
package account
