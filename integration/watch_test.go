package integration_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/strategy"
)

// One process watches sessions that another one ends. Watches leave no goroutine.
func TestWatchEndsWhenAnotherInstanceEndsTheSession(t *testing.T) {
	const patience = 10 * time.Second
	for _, c := range []struct {
		name   string
		cfg    strategy.Config
		within time.Duration
	}{
		{"polling", strategy.Config{WatchInterval: time.Second}, time.Second},
		{"following", cached(30*time.Second, 200*time.Millisecond), 200 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t)
			a, b := connectNode(t, db, c.cfg), connectNode(t, db, c.cfg)
			if c.cfg.Cache != (strategy.Cache{}) {
				b.following(t)
			}
			user, err := a.accounts.Create(t.Context(), contract.Member{User: account.User[uuid.UUID]{Email: "ann." + uuid.NewString() + "@example.com", Active: true}}, password)
			if err != nil {
				t.Fatal(err)
			}
			before := goleak.IgnoreCurrent()
			for _, end := range []struct {
				name  string
				by    func(token string, s strategy.Session[contract.Member]) error
				cause error
			}{
				{"log-out", func(token string, _ strategy.Session[contract.Member]) error {
					return a.sessions.DestroyToken(t.Context(), token)
				}, strategy.ErrSessionRevoked},
				{"end of the session", func(_ string, s strategy.Session[contract.Member]) error {
					return a.sessions.DestroySession(t.Context(), user.ID, s.ID)
				}, strategy.ErrSessionRevoked},
				{"change of the password", func(string, strategy.Session[contract.Member]) error {
					_, err := a.accounts.SetPassword(t.Context(), user.ID, password+password)
					return err
				}, strategy.ErrSessionRevoked},
				{"deactivation", func(string, strategy.Session[contract.Member]) error {
					return a.accounts.Deactivate(t.Context(), user.ID)
				}, strategy.ErrUserInactive},
			} {
				secret, session, err := a.sessions.WriteToken(t.Context(), user)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := b.sessions.ReadToken(t.Context(), secret.Reveal()); err != nil {
					t.Fatal(err)
				}
				first, stopFirst := b.sessions.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
				second, stopSecond := b.sessions.Watch(t.Context(), secret.Reveal(), session.SessionInfo)
				if err := end.by(secret.Reveal(), session); err != nil {
					t.Fatal(err)
				}
				ended := time.Now()
				for _, ctx := range []context.Context{first, second} {
					select {
					case <-ctx.Done():
					case <-time.After(patience):
						t.Fatalf("%s: the watch goes on", end.name)
					}
					if cause := context.Cause(ctx); !errors.Is(cause, end.cause) {
						t.Errorf("%s: got the cause %v, want %v", end.name, cause, end.cause)
					}
				}
				t.Logf("%s: the watch ended after %v, want about %v at most", end.name, time.Since(ended).Round(time.Millisecond), c.within)
				stopFirst()
				stopSecond()
				if user, err = a.accounts.ByID(t.Context(), user.ID); err != nil {
					t.Fatal(err)
				}
			}
			// The client may have opened connections, each with goroutines of its own and of the server's.
			if err := goleak.Find(before); err != nil && strings.Contains(err.Error(), "latchkey/strategy.") {
				t.Error(err)
			}
		})
	}
}
