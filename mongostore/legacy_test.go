package mongostore_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/mongostore"
)

func TestLegacyConfigErrorsNameTheField(t *testing.T) {
	for part, cfg := range map[string]mongostore.LegacyConfig{
		`LegacyConfig.Collection is ""`:                             {},
		"both \"access_tokens\"":                                    {Collection: "access_tokens"},
		"LegacyConfig.Collection is \"a$b\", want a name without $": {Collection: "a$b"},
		"LegacyConfig.Lifetime is negative":                         {Collection: "old", Lifetime: -1},
	} {
		t.Run(strings.ReplaceAll(part, "\"", ""), func(t *testing.T) {
			tokens, err := mongostore.NewTokens[uuid.UUID](database(t), mongostore.TokensConfig{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = mongostore.NewLegacyTokens(tokens, cfg)
			wantErrorNaming(t, err, part)
		})
	}
	_, err := mongostore.NewLegacyTokens[uuid.UUID](nil, mongostore.LegacyConfig{Collection: "old"})
	wantErrorNaming(t, err, "tokens is nil")
}

func TestLegacyTokensAre43CharactersOfBase64URL(t *testing.T) {
	tokens, err := mongostore.NewTokens[uuid.UUID](database(t), mongostore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := mongostore.NewLegacyTokens(tokens, mongostore.LegacyConfig{Collection: "old"})
	if err != nil {
		t.Fatal(err)
	}
	good := strings.Repeat("aZ09-_x", 7)[:43]
	for name, c := range map[string]struct {
		token string
		want  bool
	}{
		"letters, digits, - and _": {good, true},
		"42 characters":            {good[1:], false},
		"44 characters":            {good + "a", false},
		"a plus sign":              {good[1:] + "+", false},
		"a slash":                  {good[1:] + "/", false},
		"an equals sign":           {good[1:] + "=", false},
		"a space":                  {" " + good[1:], false},
		"a NUL":                    {good[1:] + "\x00", false},
		"43 bytes of UTF-8":        {good[2:] + "é", false},
		"nothing":                  {"", false},
	} {
		if got := legacy.Legacy(c.token); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// Session IDs of legacy tokens stand for their ObjectIDs, in the same order.
func FuzzSessionOfObjectID(f *testing.F) {
	f.Add(make([]byte, 12), make([]byte, 12), make([]byte, 16))
	f.Add(bytes.Repeat([]byte{0xff}, 12), bytes.Repeat([]byte{0x7f}, 12), bytes.Repeat([]byte{0xff}, 16))
	now := bson.NewObjectID()
	later := bson.NewObjectID()
	session := mongostore.SessionOf(now)
	f.Add(now[:], later[:], session[:])
	f.Fuzz(func(t *testing.T, x, y, z []byte) {
		if len(x) != 12 || len(y) != 12 || len(z) != 16 {
			t.Skip("not the lengths of IDs")
		}
		a, b := bson.ObjectID(x), bson.ObjectID(y)
		one, two := mongostore.SessionOf(a), mongostore.SessionOf(b)
		if one.Version() != 7 || one.Variant() != uuid.RFC4122 {
			t.Fatalf("%v: got %v, want a UUIDv7", a, one)
		}
		if got, ok := mongostore.ObjectOf(one); got != a || !ok {
			t.Fatalf("%v: got %v, %v from its session ID", a, got, ok)
		}
		if bytes.Compare(a[:], b[:]) != bytes.Compare(one[:], two[:]) {
			t.Fatalf("%v and %v: the session IDs %v and %v have another order", a, b, one, two)
		}
		// Any UUIDv7 has a place among them.
		other := uuid.UUID(z)
		other[6], other[8] = other[6]&0x0f|0x70, other[8]&0x3f|0x80
		if oid, ok := mongostore.ObjectOf(other); ok && mongostore.SessionOf(oid) != other {
			t.Fatalf("%v: got %v, whose session ID is another", other, oid)
		}
		if seconds := binary.BigEndian.Uint64(z[:8]) >> 16 / 1000; seconds >= 1<<32 {
			return // no ObjectID is that late
		}
		bound, op := mongostore.BeforeSession(other)
		before := bytes.Compare(a[:], bound[:]) < 0 || op == "$lte" && a == bound
		if want := bytes.Compare(one[:], other[:]) < 0; before != want {
			t.Fatalf("%v %s %v: got %v, but the session ID %v is less than %v: %v", a, op, bound, before, one, other, want)
		}
	})
}
