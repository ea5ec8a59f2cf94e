package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

// With 10,000 sessions in the caches of two instances, what one revokes the other refuses as soon as it has asked, which
// it does once a second, and a bit: run and its check have all else.
func TestRevocationsAcrossInstances(t *testing.T) {
	const users, revoked, over = 10_000, 1000, 3 * time.Second
	l, err := lab.Open(t.Context(), users, users, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	p, err := newPair(t.Context(), l.Data)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	asked := len(p.other.log.all())
	found, err := p.run(t.Context(), revocationConns, revoked, over)
	if err != nil {
		t.Fatal(err)
	}
	polls := p.other.log.all()
	t.Logf("under %.0f requests/s, refused after p50 %v, p99 %v, max %v; %.2f commands/s to follow, polls took up to %v", found.rate,
		load.Percentile(found.refused, 50), load.Percentile(found.refused, 99), load.Percentile(found.refused, 100), found.commands, slowest(polls[asked:]))
	if found.cached != users || found.revoked != revoked || len(found.refused) != revoked {
		t.Errorf("%d sessions, %d revoked, %d refused; want %d, and %d twice", found.cached, found.revoked, len(found.refused), users, revoked)
	}
	if found.commands == 0 || found.commands > 2 {
		t.Errorf("following took %.2f commands/s, want about 1", found.commands)
	}
	if n := found.late(); n > 0 && os.Getenv("LATCHKEY_TEST_STRICT_TIME") == "1" {
		t.Errorf("%d sessions were refused later than %v", n, followInterval+followTolerance)
	}
	for _, s := range p.sessions {
		ended, accepted := s.ended.Load(), s.accepted.Load()
		if ended == 0 {
			continue
		}
		// Where the machine is busy the polls are late, but not what they have found.
		n := slices.IndexFunc(polls, func(p poll) bool { return p.began > ended })
		if n < 0 {
			continue // refused without one: its token had to be looked up
		}
		if late := time.Duration(accepted - polls[n].ended); late > followTolerance {
			t.Errorf("a session was accepted %v after the instance had asked for revocations, want none", late)
		}
		if n+1 < len(polls) && accepted > polls[n+1].began {
			t.Error("a session was accepted although the instance had asked for revocations, and again")
		}
	}
}

func slowest(polls []poll) (most time.Duration) {
	for _, p := range polls {
		most = max(most, time.Duration(p.ended-p.began))
	}
	return most
}
