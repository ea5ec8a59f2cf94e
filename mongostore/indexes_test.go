package mongostore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/mongostore"
)

const (
	tokenIndex = "token_1 {token: 1}, unique"
	userIndex  = "user_id_1_created_at_-1 {user_id: 1, created_at: -1}"
	ttlIndex   = "created_at_1 {created_at: 1}, expireAfterSeconds: 3660" // an hour and a minute
)

// once returns a Fault for the first command of a name.
func once(command string, err error) func(string) error {
	failed := false
	return func(c string) error {
		if c != command || failed {
			return nil
		}
		failed = true
		return err
	}
}

// always returns a Fault for every command of a name.
func always(command string, err error) func(string) error {
	return func(c string) error {
		if c != command {
			return nil
		}
		return err
	}
}

func TestReconcileIndexes(t *testing.T) {
	all := []string{ttlIndex, tokenIndex, userIndex}
	for _, c := range []struct {
		name     string
		server   *mongostore.FakeServer
		forever  bool // Lifetime 0
		commands []string
		indexes  []string // nil means all
		err      error
	}{
		{
			name:     "an empty database gets all indexes",
			server:   &mongostore.FakeServer{},
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "createIndexes created_at_1"},
		},
		{
			name: "another lifetime is set with collMod",
			server: (&mongostore.FakeServer{}).Existing("token_1", "token", true, mongostore.NoTTL).
				Existing("created_at_1", "created_at", false, 60),
			commands: []string{"createIndexes user_id_1_created_at_-1", "collMod created_at_1"},
		},
		{
			name:     "the TTL index is found under another name",
			server:   (&mongostore.FakeServer{}).Existing("my_ttl", "created_at", false, 60),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "collMod my_ttl"},
			indexes:  []string{"my_ttl {created_at: 1}, expireAfterSeconds: 3660", tokenIndex, userIndex},
		},
		{
			name:     "a plain index becomes a TTL index",
			server:   (&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, mongostore.NoTTL),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "collMod created_at_1"},
		},
		{
			name: "a plain index is dropped and made again if the server cannot change it",
			server: withFault((&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, mongostore.NoTTL),
				always("collMod created_at_1", mongostore.ServerError(72))),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "collMod created_at_1", "dropIndexes created_at_1", "createIndexes created_at_1"},
		},
		{
			name:     "without a lifetime there is no TTL index",
			server:   &mongostore.FakeServer{},
			forever:  true,
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1"},
			indexes:  []string{tokenIndex, userIndex},
		},
		{
			name:     "without a lifetime an old TTL index is dropped",
			server:   (&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, 60),
			forever:  true,
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "dropIndexes created_at_1"},
			indexes:  []string{tokenIndex, userIndex},
		},
		{
			name:    "an index of the same name with other keys is an error",
			server:  (&mongostore.FakeServer{}).Existing("token_1", "something", false, mongostore.NoTTL),
			indexes: []string{"token_1 {something: 1}"},
			err:     mongostore.ErrIndexMismatch,
		},
		{
			name:    "a TTL index of the same name with other keys is an error",
			server:  (&mongostore.FakeServer{}).Existing("created_at_1", "expires", false, 60),
			indexes: []string{"created_at_1 {expires: 1}, expireAfterSeconds: 60"},
			err:     mongostore.ErrIndexMismatch,
		},
		{
			name:    "a token index that is not unique is an error",
			server:  (&mongostore.FakeServer{}).Existing("token_1", "token", false, mongostore.NoTTL),
			indexes: []string{"token_1 {token: 1}"},
			err:     mongostore.ErrIndexMismatch,
		},
		{
			name:    "a unique index on the time of issue is an error",
			server:  (&mongostore.FakeServer{}).Existing("created_at_1", "created_at", true, 3660),
			indexes: []string{"created_at_1 {created_at: 1}, unique, expireAfterSeconds: 3660"},
			err:     mongostore.ErrIndexMismatch,
		},
		{
			name:     "a server without TTL gets the other indexes and is an error",
			server:   withFault(&mongostore.FakeServer{}, always("createIndexes created_at_1", mongostore.ServerError(238))),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "createIndexes created_at_1"},
			indexes:  []string{tokenIndex, userIndex},
			err:      mongostore.ErrTTLUnsupported,
		},
		{
			name: "a server without collMod has no TTL",
			server: withFault((&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, mongostore.NoTTL),
				always("collMod created_at_1", mongostore.ServerError(59))),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "collMod created_at_1"},
			indexes:  []string{"created_at_1 {created_at: 1}", tokenIndex, userIndex},
			err:      mongostore.ErrTTLUnsupported,
		},
		{
			name:     "a collection that another instance makes is no error",
			server:   withFault(&mongostore.FakeServer{}, once("createIndexes token_1", mongostore.ServerError(48))),
			commands: []string{"createIndexes token_1", "createIndexes token_1", "createIndexes user_id_1_created_at_-1", "createIndexes created_at_1"},
		},
		{
			name:     "a deadlock with another instance is no error",
			server:   withFault(&mongostore.FakeServer{}, once("createIndexes token_1", mongostore.ServerError(16908292))),
			commands: []string{"createIndexes token_1", "createIndexes token_1", "createIndexes user_id_1_created_at_-1", "createIndexes created_at_1"},
		},
		{
			name: "a deadlock without a code of its own is no error",
			server: withFault(&mongostore.FakeServer{}, once("createIndexes token_1",
				mongo.CommandError{Code: 1, Message: "deadlock detected"})),
			commands: []string{"createIndexes token_1", "createIndexes token_1", "createIndexes user_id_1_created_at_-1", "createIndexes created_at_1"},
		},
		{
			name: "an index that another instance drops is made again",
			server: withFault((&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, 60),
				once("collMod created_at_1", mongostore.ServerError(27))),
			commands: []string{"createIndexes token_1", "createIndexes user_id_1_created_at_-1", "collMod created_at_1", "collMod created_at_1"},
		},
		{
			name:     "any other error is returned at once",
			server:   withFault(&mongostore.FakeServer{}, always("createIndexes token_1", mongostore.ServerError(13))),
			commands: []string{"createIndexes token_1"},
			err:      mongostore.ServerError(13),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			lifetime := time.Hour
			if c.forever {
				lifetime = 0
			}
			err := c.server.Ensure(t.Context(), lifetime, time.Minute)
			var server mongo.CommandError
			switch {
			case c.err == nil && err != nil, c.err != nil && err == nil:
				t.Fatalf("got the error %v, want %v", err, c.err)
			case errors.As(c.err, &server):
				var got mongo.CommandError
				if !errors.As(err, &got) || got.Code != server.Code {
					t.Fatalf("got the error %v, want %v", err, c.err)
				}
				return
			case !errors.Is(err, c.err):
				t.Fatalf("got the error %v, want %v", err, c.err)
			}
			if !slices.Equal(c.server.Commands, c.commands) {
				t.Errorf("sent %q, want %q", c.server.Commands, c.commands)
			}
			want := c.indexes
			if want == nil {
				want = all
			}
			want = slices.Sorted(slices.Values(want))
			if got := c.server.Indexes(); !slices.Equal(got, want) {
				t.Errorf("indexes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if err != nil {
				return
			}
			c.server.Commands = nil
			if err := c.server.Ensure(t.Context(), lifetime, time.Minute); err != nil || len(c.server.Commands) > 0 {
				t.Errorf("the second call returned the error %v and sent %q, want no error and no command", err, c.server.Commands)
			}
			if err := c.server.Verify(t.Context(), lifetime, time.Minute); err != nil {
				t.Errorf("verify: %v", err)
			}
		})
	}
}

func withFault(f *mongostore.FakeServer, fault func(string) error) *mongostore.FakeServer {
	f.Fault = fault
	return f
}

func TestReconcileGivesUpOnAPermanentError(t *testing.T) {
	server := withFault(&mongostore.FakeServer{}, always("createIndexes token_1", mongostore.ServerError(85)))
	err := server.Ensure(t.Context(), time.Hour, time.Minute)
	var got mongo.CommandError
	if !errors.As(err, &got) || got.Code != 85 {
		t.Errorf("got the error %v, want the server's", err)
	}
}

func TestVerifyReportsEveryDifferenceAndChangesNothing(t *testing.T) {
	server := (&mongostore.FakeServer{}).
		Existing("token_1", "token", false, mongostore.NoTTL).
		Existing("created_at_1", "created_at", false, 60)
	err := server.Verify(t.Context(), time.Hour, time.Minute)
	if !errors.Is(err, mongostore.ErrIndexMismatch) {
		t.Fatalf("got the error %v, want ErrIndexMismatch", err)
	}
	for _, part := range []string{
		"access_tokens has token_1 {token: 1}, want " + tokenIndex,
		"access_tokens lacks " + userIndex,
		"access_tokens has created_at_1 {created_at: 1}, expireAfterSeconds: 60, want " + ttlIndex,
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
	if len(server.Commands) > 0 {
		t.Errorf("sent %q, want nothing", server.Commands)
	}
}

func TestVerifyReportsATTLIndexOnTokensWithoutExpiry(t *testing.T) {
	server := (&mongostore.FakeServer{}).Existing("created_at_1", "created_at", false, 60)
	err := server.Verify(t.Context(), 0, time.Minute)
	if err == nil || !strings.Contains(err.Error(), "would remove tokens that do not expire") {
		t.Errorf("got the error %v", err)
	}
}

func TestErrTTLUnsupportedNamesTheRemedy(t *testing.T) {
	server := withFault(&mongostore.FakeServer{}, always("createIndexes created_at_1", mongostore.ServerError(238)))
	wantErrorNaming(t, server.Ensure(t.Context(), time.Hour, time.Minute), "PurgeInterval")
}
