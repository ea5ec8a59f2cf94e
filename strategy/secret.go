package strategy

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/latchkey-go/latchkey/internal/token"
)

// Secret is an access token as the client holds it. It prints as "lk_…redacted" through fmt,
// log/slog and JSON; only [Secret.Reveal] returns the token, to be sent to the client.
//
// The zero Secret holds the empty string. A Secret is safe for concurrent use and cannot be
// compared with ==.
type Secret struct {
	// A closure, because encoders, formatters and dumpers do not look inside one, not even
	// through an unexported field of another struct.
	reveal func() string
}

// NewSecret wraps a token. Implementations of a strategy other than [Database] need it.
func NewSecret(token string) Secret {
	return Secret{reveal: func() string { return token }}
}

// Reveal returns the token in the clear. Put it into the answer to the client, and nowhere
// else.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Format implements [fmt.Formatter], so that no verb shows the token. It prints the token's
// prefix and "…redacted", without the prefix if the string is not a token.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, token.Redact(s.Reveal())) }

// LogValue implements [slog.LogValuer]. It returns what Format prints.
func (s Secret) LogValue() slog.Value { return slog.StringValue(token.Redact(s.Reveal())) }

// MarshalText implements [encoding.TextMarshaler], which encoding/json uses too. It returns
// what Format prints.
func (s Secret) MarshalText() ([]byte, error) { return []byte(token.Redact(s.Reveal())), nil }
