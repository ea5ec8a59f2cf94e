package ginauth_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
)

// Whatever the mail server does, the routes answer at once and the same, the queue is bounded,
// and Close ends within its bound and leaves no goroutine: a goroutine that is left in the
// bubble fails the test.
func TestRoutesDoNotDependOnTheMailServer(t *testing.T) {
	const (
		requests = 3000
		queue    = 100
		workers  = 2
		drain    = 10 * time.Second
	)
	for _, c := range []struct {
		name string
		send func(context.Context) error
		// closing is how long Close takes with a full queue.
		closing time.Duration
	}{
		{"up", func(context.Context) error { return nil }, 0},
		{"refusing", func(context.Context) error { return errors.New("554 no thanks") }, 0},
		{"panicking", func(context.Context) error { panic("no template") }, 0},
		{"slow", func(ctx context.Context) error {
			select {
			case <-time.After(5 * time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, drain},
		{"hanging", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, drain},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				events := make(map[event.Kind]int)
				count := func(kind event.Kind) int {
					mu.Lock()
					defer mu.Unlock()
					return events[kind]
				}
				h := newRig(t)
				attempts, err := memstore.NewAttempts(0)
				must(t, err)
				h.accounts, err = account.NewManager(h.users, memstore.NewOneTimeTokens[uuid.UUID](), attempts, uuid.New, account.Config{
					Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
					RegistrationsPerNetwork: 10 * requests,
					Mail: account.MailConfig{
						Mailer: account.MailerFunc(func(ctx context.Context, _ account.Message) error { return c.send(ctx) }),
						Queue:  queue, Workers: workers, Drain: drain, PerAddress: 10 * requests, PerNetwork: 10 * requests,
					},
					OnEvent: func(_ context.Context, e event.Event) {
						mu.Lock()
						defer mu.Unlock()
						events[e.Kind]++
					},
				}, h.sessions)
				must(t, err)
				r := h.withAccounts(t, ginauth.Config{Accounts: ginauth.AccountsConfig{ConcealTaken: true}}, ginauth.Hooks[member]{})
				ask := func(path, email string) *httptest.ResponseRecorder {
					return request(r, "POST", path, body(fmt.Sprintf(`{"email":%q,"password":"a good long password"}`, email)))
				}
				same := func(what string, w *httptest.ResponseRecorder, code int, content string) {
					t.Helper()
					if w.Code != code || content != "" && w.Body.String() != content {
						t.Fatalf("%s: got %d %s, want %d %s", what, w.Code, w.Body, code, content)
					}
				}
				began := time.Now()
				for i := range 10 {
					same("a new address", ask("/register", fmt.Sprintf("new%d@example.com", i)), 202, "null")
					same("a taken address", ask("/register", "ann@example.com"), 202, "null")
				}
				for i := range requests {
					email := "ann@example.com"
					if i%2 == 1 {
						email = "nobody@example.com"
					}
					same("forgot-password", ask("/forgot-password", email), 202, "null")
					same("request-verify-token", ask("/request-verify-token", email), 202, "null")
				}
				// A registration is not dropped behind a success.
				taken := ask("/register", "ann@example.com")
				same("a taken address beyond the queue", taken, 503, "")
				same("a new address beyond the queue", ask("/register", "other@example.com"), 503, taken.Body.String())
				if took := time.Since(began); took != 0 {
					t.Errorf("the requests waited %v, want no wait", took)
				}
				// The messages that fit in the queue are all that is left of the requests.
				if got := count(event.MailFailed); got < 2*requests+20-queue-workers || got > 2*requests+20-queue {
					t.Errorf("%d messages were dropped, want all but the %d of the queue", got, queue)
				}
				began = time.Now()
				h.accounts.Close()
				if took := time.Since(began); took < c.closing || took > c.closing+time.Second {
					t.Errorf("Close took %v, want %v", took, c.closing)
				}
				if c.name != "up" && c.name != "slow" && count(event.MailSent) != 0 {
					t.Errorf("%d messages were sent, want none", count(event.MailSent))
				}
				same("after Close", ask("/forgot-password", "ann@example.com"), 202, "null")
			})
		})
	}
}
