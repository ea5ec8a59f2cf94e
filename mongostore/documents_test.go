package mongostore_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// recorder is an OnEvent listener that keeps the events.
type recorder struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *recorder) record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// take returns the events since the last call.
func (r *recorder) take() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

// wantInvalid checks that the only event since the last call is one of an invalid document,
// and that its error contains the given parts.
func (r *recorder) wantInvalid(t *testing.T, parts ...string) {
	t.Helper()
	events := r.take()
	if len(events) != 1 || events[0].Kind != event.InvalidDocument || events[0].Time.IsZero() {
		t.Errorf("got the events %+v, want one %s", events, event.InvalidDocument)
		return
	}
	for _, part := range parts {
		wantErrorNaming(t, events[0].Err, part)
	}
}

// changed returns a document with another value of a field, or without the field.
func changed(doc bson.D, field string, value ...any) bson.D {
	doc = slices.DeleteFunc(slices.Clone(doc), func(e bson.E) bool { return e.Key == field })
	for _, v := range value {
		doc = append(doc, bson.E{Key: field, Value: v})
	}
	return doc
}

// invalidTokens are documents of access_tokens that are no token, by the field and its fault.
func invalidTokens() map[string]bson.D {
	row := tokenRow(int64(0))
	return map[string]bson.D{
		"_id: unexpected type objectID":                      changed(row, "_id", bson.NewObjectID()),
		"_id: unexpected type string":                        changed(row, "_id", "x"),
		"_id: unexpected type binary":                        changed(row, "_id", bson.Binary{Data: []byte("short")}),
		"_id: it is missing":                                 changed(row, "_id", nil),
		"token: unexpected type 32-bit integer":              changed(row, "token", int32(7)),
		"token: it is missing":                               changed(row, "token"),
		"user_id: it is missing":                             changed(row, "user_id"),
		"user_id: cannot decode":                             changed(row, "user_id", "x"),
		"created_at: unexpected type string":                 changed(row, "created_at", "2026-01-01T00:00:00Z"),
		"created_at: it is missing":                          changed(row, "created_at"),
		"created_at: the date is not in the years 0 to 9999": changed(row, "created_at", bson.DateTime(1<<62)),
		"expires_at: the date is not in the years 0 to 9999": changed(row, "expires_at", bson.DateTime(-1<<62)),
		"last_used_at: unexpected type 64-bit integer":       changed(row, "last_used_at", int64(7)),
		"authenticated_at: unexpected type double":           changed(row, "authenticated_at", 7.5),
		"token_version: unexpected type string":              changed(row, "token_version", "7"),
		"scopes: unexpected type string":                     changed(row, "scopes", "admin"),
		"scopes: unexpected type array":                      changed(row, "scopes", bson.A{1}),
		"name: unexpected type 32-bit integer":               changed(row, "name", int32(7)),
		"user_agent: unexpected type array":                  changed(row, "user_agent", bson.A{}),
		"client_ip: unexpected type boolean":                 changed(row, "client_ip", true),
	}
}

func TestInvalidTokenIsNotFound(t *testing.T) {
	var doc bson.D
	r := newRig(t, func(c command) bson.D {
		if c.name == "findAndModify" {
			return bson.D{{Key: "value", Value: doc}}
		}
		return found(doc)
	})
	var events recorder
	tokens := tokensIn(t, r, mongostore.TokensConfig{OnEvent: events.record})
	for fault, invalid := range invalidTokens() {
		doc = invalid
		for name, call := range map[string]func() (strategy.AccessToken[uuid.UUID], error){
			"ByToken": func() (strategy.AccessToken[uuid.UUID], error) { return tokens.ByToken(t.Context(), "digest") },
			"Rotate": func() (strategy.AccessToken[uuid.UUID], error) {
				return tokens.Rotate(t.Context(), "digest", strategy.Rotation{Digest: "new"})
			},
		} {
			if row, err := call(); !errors.Is(err, strategy.ErrTokenNotFound) || row.ID != uuid.Nil {
				t.Errorf("%s of a token with %s: got %+v, %v; want ErrTokenNotFound", name, fault, row, err)
			}
			events.wantInvalid(t, "access_tokens", "_id", fault)
		}
	}
}

func TestDeleteOfAnInvalidTokenSucceeds(t *testing.T) {
	var doc bson.D
	r := newRig(t, func(command) bson.D { return bson.D{{Key: "value", Value: doc}} })
	tokens := tokensIn(t, r)
	user := uuid.New()
	for fault, invalid := range invalidTokens() {
		doc = invalid
		if row, err := tokens.Delete(t.Context(), "digest"); err != nil || row.Digest != "digest" {
			t.Errorf("Delete of a token with %s: got %+v, %v; want the digest", fault, row, err)
		}
		if row, err := tokens.DeleteSession(t.Context(), user, id); err != nil || row.ID != id || row.UserID != user {
			t.Errorf("DeleteSession of a token with %s: got %+v, %v; want the session's ID and the user's", fault, row, err)
		}
	}
}

// listing answers finds on access_tokens with the first rows of a list, up to their limit.
func listing(rows []bson.D) func(command) bson.D {
	return func(c command) bson.D {
		docs := bson.A{}
		for _, row := range rows[:min(len(rows), int(c.body.Lookup("limit").AsInt64()))] {
			docs = append(docs, row)
		}
		return found(docs...)
	}
}

func TestListLeavesInvalidTokensOut(t *testing.T) {
	valid := tokenRow(int64(0))
	invalid := changed(valid, "scopes", "admin")
	for _, c := range []struct {
		name string
		rows []bson.D
		// limit and the numbers of valid tokens and of events
		limit, tokens, events int
	}{
		{"none is invalid", []bson.D{valid, valid, valid}, 2, 2, 0},
		{"one at the beginning", []bson.D{invalid, valid, valid}, 2, 2, 1},
		{"one at the end", []bson.D{valid, valid, invalid}, 2, 2, 0},
		{"most", append(slices.Repeat([]bson.D{invalid}, 20), valid, valid, valid), 2, 2, 20},
		{"all", slices.Repeat([]bson.D{invalid}, 20), 2, 0, 20},
		{"fewer than the limit", []bson.D{invalid, valid}, 10, 1, 1},
		{"no token at all", nil, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var events recorder
			tokens := tokensIn(t, newRig(t, listing(c.rows)), mongostore.TokensConfig{OnEvent: events.record})
			got, err := tokens.ByUser(t.Context(), id, strategy.Position{}, c.limit)
			if err != nil || len(got) != c.tokens {
				t.Errorf("got %d tokens and the error %v, want %d tokens", len(got), err, c.tokens)
			}
			reported := events.take()
			if len(reported) < c.events || c.events == 0 && len(reported) > 0 {
				t.Errorf("got %d events, want %d", len(reported), c.events)
			}
			for _, e := range reported {
				if e.Kind != event.InvalidDocument || e.UserID != id || !strings.Contains(e.Err.Error(), "scopes: unexpected type string") {
					t.Errorf("got the event %+v, want one %s of the user that names scopes", e, event.InvalidDocument)
				}
			}
		})
	}
}

func TestInvalidUserIsReported(t *testing.T) {
	var doc bson.D
	r := newRig(t, func(command) bson.D { return found(doc) })
	var events recorder
	at := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	users, err := mongostore.NewUsers[member](r.Database, mongostore.UsersConfig{OnEvent: events.record, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	for field, value := range map[string]any{
		"token_version": "7", "is_active": "yes", "is_verified": "no", "is_superuser": bson.D{},
		"email": int32(7), "hashed_password": int32(7), "created_at": "today", "_id": "x", "name": int32(7),
	} {
		doc = changed(userDoc(int64(0)), field, value)
		_, err := users.ByID(t.Context(), id)
		wantErrorNaming(t, err, "mongostore: find the account: ")
		wantErrorNaming(t, err, field)
		if errors.Is(err, account.ErrUserNotFound) {
			t.Errorf("%s: the account counts as not found", field)
		}
		events.wantInvalid(t, "users", field, "_id")
	}
	doc = userDoc(int64(0))
	if _, err := users.ByID(t.Context(), id); err != nil || len(events.take()) > 0 {
		t.Errorf("a valid account: got the error %v, or an event", err)
	}
}
