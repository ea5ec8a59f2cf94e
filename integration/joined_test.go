package integration_test

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/integration/internal/ttlproxy"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/internal/contract"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/storetest"
)

func newJoined[U strategy.User[ID], ID comparable](tb testing.TB, tokens *mongostore.Tokens[ID], users *mongostore.Users[U, ID]) *mongostore.JoinedUsers[U, ID] {
	tb.Helper()
	joined, err := mongostore.Join(tokens, users)
	if err != nil {
		tb.Fatal(err)
	}
	return joined
}

// joiningServer is where a server with $lookup answers: the suite's, or a proxy before
// it that does as if.
func joiningServer(tb testing.TB) (uri string) {
	tb.Helper()
	if server.Capabilities.Lookup {
		return server.URI
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	proxy, err := ttlproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0])
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(proxy.Close)
	return "mongodb://" + listener.Addr().String() + "/?directConnection=true"
}

func TestJoined(t *testing.T) {
	// With $lookup, or in two commands.
	t.Run("on the server as it is", func(t *testing.T) { testJoinedIDs(t, database) })
	if server.Capabilities.Lookup {
		return // that was in one command
	}
	t.Run("in one command", func(t *testing.T) {
		testJoinedIDs(t, func(tb testing.TB) *mongo.Database {
			client, _ := connectTo(tb, joiningServer(tb))
			return testserver.Database(tb, client)
		})
	})
}

func testJoinedIDs(t *testing.T, open func(testing.TB) *mongo.Database) {
	t.Run("uuid.UUID", func(t *testing.T) { testJoined(t, uuid.New, open) })
	t.Run("bson.ObjectID", func(t *testing.T) { testJoined(t, bson.NewObjectID, open) })
	t.Run("string", func(t *testing.T) { testJoined(t, uuid.NewString, open) })
	t.Run("int64", func(t *testing.T) { testJoined(t, counter(), open) })
}

func testJoined[ID comparable](t *testing.T, newID func() ID, open func(testing.TB) *mongo.Database) {
	storetest.RunJoined(t, newPerson(newID), func(tb testing.TB) (strategy.Store[ID], account.Store[person[ID], ID], strategy.JoinedSource[person[ID], ID]) {
		db := open(tb)
		tokens, users := newTokens[ID](tb, db, mongostore.TokensConfig{}), newUsers[person[ID], ID](tb, db)
		return tokens, users, newJoined(tb, tokens, users)
	})
}

// The HTTP contract with token and user in one command: in two it is TestContract.
func TestContractJoined(t *testing.T) {
	testserver.Require(t, server.Capabilities.Lookup, "lookup")
	contract.Run(t, func(tb testing.TB) contract.Backend {
		b := newBackend(tb, database(tb))
		b.Joined = newJoined(tb, b.Tokens.(*mongostore.Tokens[uuid.UUID]), b.Users.(*mongostore.Users[contract.Member, uuid.UUID]))
		return b
	})
}

// newJoinedApp is newApp with users that are read with their tokens.
func newJoinedApp(t testing.TB, db *mongo.Database, cfg strategy.Config) *app {
	t.Helper()
	tokens, users := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{Lifetime: cfg.Lifetime}), newUsers[contract.Member](t, db)
	return newAppOf(t, tokens, users, newJoined(t, tokens, users), cfg)
}

// names are those of the commands that were sent since the last call, with their
// collections.
func (r *recorder) names() (names []string) {
	for _, c := range r.all() {
		e := c.Index(0)
		coll, _ := e.Value().StringValueOK()
		names = append(names, strings.TrimSpace(e.Key()+" "+coll))
	}
	r.reset()
	return names
}

// What a request sends that reads a token and its user, in one command and in two.
var (
	inOne = []string{"aggregate access_tokens"}
	inTwo = []string{"find access_tokens", "find users"}
)

func (a *app) sends(sent *recorder, when, token string, status int, want ...string) {
	a.t.Helper()
	sent.reset()
	a.want(status, http.MethodGet, "/me", token, when)
	if got := sent.names(); !slices.Equal(got, want) {
		a.t.Errorf("%s: sent %q, want %q", when, got, want)
	}
}

func TestAGuardedRequestSendsOneCommand(t *testing.T) {
	// Whatever the client's defaults, it reads from the primary.
	client, sent := connectTo(t, joiningServer(t), options.Client().SetReadPreference(readpref.SecondaryPreferred()))
	db := testserver.Database(t, client)
	now := time.Now().UTC().Truncate(time.Millisecond)
	a := newJoinedApp(t, db, strategy.Config{Lifetime: time.Hour, Now: func() time.Time { return now }})
	token, second := a.login(), a.login()
	for range 3 {
		a.sends(sent, "with a good token", token, http.StatusOK, inOne...)
	}

	sent.reset()
	a.want(http.StatusOK, http.MethodGet, "/me", token, "")
	format, err := strategy.NewTokenFormat("")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := format.Digest(token)
	if err != nil {
		t.Fatal(err)
	}
	want, err := bson.Marshal(bson.D{{Key: "pipeline", Value: bson.A{
		bson.D{{Key: "$match", Value: bson.D{
			{Key: "token", Value: digest}, {Key: "created_at", Value: bson.D{{Key: "$gte", Value: now.Add(-time.Hour)}}},
		}}},
		bson.D{{Key: "$lookup", Value: bson.D{
			{Key: "from", Value: "users"}, {Key: "localField", Value: "user_id"}, {Key: "foreignField", Value: "_id"}, {Key: "as", Value: "user"},
		}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range sent.all() {
		if got := c.Lookup("pipeline").Array(); !bytes.Equal(got, bson.Raw(want).Lookup("pipeline").Array()) {
			t.Errorf("sent the pipeline %v, want %v", got, bson.Raw(want))
		}
		// The driver says nothing of the primary where it has found it, and to one server alone not quite what was asked.
		if mode := lookup(c, "$readPreference.mode"); mode != nil && mode != "primary" && mode != "primaryPreferred" {
			t.Errorf("sent with the read preference %v, want the primary", mode)
		}
		if level := lookup(c, "readConcern.level"); level != "local" {
			t.Errorf("sent with the read concern %v, want local", level)
		}
	}

	a.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
	a.sends(sent, "after the log-out", token, http.StatusUnauthorized, inOne...)
	if _, err := db.Collection("users").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: id4(a.member.ID)}}); err != nil {
		t.Fatal(err)
	}
	a.sends(sent, "when the user is gone", second, http.StatusUnauthorized, inOne...)
}

// A row that is not as Latchkey writes it is a failure, also beside a user.
func TestAJoinedRowThatCannotBeReadIsAFailure(t *testing.T) {
	for _, c := range []struct{ coll, field string }{
		{"access_tokens", "last_used_at"}, {"access_tokens", "_id"}, {"users", "is_active"}, {"users", "name"},
	} {
		t.Run(c.coll+" "+c.field, func(t *testing.T) {
			client, _ := connectTo(t, joiningServer(t))
			db := testserver.Database(t, client)
			a := newJoinedApp(t, db, strategy.Config{})
			token := a.login()
			a.want(http.StatusOK, http.MethodGet, "/me", token, "before")
			coll := db.Collection(c.coll)
			var row bson.M
			if err := coll.FindOne(t.Context(), bson.D{}).Decode(&row); err != nil {
				t.Fatal(err)
			}
			if _, err := coll.DeleteOne(t.Context(), bson.D{}); err != nil {
				t.Fatal(err)
			}
			row[c.field] = bson.D{{Key: "not", Value: "this"}}
			if _, err := coll.InsertOne(t.Context(), row); err != nil {
				t.Fatal(err)
			}
			a.want(http.StatusServiceUnavailable, http.MethodGet, "/me", token, "of a row that cannot be read")
		})
	}
}

// level is stored in an application's own way.
type level int

type player struct {
	account.User[uuid.UUID] `bson:",inline"`
	Level                   level `bson:"level"`
}

// A client may be set to local times, and an application have codecs of its own: what
// comes joined is as it comes alone.
func TestJoinedWithAClientAndARegistryOfTheApplication(t *testing.T) {
	reg := mongostore.NewRegistry()
	reg.RegisterTypeEncoder(reflect.TypeFor[level](), bson.ValueEncoderFunc(func(_ bson.EncodeContext, w bson.ValueWriter, v reflect.Value) error {
		return w.WriteString(strings.Repeat("*", int(v.Int())))
	}))
	reg.RegisterTypeDecoder(reflect.TypeFor[level](), bson.ValueDecoderFunc(func(_ bson.DecodeContext, r bson.ValueReader, v reflect.Value) error {
		stars, err := r.ReadString()
		v.SetInt(int64(len(stars)))
		return err
	}))
	client, _ := connectTo(t, joiningServer(t), options.Client().SetBSONOptions(&options.BSONOptions{UseLocalTimeZone: true}))
	db := testserver.Database(t, client)
	tokens := newTokens[uuid.UUID](t, db, mongostore.TokensConfig{})
	users, err := mongostore.NewUsers[player](db, mongostore.UsersConfig{Collection: "players", Registry: reg})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 23, 12, 0, 0, 5e6, time.UTC)
	ann := player{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "ann@example.com", CreatedAt: at, NotBefore: at.Add(time.Hour)}, Level: 3}
	row := strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: "digest", UserID: ann.ID, CreatedAt: at, LastUsedAt: at.Add(time.Minute)}
	if err := errors.Join(users.Insert(t.Context(), ann), tokens.Insert(t.Context(), row)); err != nil {
		t.Fatal(err)
	}
	gotRow, got, err := newJoined(t, tokens, users).ByToken(t.Context(), "digest", at)
	if err != nil || !reflect.DeepEqual(gotRow, row) || !reflect.DeepEqual(got, ann) {
		t.Errorf("ByToken: got\n%+v\n%+v, %v, want\n%+v\n%+v", gotRow, got, err, row, ann)
	}
	if alone, err := users.ByID(t.Context(), ann.ID); err != nil || !reflect.DeepEqual(alone, ann) {
		t.Errorf("ByID: got %+v, %v, want %+v", alone, err, ann)
	}
}

// A server may answer in parts, the first of them empty. A failure of the rest is no
// log-out.
func TestAJoinedAnswerThatIsCutIsAFailure(t *testing.T) {
	client, _ := connectThrough(t, func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		var answer bson.D
		switch request.Command() {
		case "aggregate":
			answer = bson.D{{Key: "ok", Value: 1.0}, {Key: "cursor", Value: bson.D{
				{Key: "id", Value: int64(7)}, {Key: "ns", Value: "any.access_tokens"}, {Key: "firstBatch", Value: bson.A{}},
			}}}
		case "getMore":
			answer = bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: 43}, {Key: "codeName", Value: "CursorNotFound"}, {Key: "errmsg", Value: "no"}}
		default:
			return send(request)
		}
		return wireproxy.Instead(answer, request, send)
	})
	a := newJoinedApp(t, testserver.Database(t, client), strategy.Config{Lifetime: time.Hour})
	a.want(http.StatusServiceUnavailable, http.MethodGet, "/me", a.login(), "with half an answer")
}

// answering answers aggregates with an error while there is a code.
func answering(code *atomic.Int32) wireproxy.Handler {
	return func(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
		if code.Load() == 0 || request.Command() != "aggregate" {
			return send(request)
		}
		return wireproxy.Instead(bson.D{
			{Key: "ok", Value: 0.0}, {Key: "code", Value: code.Load()}, {Key: "codeName", Value: "Fake"}, {Key: "errmsg", Value: "no"},
		}, request, send)
	}
}

// A server that says that it cannot join is asked once.
func TestAServerThatCannotJoinIsAskedOnce(t *testing.T) {
	codes := map[string]int32{
		"not implemented": 238, "no such stage": 40324, "no such command": 59, "not supported": 115, "sharded users": 28769,
	}
	if !server.Capabilities.Lookup {
		codes["as this server answers"] = 0
	}
	for name, answer := range codes {
		t.Run(name, func(t *testing.T) {
			var code atomic.Int32
			code.Store(answer)
			client, way := connectThrough(t, answering(&code))
			db := testserver.Database(t, client)
			a := newJoinedApp(t, db, strategy.Config{Lifetime: time.Hour})
			token := a.login()
			a.sends(way.sent, "at first", token, http.StatusOK, slices.Concat(inOne, inTwo)...)
			code.Store(0) // it would know how by now
			for range 3 {
				a.sends(way.sent, "later", token, http.StatusOK, inTwo...)
			}
			second := a.login()
			a.want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
			a.sends(way.sent, "after the log-out", token, http.StatusUnauthorized, "find access_tokens")
			if _, err := db.Collection("users").DeleteOne(t.Context(), bson.D{{Key: "_id", Value: id4(a.member.ID)}}); err != nil {
				t.Fatal(err)
			}
			a.sends(way.sent, "when the user is gone", second, http.StatusUnauthorized, inTwo...)
		})
	}
}

// One that cannot answer is asked again: that is a failure, and for good it would be
// two commands where one is enough.
func TestAServerThatFailsToJoinIsAskedAgain(t *testing.T) {
	for name, answer := range map[string]int32{"not authorized": 13, "out of time": 50, "out of memory": 146} {
		t.Run(name, func(t *testing.T) {
			var code atomic.Int32
			client, way := connectThrough(t, answering(&code))
			a := newJoinedApp(t, testserver.Database(t, client), strategy.Config{Lifetime: time.Hour})
			token := a.login()
			code.Store(answer)
			for range 3 {
				a.sends(way.sent, "while it fails", token, http.StatusServiceUnavailable, inOne...)
			}
			code.Store(0)
			want := inOne
			if !server.Capabilities.Lookup {
				want = slices.Concat(inOne, inTwo)
			}
			a.sends(way.sent, "then", token, http.StatusOK, want...)
		})
	}
}
