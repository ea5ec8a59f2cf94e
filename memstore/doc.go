// Package memstore keeps access tokens, accounts, login attempts, one-time tokens, links to
// identity providers and revocations in memory. Use it in unit tests and examples: the data
// belong to one process and are lost when it ends.
//
//	users := memstore.NewUsers[Member]()
//	attempts, err := memstore.NewAttempts(0)
//	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{})
//	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{}, sessions)
package memstore
