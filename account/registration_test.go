package account_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
)

// byEmail returns the account with an address.
func (r *mailRig) byEmail(email string) member {
	r.t.Helper()
	m, err := r.users.ByEmail(r.t.Context(), email)
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// lacks checks that no account has an address.
func (r *mailRig) lacks(email string) {
	r.t.Helper()
	if _, err := r.users.ByEmail(r.t.Context(), email); !errors.Is(err, account.ErrUserNotFound) {
		r.t.Errorf("an account has the address %s (error %v), want none", email, err)
	}
}

func (r *mailRig) wantEvents(want ...string) {
	r.t.Helper()
	if got := r.taken(); !slices.Equal(got, want) {
		r.t.Errorf("got the events %v, want %v", got, want)
	}
}

// The flags, the ID and the version of a stranger's account do not count. Its own fields do.
func TestRequestRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		ctx := event.ContextWithClientIP(t.Context(), "203.0.113.7")
		stranger := newMember(" Bob@Example.com ")
		stranger.Name, stranger.ID, stranger.Superuser, stranger.Verified, stranger.Version = "Bob", r.ann.ID, true, true, 7
		stranger.HashedPassword, stranger.CreatedAt = account.NewPasswordHash("forged"), time.Unix(0, 0)
		now := time.Now().UTC()
		r.want("request", r.RequestRegistration(ctx, stranger, password), nil)
		m := r.one(account.MessageVerification, "bob@example.com")
		bob := r.byEmail("bob@example.com")
		want := member{User: account.User[uuid.UUID]{
			ID: bob.ID, Email: "bob@example.com", HashedPassword: bob.HashedPassword, Active: true, CreatedAt: now,
		}, Name: "Bob"}
		if !sameuser.Equal(bob, want) || bob.ID == uuid.Nil || bob.ID == r.ann.ID {
			t.Errorf("stored %+v, want %+v with an ID of its own", bob, want)
		}
		if user, ok := m.User.(member); !ok || user.ID != bob.ID || m.ClientIP != "203.0.113.7" || !m.ExpiresAt.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("got the message %+v, want Bob's, from 203.0.113.7, for 24 hours", m)
		}
		r.wantEvents("account.registered", "mail.sent", "verification.requested")
		if _, _, err := r.Authenticate(t.Context(), "bob@example.com", password, ""); err != nil {
			t.Errorf("log in: %v", err)
		}
		user, err := r.Verify(t.Context(), m.Token.Reveal())
		r.want("verify", err, nil)
		if user.ID != bob.ID || !user.Verified || !r.byEmail("bob@example.com").Verified {
			t.Errorf("got %+v, want Bob's account, verified", user)
		}
	})
}

// A taken address has the same result. Its owner gets a message without a token.
func TestRequestRegistrationOfATakenAddress(t *testing.T) {
	for _, c := range []struct {
		name, email string
		change      account.Change
		messages    int
		events      []string
	}{
		{"as it is stored", "ann@example.com", account.Change{}, 1, []string{"account.registration_denied email_taken", "mail.sent"}},
		{"in another spelling", " ANN@Example.COM", account.Change{}, 1, []string{"account.registration_denied email_taken", "mail.sent"}},
		{"of a verified account", "ann@example.com", account.Change{Verified: new(true)}, 1, []string{"account.registration_denied email_taken", "mail.sent"}},
		{"of an inactive account", "ann@example.com", account.Change{Active: new(false)}, 0, []string{"account.registration_denied email_taken"}},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.change(c.change)
			before := r.stored()
			stranger := newMember(c.email)
			stranger.Name = "Eve"
			r.want("request", r.RequestRegistration(t.Context(), stranger, "the stranger's password"), nil)
			messages := r.sent()
			if len(messages) != c.messages {
				t.Fatalf("got %d messages, want %d", len(messages), c.messages)
			}
			for _, m := range messages {
				user, ok := m.User.(member)
				if m.Kind != account.MessageEmailTaken || m.To != "ann@example.com" || !ok || !sameuser.Equal(user, before) || m.Token.Reveal() != "" || !m.ExpiresAt.IsZero() {
					t.Errorf("got the message %+v, want a notice to Ann about her account, without a token", m)
				}
			}
			r.wantEvents(c.events...)
			if got := r.stored(); !sameuser.Equal(got, before) {
				t.Errorf("stored %+v, want %+v", got, before)
			}
		})
	}
}

// Neither the store nor the Mailer delays the answer, whether or not the address is taken.
func TestRequestRegistrationDoesNotWaitForTheStore(t *testing.T) {
	for _, email := range []string{"ann@example.com", "bob@example.com"} {
		inBubble(t, email, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			insert := r.store.insert
			r.store.insert = func(ctx context.Context, m member) error {
				time.Sleep(time.Second) // virtual
				return insert(ctx, m)
			}
			r.store.byEmail = func(ctx context.Context, email string) (member, error) {
				time.Sleep(time.Second)
				return r.users.ByEmail(ctx, email)
			}
			began := time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			r.want("request", r.RequestRegistration(ctx, newMember(email), password), nil)
			if took := time.Since(began); took != 0 {
				t.Errorf("the request took %v, want no time", took)
			}
			cancel() // the client goes away
			time.Sleep(time.Minute)
			if got := r.sent(); len(got) != 1 {
				t.Errorf("got %d messages, want 1", len(got))
			}
		})
	}
}

// A registration hashes one password, whether or not the address is taken.
func TestRegistrationHashesOnePassword(t *testing.T) {
	users := newFakeStore()
	m, err := account.NewManager(users, memstore.NewOneTimeTokens[uuid.UUID](), newAttempts(t), uuid.New, account.Config{
		Argon2: counted, InsecureArgon2: true, Timeout: time.Minute,
		Mail: account.MailConfig{Mailer: account.MailerFunc(func(context.Context, account.Message) error { return nil })},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Register(t.Context(), newMember("ann@example.com"), password); err != nil {
		t.Fatal(err)
	}
	for name, register := range map[string]func(email string) error{
		"Register": func(email string) error {
			_, err := m.Register(t.Context(), newMember(email), password)
			return err
		},
		"RequestRegistration": func(email string) error { return m.RequestRegistration(t.Context(), newMember(email), password) },
	} {
		for _, email := range []string{"ann@example.com", strings.ToLower(name) + "@example.com"} {
			if n := hashes(func() { _ = register(email) }); n != 1 {
				t.Errorf("%s of %s: computed %d hashes, want 1", name, email, n)
			}
		}
	}
	m.Close()
	for _, email := range []string{"register@example.com", "requestregistration@example.com"} {
		if _, err := users.ByEmail(t.Context(), email); err != nil {
			t.Errorf("%s: %v", email, err)
		}
	}
}

func TestRequestRegistrationRejectsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name, email, password string
		want                  error
	}{
		{"a short password", "bob@example.com", "short", account.ErrPasswordTooShort},
		{"a long password", "bob@example.com", strings.Repeat("x", 2000), account.ErrPasswordTooLong},
		{"a short password for a taken address", "ann@example.com", "short", account.ErrPasswordTooShort},
		{"no address", "bob", password, account.ErrInvalidEmail},
		{"an empty address", "", password, account.ErrInvalidEmail},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.want("request", r.RequestRegistration(t.Context(), newMember(c.email), c.password), c.want)
			if got := r.sent(); len(got) != 0 {
				t.Errorf("got the messages %+v, want none", got)
			}
			r.wantEvents()
			r.lacks("bob@example.com")
		})
	}
	t.Run("without a Mailer", func(t *testing.T) {
		r := newRig(t, account.Config{Argon2: counted})
		var err error
		if n := hashes(func() { err = r.RequestRegistration(t.Context(), newMember("bob@example.com"), password) }); n != 0 || !errors.Is(err, account.ErrNoMailer) {
			t.Errorf("got %v after %d hashes, want ErrNoMailer after none", err, n)
		}
	})
}

// With the queue full, nothing would tell the user, so the request fails. It fails for taken
// addresses too.
func TestRequestRegistrationFailsIfTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{Workers: 1, Queue: 1})
		r.sending = func(ctx context.Context, _ account.Message) error { <-ctx.Done(); return ctx.Err() }
		for range 2 { // one is being sent, and one waits
			r.want("request", r.RequestPasswordReset(t.Context(), "ann@example.com"), nil)
			r.idle()
		}
		for _, email := range []string{"ann@example.com", "bob@example.com"} {
			r.want(email, r.RequestRegistration(t.Context(), newMember(email), password), account.ErrBusy)
			r.wantEvents("login.overloaded")
		}
		time.Sleep(time.Hour) // virtual
		r.lacks("bob@example.com")
	})
	inBubble(t, "after Close", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.Close()
		if err := r.RequestRegistration(t.Context(), newMember("bob@example.com"), password); err == nil {
			t.Error("got no error, want one")
		}
		r.wantEvents("store.failed")
		r.lacks("bob@example.com")
	})
}

// What fails behind the answer is an event.
func TestRegistrationThatFailsBehindTheAnswerIsAnEvent(t *testing.T) {
	down := errors.New("down")
	for _, c := range []struct {
		name, email string
		breakIt     func(*mailRig)
		events      []string
	}{
		{"the account cannot be stored", "bob@example.com", func(r *mailRig) {
			r.store.insert = func(context.Context, member) error { return down }
		}, []string{"store.failed"}},
		{"the ID is taken", "bob@example.com", func(r *mailRig) {
			r.store.insert = func(context.Context, member) error { return account.ErrConflict }
		}, []string{"store.failed"}},
		{"the store hangs", "bob@example.com", func(r *mailRig) {
			r.store.insert = func(ctx context.Context, _ member) error { return hang(ctx) }
		}, []string{"store.failed"}},
		{"the owner cannot be looked up", "ann@example.com", func(r *mailRig) {
			r.store.byEmail = func(context.Context, string) (member, error) { return member{}, down }
		}, []string{"account.registration_denied email_taken", "store.failed"}},
		{"the owner is deleted meanwhile", "ann@example.com", func(r *mailRig) {
			r.store.byEmail = func(context.Context, string) (member, error) { return member{}, account.ErrUserNotFound }
		}, []string{"account.registration_denied email_taken"}},
		{"the Mailer fails", "bob@example.com", func(r *mailRig) {
			r.sending = func(context.Context, account.Message) error { return down }
		}, []string{"account.registered", "mail.failed", "verification.requested"}},
		{"the Mailer fails for a taken address", "ann@example.com", func(r *mailRig) {
			r.sending = func(context.Context, account.Message) error { return down }
		}, []string{"account.registration_denied email_taken", "mail.failed"}},
		{"Close does not wait for the store", "bob@example.com", func(r *mailRig) {
			r.store.insert = func(ctx context.Context, _ member) error {
				<-ctx.Done()
				return ctx.Err()
			}
			time.AfterFunc(time.Second, r.Close)
		}, []string{"store.failed"}},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			c.breakIt(r)
			r.want("request", r.RequestRegistration(t.Context(), newMember(c.email), password), nil)
			time.Sleep(time.Hour) // virtual
			if got := r.sent(); len(got) != 0 {
				t.Errorf("got the messages %+v, want none", got)
			}
			r.wantEvents(c.events...)
		})
	}
}

// A token that cannot be stored is not sent. The user can request another one.
func TestRegistrationWhoseTokenCannotBeStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{}, func(s account.OneTimeTokenStore[uuid.UUID]) account.OneTimeTokenStore[uuid.UUID] {
			return &failsOnce{OneTimeTokenStore: s}
		})
		r.want("request", r.RequestRegistration(t.Context(), newMember("bob@example.com"), password), nil)
		r.wantEvents("account.registered", "store.failed")
		r.want("request a verification", r.RequestVerification(t.Context(), "bob@example.com"), nil)
		_, err := r.Verify(t.Context(), r.one(account.MessageVerification, "bob@example.com").Token.Reveal())
		r.want("verify", err, nil)
	})
}

// failsOnce is a store whose first Insert fails.
type failsOnce struct {
	account.OneTimeTokenStore[uuid.UUID]
	failed bool
}

func (s *failsOnce) Insert(ctx context.Context, row account.OneTimeToken[uuid.UUID], most int) error {
	if !s.failed {
		s.failed = true
		return errors.New("down")
	}
	return s.OneTimeTokenStore.Insert(ctx, row, most)
}

// Registrations count as messages to the address: nobody can flood a mailbox with notices. The
// account is stored all the same.
func TestMessagesOfRegistrationsAreLimited(t *testing.T) {
	inBubble(t, "to an address", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerAddress: 2})
		for range 4 {
			r.want("request", r.RequestRegistration(t.Context(), newMember("ann@example.com"), password), nil)
		}
		if got := r.sent(); len(got) != 2 {
			t.Errorf("got %d messages, want 2", len(got))
		}
		want := map[string]int{"account.registration_denied email_taken": 4, "mail.sent": 2, "verification.requested too_many": 2}
		if got := count(r.taken()); !maps.Equal(got, want) {
			t.Errorf("got the events %v, want %v", got, want)
		}
	})
	inBubble(t, "from a network", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerNetwork: 1})
		for i := range 2 {
			ctx := event.ContextWithClientIP(t.Context(), "203.0.113.7")
			r.want("request", r.RequestRegistration(ctx, newMember(fmt.Sprintf("user%d@example.com", i)), password), nil)
			r.idle()
			r.byEmail(fmt.Sprintf("user%d@example.com", i))
		}
		r.wantEvents("account.registered", "mail.sent", "verification.requested", "account.registered", "verification.requested too_many")
	})
}

func TestRequestRegistrationIsLimitedByNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerAddress: 1000})
		ctx := event.ContextWithClientIP(t.Context(), "203.0.113.7")
		for range 100 {
			r.want("request", r.RequestRegistration(ctx, newMember("ann@example.com"), password), nil)
		}
		r.taken()
		for _, email := range []string{"ann@example.com", "bob@example.com"} {
			err := r.RequestRegistration(ctx, newMember(email), password)
			r.want(email, err, account.ErrTooManyAttempts)
			var tooMany *account.TooManyAttemptsError
			if !errors.As(err, &tooMany) || tooMany.RetryAfter != time.Hour {
				t.Errorf("got %v, want one that says to wait for an hour", err)
			}
			r.wantEvents("account.registration_denied too_many")
		}
		r.lacks("bob@example.com")
		time.Sleep(time.Hour) // virtual
		r.want("an hour later", r.RequestRegistration(ctx, newMember("bob@example.com"), password), nil)
		r.idle()
		r.byEmail("bob@example.com")
	})
}

// registrations registers an account from each of these IP addresses and returns how many
// registrations were allowed.
func (r *rig) registrations(t *testing.T, n int, addr func(int) string) (allowed int) {
	t.Helper()
	for i := range n {
		_, err := r.Register(from(addr(i)), newMember(uuid.NewString()+"@example.com"), password)
		switch {
		case err == nil:
			allowed++
		case !errors.Is(err, account.ErrTooManyAttempts):
			t.Fatal(err)
		}
	}
	return allowed
}

func TestRegistrationsAreLimitedByNetwork(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int
		n     int
		addr  func(int) string
		want  int
	}{
		{"by default", 0, 120, always(home), 100},
		{"one address", 3, 10, always(home), 3},
		{"addresses of an IPv4 /24", 3, 10, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }, 3},
		{"other networks", 3, 10, elsewhere, 10},
		{"addresses of an IPv6 /64", 3, 10, func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }, 3},
		{"networks of an IPv6 /48", 3, 50, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }, 30},
		{"other IPv6 /48s", 3, 50, func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i) }, 50},
		{"a port does not matter", 3, 10, func(i int) string { return fmt.Sprintf("192.0.2.7:%d", 1000+i) }, 3},
		{"no client IP", 1, 10, always(""), 10},
		{"no IP address", 1, 10, always("unix"), 10},
		{"a limit of one", 1, 10, always(home), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: tiny, RegistrationsPerNetwork: c.limit})
			if got := r.registrations(t, c.n, c.addr); got != c.want {
				t.Errorf("%d of %d registrations were allowed, want %d", got, c.n, c.want)
			}
			// The window of an hour begins with the first registration.
			r.clock.advance(time.Hour)
			if got := r.registrations(t, 1, c.addr); got != 1 {
				t.Error("an hour later, no registration is allowed")
			}
		})
	}
}

// Each instance of an application has a Manager of its own.
func TestRegistrationsOfAllInstancesCount(t *testing.T) {
	attempts := newAttempts(t)
	cfg := account.Config{Argon2: tiny, RegistrationsPerNetwork: 5}
	first, second := newRigWith(t, attempts, cfg), newRigWith(t, attempts, cfg)
	if got := first.registrations(t, 3, always(home)) + second.registrations(t, 10, always(home)) + first.registrations(t, 3, always(home)); got != 5 {
		t.Errorf("%d registrations were allowed, want 5", got)
	}
}

func TestRegistrationsAreNotLimitedWithoutALimiter(t *testing.T) {
	for name, attempts := range map[string]account.AttemptStore{"with a store": newAttempts(t), "without a store": nil} {
		r := newRigWith(t, attempts, account.Config{Argon2: tiny, RegistrationsPerNetwork: 1, InsecureNoLimiter: true})
		if got := r.registrations(t, 10, always(home)); got != 10 {
			t.Errorf("%s: %d of 10 registrations were allowed, want all", name, got)
		}
	}
}

// A user who tries several passwords until one is accepted registers once. Taken addresses
// count: they would show which addresses are taken.
func TestWhichRegistrationsCount(t *testing.T) {
	r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: counted, RegistrationsPerNetwork: 3})
	register := func(email, password string) error {
		_, err := r.Register(from(home), newMember(email), password)
		return err
	}
	for range 10 {
		if err := register("bob@example.com", "short"); !errors.Is(err, account.ErrInvalidPassword) {
			t.Errorf("a short password: got %v, want ErrInvalidPassword", err)
		}
		if err := register("bob", password); !errors.Is(err, account.ErrInvalidEmail) {
			t.Errorf("no address: got %v, want ErrInvalidEmail", err)
		}
		if _, err := r.Create(from(home), newMember(uuid.NewString()+"@example.com"), "short"); !errors.Is(err, account.ErrInvalidPassword) {
			t.Errorf("Create: got %v, want ErrInvalidPassword", err)
		}
	}
	for range 3 {
		if err := register(annsAddress, password); !errors.Is(err, account.ErrEmailTaken) {
			t.Errorf("a taken address: got %v, want ErrEmailTaken", err)
		}
	}
	r.takeEvents()
	var err error
	if n := hashes(func() { err = register("bob@example.com", password) }); n != 0 || !errors.Is(err, account.ErrTooManyAttempts) {
		t.Errorf("beyond the limit: got %v after %d hashes, want ErrTooManyAttempts after none", err, n)
	}
	events := r.takeEvents()
	if got := kindsAndReasons(events); !slices.Equal(got, []string{"account.registration_denied too_many"}) || events[0].ClientIP != home {
		t.Errorf("beyond the limit: got the events %+v, want one denial from %s", events, home)
	}
	// Administrators and logins are not limited by it.
	if _, err := r.Create(from(home), newMember("carl@example.com"), password); err != nil {
		t.Errorf("Create: %v", err)
	}
	if got := r.login(home, annsAddress, password); got != "in" {
		t.Errorf("a login: got %s, want in", got)
	}
}

// While the counters fail, users can register.
func TestRegistrationsAreNotLimitedWhileCountersFail(t *testing.T) {
	r := newLimitedRigWith(t, account.LimiterConfig{}, account.Config{Argon2: tiny, RegistrationsPerNetwork: 1})
	r.attempts.since(func(context.Context, string, int) error { return errors.New("down") })
	if got := r.registrations(t, 3, always(home)); got != 3 {
		t.Errorf("%d of 3 registrations were allowed, want all", got)
	}
	want := map[string]int{"login.limiter_failed": 3, "account.registered": 3}
	if got := count(kindsAndReasons(r.takeEvents())); !maps.Equal(got, want) {
		t.Errorf("got the events %v, want %v", got, want)
	}
}

// Verify also takes tokens of a change of address: the address is proven with them.
func TestVerifyTakesTokensOfAChangeOfAddress(t *testing.T) {
	for _, verified := range []bool{false, true} {
		inBubble(t, fmt.Sprint("verified ", verified), func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.change(account.Change{Verified: &verified})
			verification, reset := "", r.reset()
			if !verified {
				verification = r.verification()
			}
			r.want("request", r.RequestEmailChange(t.Context(), r.stored(), "new@example.com"), nil)
			secret := r.sent()[1].Token.Reveal()
			r.taken()
			want := r.stored()
			want.Email, want.Verified = "new@example.com", true
			got, err := r.Verify(t.Context(), secret)
			r.want("verify", err, nil)
			if !sameuser.Equal(got, want) || !sameuser.Equal(r.stored(), want) || len(r.told) != 0 {
				t.Errorf("got %+v\nstored %+v\nwant %+v, and sessions that go on", got, r.stored(), want)
			}
			r.wantEvents("account.email_changed", "mail.sent")
			_, err = r.Verify(t.Context(), secret)
			r.want("verify again", err, account.ErrBadOneTimeToken)
			// Tokens that were sent to the old address are no good.
			_, err = r.ResetPassword(t.Context(), reset, "another good password")
			r.want("reset", err, account.ErrBadOneTimeToken)
			if !verified {
				_, err = r.Verify(t.Context(), verification)
				r.want("verify the old address", err, account.ErrBadOneTimeToken)
			}
			// The old address is free.
			_, err = r.Register(t.Context(), newMember("ann@example.com"), password)
			r.want("register the old address", err, nil)
		})
	}
}

// The account that RequestEmailChange gets is that of the session. If it has been revoked since,
// an attacker could otherwise take the account back.
func TestChangeOfAddressByARevokedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		stale := r.stored()
		_, err := r.ResetPassword(t.Context(), r.reset(), "another good password")
		r.want("reset", err, nil)
		r.want("request", r.RequestEmailChange(t.Context(), stale, "attacker@example.com"), nil)
		messages := r.sent()
		_, err = r.Verify(t.Context(), messages[len(messages)-1].Token.Reveal())
		r.want("verify", err, account.ErrBadOneTimeToken)
		if got := r.stored().Email; got != "ann@example.com" {
			t.Errorf("got the address %s, want the old one", got)
		}
	})
}

// Two accounts that request the same address: the first one that proves it gets it.
func TestAddressOfTwoChangesGoesToOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		bob, err := r.Register(t.Context(), newMember("bob@example.com"), password)
		r.want("register", err, nil)
		var secrets []string
		for _, m := range []member{r.ann, bob} {
			r.want("request", r.RequestEmailChange(t.Context(), m, "new@example.com"), nil)
			secrets = append(secrets, r.sent()[1].Token.Reveal())
		}
		_, err = r.Verify(t.Context(), secrets[1])
		r.want("the first", err, nil)
		_, err = r.Verify(t.Context(), secrets[0])
		r.want("the second", err, account.ErrEmailTaken)
		if got := r.byEmail("new@example.com"); got.ID != bob.ID || r.stored().Email != "ann@example.com" {
			t.Errorf("got the account %v with the new address, want Bob's", got.ID)
		}
	})
}
