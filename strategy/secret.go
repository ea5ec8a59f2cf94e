package strategy

import (
	"fmt"
	"io"
	"log/slog"
)

// Secret is an access token as the client holds it. It prints as
// "lk_…redacted" through fmt, log/slog and JSON; [Secret.Reveal] is the one way
// to the token itself, for handing it to the client.
//
// The zero Secret holds the empty string. A Secret is safe for concurrent use
// and cannot be compared with ==.
type Secret struct {
	// A closure, because no encoder, formatter or dumper looks inside one, not
	// even through an unexported field of somebody else's struct.
	reveal func() string
}

// NewSecret wraps a token. Strategies other than [Database] need it.
func NewSecret(token string) Secret {
	return Secret{reveal: func() string { return token }}
}

// Reveal returns the token in the clear. It belongs into the answer to the
// client, and nowhere else.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// String returns the token's prefix, where it is one of a [TokenFormat], and
// "…redacted".
func (s Secret) String() string {
	token := s.Reveal()
	prefix := token[:max(0, len(token)-secretLength-checksumLength)]
	// In a token of another kind, what looks like a prefix may be secret.
	if f, err := NewTokenFormat(prefix); err != nil || !f.wellFormed(token) {
		prefix = ""
	}
	return prefix + "…redacted"
}

// Format implements [fmt.Formatter], so that no verb shows the token.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue implements [slog.LogValuer].
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText implements [encoding.TextMarshaler], which JSON uses too. The
// token is not in it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
