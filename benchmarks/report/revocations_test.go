package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/benchmarks/internal/lab"
	"github.com/latchkey-go/latchkey/benchmarks/internal/load"
)

// Two instances have 10,000 sessions in their caches. A session that one revokes is refused
// by the other after its next poll, which it sends once a second. run checks all else.
func TestRevokedSessionIsRefusedByTheOtherInstance(t *testing.T) {
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
	earlier := len(p.other.log.all())
	found, err := p.run(t.Context(), revocationConns, revoked, over)
	if err != nil {
		t.Fatal(err)
	}
	polls := p.other.log.all()
	t.Logf("under %.0f requests/s, refused after p50 %v, p99 %v, max %v; %.2f commands/s for revocations, polls took up to %v", found.rate,
		load.Percentile(found.refused, 50), load.Percentile(found.refused, 99), load.Percentile(found.refused, 100), found.commands, slowest(polls[earlier:]))
	if found.cached != users || found.revoked != revoked || len(found.refused) != revoked {
		t.Errorf("%d sessions, %d revoked, %d refused; want %d sessions, and %d revoked and refused", found.cached, found.revoked, len(found.refused), users, revoked)
	}
	if found.commands == 0 || found.commands > 2 {
		t.Errorf("sent %.2f commands/s to read revocations, want about 1", found.commands)
	}
	if n := found.late(); n > 0 && os.Getenv("LATCHKEY_TEST_STRICT_TIME") == "1" {
		t.Errorf("%d sessions were refused later than %v", n, followInterval+followTolerance)
	}
	for _, s := range p.sessions {
		revoked, accepted := s.revoked.Load(), s.accepted.Load()
		if revoked == 0 {
			continue
		}
		// On a busy machine the polls are late, but their result applies at once.
		n := slices.IndexFunc(polls, func(p poll) bool { return p.began > revoked })
		if n < 0 {
			continue // refused without a poll, by a look-up of its token
		}
		if late := time.Duration(accepted - polls[n].ended); late > followTolerance {
			t.Errorf("a session was accepted %v after the poll that found its revocation", late)
		}
		if n+1 < len(polls) && accepted > polls[n+1].began {
			t.Error("a session was accepted after the second poll since its revocation")
		}
	}
}

func slowest(polls []poll) (most time.Duration) {
	for _, p := range polls {
		most = max(most, time.Duration(p.ended-p.began))
	}
	return most
}
