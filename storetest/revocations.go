package storetest

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

// RunRevocations checks a strategy.RevocationLog. Each subtest calls open,
// which must return an empty log. newID makes user IDs, as for [Run].
func RunRevocations[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) strategy.RevocationLog[ID]) {
	t.Helper()
	revocationSuite(newID, open).run(t)
}

func revocationSuite[ID comparable](newID func() ID, open func(testing.TB) strategy.RevocationLog[ID]) suite[revocationLog[ID]] {
	return suite[revocationLog[ID]]{
		open: func(ctx context.Context, t testing.TB) revocationLog[ID] {
			return revocationLog[ID]{open(t), ctx, newID}
		},
		checks: []check[revocationLog[ID]]{
			{"a revocation of each kind is returned as it was published", eachKind[ID]},
			{"a follower returns everything published since its last call", returnsAll[ID]},
			{"a follower begins no later than its first call", followerBegins[ID]},
			{"one call returns many revocations", manyAtOnce[ID]},
			{"a revocation that is published again is returned again", publishedAgain[ID]},
			{"followers are independent", independentFollowers[ID]},
			{"no revocation of concurrent publishers is lost", publishRace[ID]},
			{"a call that fails loses nothing", failedCall[ID]},
			{"a cancelled context stops publishers and followers", revocationsCancelled[ID]},
		},
	}
}

// revocationLog is the log under test.
type revocationLog[ID comparable] struct {
	strategy.RevocationLog[ID]
	ctx   context.Context
	newID func() ID
}

// one returns a new revocation of one of the three kinds.
func (l revocationLog[ID]) one(kind int) strategy.Revocation[ID] {
	switch kind % 3 {
	case 0:
		return strategy.Revocation[ID]{Digest: newDigest()}
	case 1:
		return strategy.Revocation[ID]{SessionID: uuid.Must(uuid.NewV7())}
	}
	return strategy.Revocation[ID]{UserID: l.newID()}
}

// publish publishes a new revocation of a kind.
func (l revocationLog[ID]) publish(kind int) strategy.Revocation[ID] {
	r := l.one(kind)
	must("PublishRevocation", l.PublishRevocation(l.ctx, r))
	return r
}

// publishN publishes n new revocations, whose kinds alternate.
func (l revocationLog[ID]) publishN(n int) (all []strategy.Revocation[ID]) {
	for kind := range n {
		all = append(all, l.publish(kind))
	}
	return all
}

// follower follows the log under test.
type follower[ID comparable] struct {
	ctx  context.Context
	next func(context.Context) ([]strategy.Revocation[ID], error)
}

// follow returns a follower that has begun: its first call has returned.
func (l revocationLog[ID]) follow() follower[ID] {
	f := follower[ID]{l.ctx, l.FollowRevocations()}
	in("the first call", func() { f.read() })
	return f
}

func (f follower[ID]) read() []strategy.Revocation[ID] {
	got, err := f.next(f.ctx)
	must("the follower", err)
	return got
}

// returns fails unless the follower's next call returns all of want.
func (f follower[ID]) returns(want ...strategy.Revocation[ID]) {
	got := f.read()
	if n := countMissing(got, want); n > 0 {
		fail("the follower returned %d revocations, without %d of %d that were published", len(got), n, len(want))
	}
}

func countMissing[ID comparable](got, want []strategy.Revocation[ID]) (n int) {
	for _, r := range want {
		if !slices.Contains(got, r) {
			n++
		}
	}
	return n
}

func eachKind[ID comparable](l revocationLog[ID]) {
	f := l.follow()
	for kind, name := range []string{"a token", "a session", "a user"} {
		in("of "+name, func() { f.returns(l.publish(kind)) })
	}
}

func returnsAll[ID comparable](l revocationLog[ID]) {
	f := l.follow()
	for _, n := range []int{1, 1, 0, 2, 0, 0, 7, 1} {
		f.returns(l.publishN(n)...)
	}
}

func followerBegins[ID comparable](l revocationLog[ID]) {
	// The first log is empty, the others are not.
	for range 3 {
		f := l.follow()
		f.returns(l.publishN(5)...)
	}
}

func manyAtOnce[ID comparable](l revocationLog[ID]) {
	f := l.follow()
	f.returns(l.publishN(150)...)
}

func publishedAgain[ID comparable](l revocationLog[ID]) {
	f := l.follow()
	for kind := range 3 {
		r := l.one(kind)
		for range 3 {
			must("PublishRevocation", l.PublishRevocation(l.ctx, r))
			in("a revocation that is published again", func() { f.returns(r) })
		}
	}
}

func independentFollowers[ID comparable](l revocationLog[ID]) {
	frequent, rare := l.follow(), l.follow()
	var all []strategy.Revocation[ID]
	for range 4 {
		published := l.publishN(3)
		in("a follower that reads often", func() { frequent.returns(published...) })
		all = append(all, published...)
	}
	in("a follower that reads rarely", func() { rare.returns(all...) })
}

func publishRace[ID comparable](l revocationLog[ID]) {
	const publishers, each = 8, 6
	var followers [publishers]follower[ID]
	var published, seen [publishers][]strategy.Revocation[ID]
	for i := range followers {
		followers[i] = l.follow()
	}
	concurrently(publishers, func(i int) {
		for n := range each {
			r := l.publish(i + n)
			published[i] = append(published[i], r)
			got := followers[i].read()
			if !slices.Contains(got, r) {
				fail("the follower returned %d revocations, without the one that was published just before it", len(got))
			}
			seen[i] = append(seen[i], got...)
		}
	})
	// A revocation may become visible after a later one, and must be returned then.
	all := slices.Concat(published[:]...)
	for i, f := range followers {
		if n := countMissing(append(f.read(), seen[i]...), all); n > 0 {
			fail("a follower that read beside %d publishers missed %d of %d revocations", publishers, n, len(all))
		}
	}
}

// fails fails unless the follower returns the error of a cancelled context.
func (f follower[ID]) fails() {
	got, err := f.next(cancelled(f.ctx))
	wantError("the follower", got, err, context.Canceled)
}

func failedCall[ID comparable](l revocationLog[ID]) {
	f := follower[ID]{l.ctx, l.FollowRevocations()}
	f.fails() // the follower has not begun
	f.read()
	var all []strategy.Revocation[ID]
	for range 3 {
		all = append(all, l.publishN(3)...)
		f.fails()
	}
	in("after a call that failed", func() { f.returns(all...) })
}

func revocationsCancelled[ID comparable](l revocationLog[ID]) {
	f := l.follow()
	wantError("PublishRevocation", nil, l.PublishRevocation(cancelled(l.ctx), l.one(0)), context.Canceled)
	f.fails()
}
