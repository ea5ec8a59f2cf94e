package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// invalidFields are fields of access_tokens with values of other types. keepsID says that the
// session's ID stays readable.
var invalidFields = []struct {
	field   string
	value   any
	keepsID bool
}{
	{"_id", bson.NewObjectID(), false},
	{"_id", "a string", false},
	{"created_at", "2026-01-01T00:00:00Z", true},
	{"created_at", missing{}, true},
	{"created_at", bson.Timestamp{T: 4e9}, true}, // sorts after every date
	{"created_at", bson.DateTime(1 << 60), true}, // a year that JSON cannot represent
	{"token_version", "3", true},
	{"token_version", 1.5, true},
	{"scopes", "admin", true},
	{"last_used_at", "today", true},
	{"name", int32(7), true},
}

// replaceToken replaces the row of a token by one with another value of a field.
func replaceToken(t *testing.T, db *mongo.Database, token, field string, value any) {
	t.Helper()
	coll := db.Collection("access_tokens")
	var doc bson.D
	if err := coll.FindOneAndDelete(t.Context(), bson.D{{Key: "token", Value: digestOf(t, token)}}).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	doc = slices.DeleteFunc(doc, func(e bson.E) bool { return e.Key == field })
	if _, ok := value.(missing); !ok {
		doc = append(doc, bson.E{Key: field, Value: value})
	}
	if _, err := coll.InsertOne(t.Context(), doc); err != nil {
		t.Fatal(err)
	}
}

func digestOf(t *testing.T, secret string) string {
	t.Helper()
	digest, ok := token.Default.Digest(secret)
	if !ok {
		t.Fatal("the string is not a token")
	}
	return digest
}

// listed returns the IDs of the sessions that GET /auth/sessions lists.
func (r *rig) listed(token string) (ids []uuid.UUID) {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodGet, r.url+"/auth/sessions", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var body struct{ Sessions []struct{ ID uuid.UUID } }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Errorf("GET /auth/sessions answered %d (error %v), want 200", resp.StatusCode, err)
	}
	for _, s := range body.Sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

// A document of another program is no session: it is not accepted, listed or counted, and is
// removed with the user's sessions.
func TestDocumentOfAnotherProgramIsNoSession(t *testing.T) {
	const limit = 3
	for _, c := range invalidFields {
		t.Run(c.field, func(t *testing.T) {
			db := database(t)
			log := new(events)
			r := newRig(t, db, 0, strategy.Config{Lifetime: time.Hour, MaxSessions: limit, OnEvent: log.add})
			current, invalid := r.login(), r.login()
			session, err := r.sessions.ReadToken(t.Context(), invalid)
			if err != nil {
				t.Fatal(err)
			}
			replaceToken(t, db, invalid, c.field, c.value)

			log.list = nil
			r.want(http.StatusUnauthorized, http.MethodGet, "/me", invalid, "with the invalid document")
			found := log.all(event.InvalidDocument)
			if len(found) == 0 || !strings.Contains(found[0].Err.Error(), "access_tokens") || !strings.Contains(found[0].Err.Error(), c.field) {
				t.Errorf("got the events %+v, want one that names access_tokens and %s", found, c.field)
			}
			if got := r.listed(current); len(got) != 1 {
				t.Errorf("listed %d sessions, want 1", len(got))
			}
			// The limit leaves room for two more sessions, and a third one ends the oldest.
			second, third := r.login(), r.login()
			r.want(http.StatusOK, http.MethodGet, "/me", current, "at the limit")
			if got := r.listed(second); len(got) != limit {
				t.Errorf("listed %d sessions, want %d", len(got), limit)
			}
			newest := r.login()
			r.want(http.StatusUnauthorized, http.MethodGet, "/me", current, "beyond the limit")
			r.want(http.StatusOK, http.MethodGet, "/me", third, "beyond the limit")

			if c.keepsID {
				r.want(http.StatusNoContent, http.MethodDelete, "/auth/sessions/"+session.ID.String(), newest, "of the invalid document")
				if n, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || n != limit {
					t.Errorf("%d documents (error %v), want %d", n, err, limit)
				}
			}
			r.want(http.StatusNoContent, http.MethodPost, "/auth/logout-all", newest, "")
			if n, err := db.Collection("access_tokens").CountDocuments(t.Context(), bson.D{}); err != nil || n != 0 {
				t.Errorf("%d documents (error %v) after the log-out everywhere, want none", n, err)
			}
			if failed := log.all(event.StoreFailed); len(failed) > 0 {
				t.Errorf("got %d failures, want none; the first: %v", len(failed), failed[0].Err)
			}
		})
	}
}

// The pages of a list are complete although invalid documents stand between the valid ones.
func TestPagesOfSessionsSkipInvalidDocuments(t *testing.T) {
	db := database(t)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	user, at := uuid.New(), time.Now().UTC().Truncate(time.Second)
	const valid = 20
	var docs []any
	for i := range valid {
		row := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: uuid.NewString(), UserID: user, CreatedAt: at.Add(time.Duration(i) * time.Second)}
		if err := tokens.Insert(t.Context(), row); err != nil {
			t.Fatal(err)
		}
		for range i % 4 {
			docs = append(docs, bson.D{{Key: "token", Value: uuid.NewString()}, {Key: "user_id", Value: id4(user)}, {Key: "created_at", Value: row.CreatedAt}})
		}
	}
	if _, err := db.Collection("access_tokens").InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 3, 7, 19, 20, 21, 100} {
		var got []strategy.AccessToken[uuid.UUID]
		for after := (strategy.Position{}); ; {
			page, err := tokens.ByUser(t.Context(), user, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page...)
			if len(page) < limit {
				break
			}
			after = strategy.Position{CreatedAt: page[limit-1].CreatedAt, ID: page[limit-1].ID}
		}
		for i, row := range got {
			if want := at.Add(time.Duration(valid-1-i) * time.Second); !row.CreatedAt.Equal(want) {
				t.Errorf("pages of %d: token %d was created at %v, want %v", limit, i, row.CreatedAt, want)
			}
		}
		if len(got) != valid {
			t.Errorf("pages of %d: got %d tokens, want %d", limit, len(got), valid)
		}
	}
}

func TestIndexChecksReportInvalidDocuments(t *testing.T) {
	db := database(t)
	log := new(events)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: time.Hour, OnEvent: log.add})
	users := newUsers[contract.Member](t, db, mongostore.UsersConfig{OnEvent: log.add})
	user := func(id any, email any, field string, value any) bson.D {
		doc := bson.D{{Key: "_id", Value: id}, {Key: "email", Value: email}, {Key: "is_active", Value: true}}
		if field != "" {
			doc = append(doc, bson.E{Key: field, Value: value})
		}
		return doc
	}
	row := func(id, token, at any) bson.D {
		return bson.D{{Key: "_id", Value: id}, {Key: "token", Value: token}, {Key: "user_id", Value: id4(uuid.New())}, {Key: "created_at", Value: at}}
	}
	now := time.Now()
	for _, c := range []struct {
		name, collection string
		doc              bson.D
		want             string // "": no event
	}{
		{"a valid token", "access_tokens", row(id4(uuid.New()), "digest", now), ""},
		{"a token with an ObjectID", "access_tokens", row(bson.NewObjectID(), "digest", now), "_id"},
		{"a token with a string as its date", "access_tokens", row(id4(uuid.New()), "digest", "2026-01-01T00:00:00Z"), "created_at"},
		{"a token without a date", "access_tokens", row(id4(uuid.New()), "digest", nil), "created_at"},
		{"a token with a timestamp", "access_tokens", row(id4(uuid.New()), "digest", bson.Timestamp{T: 1}), "created_at"},
		{"a token that is a number", "access_tokens", row(id4(uuid.New()), int64(7), now), "token"},
		{"a valid account", "users", user(id4(uuid.New()), "a@example.com", "", nil), ""},
		{"an account with an integral double as its version", "users", user(id4(uuid.New()), "a@example.com", "token_version", 3.0), ""},
		{"an account with null as its version", "users", user(id4(uuid.New()), "a@example.com", "token_version", nil), ""},
		{"an account with a string as its version", "users", user(id4(uuid.New()), "a@example.com", "token_version", "3"), "token_version"},
		{"an account with a number as its hash", "users", user(id4(uuid.New()), "a@example.com", "hashed_password", int64(7)), "hashed_password"},
		{"an account with a string as its flag", "users", user(id4(uuid.New()), "a@example.com", "is_superuser", "yes"), "is_superuser"},
		{"an account with a number as its address", "users", user(id4(uuid.New()), int64(7), "", nil), "email"},
		{"an account with an ObjectID", "users", user(bson.NewObjectID(), "a@example.com", "", nil), "_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Valid documents, between which the checks find the invalid one.
			var tokenDocs, userDocs []any
			for i := range 20 {
				tokenDocs = append(tokenDocs, row(id4(uuid.New()), uuid.NewString(), now.Add(time.Duration(i-10)*time.Minute)))
				userDocs = append(userDocs, user(id4(uuid.New()), uuid.NewString()+"@example.com", "", nil))
			}
			for name, docs := range map[string][]any{"access_tokens": tokenDocs, "users": userDocs} {
				coll := db.Collection(name)
				if _, err := coll.DeleteMany(t.Context(), bson.D{}); err != nil {
					t.Fatal(err)
				}
				if _, err := coll.InsertMany(t.Context(), docs); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := db.Collection(c.collection).InsertOne(t.Context(), c.doc); err != nil {
				t.Fatal(err)
			}
			for name, check := range map[string]func() error{
				"EnsureIndexes": func() error { return errors.Join(tokens.EnsureIndexes(t.Context()), users.EnsureIndexes(t.Context())) },
				"VerifyIndexes": func() error { return errors.Join(tokens.VerifyIndexes(t.Context()), users.VerifyIndexes(t.Context())) },
			} {
				log.list = nil
				if err := check(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				switch found := log.all(event.InvalidDocument); {
				case c.want == "" && len(log.list) > 0:
					t.Errorf("%s: got the events %+v, want none", name, log.list)
				case c.want != "" && (len(found) != 1 || !strings.Contains(found[0].Err.Error(), c.collection) || !strings.Contains(found[0].Err.Error(), c.want)):
					t.Errorf("%s: got the events %+v, want one that names %s and %s", name, log.list, c.collection, c.want)
				}
			}
		})
	}
}

// The pages of the accounts are complete although invalid documents stand between the valid ones.
func TestPagesOfAccountsSkipInvalidDocuments(t *testing.T) {
	db := database(t)
	log := new(events)
	users := newUsers[contract.Member](t, db, mongostore.UsersConfig{OnEvent: log.add})
	const valid = 20
	email := func(i int) string { return fmt.Sprintf("user%02d@example.com", i) }
	var docs []any
	for i := range valid {
		docs = append(docs, bson.D{{Key: "_id", Value: id4(uuid.New())}, {Key: "email", Value: email(i)}, {Key: "is_active", Value: true}})
		for j := range i % 4 {
			docs = append(docs, bson.D{{Key: "_id", Value: id4(uuid.New())}, {Key: "email", Value: fmt.Sprint(email(i), j)}, {Key: "is_superuser", Value: "yes"}})
		}
	}
	docs = append(docs, bson.D{{Key: "_id", Value: id4(uuid.New())}, {Key: "email", Value: 7}}) // no address: in no list
	if _, err := db.Collection("users").InsertMany(t.Context(), docs); err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{1, 3, 7, 19, 20, 21, 100} {
		var got []string
		for after := ""; ; {
			page, err := users.List(t.Context(), "user", after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page {
				got = append(got, m.Email)
			}
			if len(page) < limit {
				break
			}
			after = page[limit-1].Email
		}
		if len(got) != valid || !slices.IsSorted(got) || got[0] != email(0) || got[valid-1] != email(valid-1) {
			t.Errorf("pages of %d: got the accounts %v, want all %d in order", limit, got, valid)
		}
	}
	found := log.all(event.InvalidDocument)
	if len(found) == 0 || !strings.Contains(found[0].Err.Error(), "is_superuser") {
		t.Errorf("got the events %+v, want some that name is_superuser", found)
	}
}
