package account

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// PasswordHash is the hash of a password, in a form that [Manager.HashPassword] makes or
// [Manager.ImportHash] accepts. It prints as "…redacted" through fmt, log/slog and encoders; only [PasswordHash.Reveal] returns the
// hash. In BSON, only the registry of mongostore.NewRegistry reads and writes it; others
// return an error.
//
// The zero PasswordHash means that there is no password. A PasswordHash is safe for
// concurrent use. It cannot be compared with == or [reflect.DeepEqual]: compare what Reveal
// returns.
type PasswordHash struct {
	// A closure, because encoders, formatters and dumpers do not look inside one, not even
	// through an unexported field of another struct. nil for no password.
	reveal func() string
}

// NewPasswordHash wraps a hash. "" means that there is no password.
func NewPasswordHash(phc string) PasswordHash {
	if phc == "" {
		return PasswordHash{}
	}
	return PasswordHash{reveal: func() string { return phc }}
}

// Reveal returns the hash in the clear, or "" if there is no password. It is for stores.
func (h PasswordHash) Reveal() string {
	if h.reveal == nil {
		return ""
	}
	return h.reveal()
}

// IsZero reports whether there is no password.
func (h PasswordHash) IsZero() bool { return h.reveal == nil }

const redactedHash = "…redacted"

// Format implements [fmt.Formatter], so that no verb shows the hash. It prints "…redacted",
// also if there is no password.
func (PasswordHash) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redactedHash) }

// LogValue implements [slog.LogValuer]. It returns what Format prints.
func (PasswordHash) LogValue() slog.Value { return slog.StringValue(redactedHash) }

// MarshalText implements [encoding.TextMarshaler], which encoding/json and others use. It
// returns what Format prints.
func (PasswordHash) MarshalText() ([]byte, error) { return []byte(redactedHash), nil }

var errHashInBSON = errors.New("account: a PasswordHash needs a codec: use the registry of mongostore.NewRegistry")

// MarshalBSONValue implements bson.ValueMarshaler for registries without a codec. It
// returns an error: "…redacted" in a database would be a lost password.
func (PasswordHash) MarshalBSONValue() (typ byte, data []byte, err error) {
	return 0, nil, errHashInBSON
}

// UnmarshalBSONValue implements bson.ValueUnmarshaler for registries without a codec. It
// returns an error.
func (*PasswordHash) UnmarshalBSONValue(byte, []byte) error { return errHashInBSON }
