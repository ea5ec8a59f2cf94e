package strategy

import (
	"fmt"
	"io"
	"log/slog"
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

// String returns the token's prefix and "…redacted". It omits the prefix if the token is not
// of a [TokenFormat].
func (s Secret) String() string {
	token := s.Reveal()
	prefix := token[:max(0, len(token)-secretLength-checksumLength)]
	// In a token of another format, the characters before an underscore may be secret.
	if f, err := NewTokenFormat(prefix); err != nil || !f.wellFormed(token) {
		prefix = ""
	}
	return prefix + "…redacted"
}

// Format implements [fmt.Formatter], so that no verb shows the token.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler], which encoding/json uses too. It returns
// what String returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
