// Package storetest checks that a store keeps the contract of strategy.Store,
// account.Store or account.AttemptStore, and of what it can be beside that:
// strategy.RevocationLog, strategy.UserNotifier, strategy.JoinedSource. One call does
// it:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, uuid.New, func(t testing.TB) strategy.Store[uuid.UUID] {
//			return mystore.New(testDatabase(t))
//		})
//	}
//
// Later versions may check more: a store that fails a new check was broken
// before.
package storetest
