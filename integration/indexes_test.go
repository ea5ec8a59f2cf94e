package integration_test

import (
	"errors"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// indexes returns the names of a collection's indexes with their keys and options, sorted.
func indexes(t *testing.T, coll *mongo.Collection) []string {
	t.Helper()
	specs, err := coll.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range specs {
		desc := s.Name + " " + s.KeysDocument.String()
		if s.Unique != nil && *s.Unique {
			desc += " unique"
		}
		if s.ExpireAfterSeconds != nil {
			desc += " ttl"
		}
		out = append(out, desc)
	}
	slices.Sort(out)
	return out
}

// ttlSeconds returns the expireAfterSeconds of a collection's TTL index, -1 without one.
func ttlSeconds(t *testing.T, coll *mongo.Collection) int32 {
	t.Helper()
	specs, err := coll.Indexes().ListSpecifications(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs {
		if s.ExpireAfterSeconds != nil {
			return *s.ExpireAfterSeconds
		}
	}
	return -1
}

// names returns indexes without their keys, in one string.
func names(indexes []string) string {
	var out []string
	for _, x := range indexes {
		name, _, _ := strings.Cut(x, " ")
		if strings.HasSuffix(x, "unique") || strings.HasSuffix(x, "ttl") {
			name += x[strings.LastIndexByte(x, ' '):]
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

const (
	withTTL    = "_id_, created_at_1 ttl, token_1 unique, user_id_1_created_at_-1"
	withoutTTL = "_id_, created_at_1, token_1 unique, user_id_1_created_at_-1"
)

func TestEnsureIndexesCreatesTheIndexes(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: time.Hour})
	newUsers[person[uuid.UUID]](t, db, mongostore.UsersConfig{})
	want := withTTL
	if !server.Capabilities.TTL {
		want = withoutTTL
	}
	if got := names(indexes(t, db.Collection("access_tokens"))); got != want {
		t.Errorf("access_tokens has %s, want %s", got, want)
	}
	if got := names(indexes(t, db.Collection("users"))); got != "_id_, email_1 unique" {
		t.Errorf("users has %s", got)
	}
	if err := tokens.VerifyIndexes(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEnsureIndexesIsSafeFromTwentyInstances(t *testing.T) {
	for _, c := range []struct {
		name string
		old  time.Duration // the lifetime of the existing indexes; 0 for an empty database
	}{
		{"on an empty database", 0},
		{"on indexes of another lifetime", 2 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := database(t)
			if c.old > 0 {
				newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: c.old})
			}
			var wg sync.WaitGroup
			begin := make(chan struct{})
			errs := make([]error, 20)
			for i := range errs {
				client, _ := connect(t)
				tokens, err := mongostore.NewTokens[uuid.UUID](client.Database(db.Name()), mongostore.TokensConfig{
					Lifetime: time.Hour, PurgeInterval: time.Hour,
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(tokens.Close)
				users, err := mongostore.NewUsers[person[uuid.UUID]](client.Database(db.Name()), mongostore.UsersConfig{})
				if err != nil {
					t.Fatal(err)
				}
				wg.Go(func() {
					<-begin
					errs[i] = errors.Join(tokens.EnsureIndexes(t.Context()), users.EnsureIndexes(t.Context()))
				})
			}
			close(begin)
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			want := withTTL
			if !server.Capabilities.TTL {
				want = withoutTTL
			}
			if got := names(indexes(t, db.Collection("access_tokens"))); got != want {
				t.Errorf("access_tokens has %s, want %s", got, want)
			}
			if server.Capabilities.TTL {
				if got := ttlSeconds(t, db.Collection("access_tokens")); got != 3600+300 {
					t.Errorf("the TTL is %d s, want 3900", got)
				}
			}
		})
	}
}

func TestEnsureIndexesChangesTheLifetime(t *testing.T) {
	testserver.Require(t, server.Capabilities.TTL, "ttl")
	db := database(t)
	coll := db.Collection("access_tokens")
	for _, c := range []struct {
		lifetime, grace time.Duration
		want            int32
	}{
		{time.Hour, time.Minute, 3660},
		{2 * time.Hour, time.Minute, 7260},
		{30 * time.Minute, time.Minute, 1860},
		{1500 * time.Millisecond, time.Millisecond, 2}, // rounded up, so that no token is deleted too soon
		{0, 0, -1},
		{time.Hour, 0, 3900},
	} {
		newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: c.lifetime, TTLGrace: c.grace})
		if got := ttlSeconds(t, coll); got != c.want {
			t.Errorf("with a lifetime of %v and a grace of %v, the TTL is %d s, want %d", c.lifetime, c.grace, got, c.want)
		}
	}
}

// It checks the commands, also on a server that refuses them.
func TestCommandsThatCreateTTLIndexes(t *testing.T) {
	client, sent := connect(t)
	db := testserver.Database(t, client)
	ensure := func(cfg mongostore.TokensConfig) error {
		tokens, err := mongostore.NewTokens[uuid.UUID](db, cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tokens.Close)
		sent.reset()
		return tokens.EnsureIndexes(t.Context())
	}
	wantTTL := func(err error) {
		t.Helper()
		if server.Capabilities.TTL && err != nil {
			t.Fatal(err)
		}
		if !server.Capabilities.TTL && !errors.Is(err, mongostore.ErrTTLUnsupported) {
			t.Fatalf("got the error %v, want ErrTTLUnsupported", err)
		}
	}

	wantTTL(ensure(mongostore.TokensConfig{Lifetime: time.Hour, TTLGrace: time.Minute}))
	creates := sent.named("createIndexes")
	if len(creates) != 4 {
		t.Fatalf("sent %d createIndexes, want 3 for the tokens and 1 for the revocations: %v", len(creates), creates)
	}
	for path, want := range map[string]any{
		"createIndexes":                "revocations",
		"indexes.0.key.at":             int64(1),
		"indexes.0.expireAfterSeconds": int64(600),
	} {
		if got := lookup(creates[3], path); got != want {
			t.Errorf("createIndexes: %s is %v, want %v", path, got, want)
		}
	}
	for path, want := range map[string]any{
		"indexes.0.name":               "created_at_1",
		"indexes.0.key.created_at":     int64(1),
		"indexes.0.expireAfterSeconds": int64(3660),
	} {
		if got := lookup(creates[2], path); got != want {
			t.Errorf("createIndexes: %s is %v, want %v", path, got, want)
		}
	}
	if got := lookup(creates[0], "indexes.0.unique"); got != true {
		t.Errorf("createIndexes: the token index is not unique: %v", creates[0])
	}

	// A plain index is changed into a TTL index.
	if _, err := db.Collection("access_tokens").Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "created_at", Value: 1}}}); err != nil && !server.Capabilities.TTL {
		t.Fatal(err)
	}
	wantTTL(ensure(mongostore.TokensConfig{Lifetime: 2 * time.Hour, TTLGrace: time.Minute}))
	mods := sent.named("collMod")
	if len(mods) != 1 {
		t.Fatalf("sent %d collMod, want 1", len(mods))
	}
	for path, want := range map[string]any{
		"collMod":                  "access_tokens",
		"index.name":               "created_at_1",
		"index.expireAfterSeconds": int64(7260),
	} {
		if got := lookup(mods[0], path); got != want {
			t.Errorf("collMod: %s is %v, want %v", path, got, want)
		}
	}
}

// lookup returns a value by its dotted path, all numbers as int64.
func lookup(doc bson.Raw, path string) any {
	v := doc.Lookup(strings.Split(path, ".")...)
	switch {
	case v.IsNumber():
		return v.AsInt64()
	case v.Type == bson.TypeString:
		return v.StringValue()
	case v.Type == bson.TypeBoolean:
		return v.Boolean()
	}
	return nil
}

func TestServerWithoutTTLIsAnErrorWithoutPurgeInterval(t *testing.T) {
	tokens, err := mongostore.NewTokens[uuid.UUID](database(t), mongostore.TokensConfig{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var wantEnsure, wantVerify error
	if !server.Capabilities.TTL {
		wantEnsure, wantVerify = mongostore.ErrTTLUnsupported, mongostore.ErrIndexMismatch
	}
	if err := tokens.EnsureIndexes(t.Context()); !errors.Is(err, wantEnsure) {
		t.Errorf("EnsureIndexes returned %v, want %v", err, wantEnsure)
	}
	if err := tokens.VerifyIndexes(t.Context()); !errors.Is(err, wantVerify) {
		t.Errorf("VerifyIndexes returned %v, want %v", err, wantVerify)
	}
}

func TestConflictingIndexIsAClearError(t *testing.T) {
	db := database(t)
	coll := db.Collection("access_tokens")
	if _, err := coll.Indexes().CreateOne(t.Context(), mongo.IndexModel{
		Keys: bson.D{{Key: "something", Value: 1}}, Options: options.Index().SetName("token_1"),
	}); err != nil {
		t.Fatal(err)
	}
	before := indexes(t, coll)
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	err = tokens.EnsureIndexes(t.Context())
	if !errors.Is(err, mongostore.ErrIndexMismatch) {
		t.Fatalf("got the error %v, want ErrIndexMismatch", err)
	}
	for _, part := range []string{"access_tokens", "token_1 {something: 1}", "token_1 {token: 1}, unique"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %q: %v", part, err)
		}
	}
	if after := indexes(t, coll); !slices.Equal(before, after) {
		t.Errorf("the indexes were %v and are %v", before, after)
	}
}

func TestVerifyIndexesChangesNothing(t *testing.T) {
	client, sent := connect(t)
	db := testserver.Database(t, client)
	tokens, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	users, err := mongostore.NewUsers[person[uuid.UUID]](db, mongostore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	sent.reset()
	err = tokens.VerifyIndexes(t.Context())
	if !errors.Is(err, mongostore.ErrIndexMismatch) {
		t.Errorf("access_tokens: got the error %v, want ErrIndexMismatch", err)
	}
	for _, part := range []string{"lacks token_1", "lacks user_id_1_created_at_-1", "lacks created_at_1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
	if err := users.VerifyIndexes(t.Context()); !errors.Is(err, mongostore.ErrIndexMismatch) {
		t.Errorf("users: got the error %v, want ErrIndexMismatch", err)
	}
	for _, c := range sent.all() {
		if name := c.Index(0).Key(); name != "listIndexes" && name != "ping" {
			t.Errorf("sent %s, want ping and listIndexes only", name)
		}
	}
}

// Purge deletes the rows that a TTL index would delete. On a server without TTL indexes a
// goroutine calls it once an interval, until Close.
func TestPurgeDeletesExpiredTokens(t *testing.T) {
	now := time.Now()
	tokens, err := mongostore.NewTokens[uuid.UUID](database(t), mongostore.TokensConfig{
		Lifetime: time.Hour, TTLGrace: time.Minute, PurgeInterval: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	old := insertAged(t, tokens, now.Add(-time.Hour-2*time.Minute))
	inGrace := insertAged(t, tokens, now.Add(-time.Hour-30*time.Second))
	young := insertAged(t, tokens, now)
	if err := tokens.EnsureIndexes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !server.Capabilities.TTL {
		eventually(t, 10*time.Second, "a goroutine purges", purging)
	} else {
		if purging() {
			t.Error("a goroutine purges although the server has TTL indexes")
		}
		if _, err := tokens.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 10*time.Second, "the old token is purged", func() bool { return !exists(t, tokens, old) })
	if !exists(t, tokens, inGrace) || !exists(t, tokens, young) {
		t.Error("a token was purged too soon")
	}
	tokens.Close()
	tokens.Close()
	if purging() {
		t.Error("the goroutine that purges outlives Close")
	}
}

// purging reports whether a store's purge goroutine runs.
func purging() bool {
	var stacks strings.Builder
	_ = pprof.Lookup("goroutine").WriteTo(&stacks, 1)
	return strings.Contains(stacks.String(), "mongostore.(*purger)")
}

// insertAged stores a token that was created at a time, and returns its digest.
func insertAged(t *testing.T, tokens *mongostore.Tokens[uuid.UUID], at time.Time) string {
	t.Helper()
	row := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: uuid.NewString(), UserID: uuid.New(), CreatedAt: at.UTC().Truncate(time.Millisecond)}
	if err := tokens.Insert(t.Context(), row); err != nil {
		t.Fatal(err)
	}
	return row.Digest
}

// exists reports whether the token's row exists.
func exists(t *testing.T, tokens *mongostore.Tokens[uuid.UUID], digest string) bool {
	t.Helper()
	_, err := tokens.ByToken(t.Context(), digest)
	if err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Fatal(err)
	}
	return err == nil
}

// eventually waits until done returns true, because of another process or goroutine. what names the
// expectation.
func eventually(t testing.TB, atMost time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(atMost)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", atMost, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
