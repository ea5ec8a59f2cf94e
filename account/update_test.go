package account_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// kindsAndReasons returns what events say, in their order.
func kindsAndReasons(events []event.Event) (said []string) {
	for _, e := range events {
		s := string(e.Kind)
		if e.Reason != "" {
			s += " " + string(e.Reason)
		}
		said = append(said, s)
	}
	return said
}

// Each field alone, and all of them together, are one update of the store.
func TestUpdateIsOneUpdateOfTheStore(t *testing.T) {
	const next = "a better password"
	for _, c := range []struct {
		name   string
		update account.Update
		change account.Change // without the password
		want   func(*member)  // changes the account as it was
		events []string
	}{
		{"Active", account.Update{Active: new(true)}, account.Change{Active: new(true)},
			func(m *member) {}, []string{"account.changed"}},
		{"Email", account.Update{Email: new(" Ann@NEW.example ")}, account.Change{Email: new("ann@new.example"), Verified: new(false)},
			func(m *member) { m.Email, m.Verified = "ann@new.example", false }, []string{"account.email_changed"}},
		{"Email that is verified", account.Update{Email: new("ann@new.example"), Verified: new(true)},
			account.Change{Email: new("ann@new.example"), Verified: new(true)},
			func(m *member) { m.Email, m.Verified = "ann@new.example", true }, []string{"account.changed", "account.email_changed"}},
		{"Email that is not verified", account.Update{Email: new("ann@new.example"), Verified: new(false)},
			account.Change{Email: new("ann@new.example"), Verified: new(false)},
			func(m *member) { m.Email, m.Verified = "ann@new.example", false }, []string{"account.changed", "account.email_changed"}},
		{"Password", account.Update{Password: new(next)}, account.Change{RevokeTokens: true},
			func(m *member) { m.Version++ }, []string{"account.password_changed"}},
		{"Email and Password", account.Update{Email: new("ann@new.example"), Password: new(next)},
			account.Change{Email: new("ann@new.example"), Verified: new(false), RevokeTokens: true},
			func(m *member) { m.Email, m.Verified = "ann@new.example", false; m.Version++ },
			[]string{"account.email_changed", "account.password_changed"}},
		{"IfVersion alone", account.Update{IfVersion: new(int64(41))}, account.Change{IfVersion: new(int64(41))},
			func(m *member) {}, []string{"account.changed"}},
		{"everything", account.Update{Active: new(false), Verified: new(true), Superuser: new(true), Email: new("ann@new.example"), Password: new(next), IfVersion: new(int64(41))},
			account.Change{Active: new(false), Verified: new(true), Superuser: new(true), Email: new("ann@new.example"), RevokeTokens: true, IfVersion: new(int64(41))},
			func(m *member) {
				m.Active, m.Verified, m.Superuser, m.Email = false, true, true, "ann@new.example"
				m.Version++
			},
			[]string{"account.changed user_inactive", "account.email_changed", "account.password_changed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			r.change(t, ann.ID, func(m *member) { m.Version, m.Verified = 41, true })
			want := r.stored(t, ann.ID)
			c.want(&want)
			var changes []account.Change
			r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				changes = append(changes, change)
				return r.store.Users.Apply(ctx, id, change)
			}
			got, err := r.Update(t.Context(), ann.ID, c.update)
			if err != nil {
				t.Fatal(err)
			}
			stored := r.stored(t, ann.ID)
			if c.update.Password != nil {
				if len(changes) == 1 && (changes[0].Password == nil || changes[0].Password.Reveal() != stored.HashedPassword.Reveal()) {
					t.Error("the update has not the hash that is stored")
				}
				if ok, _, err := account.Verify(next, stored.HashedPassword.Reveal()); !ok || err != nil {
					t.Errorf("the stored hash is that of the new password: %v, %v, want true", ok, err)
				}
				want.HashedPassword = stored.HashedPassword
			}
			for i := range changes {
				changes[i].Password = nil
			}
			if !reflect.DeepEqual(changes, []account.Change{c.change}) {
				t.Errorf("got the changes %+v, want only %+v", changes, c.change)
			}
			if !sameuser.Equal(got, want) || !sameuser.Equal(stored, want) {
				t.Errorf("got %+v\nstored %+v\nwant %+v", got, stored, want)
			}
			events := r.takeEvents()
			if said := kindsAndReasons(events); !slices.Equal(said, c.events) {
				t.Errorf("got the events %v, want %v", said, c.events)
			}
			for _, e := range events {
				if e.UserID != ann.ID {
					t.Errorf("got the event %+v, want one of Ann's account", e)
				}
			}
		})
	}
}

// An update that is rejected changes nothing, has no event, and does not tell the sessions.
func TestRejectedUpdateChangesNothing(t *testing.T) {
	breached := errors.New("breached")
	down := errors.New("down")
	unknown := uuid.New()
	for _, c := range []struct {
		name    string
		id      uuid.UUID // default: Ann's
		update  account.Update
		failure error // of the store's update
		want    error
		events  []string
	}{
		{name: "a taken address", update: account.Update{Email: new("BOB@example.com")}, want: account.ErrEmailTaken},
		{name: "no address", update: account.Update{Email: new("ann")}, want: account.ErrInvalidEmail},
		{name: "an empty address", update: account.Update{Email: new("")}, want: account.ErrInvalidEmail},
		{name: "a short password", update: account.Update{Password: new("short")}, want: account.ErrPasswordTooShort},
		{name: "a short password is an invalid one", update: account.Update{Password: new("short")}, want: account.ErrInvalidPassword},
		{name: "an empty password", update: account.Update{Password: new("")}, want: account.ErrInvalidPassword},
		{name: "a long password", update: account.Update{Password: new(fmt.Sprintf("%02000d", 0))}, want: account.ErrPasswordTooLong},
		{name: "a breached password", update: account.Update{Password: new("breached password")}, want: breached},
		{name: "a lower version", update: account.Update{IfVersion: new(int64(40))}, want: account.ErrConflict},
		{name: "a higher version", update: account.Update{IfVersion: new(int64(42))}, want: account.ErrConflict},
		{name: "another version, and a taken address", update: account.Update{IfVersion: new(int64(42)), Email: new("bob@example.com")}, want: account.ErrConflict},
		{name: "an unknown account", id: unknown, want: account.ErrUserNotFound},
		{name: "a failure of the store", failure: down, want: down, events: []string{"store.failed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := 0
			r := newRig(t, account.Config{CheckPassword: func(_ context.Context, password string) error {
				if password == "breached password" {
					return breached
				}
				return nil
			}}, sessionsFunc(func(_ context.Context, _ uuid.UUID, revoked strategy.Revoked) error {
				if revoked != strategy.RevokedNone {
					t.Errorf("told of revoked tokens: %v", revoked)
				}
				told++
				return nil
			}))
			ann := r.register(t)
			if _, err := r.Register(t.Context(), newMember("bob@example.com"), password); err != nil {
				t.Fatal(err)
			}
			r.takeEvents()
			r.change(t, ann.ID, func(m *member) { m.Version = 41 })
			before := r.stored(t, ann.ID)
			if c.failure != nil {
				r.store.apply = failingApply(c.failure)
			}
			update := c.update // with values that would show
			update.Superuser, update.Active = new(true), new(false)
			id := c.id
			if id == uuid.Nil {
				id = ann.ID
			}
			got, err := r.Update(t.Context(), id, update)
			if !errors.Is(err, c.want) || !sameuser.Equal(got, member{}) {
				t.Errorf("got %+v, %v, want only %v", got, err, c.want)
			}
			if after := r.stored(t, ann.ID); !sameuser.Equal(after, before) {
				t.Errorf("stored %+v, want %+v", after, before)
			}
			if said := kindsAndReasons(r.takeEvents()); !slices.Equal(said, c.events) {
				t.Errorf("got the events %v, want %v", said, c.events)
			}
			if wanted := len(c.events); told != wanted { // after a failure, something may have changed
				t.Errorf("told the sessions %d times, want %d", told, wanted)
			}
		})
	}
}

// With IfVersion, the returned version is that of the condition plus 1: if the tokens were
// revoked again since, the session must not survive.
func TestUpdateReturnsTheVersionThatItMade(t *testing.T) {
	for _, c := range []struct {
		name      string
		ifVersion *int64
		want      int64
	}{{"with the condition", new(int64(0)), 1}, {"without", nil, 2}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, account.Config{})
			ann := r.register(t)
			r.store.apply = func(ctx context.Context, id uuid.UUID, change account.Change) error {
				return errors.Join(r.store.Users.Apply(ctx, id, change), r.store.Users.Apply(ctx, id, account.Change{RevokeTokens: true}))
			}
			got, err := r.Update(t.Context(), ann.ID, account.Update{Password: new("a better password"), IfVersion: c.ifVersion})
			if err != nil || got.Version != c.want || r.stored(t, ann.ID).Version != 2 {
				t.Errorf("got the version %d, stored %d, %v; want %d, stored 2", got.Version, r.stored(t, ann.ID).Version, err, c.want)
			}
		})
	}
}

// A user takes the account back with a reset while the session of an attacker changes it.
// Whatever comes first, the other one fails.
func TestResetAndUpdateNeverBothSucceed(t *testing.T) {
	const rounds = 200
	for name, update := range map[string]account.Update{
		"of the address":  {Email: new("attacker@example.com")},
		"of the password": {Password: new("the attacker's password")},
		"of both":         {Email: new("attacker@example.com"), Password: new("the attacker's password")},
	} {
		inBubble(t, name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{PerAddress: 10 * rounds})
			for range rounds {
				r.change(account.Change{Email: new("ann@example.com")})
				version := r.stored().Version
				secret := r.reset()
				var reset, updated error
				var wg sync.WaitGroup
				wg.Go(func() { _, reset = r.ResetPassword(t.Context(), secret, "the user's new password") })
				wg.Go(func() {
					update := update
					update.IfVersion = &version
					_, updated = r.Update(t.Context(), r.ann.ID, update)
				})
				wg.Wait()
				switch got := r.stored(); {
				case reset == nil && errors.Is(updated, account.ErrConflict) && got.Email == "ann@example.com":
				case updated == nil && errors.Is(reset, account.ErrBadOneTimeToken):
				default:
					t.Fatalf("the reset returned %v and the update %v; want that one of them succeeds", reset, updated)
				}
			}
		})
	}
}

func TestByID(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	r.change(t, ann.ID, func(m *member) { m.Active = false })
	if got, err := r.ByID(t.Context(), ann.ID); err != nil || !sameuser.Equal(got, r.stored(t, ann.ID)) {
		t.Errorf("an inactive account: got %+v, %v, want it", got, err)
	}
	if got, err := r.ByID(t.Context(), uuid.New()); !errors.Is(err, account.ErrUserNotFound) || !sameuser.Equal(got, member{}) {
		t.Errorf("an unknown account: got %+v, %v, want only ErrUserNotFound", got, err)
	}
	if got := r.takeEvents(); len(got) != 0 {
		t.Errorf("got the events %+v, want none", got)
	}
	down := errors.New("down")
	r.store.failAll(down)
	if got, err := r.ByID(t.Context(), ann.ID); !errors.Is(err, down) || !sameuser.Equal(got, member{}) {
		t.Errorf("with a store that fails: got %+v, %v, want only its error", got, err)
	}
	if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.StoreFailed}) {
		t.Errorf("got the events %v, want one failure", got)
	}
}

// fill stores accounts with these addresses.
func (r *rig) fill(t *testing.T, emails ...string) {
	t.Helper()
	for _, email := range emails {
		m := newMember(email)
		m.ID = uuid.New()
		if err := r.store.Users.Insert(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func numbered(n int) (emails []string) {
	for i := range n {
		emails = append(emails, fmt.Sprintf("user%03d@example.com", i))
	}
	return emails
}

func TestListHasPages(t *testing.T) {
	for _, c := range []struct{ limit, size, stored int }{
		{0, 50, 120}, {-1, 50, 120}, {1, 1, 5}, {7, 7, 20}, {7, 7, 21}, {199, 199, 450}, {200, 200, 450}, {201, 200, 450}, {1 << 40, 200, 450}, {10, 10, 0}, {10, 10, 10},
	} {
		t.Run(fmt.Sprintf("limit %d of %d", c.limit, c.stored), func(t *testing.T) {
			r := newRig(t, account.Config{})
			all := numbered(c.stored)
			r.fill(t, all...)
			var got []string
			for after, pages := "", 0; ; pages++ {
				page, err := r.List(t.Context(), account.Query{After: after, Limit: c.limit})
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range page.Users {
					got = append(got, m.Email)
				}
				if page.Next == "" {
					if pages != max(0, (c.stored-1)/c.size) {
						t.Errorf("got %d further pages, want %d", pages, (c.stored-1)/c.size)
					}
					break
				}
				if len(page.Users) != c.size || page.Next != got[len(got)-1] {
					t.Fatalf("got %d accounts and the next page after %q, want %d and the last address", len(page.Users), page.Next, c.size)
				}
				after = page.Next
			}
			if !slices.Equal(got, all) {
				t.Errorf("got %v\nwant %v", got, all)
			}
		})
	}
}

func TestListFindsAddressesInAnySpelling(t *testing.T) {
	r := newRig(t, account.Config{})
	r.fill(t, "ann@example.com", "anna@example.com", "bob@example.com", "bob@xn--bcher-kva.example", "zoë@example.com")
	for _, c := range []struct {
		prefix string
		want   []string
	}{
		{"ann", []string{"ann@example.com", "anna@example.com"}},
		{"ANN", []string{"ann@example.com", "anna@example.com"}},
		{" Ann@Ex\n", []string{"ann@example.com"}},
		{"ann@EXAMPLE.com", []string{"ann@example.com"}},
		{"ann@example.com.", nil},
		{"ZOË", []string{"zoë@example.com"}},
		{"zoe\u0308@", []string{"zoë@example.com"}}, // decomposed
		{"bob@bücher.example", []string{"bob@xn--bcher-kva.example"}},
		{"Bob@XN--", []string{"bob@xn--bcher-kva.example"}},
		{"nn@", nil},
		{".*", nil},
		{"\xff", nil},
	} {
		page, err := r.List(t.Context(), account.Query{Email: c.prefix})
		var got []string
		for _, m := range page.Users {
			got = append(got, m.Email)
		}
		if err != nil || !slices.Equal(got, c.want) || page.Next != "" {
			t.Errorf("%q: got %v, %v, next %q, want %v", c.prefix, got, err, page.Next, c.want)
		}
	}
}

func TestListReportsAFailure(t *testing.T) {
	r := newRig(t, account.Config{})
	down := errors.New("down")
	r.store.failAll(down)
	if page, err := r.List(t.Context(), account.Query{}); !errors.Is(err, down) || page.Users != nil || page.Next != "" {
		t.Errorf("got %+v, %v, want only the store's error", page, err)
	}
	if got := kinds(r.takeEvents()); !slices.Equal(got, []event.Kind{event.StoreFailed}) {
		t.Errorf("got the events %v, want one failure", got)
	}
}

func TestEdit(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	want := ann
	want.Name = "Anna"
	got, err := r.Edit(t.Context(), ann.ID, func(m *member) error {
		if !sameuser.Equal(*m, ann) {
			t.Errorf("edit got %+v, want the account as stored, %+v", *m, ann)
		}
		*m = member{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "eve@example.com", Superuser: true, Version: 9}, Name: "Anna"}
		return nil
	})
	if err != nil || !sameuser.Equal(got, want) || !sameuser.Equal(r.stored(t, ann.ID), want) {
		t.Errorf("got %+v, %v\nstored %+v\nwant %+v", got, err, r.stored(t, ann.ID), want)
	}
	if got := r.takeEvents(); len(got) != 1 || got[0].Kind != event.AccountChanged || got[0].UserID != ann.ID || got[0].Reason != "" {
		t.Errorf("got the events %+v, want one change of Ann's account", got)
	}

	refused := errors.New("refused")
	if got, err := r.Edit(t.Context(), ann.ID, func(m *member) error { m.Name = "Eve"; return refused }); err != refused || !sameuser.Equal(got, member{}) {
		t.Errorf("a refused edit: got %+v, %v, want only the error itself", got, err)
	}
	if got, err := r.Edit(t.Context(), uuid.New(), func(*member) error { return nil }); !errors.Is(err, account.ErrUserNotFound) || !sameuser.Equal(got, member{}) {
		t.Errorf("an unknown account: got %+v, %v, want only ErrUserNotFound", got, err)
	}
	if got := r.takeEvents(); len(got) != 0 || !sameuser.Equal(r.stored(t, ann.ID), want) {
		t.Errorf("got the events %+v and stored %+v, want no event and no change", got, r.stored(t, ann.ID))
	}
}

// An error that the account's own would be taken for is the edit's if edit returned it.
func TestErrorOfAnEditIsNotWrapped(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	for _, refused := range []error{account.ErrUserNotFound, account.ErrConflict, context.Canceled} {
		if _, err := r.Edit(t.Context(), ann.ID, func(*member) error { return refused }); err != refused {
			t.Errorf("got %v, want %v itself", err, refused)
		}
	}
	if got := r.takeEvents(); len(got) != 0 {
		t.Errorf("got the events %+v, want none", got)
	}
}

// A store can call edit again, after an attempt that was refused.
func TestEditThatIsRepeatedCountsOnce(t *testing.T) {
	r := newRig(t, account.Config{})
	ann := r.register(t)
	calls := 0
	r.store.edit = func(ctx context.Context, id uuid.UUID, edit func(*member) error) (member, error) {
		_ = edit(new(r.stored(t, id))) // of an attempt that lost
		return r.store.Users.Edit(ctx, id, edit)
	}
	got, err := r.Edit(t.Context(), ann.ID, func(m *member) error {
		if calls++; calls == 1 {
			return errors.New("refused")
		}
		m.Name += " II"
		return nil
	})
	if err != nil || got.Name != "Ann II" || len(r.takeEvents()) != 1 {
		t.Errorf("got %+v, %v, want Ann II and one event", got, err)
	}
}

// A cached session shows the edited account at once.
func TestEditIsSeenByCachedSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFakeStore()
		sessions, err := strategy.NewDatabase[member](memstore.NewTokens[uuid.UUID](), r, strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		defer sessions.Close()
		accounts, err := account.NewManager(r, nil, newAttempts(t), uuid.New, account.Config{Argon2: tiny, InsecureArgon2: true}, sessions)
		if err != nil {
			t.Fatal(err)
		}
		ann, err := accounts.Register(t.Context(), newMember("ann@example.com"), password)
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := sessions.WriteToken(t.Context(), ann)
		if err != nil {
			t.Fatal(err)
		}
		read := func() member {
			t.Helper()
			s, err := sessions.ReadToken(t.Context(), token.Reveal())
			if err != nil {
				t.Fatal(err)
			}
			return s.User
		}
		time.Sleep(2 * time.Second) // virtual: the cache has begun to follow revocations
		synctest.Wait()
		read()
		if err := r.Users.Update(t.Context(), ann.ID, func(m *member) { m.Name = "unseen" }); err != nil {
			t.Fatal(err)
		}
		if got := read().Name; got != "Ann" {
			t.Fatalf("got the name %s, want that of the cached session", got)
		}
		if _, err := accounts.Edit(t.Context(), ann.ID, func(m *member) error { m.Name = "Anna"; return nil }); err != nil {
			t.Fatal(err)
		}
		if got := read().Name; got != "Anna" {
			t.Errorf("after Edit: got the name %s, want Anna", got)
		}
		if _, err := accounts.Update(t.Context(), ann.ID, account.Update{Superuser: new(true)}); err != nil {
			t.Fatal(err)
		}
		if !read().Superuser {
			t.Error("after Update: the session is not a superuser's")
		}
		if _, err := accounts.Update(t.Context(), ann.ID, account.Update{Password: new("a better password")}); err != nil {
			t.Fatal(err)
		}
		if _, err := sessions.ReadToken(t.Context(), token.Reveal()); !errors.Is(err, strategy.ErrInvalidToken) {
			t.Errorf("after a new password: got %v, want ErrInvalidToken", err)
		}
	})
}
