package integration_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
)

// outbox is a Mailer that hands the messages to the test, except those that tell of a change.
type outbox chan account.Message

func (o outbox) Send(_ context.Context, m account.Message) error {
	if m.Kind != account.MessagePasswordChanged && m.Kind != account.MessageEmailChanged {
		o <- m
	}
	return nil
}

// From the request of a reset to the login with the new password, on the server.
func TestPasswordResetEndsAllSessions(t *testing.T) {
	mails := make(outbox, 10)
	f := newFacade(t, database(t), latchkey.Config{Lifetime: time.Hour, Mail: account.MailConfig{Mailer: mails}})
	ann := f.register("ann@example.com")
	session := f.login("ann@example.com")
	if err := f.Accounts.RequestPasswordReset(t.Context(), "ann@example.com"); err != nil {
		t.Fatal(err)
	}
	m := <-mails
	if _, err := f.Accounts.ResetPassword(t.Context(), m.Token.Reveal(), "another good password"); err != nil {
		t.Fatal(err)
	}
	f.wantStatus("/me", http.StatusUnauthorized, session)
	if n := f.rows(ann.ID); n != 0 {
		t.Errorf("there are %d rows of sessions, want 0", n)
	}
	w := f.call(http.MethodPost, "/auth/login", url.Values{"username": {"ann@example.com"}, "password": {"another good password"}})
	f.wantStatus("/me", http.StatusOK, f.tokenOf(w))
}

// Two instances use one token at the same time: one wins. A login with the old password that is
// under way does not outlive the reset.
func TestConcurrentResetsHaveOneWinner(t *testing.T) {
	mails := make(outbox, 10)
	db := database(t)
	mail := account.MailConfig{Mailer: mails, PerAddress: 1000, PerNetwork: 1000}
	one := newFacade(t, db, latchkey.Config{Lifetime: time.Hour, Mail: mail, InsecureNoLimiter: true})
	other := newFacade(t, db, latchkey.Config{Lifetime: time.Hour, Mail: mail, InsecureNoLimiter: true})
	one.register("ann@example.com")
	current := password
	for i := range 200 {
		if err := one.Accounts.RequestPasswordReset(t.Context(), "ann@example.com"); err != nil {
			t.Fatal(err)
		}
		secret := (<-mails).Token.Reveal()
		next := [2]string{"first new password", "other new password"}
		if i%2 == 1 {
			next = [2]string{"third new password", "fourth new password"}
		}
		var errs [2]error
		var token string
		var wg sync.WaitGroup
		begin := make(chan struct{})
		for j, f := range []*facade{one, other} {
			wg.Go(func() {
				<-begin
				_, errs[j] = f.Accounts.ResetPassword(t.Context(), secret, next[j])
			})
		}
		wg.Go(func() {
			<-begin
			user, _, err := one.Accounts.Authenticate(t.Context(), "ann@example.com", current, "")
			if err != nil {
				return // the reset was faster
			}
			if secret, _, err := one.Sessions.WriteToken(t.Context(), user); err == nil {
				token = secret.Reveal()
			}
		})
		close(begin)
		wg.Wait()
		winner := -1
		for j, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = j
			case err == nil:
				t.Fatal("both resets succeeded")
			case !errors.Is(err, account.ErrBadOneTimeToken):
				t.Fatalf("got %v, want ErrBadOneTimeToken", err)
			}
		}
		if winner < 0 {
			t.Fatalf("no reset succeeded: %v", errs)
		}
		current = next[winner]
		if _, _, err := one.Accounts.Authenticate(t.Context(), "ann@example.com", current, ""); err != nil {
			t.Fatalf("log in with the winner's password: %v", err)
		}
		if token != "" {
			if _, err := other.Sessions.ReadToken(t.Context(), token); err == nil {
				t.Fatal("a session of the old password outlives the reset")
			}
		}
	}
}

func TestDocumentsOfOneTimeTokensAreAsDocumented(t *testing.T) {
	mails := make(outbox, 10)
	db := database(t)
	f := newFacade(t, db, latchkey.Config{Mail: account.MailConfig{Mailer: mails}})
	ann := f.register("ann@example.com")
	if err := f.Accounts.RequestEmailChange(t.Context(), ann, "new@example.com"); err != nil {
		t.Fatal(err)
	}
	<-mails // the notice
	secret := (<-mails).Token.Reveal()
	coll := db.Collection("one_time_tokens")
	doc, err := coll.FindOne(t.Context(), bson.D{}).Raw()
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"purpose": "email_change", "sent_to": "new@example.com", "email": "ann@example.com"} {
		if got := lookup(doc, field); got != want {
			t.Errorf("%s is %v, want %s", field, got, want)
		}
	}
	if id := doc.Lookup("_id").StringValue(); id == secret || len(id) != 43 {
		t.Errorf("the _id is %q, want a digest", id)
	}
	if _, id := doc.Lookup("user_id").Binary(); uuid.UUID(id) != ann.ID {
		t.Errorf("user_id is %v, want %v", doc.Lookup("user_id"), ann.ID)
	}
	if d := doc.Lookup("expires_at").Time().Sub(doc.Lookup("created_at").Time()); d != 24*time.Hour {
		t.Errorf("the token lives %v, want 24h", d)
	}

	// A document that another program changed is no token, and goes with the account.
	if _, err := coll.UpdateMany(t.Context(), bson.D{}, bson.D{{Key: "$set", Value: bson.D{{Key: "expires_at", Value: "soon"}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Accounts.Verify(t.Context(), secret); !errors.Is(err, account.ErrBadOneTimeToken) {
		t.Errorf("with an invalid document: got %v, want ErrBadOneTimeToken", err)
	}
	f.mu.Lock()
	reported := false
	for _, kind := range f.events {
		reported = reported || kind == event.InvalidDocument
	}
	f.mu.Unlock()
	if !reported {
		t.Error("the invalid document was not reported")
	}
	if err := f.Accounts.Delete(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	if n, err := coll.CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
		t.Errorf("after the deletion there are %d documents (%v), want 0", n, err)
	}
}

func TestPurgeDeletesExpiredOneTimeTokens(t *testing.T) {
	now := time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC) // so that no TTL index is faster
	tokens := newOneTimeTokens[int64](t, database(t), mongostore.OneTimeTokensConfig{Now: func() time.Time { return now }})
	for i, expires := range []time.Time{now.Add(-5*time.Minute - time.Millisecond), now.Add(-5 * time.Minute), now.Add(time.Hour)} {
		token := account.OneTimeToken[int64]{
			Digest: string(rune('a' + i)), Purpose: account.PurposeVerification, UserID: 7, SentTo: "a@example.com", Email: "a@example.com",
			CreatedAt: now.Add(time.Duration(i) * time.Millisecond), ExpiresAt: expires,
		}
		if err := tokens.Insert(t.Context(), token, 3); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := tokens.Purge(t.Context()); n != 1 || err != nil {
		t.Errorf("Purge: got %d, %v, want 1", n, err)
	}
}
