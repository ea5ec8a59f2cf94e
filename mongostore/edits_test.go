package mongostore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
)

func TestEditsSetOnlyWhatChanged(t *testing.T) {
	before := `{"_id": 1, "email": "jo@example.com", "name": "Jo", "tags": ["a", "b"], "team": null, "address": {"city": "Bonn", "lines": [{"a": 1, "b": 2}]}}`
	for _, c := range []struct {
		name, after string
		fields      mongostore.Fields
		want        string // the update; "" for none
		err         string // part of the error; "" for none
	}{
		{name: "nothing", after: before},
		{name: "another value", after: strings.Replace(before, `"Jo"`, `"Joe"`, 1), want: `{"$set":{"name":"Joe"}}`},
		{name: "another type", after: strings.Replace(before, `"Jo"`, `7`, 1), want: `{"$set":{"name":7}}`},
		{name: "null", after: strings.Replace(before, `"Jo"`, `null`, 1), want: `{"$set":{"name":null}}`},
		{name: "a value instead of null", after: strings.Replace(before, `"team": null`, `"team": "red"`, 1), want: `{"$set":{"team":"red"}}`},
		{name: "a new field", after: strings.Replace(before, `"name"`, `"born": 1999, "name"`, 1), want: `{"$set":{"born":1999}}`},
		{name: "a field that is gone", after: strings.Replace(before, `"name": "Jo", `, ``, 1), want: `{"$unset":{"name":""}}`},
		{name: "two fields that are gone", after: strings.Replace(before, `"name": "Jo", "tags": ["a", "b"], `, ``, 1), want: `{"$unset":{"name":"","tags":""}}`},
		{name: "a renamed field", after: strings.Replace(before, `"name"`, `"called"`, 1), want: `{"$set":{"called":"Jo"},"$unset":{"name":""}}`},
		{name: "the order of an array", after: strings.Replace(before, `["a", "b"]`, `["b", "a"]`, 1), want: `{"$set":{"tags":["b","a"]}}`},
		{name: "a longer array", after: strings.Replace(before, `["a", "b"]`, `["a", "b", "b"]`, 1), want: `{"$set":{"tags":["a","b","b"]}}`},
		{name: "a value in a document", after: strings.Replace(before, `Bonn`, `Köln`, 1),
			want: `{"$set":{"address":{"city":"Köln","lines":[{"a":1,"b":2}]}}}`},
		{name: "a value of the same size, deep inside", after: strings.Replace(before, `"b": 2`, `"b": 3`, 1),
			want: `{"$set":{"address":{"city":"Bonn","lines":[{"a":1,"b":3}]}}}`},
		{name: "a name of the same size, deep inside", after: strings.Replace(before, `"b": 2`, `"c": 2`, 1),
			want: `{"$set":{"address":{"city":"Bonn","lines":[{"a":1,"c":2}]}}}`},
		{name: "the order of the fields", after: `{"name": "Jo", "_id": 1, "email": "jo@example.com", "team": null, "tags": ["a", "b"], "address": {"lines": [{"b": 2, "a": 1}], "city": "Bonn"}}`},
		{name: "an array instead of a document", after: `{"_id": 1, "email": "jo@example.com", "name": "Jo", "tags": {"0": "a", "1": "b"}, "team": null, "address": {"city": "Bonn", "lines": [{"a": 1, "b": 2}]}}`,
			want: `{"$set":{"tags":{"0":"a","1":"b"}}}`},

		// Keys of an inline map.
		{name: "a field of the account", after: strings.Replace(before, `"name"`, `"is_superuser": true, "name"`, 1), err: "the field is_superuser is the account's"},
		{name: "the name of a field of the account", after: strings.Replace(before, `"name"`, `"admin": true, "name"`, 1), fields: mongostore.Fields{Superuser: "admin"}, err: "the field admin is the account's"},
		{name: "a path", after: strings.Replace(before, `"name"`, `"is_superuser.x": true, "name"`, 1), err: "a dollar or a dot"},
		{name: "an operator", after: strings.Replace(before, `"name"`, `"$name"`, 1), err: "a dollar or a dot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mongostore.Edits(c.fields, parsed(t, before), parsed(t, c.after))
			if c.err != "" {
				wantErrorNaming(t, err, c.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			shown := ""
			if len(got) > 0 {
				shown = extJSON(marshal(t, got))
			}
			if shown != c.want {
				t.Errorf("got the update %s, want %s", shown, c.want)
			}
		})
	}
}

// parsed returns a document written as JSON.
func parsed(t *testing.T, doc string) (raw bson.Raw) {
	t.Helper()
	if err := bson.UnmarshalExtJSON([]byte(doc), false, &raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

// profile has maps, which the driver writes in another order each time.
type profile struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string
	Settings                map[string]string
	Teams                   []map[string]int
	Other                   map[string]any `bson:",inline"`
}

// An edit that wrote a map back would undo a concurrent edit of the map.
func TestEditDoesNotWriteMapsBack(t *testing.T) {
	settings, team, doc := bson.D{}, bson.D{}, userDoc(1)
	for i := range 20 {
		settings = append(settings, bson.E{Key: fmt.Sprint("key", i), Value: "x"})
		team = append(team, bson.E{Key: fmt.Sprint("key", i), Value: i})
	}
	doc = append(doc, bson.E{Key: "settings", Value: settings}, bson.E{Key: "teams", Value: bson.A{team, team}}, bson.E{Key: "other", Value: team})
	r := newRig(t, func(c command) bson.D {
		if c.name == "find" {
			return found(doc)
		}
		return updated(1)
	})
	users, err := mongostore.NewUsers[profile](r.Database, mongostore.UsersConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := users.Edit(t.Context(), id, func(p *profile) error { p.Name = "Joe"; return nil })
	if err != nil || got.Name != "Joe" || len(got.Settings) != 20 {
		t.Errorf("got %+v, %v, want the edited account", got, err)
	}
	if sent := r.sent(); len(sent) != 2 || sent[1].update() != `{"q":{"_id":ID},"u":{"$set":{"name":"Joe"}}}` {
		t.Errorf("sent %v, want an update of the name alone", sent)
	}
	if _, err := users.Edit(t.Context(), id, func(*profile) error { return nil }); err != nil {
		t.Errorf("an edit of nothing: %v", err)
	}
	if sent := r.sent(); len(sent) != 1 {
		t.Errorf("an edit of nothing sent %v, want one find", sent)
	}
}

// The keys of an inline map can come from a client. They must not set a flag.
func TestInlineMapsCannotHoldTheAccountsFields(t *testing.T) {
	r := newRig(t, func(c command) bson.D {
		if c.name == "find" {
			return found(changed(changed(userDoc(1), "is_active"), "enabled", true))
		}
		return updated(1)
	})
	users, err := mongostore.NewUsers[profile](r.Database, mongostore.UsersConfig{Fields: mongostore.Fields{Active: "enabled", Superuser: "admin"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"admin", "is_superuser", "email", "_id"} {
		other := map[string]any{key: true}
		if _, err := users.Edit(t.Context(), id, func(p *profile) error { p.Other = other; return nil }); err == nil {
			t.Errorf("an edit of the key %s succeeded", key)
		}
		if err := users.Insert(t.Context(), profile{User: account.User[uuid.UUID]{ID: id, Email: "jo@example.com"}, Other: other}); err == nil {
			t.Errorf("an insert with the key %s succeeded", key)
		}
	}
	for _, sent := range r.sent() {
		if sent.name != "find" {
			t.Errorf("sent %s, want only finds", sent.name)
		}
	}
}

// A read from a secondary can be behind, and a write that one member alone has can be lost.
func TestEditAndListAskThePrimary(t *testing.T) {
	r := newRig(t, func(c command) bson.D {
		if c.name == "find" {
			return found(userDoc(1))
		}
		return updated(1)
	})
	db := r.Client().Database("app", options.Database().SetReadPreference(readpref.Secondary()).SetWriteConcern(writeconcern.W1()))
	users := usersIn(t, &rig{Database: db})
	if _, err := users.Edit(t.Context(), id, func(m *member) error { m.Name = "Joe"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := users.List(t.Context(), "jo", "jane", 5); err != nil {
		t.Fatal(err)
	}
	sent := r.sent()
	var names []string
	for _, c := range sent {
		names = append(names, c.name)
		if mode, err := c.body.LookupErr("$readPreference"); err == nil && mode.Document().Lookup("mode").StringValue() != "primary" {
			t.Errorf("%s: got the read preference %s, want the primary", c.name, mode)
		}
	}
	if fmt.Sprint(names) != "[find update find]" {
		t.Fatalf("sent %v, want a find and an update for Edit, and a find for List", names)
	}
	if concern := sent[1].body.Lookup("writeConcern"); concern.Type != bson.TypeEmbeddedDocument || concern.Document().Lookup("w").StringValue() != "majority" {
		t.Errorf("Edit: got the write concern %s, want the majority", concern)
	}
	list := sent[2].body
	if got, want := filterOf(sent[2]), `{"email":{"$gt":"jane","$gte":"jo","$lt":"jo`+"\U0010ffff"+`"}}`; got != want {
		t.Errorf("List: got the filter %s, want %s", got, want)
	}
	if got := extJSON(list.Lookup("sort").Document()); got != `{"email":1}` || list.Lookup("batchSize").AsInt64() != 5 {
		t.Errorf("List: got the sort %s and the batch size %v, want the address and 5", got, list.Lookup("batchSize"))
	}
}

func TestEditReportsWhatTheServerSays(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer bson.D // to the update
		stored bool
		want   error
		text   string
	}{
		{"no account", updated(1), false, account.ErrUserNotFound, ""},
		{"an error of the server", refused(typeMismatch, "no"), true, nil, "mongostore: edit the account: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(sent command) bson.D {
				switch {
				case sent.name != "find":
					return c.answer
				case c.stored:
					return found(userDoc(1))
				}
				return found()
			})
			got, err := usersIn(t, r).Edit(t.Context(), id, func(m *member) error { m.Name = "Joe"; return nil })
			if err == nil || c.want != nil && !errors.Is(err, c.want) || c.want == nil && errors.Is(err, account.ErrUserNotFound) || got.ID != uuid.Nil {
				t.Errorf("got %+v, %v, want only the error %v", got, err, c.want)
			}
			if c.text != "" {
				wantErrorNaming(t, err, c.text)
			}
		})
	}
}

// The account is deleted between the read and the update.
func TestEditOfAnAccountThatIsDeletedMeanwhile(t *testing.T) {
	deleted := false
	r := newRig(t, func(c command) bson.D {
		if c.name == "find" && !deleted {
			return found(userDoc(1))
		}
		if c.name == "find" {
			return found()
		}
		return updated(0)
	})
	got, err := usersIn(t, r).Edit(t.Context(), id, func(m *member) error { m.Name, deleted = "Joe", true; return nil })
	if !errors.Is(err, account.ErrUserNotFound) || got.ID != uuid.Nil {
		t.Errorf("got %+v, %v, want only ErrUserNotFound", got, err)
	}
}

func TestListLeavesInvalidAccountsOut(t *testing.T) {
	valid := userDoc(int64(0))
	invalid := changed(valid, "is_superuser", "yes")
	for _, c := range []struct {
		name                 string
		docs                 []any
		limit, users, events int
	}{
		{"none is invalid", []any{valid, valid, valid}, 2, 2, 0},
		{"one at the beginning", []any{invalid, valid, valid}, 2, 2, 1},
		{"one at the end", []any{valid, valid, invalid}, 2, 2, 0},
		{"one between", []any{valid, invalid, valid}, 2, 2, 1},
		{"fewer than the limit", []any{invalid, valid}, 10, 1, 1},
		{"all", []any{invalid, invalid}, 1, 0, 2},
		{"no account at all", nil, 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var events recorder
			r := newRig(t, func(command) bson.D { return found(c.docs...) })
			users, err := mongostore.NewUsers[member](r.Database, mongostore.UsersConfig{OnEvent: events.record})
			if err != nil {
				t.Fatal(err)
			}
			got, err := users.List(t.Context(), "", "", c.limit)
			if err != nil || len(got) != c.users {
				t.Errorf("got %d accounts and the error %v, want %d accounts", len(got), err, c.users)
			}
			reported := events.take()
			if len(reported) != c.events {
				t.Errorf("got %d events, want %d", len(reported), c.events)
			}
			for _, e := range reported {
				if e.Kind != event.InvalidDocument || !strings.Contains(e.Err.Error(), "is_superuser") {
					t.Errorf("got the event %+v, want one %s that names is_superuser", e, event.InvalidDocument)
				}
			}
		})
	}
}

func TestListFailsIfTheServerDoes(t *testing.T) {
	r := newRig(t, func(command) bson.D {
		return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 13}, {Key: "errmsg", Value: "not authorized"}}
	})
	got, err := usersIn(t, r).List(t.Context(), "", "", 1)
	var answer mongo.CommandError
	if !errors.As(err, &answer) || got != nil {
		t.Errorf("got %v, %v, want the server's error", got, err)
	}
	wantErrorNaming(t, err, "mongostore: list the accounts: ")
}
