package storetest

import (
	"context"
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// TokenResults runs every check of [Run] on a store of its own and returns what
// each found.
func TokenResults[ID comparable](ctx context.Context, t testing.TB, newID func() ID, open func(testing.TB) strategy.Store[ID]) map[string]error {
	results := make(map[string]error)
	for _, c := range tokenChecks[ID]() {
		results[c.name] = c.run(ctx, tokenStore[ID]{open(t), newID})
	}
	return results
}

// UserResults does the same for [RunUsers].
func UserResults[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](ctx context.Context, t testing.TB, newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) map[string]error {
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	results := make(map[string]error)
	for _, c := range userChecks[U, ID]() {
		results[c.name] = c.run(ctx, userStore[U, ID]{open(t), newUser, of})
	}
	return results
}

// AttemptResults does the same for [RunAttempts].
func AttemptResults(ctx context.Context, t testing.TB, open func(testing.TB) account.AttemptStore) map[string]error {
	results := make(map[string]error)
	for _, c := range attemptChecks() {
		results[c.name] = c.run(ctx, attemptStore{open(t)})
	}
	return results
}

// RevocationResults does the same for [RunRevocations].
func RevocationResults[ID comparable](ctx context.Context, t testing.TB, newID func() ID, open func(testing.TB) strategy.RevocationLog[ID]) map[string]error {
	results := make(map[string]error)
	for _, c := range revocationChecks[ID]() {
		results[c.name] = c.run(ctx, revocationLog[ID]{open(t), newID})
	}
	return results
}

// NotifierResults does the same for [RunUserNotifier].
func NotifierResults[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](ctx context.Context, t testing.TB, newUser func(email string) U, open func(testing.TB) NotifyingStore[U, ID]) map[string]error {
	of := func(u *U) *account.User[ID] { return P(u).Account() }
	results := make(map[string]error)
	for _, c := range notifierChecks[U, ID]() {
		store := open(t)
		results[c.name] = c.run(ctx, notifier[U, ID]{userStore[U, ID]{store, newUser, of}, store})
	}
	return results
}

// JoinedResults does the same for [RunJoined].
func JoinedResults[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](ctx context.Context, t testing.TB, newUser func(email string) U,
	open func(testing.TB) (strategy.Store[ID], account.Store[U, ID], strategy.JoinedSource[U, ID])) map[string]error {
	results := make(map[string]error)
	for _, c := range joinedChecks[U, ID]() {
		results[c.name] = c.run(ctx, openJoined[U, ID, P](t, newUser, open))
	}
	return results
}
