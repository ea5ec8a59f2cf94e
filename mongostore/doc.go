// Package mongostore keeps access tokens, accounts, login attempts and one-time tokens in the
// application's own MongoDB: [Tokens] is a strategy.Store, [Users] an account.Store and
// a strategy.UserSource, [Attempts] an account.AttemptStore, [OneTimeTokens] an
// account.OneTimeTokenStore, [AuditTrail] an OnEvent function. latchkey.New makes all of them; by hand:
//
//	users, err := mongostore.NewUsers[Member](db, mongostore.UsersConfig{})
//	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: 12 * time.Hour})
//	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{})
//	mails, err := mongostore.NewOneTimeTokens[uuid.UUID](db, mongostore.OneTimeTokensConfig{})
//
//	access_tokens
//	  _id            UUIDv7, binary subtype 4: the session's public handle
//	  token          the token's digest                    unique index {token: 1}
//	  user_id        the application's ID type, natively   index {user_id: 1, created_at: -1}
//	  created_at     date                                  TTL index {created_at: 1}
//	  token_version  number; missing means 0
//	  legacy         true: a copy of a token of fastapi-users; see LegacyTokens
//	  last_used_at, authenticated_at, expires_at, scopes, name, user_agent, client_ip
//	                 optional; a missing field is not used
//	users
//	  _id, email, hashed_password, is_active, is_verified, is_superuser, created_at
//	                                                       unique index {email: 1}
//	  token_version  number; missing means 0
//	                 and the application's own fields
//	login_attempts   see Attempts                          TTL index {expires_at: 1}
//	one_time_tokens  see OneTimeTokens                     TTL index {expires_at: 1}
//	                                                       index {user_id: 1, purpose: 1, created_at: -1}
//	oauth_accounts   see OAuthAccounts                     unique index {issuer: 1, subject: 1}
//	                                                       index {user_id: 1}
//	revocations      see Tokens.PublishRevocation          TTL index {at: 1}
//	audit            see AuditTrail                        TTL index {at: 1}
//	                                                       index {user_id: 1, at: -1, _id: -1}
//
// A token_version may be a number of any BSON type, as shells and other drivers write
// it: int32, int64, or a double or decimal128 without a fraction. null counts as 0. Any
// other type is an error that names the field and the type.
//
// The stores override the client's defaults. Writes are acknowledged by a majority, so
// that no failover brings a revoked token back. Reads go to the primary, which has every
// revocation. In a transaction of the application, the transaction's concerns apply
// instead: do not revoke tokens in one. Every call is bounded in time. Updates of tokens
// and users never create a document, and change no other field.
//
// The application calls EnsureIndexes to make the indexes, or VerifyIndexes to check
// them. Both fail within 10 seconds if no server answers. TTL indexes only collect
// garbage: the strategy itself checks the age of every token.
package mongostore
