package account_test

import (
	"context"
	"errors"
	"fmt"
	"github.com/latchkey-go/latchkey/strategy"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/memstore"
)

// mailRig is a Manager with a Mailer that keeps the messages. It lives in a synctest bubble:
// time passes only while all goroutines wait.
type mailRig struct {
	*account.Manager[member, uuid.UUID]
	t       *testing.T
	store   *fakeStore
	users   *memstore.Users[member, uuid.UUID] // those of store
	tokens  *memstore.OneTimeTokens[uuid.UUID]
	told    []uuid.UUID      // by UserChanged with revoked
	revoked strategy.Revoked // by the last change
	ann     member
	sending func(ctx context.Context, m account.Message) error // nil: messages are kept

	mu       sync.Mutex
	messages []account.Message
	notices  []account.Message // messages that tell of a change
	events   []event.Event
}

func (r *mailRig) Send(ctx context.Context, m account.Message) error {
	if r.sending != nil {
		return r.sending(ctx, m)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Kind == account.MessagePasswordChanged || m.Kind == account.MessageEmailChanged {
		r.notices = append(r.notices, m)
	} else {
		r.messages = append(r.messages, m)
	}
	return nil
}

func (r *mailRig) UserChanged(_ context.Context, id uuid.UUID, revoked strategy.Revoked) error {
	if revoked != strategy.RevokedNone {
		r.told = append(r.told, id)
	}
	r.revoked = revoked
	return nil
}

func newMailRig(t *testing.T, cfg account.MailConfig, wrap ...func(account.OneTimeTokenStore[uuid.UUID]) account.OneTimeTokenStore[uuid.UUID]) *mailRig {
	t.Helper()
	r := &mailRig{t: t, store: newFakeStore(), tokens: memstore.NewOneTimeTokens[uuid.UUID]()}
	r.users = r.store.Users
	cfg.Mailer = r
	var oneTime account.OneTimeTokenStore[uuid.UUID] = r.tokens
	for _, w := range wrap {
		oneTime = w(oneTime)
	}
	var err error
	r.Manager, err = account.NewManager(r.store, oneTime, newAttempts(t), uuid.New, account.Config{
		Argon2: tiny, InsecureArgon2: true, Mail: cfg,
		OnEvent: func(_ context.Context, e event.Event) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.events = append(r.events, e)
		},
	}, r)
	if err != nil {
		t.Fatal(err)
	}
	if r.ann, err = r.Register(t.Context(), newMember("ann@example.com"), password); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	r.taken()
	return r
}

// idle waits until the queue has done what it can, which takes [account.AnswerLead].
func (r *mailRig) idle() {
	time.Sleep(account.AnswerLead) // virtual
	synctest.Wait()
}

// sent waits for the queue and returns the messages since the last call.
func (r *mailRig) sent() []account.Message {
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	messages := r.messages
	r.messages = nil
	return messages
}

// noticed waits for the queue and returns the kinds and addresses of the notices since the last
// call.
func (r *mailRig) noticed() (notices []string) {
	r.t.Helper()
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.notices {
		notices = append(notices, fmt.Sprint(m.Kind, " to ", m.To))
		if user, ok := m.User.(member); !ok || user.ID != r.ann.ID || m.Token.Reveal() != "" {
			r.t.Errorf("got the notice %+v, want Ann's, without a token", m)
		}
	}
	r.notices = nil
	return notices
}

// one returns the only message since the last call.
func (r *mailRig) one(kind account.MessageKind, to string) account.Message {
	r.t.Helper()
	messages := r.sent()
	if len(messages) != 1 || messages[0].Kind != kind || messages[0].To != to {
		r.t.Fatalf("got the messages %+v, want one of the kind %s to %s", messages, kind, to)
	}
	return messages[0]
}

// taken waits for the queue and returns the kinds and reasons of the events since the last call.
func (r *mailRig) taken() (kinds []string) {
	r.idle()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		kinds = append(kinds, strings.Trim(fmt.Sprint(e.Kind, " ", e.Reason), " "))
	}
	r.events = nil
	return kinds
}

func (r *mailRig) want(what string, err, want error) {
	r.t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		r.t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

func (r *mailRig) stored() member {
	r.t.Helper()
	user, err := r.users.ByID(r.t.Context(), r.ann.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return user
}

// change changes the stored account, as another program would.
func (r *mailRig) change(change account.Change) {
	r.t.Helper()
	if err := r.users.Apply(r.t.Context(), r.ann.ID, change); err != nil {
		r.t.Fatal(err)
	}
}

// inBubble runs subtests in bubbles of their own.
func inBubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// reset requests a message that resets the password, and returns its token.
func (r *mailRig) reset() string {
	r.t.Helper()
	r.want("RequestPasswordReset", r.RequestPasswordReset(r.t.Context(), "ann@example.com"), nil)
	return r.one(account.MessagePasswordReset, "ann@example.com").Token.Reveal()
}

func (r *mailRig) verification() string {
	r.t.Helper()
	r.want("RequestVerification", r.RequestVerification(r.t.Context(), "ann@example.com"), nil)
	return r.one(account.MessageVerification, "ann@example.com").Token.Reveal()
}

func TestVerification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		ctx := event.ContextWithClientIP(t.Context(), "203.0.113.7")
		r.want("request", r.RequestVerification(ctx, "  Ann@Example.com "), nil)
		m := r.one(account.MessageVerification, "ann@example.com")
		if user, ok := m.User.(member); !ok || user.ID != r.ann.ID || m.ClientIP != "203.0.113.7" || !m.ExpiresAt.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("got the message %+v, want Ann's, from 203.0.113.7, for 24 hours", m)
		}
		if _, ok := token.OneTime.Digest(m.Token.Reveal()); !ok {
			t.Errorf("got the token %q, want a one-time token", m.Token.Reveal())
		}
		user, err := r.Verify(t.Context(), m.Token.Reveal())
		r.want("verify", err, nil)
		if !user.Verified || !r.stored().Verified {
			t.Errorf("got verified: %v, stored: %v, want true", user.Verified, r.stored().Verified)
		}
		_, err = r.Verify(t.Context(), m.Token.Reveal())
		r.want("verify again", err, account.ErrBadOneTimeToken)
		if got, want := fmt.Sprint(r.taken()), "[mail.sent verification.requested account.verified one_time_token.denied unknown]"; got != want {
			t.Errorf("got the events %s, want %s", got, want)
		}
	})
}

// The result of a request does not depend on the account. An event says what happened.
func TestRequestsDoNotTellWhoHasAnAccount(t *testing.T) {
	for _, c := range []struct {
		name, email string
		change      account.Change
		verify      string // the events of a request for a verification
		reset       string // and for a reset
	}{
		{"an account", "ann@example.com", account.Change{}, "[mail.sent verification.requested]", "[mail.sent password.reset_requested]"},
		{"an unknown address", "bob@example.com", account.Change{}, "[verification.requested unknown_user]", "[password.reset_requested unknown_user]"},
		{"an inactive account", "ann@example.com", account.Change{Active: new(false)}, "[verification.requested user_inactive]", "[password.reset_requested user_inactive]"},
		{"a verified account", "ann@example.com", account.Change{Verified: new(true)}, "[verification.requested user_verified]", "[mail.sent password.reset_requested]"},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.change(c.change)
			for _, request := range []struct {
				call func(context.Context, string) error
				want string
			}{{r.RequestVerification, c.verify}, {r.RequestPasswordReset, c.reset}} {
				r.want("request", request.call(t.Context(), c.email), nil)
				if got := fmt.Sprint(r.taken()); got != request.want {
					t.Errorf("got the events %s, want %s", got, request.want)
				}
			}
		})
	}
	inBubble(t, "no address", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.want("request", r.RequestPasswordReset(t.Context(), "ann"), account.ErrInvalidEmail)
	})
}

func TestPasswordReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		secret, other := r.reset(), r.reset()
		_, err := r.ResetPassword(t.Context(), secret, "short")
		r.want("a short password", err, account.ErrInvalidPassword)
		user, err := r.ResetPassword(t.Context(), secret, "another good password")
		r.want("reset", err, nil)
		if user.Version != r.ann.Version+1 || r.stored().Version != user.Version || len(r.told) != 1 {
			t.Errorf("got the version %d, stored %d, told %d times; want one more, told once", user.Version, r.stored().Version, len(r.told))
		}
		_, _, err = r.Authenticate(t.Context(), "ann@example.com", "another good password", "")
		r.want("log in with the new password", err, nil)
		_, _, err = r.Authenticate(t.Context(), "ann@example.com", password, "")
		r.want("log in with the old password", err, account.ErrBadCredentials)
		for name, secret := range map[string]string{"the same token": secret, "another token": other} {
			_, err = r.ResetPassword(t.Context(), secret, "a third good password")
			r.want(name, err, account.ErrBadOneTimeToken)
		}
	})
}

// An account without a password gets its first one by a reset.
func TestFirstPasswordByAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		bob, err := r.CreateWithHash(t.Context(), newMember("bob@example.com"), account.PasswordHash{})
		r.want("create", err, nil)
		r.want("activate", r.Activate(t.Context(), bob.ID), nil)
		r.want("request", r.RequestPasswordReset(t.Context(), "bob@example.com"), nil)
		_, err = r.ResetPassword(t.Context(), r.one(account.MessagePasswordReset, "bob@example.com").Token.Reveal(), password)
		r.want("reset", err, nil)
		_, _, err = r.Authenticate(t.Context(), "bob@example.com", password, "")
		r.want("log in", err, nil)
	})
}

func TestEmailChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		verification := r.verification()
		r.want("request", r.RequestEmailChange(t.Context(), r.ann, "Ann@New.example"), nil)
		messages := r.sent()
		if len(messages) != 2 || messages[0].Kind != account.MessageEmailChanging || messages[0].To != "ann@example.com" || messages[0].Token.Reveal() != "" ||
			messages[1].Kind != account.MessageEmailChange || messages[1].To != "ann@new.example" {
			t.Fatalf("got the messages %+v, want a notice to the old address and a token to the new one", messages)
		}
		if got := r.stored(); got.Email != "ann@example.com" {
			t.Errorf("before the confirmation: got the address %s", got.Email)
		}
		user, err := r.Verify(t.Context(), messages[1].Token.Reveal())
		r.want("confirm", err, nil)
		if got := r.stored(); got.Email != "ann@new.example" || !got.Verified || user.Email != got.Email || !user.Verified || got.Version != r.ann.Version {
			t.Errorf("got %+v, stored %+v, want the new address, verified, with the same version", user, got)
		}
		_, err = r.Verify(t.Context(), verification)
		r.want("a verification of the old address", err, account.ErrBadOneTimeToken)
	})
	for _, c := range []struct {
		name, email string
		want        error
	}{
		{"a taken address", "bob@example.com", account.ErrEmailTaken},
		{"the same address", "ANN@example.com", account.ErrEmailTaken},
		{"no address", "ann", account.ErrInvalidEmail},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			_, err := r.Register(t.Context(), newMember("bob@example.com"), password)
			r.want("register", err, nil)
			r.want("request", r.RequestEmailChange(t.Context(), r.ann, c.email), c.want)
			if got := r.sent(); len(got) != 0 {
				t.Errorf("got the messages %+v, want none", got)
			}
		})
	}
	inBubble(t, "an address that is taken meanwhile", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.want("request", r.RequestEmailChange(t.Context(), r.ann, "new@example.com"), nil)
		secret := r.sent()[1].Token.Reveal()
		_, err := r.Register(t.Context(), newMember("new@example.com"), password)
		r.want("register", err, nil)
		_, err = r.Verify(t.Context(), secret)
		r.want("confirm", err, account.ErrEmailTaken)
		if got := r.stored().Email; got != "ann@example.com" {
			t.Errorf("got the address %s, want the old one", got)
		}
	})
}

// flows are the three uses of one-time tokens: how to get a token, and how to use it.
var flows = map[string]struct {
	request func(*mailRig) string
	use     func(r *mailRig, secret string) error
	// survives names the changes to the account that the token survives.
	survives string
}{
	"verification": {(*mailRig).verification, func(r *mailRig, secret string) error {
		_, err := r.Verify(r.t.Context(), secret)
		return err
	}, "revocation"},
	"reset": {(*mailRig).reset, func(r *mailRig, secret string) error {
		_, err := r.ResetPassword(r.t.Context(), secret, "another good password")
		return err
	}, "verified"},
	"change of address": {func(r *mailRig) string {
		r.want("request", r.RequestEmailChange(r.t.Context(), r.ann, "new@example.com"), nil)
		return r.sent()[1].Token.Reveal()
	}, func(r *mailRig, secret string) error {
		_, err := r.Verify(r.t.Context(), secret)
		return err
	}, "verified"},
}

// later requests n tokens, each a millisecond after the one before.
func later(request func(*mailRig) string, r *mailRig, n int) {
	for range n {
		time.Sleep(time.Millisecond) // virtual
		request(r)
	}
}

func TestOneTimeTokensDie(t *testing.T) {
	for flow, f := range flows {
		for _, c := range []struct {
			name   string
			change func(r *mailRig)
			want   error
		}{
			{"nothing", func(*mailRig) {}, nil},
			{"the last moment", func(*mailRig) {
				if flow == "reset" {
					time.Sleep(time.Hour) // virtual
				} else {
					time.Sleep(24 * time.Hour)
				}
			}, nil},
			{"the expiry", func(*mailRig) {
				if flow == "reset" {
					time.Sleep(time.Hour + time.Millisecond)
				} else {
					time.Sleep(24*time.Hour + time.Millisecond)
				}
			}, account.ErrBadOneTimeToken},
			{"another address", func(r *mailRig) { r.change(account.Change{Email: new("other@example.com")}) }, account.ErrBadOneTimeToken},
			{"revocation", func(r *mailRig) { r.change(account.Change{RevokeTokens: true}) }, account.ErrBadOneTimeToken},
			{"deactivation", func(r *mailRig) { r.change(account.Change{Active: new(false)}) }, account.ErrBadOneTimeToken},
			{"deletion", func(r *mailRig) { r.want("delete", r.Delete(r.t.Context(), r.ann.ID), nil) }, account.ErrBadOneTimeToken},
			{"three newer ones", func(r *mailRig) { later(f.request, r, 3) }, account.ErrBadOneTimeToken},
			{"two newer ones", func(r *mailRig) { later(f.request, r, 2) }, nil},
		} {
			inBubble(t, flow+" after "+c.name, func(t *testing.T) {
				r := newMailRig(t, account.MailConfig{})
				secret := f.request(r)
				c.change(r)
				want := c.want
				if c.name == f.survives {
					want = nil
				}
				r.want("use", f.use(r, secret), want)
				r.want("use again", f.use(r, secret), account.ErrBadOneTimeToken)
			})
		}
	}
}

// A token is for one flow only, and a malformed one costs no I/O.
func TestOneTimeTokensOfOtherFlowsAreRefused(t *testing.T) {
	for of, f := range flows {
		for use, g := range flows {
			proves := func(flow string) bool { return flow != "reset" } // Verify takes both
			if of == use || proves(of) && proves(use) {
				continue
			}
			inBubble(t, of+" for "+use, func(t *testing.T) {
				r := newMailRig(t, account.MailConfig{})
				secret := f.request(r)
				r.want("use", g.use(r, secret), account.ErrBadOneTimeToken)
				r.want("its own use", f.use(r, secret), nil)
			})
		}
	}
	access, _ := token.Default.New()
	malformed := map[string]string{"empty": "", "prefix alone": "lko_", "access token": access, "wrong checksum": "lko_" + strings.Repeat("0", 49)}
	for name, secret := range malformed { // the name is no secret: test logs must not show tokens
		inBubble(t, "malformed: "+name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{}, func(account.OneTimeTokenStore[uuid.UUID]) account.OneTimeTokenStore[uuid.UUID] {
				return untouchable{}
			})
			for use, f := range flows {
				r.want(use, f.use(r, secret), account.ErrBadOneTimeToken)
			}
		})
	}
}

// untouchable is a store whose methods panic.
type untouchable struct {
	account.OneTimeTokenStore[uuid.UUID]
}

// Of concurrent uses of a token, one wins.
func TestOneOfConcurrentUsesWins(t *testing.T) {
	for flow, f := range flows {
		inBubble(t, flow, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			for range 20 {
				r.change(account.Change{Email: new("ann@example.com"), Verified: new(false)})
				secret := f.request(r)
				var mu sync.Mutex
				won := 0
				var wg sync.WaitGroup
				for range 8 {
					wg.Go(func() {
						err := f.use(r, secret)
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil:
							won++
						case !errors.Is(err, account.ErrBadOneTimeToken) && !errors.Is(err, account.ErrAlreadyVerified):
							t.Errorf("got %v, want ErrBadOneTimeToken", err)
						}
					})
				}
				wg.Wait()
				if won != 1 {
					t.Fatalf("%d of 8 uses won, want 1", won)
				}
				time.Sleep(2 * time.Hour) // virtual: the limits on messages are over
			}
		})
	}
}

// count returns how often each event occurred: two workers send messages at the same time.
func count(events []string) map[string]int {
	counts := make(map[string]int)
	for _, e := range events {
		counts[e]++
	}
	return counts
}

func TestMessagesAreLimited(t *testing.T) {
	inBubble(t, "to an address", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		for range 7 {
			r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
		}
		if got := len(r.sent()); got != 5 {
			t.Errorf("got %d messages, want 5", got)
		}
		want := map[string]int{"mail.sent": 5, "password.reset_requested": 5, "password.reset_requested too_many": 2}
		if got := count(r.taken()); !maps.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
		time.Sleep(time.Hour) // virtual
		r.reset()
	})
	inBubble(t, "from a network", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerNetwork: 3})
		for i := range 5 {
			ctx := event.ContextWithClientIP(t.Context(), fmt.Sprintf("203.0.113.%d", i))
			r.want("request", r.RequestPasswordReset(ctx, fmt.Sprintf("user%d@example.com", i)), nil)
		}
		want := map[string]int{"password.reset_requested unknown_user": 3, "password.reset_requested too_many": 2}
		if got := count(r.taken()); !maps.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
	})
}

// A Mailer that fails, panics, hangs or is slow changes no answer, and is an event.
func TestFailingMailerIsAnEvent(t *testing.T) {
	for name, sending := range map[string]func(context.Context, account.Message) error{
		"fails":  func(context.Context, account.Message) error { return errors.New("550 no such user") },
		"panics": func(context.Context, account.Message) error { panic("no template") },
		"hangs":  func(ctx context.Context, _ account.Message) error { <-ctx.Done(); return ctx.Err() },
	} {
		inBubble(t, name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.sending = sending
			began := time.Now()
			r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
			if took := time.Since(began); took != 0 {
				t.Errorf("the request took %v, want no time", took)
			}
			time.Sleep(time.Minute) // virtual
			if got := fmt.Sprint(r.taken()); got != "[mail.failed password.reset_requested]" {
				t.Errorf("got the events %s, want mail.failed", got)
			}
		})
	}
}

// The work that only known addresses cause begins when the answer has been sent.
func TestAnswerIsSentBeforeItsMessageIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
		time.Sleep(account.AnswerLead - time.Nanosecond) // virtual
		synctest.Wait()
		r.mu.Lock()
		early := len(r.messages) + len(r.events)
		r.mu.Unlock()
		if early != 0 {
			t.Error("the message was made too early")
		}
		r.one(account.MessagePasswordReset, "ann@example.com")
	})
}

func TestMailQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{Workers: 1, Queue: 2, PerAddress: 100})
		r.sending = func(ctx context.Context, _ account.Message) error { <-ctx.Done(); return ctx.Err() }
		for range 2 { // one is being sent, and one waits: the worker takes the first
			r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
			r.idle()
		}
		for range 5 {
			r.want("request beyond the queue", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
		}
		if got := len(r.taken()); got != 4 {
			t.Errorf("got %d events, want 4 messages that were dropped", got)
		}
	})
}

// Close sends what is queued. What is not sent in time is an event.
func TestCloseDrainsTheMailQueue(t *testing.T) {
	for _, c := range []struct {
		name         string
		each         time.Duration // time to send a message
		took         time.Duration
		sent, failed int
	}{
		{"fast", time.Second, 4*time.Second + account.AnswerLead, 4, 0},
		{"slow", 4 * time.Second, 10 * time.Second, 2, 2},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{Workers: 1})
			r.sending = func(ctx context.Context, _ account.Message) error {
				select {
				case <-time.After(c.each):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			for range 4 {
				r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
			}
			began := time.Now()
			r.Close()
			if took := time.Since(began); took != c.took {
				t.Errorf("Close took %v, want %v", took, c.took)
			}
			counts := count(r.taken())
			if counts["mail.sent"] != c.sent || counts["mail.failed"]+counts["store.failed"] != c.failed {
				t.Errorf("got the events %v, want %d sent and %d failed", counts, c.sent, c.failed)
			}
			r.want("request after Close", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
			if got := fmt.Sprint(r.taken()); got != "[mail.failed]" {
				t.Errorf("after Close: got the events %s, want mail.failed", got)
			}
			r.Close()
		})
	}
}

func TestWithoutAMailer(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	_, verify := r.Verify(t.Context(), "x")
	_, reset := r.ResetPassword(t.Context(), "x", password)
	_, confirm := r.Verify(t.Context(), "x")
	for name, err := range map[string]error{
		"RequestVerification":  r.RequestVerification(t.Context(), ann.Email),
		"RequestPasswordReset": r.RequestPasswordReset(t.Context(), ann.Email),
		"RequestEmailChange":   r.RequestEmailChange(t.Context(), ann, "new@example.com"),
		"Verify":               verify, "ResetPassword": reset, "ConfirmEmailChange": confirm,
	} {
		if !errors.Is(err, account.ErrNoMailer) {
			t.Errorf("%s: got %v, want ErrNoMailer", name, err)
		}
	}
	r.Close()
}

// The owner of an address takes over, by a reset, an account that somebody else made with it.
func TestResetOfAnUnverifiedAccountRemovesTheOtherWaysIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		var versions []int64
		var failure error
		r.OnClaim(func(ctx context.Context, id uuid.UUID) error {
			if id != r.ann.ID || ctx.Err() != nil {
				t.Errorf("called for %v, %v; want the account and a context that goes on", id, ctx.Err())
			}
			versions = append(versions, r.stored().Version)
			return failure
		})
		secret, before := r.reset(), r.stored().Version
		failure = errors.New("down")
		if _, err := r.ResetPassword(t.Context(), secret, "another good password"); !errors.Is(err, failure) || r.stored().Version != before {
			t.Errorf("got %v, version %d; want the function's error and no change", err, r.stored().Version)
		}
		failure, versions = nil, nil
		_, err := r.ResetPassword(t.Context(), secret, "another good password")
		r.want("reset", err, nil)
		if len(versions) != 2 || versions[0] != before || versions[1] != before+1 {
			t.Errorf("called at the versions %v, want before and after the reset", versions)
		}
		if r.revoked != strategy.RevokedAll {
			t.Errorf("the sessions were told %v, want all: an API token that survives a new password is a way in too", r.revoked)
		}
		_, err = r.Verify(t.Context(), r.verification())
		r.want("verify", err, nil)
		versions = nil
		_, err = r.ResetPassword(t.Context(), r.reset(), "a third good password")
		r.want("reset of a verified account", err, nil)
		if versions != nil || r.revoked != strategy.RevokedByPassword {
			t.Errorf("verified account: called at %v and revoked %v, want no call and by password", versions, r.revoked)
		}
	})
}
