package account_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
)

// NIST SP 800-63B-4 §4.2.1.2: a code that is sent to an e-mail address is valid for 24 hours at
// most.
func TestMailLifetimesAreBounded(t *testing.T) {
	for field, cfg := range map[string]account.MailConfig{
		"VerificationLifetime": {VerificationLifetime: 24*time.Hour + 1},
		"ResetLifetime":        {ResetLifetime: time.Hour + 1},
		"Timeout":              {Timeout: time.Hour + 1},
		"Drain":                {Drain: -1},
		"Queue":                {Queue: -1},
		"PerAddress":           {PerAddress: -1},
	} {
		cfg.Mailer = account.MailerFunc(func(context.Context, account.Message) error { return nil })
		_, err := account.NewManager(memstore.NewUsers[member](), memstore.NewOneTimeTokens[uuid.UUID](), newAttempts(t), uuid.New, account.Config{Mail: cfg})
		if err == nil || !strings.Contains(err.Error(), "Config.Mail."+field) {
			t.Errorf("%s: got %v, want an error that names it", field, err)
		}
	}
}
