package cursor_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/cursor"
)

func TestCursorIsReadBack(t *testing.T) {
	id := uuid.New()
	for _, at := range []time.Time{time.UnixMilli(1_800_000_000_123), time.UnixMilli(0), time.UnixMilli(-1)} {
		gotAt, gotID, ok := cursor.Parse(cursor.Format(at, id))
		if !ok || !gotAt.Equal(at) || gotAt.Location() != time.UTC || gotID != id {
			t.Errorf("got %v, %v, %v, want %v, %v", gotAt, gotID, ok, at.UTC(), id)
		}
	}
}

func TestOtherStringsAreNoCursor(t *testing.T) {
	valid := cursor.Format(time.UnixMilli(1), uuid.New())
	for name, s := range map[string]string{
		"empty": "", "too short": valid[1:], "too long": valid + "A", "padded": valid + "=", "a line break": valid[:8] + "\n" + valid[8:], "another alphabet": "+" + valid[1:],
	} {
		if _, _, ok := cursor.Parse(s); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func ExampleFormat() {
	next := cursor.Format(time.UnixMilli(1_800_000_000_123), uuid.Max)
	at, _, ok := cursor.Parse(next)
	fmt.Println(at, ok)
	// Output: 2027-01-15 08:00:00.123 +0000 UTC true
}
