package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

// kind is a kind of request. Those of a group are drawn on the same scale.
type kind struct {
	group  string
	name   string
	status int
	detail string
	send   func(i int) (answer, error) // sends the i-th request of this kind

	took []float64 // milliseconds
}

// perAccount is the number of logins on an account, below the limit of the limiter.
const perAccount = 9

// lockAtOnce locks an account after its first failure.
var lockAtOnce = account.Limit{Failures: 1, Delay: time.Hour, MaxDelay: time.Hour, Window: 24 * time.Hour}

// kinds creates the accounts for n logins of each kind. All addresses have the same length,
// and so have all passwords, so that the requests have the same length too.
func kinds(ctx context.Context, app, locking *app, n, lockedAccounts int) ([]*kind, error) {
	email := func(name string, i int) string { return fmt.Sprintf("%s.%06d@example.com", name, i/perAccount) }
	for i := 0; i < n; i += perAccount {
		if err := app.create(ctx, email("wrong", i), true); err != nil {
			return nil, err
		}
		if err := app.create(ctx, email("inact", i), false); err != nil {
			return nil, err
		}
	}
	locked := func(name string, i int) string { return fmt.Sprintf("%s.%06d@example.com", name, i%lockedAccounts) }
	for i := range lockedAccounts {
		if err := locking.create(ctx, locked("known", i), true); err != nil {
			return nil, err
		}
		for _, name := range []string{"known", "nobod"} {
			if got, err := locking.login(ctx, locked(name, i), wrongPassword); err != nil || !got.is(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS") {
				return nil, fmt.Errorf("lock an account: %d %s %w", got.status, got.body, err)
			}
		}
	}
	const bad, tooMany = http.StatusBadRequest, http.StatusTooManyRequests
	return []*kind{
		{"checked", "unknown user", bad, "LOGIN_BAD_CREDENTIALS", func(i int) (answer, error) { return app.login(ctx, email("nobod", i), wrongPassword) }, nil},
		{"checked", "wrong password", bad, "LOGIN_BAD_CREDENTIALS", func(i int) (answer, error) { return app.login(ctx, email("wrong", i), wrongPassword) }, nil},
		{"checked", "inactive user, right password", bad, "LOGIN_BAD_CREDENTIALS", func(i int) (answer, error) { return app.login(ctx, email("inact", i), rightPassword) }, nil},
		{"locked", "locked, known user", tooMany, "", func(i int) (answer, error) { return locking.login(ctx, locked("known", i), rightPassword) }, nil},
		{"locked", "locked, unknown user", tooMany, "", func(i int) (answer, error) { return locking.login(ctx, locked("nobod", i), rightPassword) }, nil},
	}, nil
}

// loginPairs are the kinds of logins that must look alike.
var loginPairs = [][2]int{{0, 1}, {1, 2}, {0, 2}, {3, 4}}

// measure sends n requests of each kind in random order, after a few to warm up, and keeps
// their times. It waits for pause between two requests.
func measure(ctx context.Context, kinds []*kind, n, warmUp int, pause time.Duration, random *rand.Rand) error {
	var order []*kind
	for _, k := range kinds {
		order = append(order, slices.Repeat([]*kind{k}, n)...)
	}
	random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	var first []*kind
	for range warmUp {
		first = append(first, kinds...)
	}
	sent := make(map[*kind]int)
	for i, k := range append(first, order...) {
		if pause > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pause):
			}
		}
		got, err := k.send(sent[k])
		sent[k]++
		if err != nil {
			return err
		}
		if !got.is(k.status, k.detail) {
			return fmt.Errorf("%s: got %d %s, want %d %s", k.name, got.status, got.body, k.status, k.detail)
		}
		if i >= len(first) {
			k.took = append(k.took, got.took)
		}
	}
	for _, k := range kinds {
		slices.Sort(k.took)
	}
	return nil
}

func report(w io.Writer, kinds []*kind, pairs [][2]int, random *rand.Rand) {
	fmt.Fprintln(w, row("request", "n", "min", "p25", "median", "p75", "p95", "max"))
	fmt.Fprintln(w, "|---|--:|--:|--:|--:|--:|--:|--:|")
	for _, k := range kinds {
		q := func(q float64) float64 { return quantile(k.took, q) }
		fmt.Fprintln(w, row(k.name, len(k.took), q(0), q(0.25), q(0.5), q(0.75), q(0.95), q(1)))
	}
	fmt.Fprintln(w, "\nAll times are in milliseconds.")

	rest := kinds
	for len(rest) > 0 {
		end := 1
		for end < len(rest) && rest[end].group == rest[0].group {
			end++
		}
		group := rest[:end]
		rest = rest[end:]
		var all []float64
		for _, k := range group {
			all = append(all, k.took...)
		}
		slices.Sort(all)
		low, high := quantile(all, 0), quantile(all, 0.98)
		fmt.Fprintf(w, "\nfrom %s to %s ms and more:\n", milliseconds(low), milliseconds(high))
		for _, k := range group {
			fmt.Fprintf(w, "  %-42s %s\n", k.name, histogram(k.took, low, high, 40))
		}
	}

	fmt.Fprintln(w)
	fmt.Fprintln(w, row("pair", "KS statistic", "its 5% critical value", "difference of medians (95% interval)", "verdict"))
	fmt.Fprintln(w, "|---|--:|--:|--:|---|")
	for _, pair := range pairs {
		a, b := kinds[pair[0]], kinds[pair[1]]
		c := compare(a.took, b.took, random)
		fmt.Fprintln(w, row(a.name+" / "+b.name, fmt.Sprintf("%.3f", c.d), fmt.Sprintf("%.3f", c.critical),
			fmt.Sprintf("%s (%s to %s)", milliseconds(c.difference), milliseconds(c.within.low), milliseconds(c.within.high)), c.verdict()))
	}
	fmt.Fprintln(w, "\nEach test reports a difference by chance in 5 of 100 cases: run the tool again before you rely on one.")
}
