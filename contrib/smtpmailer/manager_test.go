package smtpmailer_test

import (
	"net/url"
	"regexp"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/smtpmailer"
	"github.com/latchkey-go/latchkey/memstore"
)

type customer struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string
}

// TestManagerSendsThroughMailer follows the links in the mails of an account.Manager.
func TestManagerSendsThroughMailer(t *testing.T) {
	s := newServer(t, &server{startTLS: true, password: hunter})
	cfg := s.config()
	cfg.SampleUser = customer{Name: "Ann"}
	mailer, err := smtpmailer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.NewManager(memstore.NewUsers[customer](), memstore.NewOneTimeTokens[uuid.UUID](), nil, uuid.New, account.Config{
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		InsecureNoLimiter: true,
		Timeout:           time.Minute,
		Mail:              account.MailConfig{Mailer: mailer},
	})
	if err != nil {
		t.Fatal(err)
	}
	register := func(email string) customer {
		c, err := accounts.Register(t.Context(), customer{User: account.User[uuid.UUID]{Email: email}}, "correct horse battery")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ann, bob := register("ann@example.org"), register("bob@example.org")
	for _, request := range []func() error{
		func() error { return accounts.RequestVerification(t.Context(), ann.Email) },
		func() error { return accounts.RequestPasswordReset(t.Context(), bob.Email) },
		func() error { return accounts.RequestEmailChange(t.Context(), ann, "ann@example.net") },
	} {
		if err := request(); err != nil {
			t.Fatal(err)
		}
	}
	accounts.Close() // waits for the queue
	mailer.Close()

	if conns, _ := s.counts(); conns > 2 {
		t.Errorf("%d connections for two workers", conns)
	}
	tokens := make(map[string]string) // by address and page
	for _, got := range s.all() {
		_, text, _, err := got.read()
		if err != nil {
			t.Fatal(err)
		}
		if link, err := url.Parse(regexp.MustCompile(`https://\S+`).FindString(text)); err != nil {
			t.Error("a mail has a malformed link")
		} else if query, err := url.ParseQuery(link.Fragment); err == nil && link.Fragment != "" {
			tokens[got.to+link.Path] = query.Get("token")
		}
	}
	if n := len(s.all()); n != 4 { // and the notice to the old address
		t.Errorf("%d mails, want 4", n)
	}
	if _, err := accounts.Verify(t.Context(), tokens["ann@example.org/verify"]); err != nil {
		t.Errorf("the link that confirms the address: %v", err)
	}
	if _, err := accounts.Verify(t.Context(), tokens["ann@example.net/verify"]); err != nil {
		t.Errorf("the link that changes the address: %v", err)
	}
	if _, err := accounts.ResetPassword(t.Context(), tokens["bob@example.org/reset-password"], "another correct horse"); err != nil {
		t.Errorf("the link that resets the password: %v", err)
	}
}
