package mongostore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

var _ strategy.JoinedSource[member, uuid.UUID] = (*mongostore.JoinedUsers[member, uuid.UUID])(nil)

func tokensIn(t *testing.T, db *mongo.Database, cfg mongostore.TokensConfig) *mongostore.Tokens[uuid.UUID] {
	t.Helper()
	tokens, err := mongostore.NewTokens[uuid.UUID](db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func usersIn(t *testing.T, db *mongo.Database, cfg mongostore.UsersConfig) *mongostore.Users[member, uuid.UUID] {
	t.Helper()
	users, err := mongostore.NewUsers[member](db, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return users
}

func TestJoinWantsBothInOneDatabase(t *testing.T) {
	db := database(t)
	tokens, users := tokensIn(t, db, mongostore.TokensConfig{}), usersIn(t, db, mongostore.UsersConfig{})
	for _, c := range []struct {
		name   string
		tokens *mongostore.Tokens[uuid.UUID]
		users  *mongostore.Users[member, uuid.UUID]
		want   string // part of the error; "" for none
	}{
		{"no tokens", nil, users, "tokens or users is nil"},
		{"no users", tokens, nil, "tokens or users is nil"},
		{"another database", tokens, usersIn(t, db.Client().Database("another"), mongostore.UsersConfig{}), `"none" and the users in "another"`},
		{"a database of the same name of another client", tokens, usersIn(t, database(t), mongostore.UsersConfig{}), "of one client"},
		{"one database", tokens, users, ""},
		{"one database, by another handle", tokens, usersIn(t, db.Client().Database("none"), mongostore.UsersConfig{}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			joined, err := mongostore.Join(c.tokens, c.users)
			if c.want != "" {
				wantErrorNaming(t, err, c.want)
			}
			if (joined != nil) != (c.want == "") || (err == nil) != (c.want == "") {
				t.Errorf("got %v, %v", joined, err)
			}
		})
	}
}

// What is written by hand is what the driver would write.
func TestTheJoinedLookUpIsAsTheDriverWritesIt(t *testing.T) {
	db := database(t)
	digest := strings.Repeat("Ab3_-", 9)[:43]
	at := time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC)
	for _, c := range []struct {
		name         string
		digest       string
		createdAfter time.Time
		users        string
	}{
		{"with a limit", digest, at, "users"},
		{"without a limit", digest, time.Time{}, "users"},
		{"a limit in another zone", digest, at.In(time.FixedZone("elsewhere", 5*3600)), "users"},
		{"the epoch as the limit", digest, time.UnixMilli(0), "users"},
		{"a limit before the epoch", digest, time.UnixMilli(-1), "users"},
		{"no digest", "", at, "users"},
		{"a digest that is none", "$ne \"é\" {}", at, "users"},
		{"users of a long name", digest, at, strings.Repeat("long", 60)},
		{"users of a name with a dot", digest, at, "app.users"},
	} {
		t.Run(c.name, func(t *testing.T) {
			match := bson.D{{Key: "token", Value: c.digest}}
			if !c.createdAfter.IsZero() {
				match = append(match, bson.E{Key: "created_at", Value: bson.D{{Key: "$gte", Value: c.createdAfter}}})
			}
			filter := mongostore.TokenFilter(c.digest, c.createdAfter)
			same(t, "the filter", filter, match)

			joined, err := mongostore.Join(tokensIn(t, db, mongostore.TokensConfig{}), usersIn(t, db, mongostore.UsersConfig{Collection: c.users}))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "the pipeline", bson.D{{Key: "pipeline", Value: mongostore.JoinPipeline(filter, joined.Lookup())}}, bson.D{{Key: "pipeline", Value: bson.A{
				bson.D{{Key: "$match", Value: match}},
				bson.D{{Key: "$lookup", Value: bson.D{
					{Key: "from", Value: c.users}, {Key: "localField", Value: "user_id"}, {Key: "foreignField", Value: "_id"}, {Key: "as", Value: "user"},
				}}},
			}}})
		})
	}
}

// same checks that two values are one document.
func same(t *testing.T, what string, got, want any) {
	t.Helper()
	gotBytes, err := bson.Marshal(got)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	wantBytes, err := bson.Marshal(want)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if !bytes.Equal(gotBytes, wantBytes) {
		t.Errorf("%s is\n%v, want\n%v", what, bson.Raw(gotBytes), bson.Raw(wantBytes))
	}
	if err := bson.Raw(gotBytes).Validate(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// A server that cannot join is told from one that cannot answer.
func TestWhichServersCannotJoin(t *testing.T) {
	server := mongostore.ServerError
	for _, c := range []struct {
		name string
		err  error
		want bool
	}{
		{"no error", nil, false},
		{"not implemented (FerretDB v1)", server(238), true},
		{"no such stage", server(40324), true},
		{"no such command", server(59), true},
		{"a command that is not supported", server(115), true},
		{"users that are sharded, before MongoDB 5.1", server(28769), true},
		{"wrapped", fmt.Errorf("mongostore: %w", server(238)), true},
		{"no token", fmt.Errorf("mongostore: %w", strategy.ErrTokenNotFound), false},
		{"no user", fmt.Errorf("mongostore: %w", strategy.ErrUserNotFound), false},
		{"not authorized", server(13), false},
		{"no primary", server(10107), false},
		{"out of time", server(50), false},
		{"a failure without a code", server(0), false},
		{"no connection", errors.New("connection refused"), false},
		{"a context that has ended", context.DeadlineExceeded, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := mongostore.CannotJoin(c.err); got != c.want {
				t.Errorf("CannotJoin(%v): got %v, want %v", c.err, got, c.want)
			}
		})
	}
}
