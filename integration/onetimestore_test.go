package integration_test

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/mongostore"
)

// newOneTimeTokens returns a store with its indexes. On a server without TTL indexes it purges
// once an hour.
func newOneTimeTokens[ID comparable](tb testing.TB, db *mongo.Database, cfg mongostore.OneTimeTokensConfig) *mongostore.OneTimeTokens[ID] {
	tb.Helper()
	if cfg.PurgeInterval == 0 {
		cfg.PurgeInterval = time.Hour
	}
	tokens, err := mongostore.NewOneTimeTokens[ID](db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(tokens.Close)
	if err := tokens.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return tokens
}

// oneTimeToken returns a new token for a verification that expires at a time.
func oneTimeToken(userID uuid.UUID, expires time.Time) account.OneTimeToken[uuid.UUID] {
	expires = expires.UTC().Truncate(time.Millisecond)
	return account.OneTimeToken[uuid.UUID]{
		Digest: uuid.NewString(), Purpose: account.PurposeVerification, UserID: userID,
		SentTo: jo, Email: jo, CreatedAt: expires.Add(-time.Hour), ExpiresAt: expires,
	}
}

// addOneTime stores a new user's token that expires at a time, and returns its digest.
func addOneTime(t *testing.T, tokens *mongostore.OneTimeTokens[uuid.UUID], expires time.Time) string {
	t.Helper()
	token := oneTimeToken(uuid.New(), expires)
	if err := tokens.Insert(t.Context(), token, 3); err != nil {
		t.Fatal(err)
	}
	return token.Digest
}

// storedOneTime reports whether the document of a one-time token exists, expired or not.
func storedOneTime(t *testing.T, db *mongo.Database, digest string) bool {
	t.Helper()
	err := db.Collection("one_time_tokens").FindOne(t.Context(), bson.D{{Key: "_id", Value: digest}}).Err()
	if err != nil && !errors.Is(err, mongo.ErrNoDocuments) {
		t.Fatal(err)
	}
	return err == nil
}

// wantOneTimeIndexes checks the indexes of one_time_tokens.
func wantOneTimeIndexes(t *testing.T, db *mongo.Database) {
	t.Helper()
	coll := db.Collection("one_time_tokens")
	want := "_id_, expires_at_1, user_id_1_purpose_1_created_at_-1"
	if server.Capabilities.TTL {
		want = strings.Replace(want, "expires_at_1", "expires_at_1 ttl", 1)
		if got := ttlSeconds(t, coll); got != 300 {
			t.Errorf("the TTL is %d s, want 300", got)
		}
	}
	if got := names(indexes(t, coll)); got != want {
		t.Errorf("one_time_tokens has %s, want %s", got, want)
	}
}

func TestOneTimeTokensIndexesAreCreatedAndVerified(t *testing.T) {
	db := database(t)
	tokens, err := mongostore.NewOneTimeTokens[uuid.UUID](db, mongostore.OneTimeTokensConfig{PurgeInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	err = tokens.VerifyIndexes(t.Context())
	if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "one_time_tokens lacks expires_at_1") ||
		!strings.Contains(err.Error(), "one_time_tokens lacks user_id_1_purpose_1_created_at_-1") {
		t.Errorf("before: got the error %v, want ErrIndexMismatch that names both indexes", err)
	}
	for range 2 {
		if err := tokens.EnsureIndexes(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantOneTimeIndexes(t, db)
		if err := tokens.VerifyIndexes(t.Context()); err != nil {
			t.Errorf("after: %v", err)
		}
	}
}

func TestOneTimeTokensIndexesAreSafeFromManyInstances(t *testing.T) {
	db := database(t)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	errs := make([]error, 10)
	for i := range errs {
		client, _ := connect(t)
		tokens, err := mongostore.NewOneTimeTokens[uuid.UUID](client.Database(db.Name()), mongostore.OneTimeTokensConfig{PurgeInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tokens.Close)
		wg.Go(func() {
			<-begin
			errs[i] = tokens.EnsureIndexes(t.Context())
		})
	}
	close(begin)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	wantOneTimeIndexes(t, db)
}

// Other programs can read the documents.
func TestOneTimeTokenDocumentIsAsDocumented(t *testing.T) {
	db := database(t)
	tokens := newOneTimeTokens[uuid.UUID](t, db, mongostore.OneTimeTokensConfig{})
	token := oneTimeToken(uuid.New(), time.Now().Add(time.Hour))
	token.Purpose, token.SentTo, token.TokenVersion = account.PurposeEmailChange, "new@example.com", 7
	if err := tokens.Insert(t.Context(), token, 3); err != nil {
		t.Fatal(err)
	}
	want := bson.M{
		"_id": token.Digest, "purpose": "email_change", "user_id": id4(token.UserID), "sent_to": "new@example.com", "email": jo,
		"token_version": int64(7), "created_at": bson.NewDateTimeFromTime(token.CreatedAt), "expires_at": bson.NewDateTimeFromTime(token.ExpiresAt),
	}
	var got bson.M
	if err := db.Collection("one_time_tokens").FindOne(t.Context(), bson.D{}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the document is\n%#v, want\n%#v", got, want)
	}
}

// A used token must not come back by a failover, so a majority acknowledges every write. Take is
// one command.
func TestOneTimeTokenIsTakenByOneCommand(t *testing.T) {
	client, sent := connect(t)
	tokens := newOneTimeTokens[uuid.UUID](t, testserver.Database(t, client), mongostore.OneTimeTokensConfig{})
	sent.reset()
	first, second := oneTimeToken(uuid.New(), time.Now().Add(time.Hour)), oneTimeToken(uuid.New(), time.Now().Add(time.Hour))
	if err := errors.Join(tokens.Insert(t.Context(), first, 1), tokens.Insert(t.Context(), second, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Take(t.Context(), first.Purpose, first.Digest); err != nil {
		t.Fatal(err)
	}
	if n := len(sent.named("findAndModify")); n != 1 {
		t.Errorf("Take sent %d findAndModify, want 1", n)
	}
	if got := sent.all()[len(sent.all())-1]; got.Index(0).Key() != "findAndModify" {
		t.Errorf("the last command of Take is %s, want findAndModify", got.Index(0).Key())
	}
	if err := tokens.DeleteByUser(t.Context(), second.UserID, ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range sent.all() {
		name := c.Index(0).Key()
		if name != "find" && lookup(c, "writeConcern.w") != "majority" {
			t.Errorf("%s was sent with the write concern %v, want majority", name, c.Lookup("writeConcern"))
		}
	}
}

// A document of another program is no token: it is not found, takes no token's place, and is
// removed with the user's tokens.
func TestDocumentOfAnotherProgramIsNoOneTimeToken(t *testing.T) {
	for _, c := range []struct {
		field string
		value any
	}{
		{"sent_to", int32(7)},
		{"email", missing{}},
		{"token_version", "3"},
		{"created_at", "2099-01-01T00:00:00Z"},
		{"created_at", bson.Timestamp{T: 4e9}}, // sorts after every date
		{"created_at", bson.DateTime(1 << 60)}, // a year that JSON cannot represent
		{"created_at", time.Now().AddDate(50, 0, 0)},
		{"expires_at", "never"},
	} {
		t.Run(c.field, func(t *testing.T) {
			db, log := database(t), new(events)
			tokens := newOneTimeTokens[uuid.UUID](t, db, mongostore.OneTimeTokensConfig{OnEvent: log.add})
			coll := db.Collection("one_time_tokens")
			user, expires := uuid.New(), time.Now().Add(time.Hour)
			const limit = 3
			var invalid []account.OneTimeToken[uuid.UUID]
			for range limit + 1 {
				token := oneTimeToken(user, expires.Add(-time.Minute))
				if err := tokens.Insert(t.Context(), token, 10); err != nil {
					t.Fatal(err)
				}
				update := bson.D{{Key: "$set", Value: bson.D{{Key: c.field, Value: c.value}}}}
				if _, none := c.value.(missing); none {
					update = bson.D{{Key: "$unset", Value: bson.D{{Key: c.field, Value: ""}}}}
				}
				if _, err := coll.UpdateByID(t.Context(), token.Digest, update); err != nil {
					t.Fatal(err)
				}
				invalid = append(invalid, token)
			}
			_, valid := c.value.(time.Time)
			for i, find := range []func() (account.OneTimeToken[uuid.UUID], error){
				func() (account.OneTimeToken[uuid.UUID], error) {
					return tokens.Find(t.Context(), invalid[0].Purpose, invalid[0].Digest)
				},
				func() (account.OneTimeToken[uuid.UUID], error) {
					return tokens.Take(t.Context(), invalid[0].Purpose, invalid[0].Digest)
				},
			} {
				if got, err := find(); !valid && !errors.Is(err, account.ErrOneTimeTokenNotFound) {
					t.Errorf("got %+v, %v, want ErrOneTimeTokenNotFound", got, err)
				}
				if found := log.all(event.InvalidDocument); !valid && (len(found) != i+1 || found[i].UserID != user ||
					!strings.Contains(found[i].Err.Error(), c.field) || strings.Contains(found[i].Err.Error(), invalid[0].Digest)) {
					t.Errorf("got the events %+v, want one of the user for each call that names %s and not the digest", found, c.field)
				}
			}
			if storedOneTime(t, db, invalid[0].Digest) {
				t.Error("Take did not remove the document")
			}
			// The limit leaves room for new tokens.
			var issued []account.OneTimeToken[uuid.UUID]
			for i := range limit + 2 {
				token := oneTimeToken(user, expires.Add(time.Duration(i)*time.Second))
				if err := tokens.Insert(t.Context(), token, limit); err != nil {
					t.Fatal(err)
				}
				issued = append(issued, token)
			}
			for i, token := range issued {
				_, err := tokens.Find(t.Context(), token.Purpose, token.Digest)
				if stays := i >= len(issued)-limit; stays && err != nil || !stays && !errors.Is(err, account.ErrOneTimeTokenNotFound) {
					t.Errorf("token %d of %d: got the error %v, want the last %d to stay", i+1, len(issued), err, limit)
				}
			}
			if err := tokens.DeleteByUser(t.Context(), user, account.PurposeVerification); err != nil {
				t.Fatal(err)
			}
			if n, err := coll.CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
				t.Errorf("%d documents (error %v) after DeleteByUser, want none", n, err)
			}
		})
	}
}

func TestOneTimeTokenIndexChecksReportInvalidDocuments(t *testing.T) {
	for _, c := range []struct {
		field string
		value any
	}{
		{"_id", bson.NewObjectID()},
		{"user_id", "jo"},
		{"expires_at", "never"},
		{"expires_at", missing{}},
	} {
		t.Run(c.field, func(t *testing.T) {
			db, log := database(t), new(events)
			tokens := newOneTimeTokens[uuid.UUID](t, db, mongostore.OneTimeTokensConfig{OnEvent: log.add})
			for i := range 20 {
				addOneTime(t, tokens, time.Now().Add(time.Duration(i)*time.Minute))
			}
			doc := bson.D{}
			for _, e := range []bson.E{
				{Key: "_id", Value: "digest"}, {Key: "purpose", Value: "verification"}, {Key: "user_id", Value: id4(uuid.New())}, {Key: "sent_to", Value: jo},
				{Key: "email", Value: jo}, {Key: "created_at", Value: time.Now()}, {Key: "expires_at", Value: time.Now().Add(5 * time.Minute)},
			} {
				if e.Key == c.field {
					e.Value = c.value
				}
				if _, none := e.Value.(missing); !none {
					doc = append(doc, e)
				}
			}
			if _, err := db.Collection("one_time_tokens").InsertOne(t.Context(), doc); err != nil {
				t.Fatal(err)
			}
			if err := tokens.EnsureIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
			found := log.all(event.InvalidDocument)
			if len(found) != 1 || !strings.Contains(found[0].Err.Error(), "one_time_tokens") || !strings.Contains(found[0].Err.Error(), c.field) {
				t.Errorf("got the events %+v, want one that names one_time_tokens and %s", found, c.field)
			}
		})
	}
}
