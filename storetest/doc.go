// Package storetest checks that a store keeps its contract. Each function runs a suite, with
// one subtest for each line of the contract:
//
//   - [Run]: strategy.Store
//   - [RunRevocations]: strategy.RevocationLog, which a strategy.Store may be too
//   - [RunUsers]: account.Store
//   - [RunAttempts]: account.AttemptStore
//   - [RunOneTimeTokens]: account.OneTimeTokenStore
//   - [RunOAuthAccounts]: account.OAuthAccountStore
//   - [RunJoiner]: strategy.Joiner, which an account.Store may be too
//
// A test of a store is one call:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, uuid.New, func(t testing.TB) strategy.Store[uuid.UUID] {
//			return mystore.New(emptyDatabase(t))
//		})
//	}
//
// Every subtest opens a store of its own, which must be empty.
//
// Later versions may check more of the contract, so a new version can fail a store that
// passed before.
package storetest
