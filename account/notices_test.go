package account_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// A user is told of each new password and each new address, at the address before the change.
func TestUserIsToldOfChanges(t *testing.T) {
	const next = "another good password"
	changed, moved := "password_changed to ann@example.com", "email_changed to ann@example.com"
	for _, c := range []struct {
		name   string
		change func(ctx context.Context, r *mailRig) error
		want   []string
	}{
		{"ChangePassword", func(ctx context.Context, r *mailRig) error {
			_, err := r.ChangePassword(ctx, r.ann.ID, password, next)
			return err
		}, []string{changed}},
		{"SetPassword", func(ctx context.Context, r *mailRig) error {
			_, err := r.SetPassword(ctx, r.ann.ID, next)
			return err
		}, []string{changed}},
		{"ResetPassword", func(ctx context.Context, r *mailRig) error {
			_, err := r.ResetPassword(ctx, r.reset(), next)
			return err
		}, []string{changed}},
		{"Update of the password", func(ctx context.Context, r *mailRig) error {
			_, err := r.Update(ctx, r.ann.ID, account.Update{Password: new(next)})
			return err
		}, []string{changed}},
		{"Update of the address", func(ctx context.Context, r *mailRig) error {
			_, err := r.Update(ctx, r.ann.ID, account.Update{Email: new("new@example.com")})
			return err
		}, []string{moved}},
		{"Update of both", func(ctx context.Context, r *mailRig) error {
			_, err := r.Update(ctx, r.ann.ID, account.Update{Email: new("new@example.com"), Password: new(next)})
			return err
		}, []string{changed, moved}},
		{"Verify of a new address", func(ctx context.Context, r *mailRig) error {
			return flows["change of address"].use(r, flows["change of address"].request(r))
		}, []string{moved}},

		{"Update to the same address", func(ctx context.Context, r *mailRig) error {
			_, err := r.Update(ctx, r.ann.ID, account.Update{Email: new("Ann@Example.com")})
			return err
		}, nil},
		{"Update of a flag", func(ctx context.Context, r *mailRig) error {
			_, err := r.Update(ctx, r.ann.ID, account.Update{Verified: new(true)})
			return err
		}, nil},
		{"Verify of the present address", func(ctx context.Context, r *mailRig) error {
			_, err := r.Verify(ctx, r.verification())
			return err
		}, nil},
	} {
		inBubble(t, c.name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			r.want("change", c.change(event.ContextWithClientIP(t.Context(), "203.0.113.7"), r), nil)
			if got := r.noticed(); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got the notices %v, want %v", got, c.want)
			}
		})
	}
}

func TestNoNoticeOfAChangeThatFailed(t *testing.T) {
	for name, change := range map[string]func(r *mailRig) (member, error){
		"a wrong password": func(r *mailRig) (member, error) {
			return r.ChangePassword(r.t.Context(), r.ann.ID, "a wrong password", "another good password")
		},
		"another version": func(r *mailRig) (member, error) {
			return r.Update(r.t.Context(), r.ann.ID, account.Update{Password: new("another good password"), IfVersion: new(int64(7))})
		},
		"a taken address": func(r *mailRig) (member, error) {
			_, err := r.Create(r.t.Context(), newMember("bob@example.com"), password)
			r.want("create", err, nil)
			return r.Update(r.t.Context(), r.ann.ID, account.Update{Email: new("bob@example.com")})
		},
		"a used token": func(r *mailRig) (member, error) {
			secret := r.reset()
			_, err := r.ResetPassword(r.t.Context(), secret, "another good password")
			r.want("reset", err, nil)
			r.noticed()
			return r.ResetPassword(r.t.Context(), secret, "a third good password")
		},
	} {
		inBubble(t, name, func(t *testing.T) {
			r := newMailRig(t, account.MailConfig{})
			if _, err := change(r); err == nil {
				t.Error("the change succeeded")
			}
			if got := r.noticed(); len(got) != 0 {
				t.Errorf("got the notices %v, want none", got)
			}
		})
	}
}

// An account gets at most PerAddress notices in an hour. Requested messages have counters of
// their own, so strangers cannot keep a notice back.
func TestNoticesAreLimited(t *testing.T) {
	inBubble(t, "by changes", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerAddress: 2})
		for range 3 {
			_, err := r.SetPassword(t.Context(), r.ann.ID, "another good password")
			r.want("set", err, nil)
		}
		if got := r.noticed(); len(got) != 2 {
			t.Errorf("got %d notices, want 2", len(got))
		}
		if got := count(r.taken()); got["mail.failed"] != 1 {
			t.Errorf("got the events %v, want mail.failed once", got)
		}
		time.Sleep(time.Hour) // virtual
		_, err := r.SetPassword(t.Context(), r.ann.ID, password)
		r.want("set", err, nil)
		if got := r.noticed(); len(got) != 1 {
			t.Errorf("an hour later: got %d notices, want 1", len(got))
		}
	})
	inBubble(t, "not by requests", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerAddress: 2, PerNetwork: 2})
		ctx := event.ContextWithClientIP(t.Context(), "203.0.113.7")
		for range 5 {
			r.want("request", r.RequestPasswordReset(ctx, "ann@example.com"), nil)
		}
		_, err := r.ChangePassword(ctx, r.ann.ID, password, "another good password")
		r.want("change", err, nil)
		if got := r.noticed(); len(got) != 1 {
			t.Errorf("got %d notices, want 1", len(got))
		}
	})
	// Of an account that takes many addresses, one after another.
	inBubble(t, "by changes of address", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{PerAddress: 2, Workers: 1})
		for i := range 4 {
			_, err := r.Update(t.Context(), r.ann.ID, account.Update{Email: new(fmt.Sprintf("ann%d@example.com", i))})
			r.want("update", err, nil)
		}
		if got, want := fmt.Sprint(r.noticed()), "[email_changed to ann@example.com email_changed to ann0@example.com]"; got != want {
			t.Errorf("got the notices %s, want %s", got, want)
		}
	})
}

// A change is made, and its answer is the same, whatever becomes of the notice.
func TestChangeSucceedsWithoutItsNotice(t *testing.T) {
	inBubble(t, "the Mailer fails", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.sending = func(context.Context, account.Message) error { return errors.New("550 no such user") }
		_, err := r.SetPassword(t.Context(), r.ann.ID, "another good password")
		r.want("set", err, nil)
		if got := fmt.Sprint(r.taken()); got != "[account.password_changed mail.failed]" {
			t.Errorf("got the events %s, want mail.failed after the change", got)
		}
	})
	inBubble(t, "the Manager is closed", func(t *testing.T) {
		r := newMailRig(t, account.MailConfig{})
		r.Close()
		_, err := r.SetPassword(t.Context(), r.ann.ID, "another good password")
		r.want("set", err, nil)
		if got := count(r.taken()); got["mail.failed"] != 1 || got["account.password_changed"] != 1 {
			t.Errorf("got the events %v, want the change and mail.failed", got)
		}
	})
}
