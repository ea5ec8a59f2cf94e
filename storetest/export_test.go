package storetest

import (
	"testing"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Suite is a suite for stores of any type.
type Suite interface {
	// Results runs every check on a store of its own. It returns what each check found, by its name.
	Results(t testing.TB) map[string]error
}

func (s suite[S]) Results(t testing.TB) map[string]error {
	results := make(map[string]error)
	for _, c := range s.checks {
		results[c.name] = s.result(t, c)
	}
	return results
}

// Tokens is the suite of [Run].
func Tokens[ID comparable](newID func() ID, open func(testing.TB) strategy.Store[ID]) Suite {
	return tokenSuite(newID, open)
}

// Users is the suite of [RunUsers].
func Users[U strategy.User[ID], ID comparable, P account.Embeds[U, ID]](newUser func(email string) U, open func(testing.TB) account.Store[U, ID]) Suite {
	return userSuite[U, ID, P](newUser, open)
}

// Attempts is the suite of [RunAttempts].
func Attempts(open func(testing.TB) account.AttemptStore) Suite { return attemptSuite(open) }

// Revocations is the suite of [RunRevocations].
func Revocations[ID comparable](newID func() ID, open func(testing.TB) strategy.RevocationLog[ID]) Suite {
	return revocationSuite(newID, open)
}

// OneTimeTokens is the suite of [RunOneTimeTokens].
func OneTimeTokens[ID comparable](newID func() ID, open func(testing.TB) account.OneTimeTokenStore[ID]) Suite {
	return oneTimeSuite(newID, open)
}

// Legacy is the suite of [RunLegacy].
func Legacy[ID comparable](newID func() ID, open func(testing.TB) (strategy.LegacyStore[ID], Issue[ID])) Suite {
	return legacySuite(newID, open)
}

// OAuthAccounts is the suite of [RunOAuthAccounts].
func OAuthAccounts[ID comparable](newID func() ID, open func(testing.TB) account.OAuthAccountStore[ID]) Suite {
	return oauthSuite(newID, open)
}

// Joiners is the suite of [RunJoiner].
func Joiners[U strategy.User[ID], ID comparable](newUser func(email string) U, open func(testing.TB) Joined[U, ID]) Suite {
	return joinerSuite(newUser, open)
}
