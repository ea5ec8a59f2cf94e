package mongostore_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/mongostore"
)

// connect returns a database on a server that may not exist.
func connect(t *testing.T, uri string) *mongo.Database {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client.Database("app")
}

// closedPort returns the address of a port on which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestIndexCallsNameTheAddressIfNoServerAnswers(t *testing.T) {
	address := closedPort(t)
	db := connect(t, "mongodb://"+address+"/?serverSelectionTimeoutMS=20")
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{PurgeInterval: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	users, err := mongostore.NewUsers[member](db, mongostore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	attempts, err := mongostore.NewAttempts(db, mongostore.AttemptsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	oneTime, err := mongostore.NewOneTimeTokens[uuid.UUID](db, mongostore.OneTimeTokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func(context.Context) error{
		"OneTimeTokens.EnsureIndexes": oneTime.EnsureIndexes,
		"OneTimeTokens.VerifyIndexes": oneTime.VerifyIndexes,
		"Tokens.EnsureIndexes":        tokens.EnsureIndexes,
		"Tokens.VerifyIndexes":        tokens.VerifyIndexes,
		"Users.EnsureIndexes":         users.EnsureIndexes,
		"Users.VerifyIndexes":         users.VerifyIndexes,
		"Attempts.EnsureIndexes":      attempts.EnsureIndexes,
		"Attempts.VerifyIndexes":      attempts.VerifyIndexes,
	} {
		err := call(t.Context())
		want := "mongostore: no MongoDB server answers at " + address + ": "
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got the error %v, want one that begins with %q", name, err, want)
			continue
		}
		if n := strings.Count(err.Error(), "no MongoDB server answers"); n != 1 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %d messages, want one in one line:\n%v", name, n, err)
		}
	}
}

// The server accepts connections and never answers, as a stopped process does.
func TestPingIsBoundedIfTheServerHangs(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	db := connect(t, "mongodb://"+listener.Addr().String())
	began := time.Now()
	err = mongostore.Ping(t.Context(), db.Client(), 20*time.Millisecond)
	wantErrorNaming(t, err, "mongostore: no MongoDB server answers at "+listener.Addr().String()+": ")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// The connection is established before the server hangs.
func TestPingNamesTheAddressOfALostServer(t *testing.T) {
	r := newRig(t, nil)
	if err := mongostore.Ping(t.Context(), r.Client(), time.Minute); err != nil {
		t.Fatal(err)
	}
	r.hanging.Store(true)
	err := mongostore.Ping(t.Context(), r.Client(), 20*time.Millisecond)
	wantErrorNaming(t, err, "mongostore: no MongoDB server answers at 127.0.0.1:")
}

func TestPingObservesTheContext(t *testing.T) {
	db := connect(t, "mongodb://"+closedPort(t))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := mongostore.Ping(ctx, db.Client(), time.Minute)
	if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "no MongoDB server answers") {
		t.Errorf("got the error %v, want a plain context.Canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := mongostore.Ping(ctx, db.Client(), time.Minute); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got the error %v, want context.DeadlineExceeded", err)
	}
}

func TestPingNamesEveryAddressOnce(t *testing.T) {
	first, second := closedPort(t), closedPort(t)
	db := connect(t, "mongodb://"+first+","+second+"/?serverSelectionTimeoutMS=20")
	err := mongostore.Ping(t.Context(), db.Client(), time.Minute)
	wantErrorNaming(t, err, "mongostore: no MongoDB server answers at "+first+", "+second+": ")
}

func TestAServerThatAnswersIsNoError(t *testing.T) {
	r := newRig(t, nil)
	if err := mongostore.Ping(t.Context(), r.Client(), time.Minute); err != nil {
		t.Error(err)
	}
}

func TestPingIsBoundedByTheTimeout(t *testing.T) {
	r := newRig(t, func(command) bson.D { return nil })
	tokens := tokensIn(t, r, mongostore.TokensConfig{Timeout: 50 * time.Millisecond})
	if err := tokens.Ping(t.Context()); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	r.hanging.Store(true)
	began := time.Now()
	err := tokens.Ping(t.Context())
	wantErrorNaming(t, err, "no MongoDB server answers at 127.0.0.1:")
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Ping took %v, want about 50 ms", took)
	}
}

func TestCheckIndexesOnlyListsThem(t *testing.T) {
	index := func(name string, keys bson.D, more ...bson.E) bson.D {
		return append(bson.D{{Key: "name", Value: name}, {Key: "key", Value: keys}}, more...)
	}
	lists := map[string][]any{
		"access_tokens": {
			index("token_1", bson.D{{Key: "token", Value: 1}}, bson.E{Key: "unique", Value: true}),
			index("user_id_1_created_at_-1", bson.D{{Key: "user_id", Value: 1}, {Key: "created_at", Value: -1}}),
		},
		"revocations": {index("at_1", bson.D{{Key: "at", Value: 1}})}, // the substitute for a TTL index
	}
	r := newRig(t, func(c command) bson.D {
		if c.name != "listIndexes" {
			t.Errorf("got the command %s, want only listIndexes", c.name)
		}
		return found(lists[c.body.Lookup("listIndexes").StringValue()]...)
	})
	// A purge would run at once.
	tokens := tokensIn(t, r, mongostore.TokensConfig{PurgeInterval: time.Nanosecond})
	if err := tokens.CheckIndexes(t.Context()); err != nil || len(r.sent()) == 0 {
		t.Errorf("got %v, want nil after a look at the indexes", err)
	}
	lists["access_tokens"] = nil
	err := tokens.CheckIndexes(t.Context())
	if wantErrorNaming(t, err, "access_tokens lacks token_1"); !errors.Is(err, mongostore.ErrIndexMismatch) {
		t.Errorf("got %v, want %v", err, mongostore.ErrIndexMismatch)
	}
}
