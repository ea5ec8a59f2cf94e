package storetest

import (
	"context"
	"errors"
	"fmt"
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
		open: func(t testing.TB) revocationLog[ID] { return revocationLog[ID]{open(t), newID} },
		checks: []check[revocationLog[ID]]{
			{"a revocation of each kind is returned as it was published", eachKind[ID]},
			{"a follower returns everything published since its last call", nextReturnsAll[ID]},
			{"a follower begins no later than its first call", followerBegins[ID]},
			{"one call returns many revocations", manyAtOnce[ID]},
			{"a revocation that is published again is returned again", publishedAgain[ID]},
			{"followers are independent", independentFollowers[ID]},
			{"no revocation of concurrent publishers is lost", publishRace[ID]},
			{"a call that fails loses nothing", failedNext[ID]},
			{"a cancelled context stops publishers and followers", revocationsCancelled[ID]},
		},
	}
}

// revocationLog is the log under test.
type revocationLog[ID comparable] struct {
	strategy.RevocationLog[ID]
	newID func() ID
}

// follower is what FollowRevocations returns.
type follower[ID comparable] = func(context.Context) ([]strategy.Revocation[ID], error)

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

// publish publishes n new revocations, whose kinds alternate.
func (l revocationLog[ID]) publish(ctx context.Context, n int) ([]strategy.Revocation[ID], error) {
	var all []strategy.Revocation[ID]
	for kind := range n {
		r := l.one(kind)
		if err := l.PublishRevocation(ctx, r); err != nil {
			return nil, fmt.Errorf("PublishRevocation: %w", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// follow returns a follower that has begun: its first call has returned.
func (l revocationLog[ID]) follow(ctx context.Context) (follower[ID], error) {
	f := l.FollowRevocations()
	if _, err := f(ctx); err != nil {
		return nil, fmt.Errorf("the follower's first call: %w", err)
	}
	return f, nil
}

// nextReturns returns an error unless the follower's next call returns all of want.
func nextReturns[ID comparable](ctx context.Context, f follower[ID], want ...strategy.Revocation[ID]) error {
	got, err := f(ctx)
	if err != nil {
		return fmt.Errorf("the follower: %w", err)
	}
	if n := countMissing(got, want); n > 0 {
		return fmt.Errorf("the follower returned %d revocations, without %d of %d that were published", len(got), n, len(want))
	}
	return nil
}

func countMissing[ID comparable](got, want []strategy.Revocation[ID]) (n int) {
	for _, r := range want {
		if !slices.Contains(got, r) {
			n++
		}
	}
	return n
}

func eachKind[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	for kind, name := range []string{"a token", "a session", "a user"} {
		r := l.one(kind)
		if err := l.PublishRevocation(ctx, r); err != nil {
			return fmt.Errorf("PublishRevocation of %s: %w", name, err)
		}
		got, err := f(ctx)
		if err != nil {
			return fmt.Errorf("the follower: %w", err)
		}
		if !slices.Contains(got, r) {
			return fmt.Errorf("the follower returned %+v, want the revocation of %s, %+v", got, name, r)
		}
	}
	return nil
}

func nextReturnsAll[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 1, 0, 2, 0, 0, 7, 1} {
		published, err := l.publish(ctx, n)
		if err := errors.Join(err, nextReturns(ctx, f, published...)); err != nil {
			return err
		}
	}
	return nil
}

func followerBegins[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	// The first log is empty, the others are not.
	for range 3 {
		f, err := l.follow(ctx)
		if err != nil {
			return err
		}
		published, err := l.publish(ctx, 5)
		if err := errors.Join(err, nextReturns(ctx, f, published...)); err != nil {
			return err
		}
	}
	return nil
}

func manyAtOnce[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	published, err := l.publish(ctx, 150)
	return errors.Join(err, nextReturns(ctx, f, published...))
}

func publishedAgain[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	for kind := range 3 {
		r := l.one(kind)
		for range 3 {
			if err := l.PublishRevocation(ctx, r); err != nil {
				return fmt.Errorf("PublishRevocation: %w", err)
			}
			if err := nextReturns(ctx, f, r); err != nil {
				return fmt.Errorf("a revocation that is published again: %w", err)
			}
		}
	}
	return nil
}

func independentFollowers[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	frequent, err := l.follow(ctx)
	if err != nil {
		return err
	}
	rare, err := l.follow(ctx)
	if err != nil {
		return err
	}
	var all []strategy.Revocation[ID]
	for range 4 {
		published, err := l.publish(ctx, 3)
		if err := errors.Join(err, nextReturns(ctx, frequent, published...)); err != nil {
			return fmt.Errorf("a follower that reads often: %w", err)
		}
		all = append(all, published...)
	}
	if err := nextReturns(ctx, rare, all...); err != nil {
		return fmt.Errorf("a follower that reads rarely: %w", err)
	}
	return nil
}

func publishRace[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	const publishers, each = 8, 6
	var followers [publishers]follower[ID]
	var published, seen [publishers][]strategy.Revocation[ID]
	for i := range followers {
		var err error
		if followers[i], err = l.follow(ctx); err != nil {
			return err
		}
	}
	err := concurrently(publishers, func(i int) error {
		for n := range each {
			r := l.one(i + n)
			if err := l.PublishRevocation(ctx, r); err != nil {
				return fmt.Errorf("PublishRevocation: %w", err)
			}
			published[i] = append(published[i], r)
			got, err := followers[i](ctx)
			if err != nil {
				return fmt.Errorf("the follower: %w", err)
			}
			if !slices.Contains(got, r) {
				return fmt.Errorf("the follower returned %d revocations, without the one that was published just before it", len(got))
			}
			seen[i] = append(seen[i], got...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	// A revocation may become visible after a later one, and must be returned then.
	all := slices.Concat(published[:]...)
	for i, f := range followers {
		got, err := f(ctx)
		if err != nil {
			return fmt.Errorf("the follower: %w", err)
		}
		if n := countMissing(append(got, seen[i]...), all); n > 0 {
			return fmt.Errorf("a follower that read beside %d publishers missed %d of %d revocations", publishers, n, len(all))
		}
	}
	return nil
}

func failedNext[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	dead := cancelledContext(ctx)
	f := l.FollowRevocations()
	got, err := f(dead) // the follower has not begun
	if err := wantError("the follower", got, err, context.Canceled); err != nil {
		return err
	}
	if _, err := f(ctx); err != nil {
		return fmt.Errorf("the follower: %w", err)
	}
	var all []strategy.Revocation[ID]
	for range 3 {
		published, err := l.publish(ctx, 3)
		if err != nil {
			return err
		}
		all = append(all, published...)
		got, err := f(dead)
		if err := wantError("the follower", got, err, context.Canceled); err != nil {
			return err
		}
	}
	if err := nextReturns(ctx, f, all...); err != nil {
		return fmt.Errorf("after a call that failed: %w", err)
	}
	return nil
}

func revocationsCancelled[ID comparable](ctx context.Context, l revocationLog[ID]) error {
	f, err := l.follow(ctx)
	if err != nil {
		return err
	}
	dead := cancelledContext(ctx)
	if err := wantError("PublishRevocation", nil, l.PublishRevocation(dead, l.one(0)), context.Canceled); err != nil {
		return err
	}
	got, err := f(dead)
	return wantError("the follower", got, err, context.Canceled)
}
