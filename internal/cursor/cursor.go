// Package cursor encodes a place in a list that is sorted by time and then by ID.
package cursor

import (
	"encoding/base64"
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// Format returns the cursor of the element with this time, in whole milliseconds, and ID.
func Format(at time.Time, id uuid.UUID) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(b, id[:]...))
}

// Parse returns the time, in UTC, and the ID of a cursor. It reports whether s is one.
func Parse(s string) (at time.Time, id uuid.UUID, ok bool) {
	const length = 8 + len(uuid.UUID{})
	// Check the length of s too, because the decoder skips line breaks.
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != length || len(s) != base64.RawURLEncoding.EncodedLen(length) {
		return time.Time{}, uuid.Nil, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), uuid.UUID(b[8:]), true
}
