// Package mongostore keeps access tokens and accounts in the application's own
// MongoDB: [Tokens] is a strategy.Store, [Users] an account.Store and a
// strategy.UserSource, [Attempts] an account.AttemptStore.
//
//	access_tokens
//	  _id          UUIDv7, binary subtype 4: the session's public handle
//	  token        the token's digest                    unique index {token: 1}
//	  user_id      the application's ID type, natively   index {user_id: 1, created_at: -1}
//	  created_at   date                                  TTL index {created_at: 1}
//	  last_used_at, authenticated_at, seen_not_before, expires_at, scopes, name, user_agent, client_addr
//	               optional; a missing one is not used
//	users
//	  _id, email, hashed_password, is_active, is_verified, is_superuser, created_at, tokens_not_before
//	               and the application's own fields      unique index {email: 1}
//	login_attempts
//	               see Attempts                          TTL index {expires_at: 1}
//
// Whatever the defaults of the client: writes are acknowledged by a majority, so
// that no failover brings a revoked token back, and reads go to the primary,
// which knows every revocation. (Inside a transaction of the application's, its
// concerns hold: do not revoke in one.) Every call is bounded in time. No update of
// tokens and users can create a document, and none touches a field that it does not
// change.
//
// Indexes are made on request, by EnsureIndexes; VerifyIndexes only looks. The
// TTL index collects garbage, no more: the strategy checks every token's age
// itself.
package mongostore
