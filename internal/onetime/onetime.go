// Package onetime limits the one-time tokens of a user and purpose, for the stores.
package onetime

import (
	"cmp"
	"slices"
	"time"
)

// maxSkew is the largest difference expected between the clocks of instances.
const maxSkew = 10 * time.Second

// Token is what counts of a stored token.
type Token struct {
	Digest    string
	CreatedAt time.Time
}

// Surplus returns the digests of the tokens to remove, so that keep remain of a user's tokens
// of one purpose. account.OneTimeTokenStore says which. inserted is the creation time of the
// token that was just stored; stored has that one too, and is reordered.
func Surplus(stored []Token, inserted time.Time, keep int) []string {
	latest := inserted.Add(maxSkew)
	slices.SortFunc(stored, func(a, b Token) int {
		if ahead, other := a.CreatedAt.After(latest), b.CreatedAt.After(latest); ahead != other {
			if ahead {
				return 1
			}
			return -1
		}
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Digest, a.Digest))
	})
	var digests []string
	for _, token := range stored[min(keep, len(stored)):] {
		digests = append(digests, token.Digest)
	}
	return digests
}
