package integration_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
)

// Hostile input reaches the database only as a string. Every filter, update and document has only
// the fields that Latchkey stores, with values of their types, and the operators that Latchkey
// uses.
func TestHostileInputReachesTheDatabaseOnlyAsStrings(t *testing.T) {
	var recorders []*recorder
	contract.RunHostile(t, func(tb testing.TB) contract.Backend {
		client, sent := connect(tb)
		recorders = append(recorders, sent)
		db := testserver.Database(tb, client)
		tokens, users := newTokens[uuid.UUID](tb, db, mongostore.TokensConfig{}), newUsers[contract.Member](tb, db, mongostore.UsersConfig{})
		sent.reset() // input does not reach the commands of EnsureIndexes
		return contract.Backend{Tokens: tokens, Users: users}
	})
	c := check(t, recorders)
	for _, want := range []string{"email " + contract.HostileUsername, "user_agent " + contract.HostileUserAgent, "email ann\x00@example.com", "email $where"} {
		if !c.strings[want] {
			t.Errorf("%q did not reach the database as a string", want)
		}
	}
	for _, name := range []string{"find", "insert", "update", "findAndModify"} {
		if c.names[name] == 0 {
			t.Errorf("no %s was sent, want at least one: %v", name, c.names)
		}
	}
}

// TestContractOfAttempts checks the login limits with counters in the database. The input is
// hostile too.
func TestContractOfAttempts(t *testing.T) {
	var recorders []*recorder
	contract.RunAttempts(t, func(tb testing.TB) contract.Backend {
		client, sent := connect(tb)
		recorders = append(recorders, sent)
		db := testserver.Database(tb, client)
		backend := contract.Backend{
			Tokens:   newTokens[uuid.UUID](tb, db, mongostore.TokensConfig{}),
			Users:    newUsers[contract.Member](tb, db, mongostore.UsersConfig{}),
			Attempts: newAttempts(tb, db, mongostore.AttemptsConfig{}),
		}
		sent.reset() // input does not reach the commands of EnsureIndexes
		return backend
	})
	check(t, recorders)
}

// commandCheck checks the fields, types and operators of commands.
type commandCheck struct {
	*testing.T
	strings map[string]bool // the strings that were sent: field, space, value
	names   map[string]int  // the number of commands by name
}

// check checks all commands that were sent.
func check(t *testing.T, recorders []*recorder) *commandCheck {
	c := &commandCheck{T: t, strings: make(map[string]bool), names: make(map[string]int)}
	for _, sent := range recorders {
		for _, command := range sent.all() {
			c.command(command)
		}
	}
	return c
}

// The operators that Latchkey sends.
var (
	filterOperators = []string{"$or"}
	valueOperators  = []string{"$gt", "$gte", "$lt", "$lte", "$in", "$nin"}
	updateOperators = []string{"$set", "$max", "$inc", "$setOnInsert"}
)

// fieldTypes are the types of all fields that Latchkey and the application store.
var fieldTypes = map[string][]bson.Type{
	"_id":   {bson.TypeBinary, bson.TypeString}, // the key of a counter is a digest
	"token": {bson.TypeString}, "user_id": {bson.TypeBinary}, "scopes": {bson.TypeArray},
	"name": {bson.TypeString}, "user_agent": {bson.TypeString}, "client_ip": {bson.TypeString},
	"created_at": {bson.TypeDateTime}, "last_used_at": {bson.TypeDateTime}, "authenticated_at": {bson.TypeDateTime}, "expires_at": {bson.TypeDateTime},
	"email": {bson.TypeString}, "hashed_password": {bson.TypeString}, "token_version": {bson.TypeInt64},
	"is_active": {bson.TypeBoolean}, "is_verified": {bson.TypeBoolean}, "is_superuser": {bson.TypeBoolean},
	"failures": {bson.TypeInt32, bson.TypeInt64}, "last": {bson.TypeDateTime},
}

// compared are the fields that Latchkey compares by other operators than equality.
var compared = []string{"_id", "created_at", "expires_at", "failures"}

func (c *commandCheck) command(command bson.Raw) {
	name := command.Index(0).Key()
	c.names[name]++
	switch name {
	case "find":
		c.filter(name, command.Lookup("filter").Document())
	case "findAndModify":
		c.filter(name, command.Lookup("query").Document())
		if update, ok := command.Lookup("update").DocumentOK(); ok {
			c.update(name, update)
		}
	case "insert":
		for _, doc := range values(command.Lookup("documents").Array()) {
			c.fields(name, doc.Document())
		}
	case "update":
		for _, u := range values(command.Lookup("updates").Array()) {
			c.filter(name, u.Document().Lookup("q").Document())
			c.update(name, u.Document().Lookup("u").Document())
		}
	case "delete":
		for _, d := range values(command.Lookup("deletes").Array()) {
			c.filter(name, d.Document().Lookup("q").Document())
		}
	case "ping", "createIndexes", "listIndexes", "dropDatabase", "endSessions":
	default:
		c.Errorf("got the unexpected command %v", command)
	}
}

func (c *commandCheck) filter(where string, filter bson.Raw) {
	for _, e := range elements(filter) {
		key, value := e.Key(), e.Value()
		switch {
		case slices.Contains(filterOperators, key):
			for _, clause := range values(value.Array()) {
				c.filter(where+" "+key, clause.Document())
			}
		case value.Type == bson.TypeEmbeddedDocument && slices.Contains(compared, key):
			for _, operator := range elements(value.Document()) {
				if !slices.Contains(valueOperators, operator.Key()) {
					c.Errorf("%s: got the operator %s for %s", where, operator.Key(), key)
				}
				if list, ok := operator.Value().ArrayOK(); ok {
					for _, v := range values(list) {
						c.value(where, key, v)
					}
					continue
				}
				c.value(where, key, operator.Value())
			}
		default:
			c.value(where, key, value)
		}
	}
}

func (c *commandCheck) update(where string, update bson.Raw) {
	for _, e := range elements(update) {
		if !slices.Contains(updateOperators, e.Key()) {
			c.Errorf("%s: got the operator %s in an update", where, e.Key())
			continue
		}
		c.fields(where+" "+e.Key(), e.Value().Document())
	}
}

func (c *commandCheck) fields(where string, doc bson.Raw) {
	for _, e := range elements(doc) {
		c.value(where, e.Key(), e.Value())
	}
}

// value checks a field's value.
func (c *commandCheck) value(where, field string, value bson.RawValue) {
	types, known := fieldTypes[field]
	if !known || strings.HasPrefix(field, "$") || !slices.Contains(types, value.Type) {
		c.Errorf("%s: got %s = %v, a %v", where, field, value, value.Type)
		return
	}
	switch value.Type {
	case bson.TypeString:
		c.strings[field+" "+value.StringValue()] = true
	case bson.TypeArray:
		for _, v := range values(value.Array()) {
			if v.Type != bson.TypeString {
				c.Errorf("%s: got a %v in %s, want strings", where, v.Type, field)
			}
		}
	}
}

func elements(doc bson.Raw) []bson.RawElement {
	all, err := doc.Elements()
	if err != nil {
		panic(fmt.Sprintf("%v: %v", doc, err))
	}
	return all
}

func values(array bson.RawArray) []bson.RawValue {
	all, err := array.Values()
	if err != nil {
		panic(fmt.Sprintf("%v: %v", array, err))
	}
	return all
}
