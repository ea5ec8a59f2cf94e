package faults_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/integration/internal/wireproxy"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestTwentyInstancesStartAtOnce(t *testing.T) {
	for name, before := range map[string]func(*testing.T, *mongo.Database){
		"on an empty database": func(*testing.T, *mongo.Database) {},
		"on one with old indexes": func(t *testing.T, db *mongo.Database) {
			// A version that had another lifetime, no revocations and no limiter.
			old, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Lifetime: 7 * time.Hour, PurgeInterval: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(old.Close)
			if err := old.EnsureIndexes(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Collection("revocations").Drop(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := db.Collection("access_tokens").Indexes().DropOne(t.Context(), "user_id_1_created_at_-1"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t)
			before(t, db)
			apps, errs := make([]*application, 20), make([]error, 20)
			var starting sync.WaitGroup
			for i := range apps {
				starting.Go(func() {
					// Many at once are slow on a server that does one thing at a time.
					apps[i], errs[i] = startApp(t.Context(), db.Name(), appConfig{
						timeout: 10 * time.Second, sessions: strategy.Config{Lifetime: time.Hour},
					})
				})
			}
			starting.Wait()
			for _, a := range apps {
				t.Cleanup(a.close)
			}
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			if server.Capabilities.TTL {
				if err := verifyIndexes(t.Context(), apps[0]); err != nil {
					t.Error(err)
				}
			}
			apps[0].mustRegister(t, "jo@example.com")
			token := apps[1].mustLogin(t, "jo@example.com")
			for i, a := range apps {
				a.want(t, http.StatusOK, token, fmt.Sprintf("on instance %d", i))
			}
			if got := apps[2].logout(token); got.status != http.StatusNoContent {
				t.Errorf("the log-out: %v", got)
			}
			for i, a := range apps {
				a.want(t, http.StatusUnauthorized, token, fmt.Sprintf("after the log-out, on instance %d", i))
			}
		})
	}
}

// Instances are replaced one by one by some with another lifetime, while clients use
// them: nobody is logged out by that, and each goes by its own lifetime to the end.
func TestRollingChangeOfLifetime(t *testing.T) {
	for name, c := range map[string]struct{ from, to time.Duration }{
		"up":   {time.Hour, 3 * time.Hour},
		"down": {3 * time.Hour, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			db := newDatabase(t)
			var later atomic.Int64
			clock := func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			start := func(lifetime time.Duration) *application {
				return newAppOn(t, db.Name(), appConfig{sessions: strategy.Config{Lifetime: lifetime, Now: clock}})
			}
			clients := newTraffic([]*application{start(c.from), start(c.from), start(c.from)}, 4, 20)
			clients.apps[0].mustRegister(t, clients.names...)
			stop := clients.background(t.Context(), *seed)
			var before, after *application
			for i := range 3 {
				time.Sleep(100 * time.Millisecond)
				replacement := start(c.to)
				clients.move(func(apps []*application) { before, apps[i] = apps[i], replacement })
				if i < 2 {
					before.close()
				}
				after = replacement
			}
			stop()
			clients.report(t)

			// At an age between the lifetimes, that of each instance decides.
			tokens := []string{before.mustLogin(t, clients.names[0]), after.mustLogin(t, clients.names[0])}
			later.Store(int64(2 * time.Hour))
			for i, token := range tokens {
				for a, lifetime := range map[*application]time.Duration{before: c.from, after: c.to} {
					want := http.StatusOK
					if lifetime < 2*time.Hour {
						want = http.StatusUnauthorized
					}
					a.want(t, want, token, fmt.Sprintf("token %d, at an instance with the lifetime %v", i, lifetime))
				}
			}
			if server.Capabilities.TTL {
				if err := after.tokens.VerifyIndexes(t.Context()); err != nil {
					t.Errorf("the indexes are not those of the last who started: %v", err)
				}
				if err := before.tokens.VerifyIndexes(t.Context()); !errors.Is(err, mongostore.ErrIndexMismatch) {
					t.Errorf("for the former lifetime, VerifyIndexes says %v, want ErrIndexMismatch", err)
				}
			}
		})
	}
}

func TestCloseWhileRequestsRun(t *testing.T) {
	db := newDatabase(t)
	cached := strategy.Config{Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond,
		Cache: strategy.Cache{MaxStaleness: 250 * time.Millisecond}}
	apps := []*application{newAppOn(t, db.Name(), appConfig{sessions: cached}), newAppOn(t, db.Name(), appConfig{sessions: cached})}
	clients := newTraffic(apps, 8, 20)
	apps[0].mustRegister(t, clients.names...)
	stop := clients.background(t.Context(), *seed)
	time.Sleep(300 * time.Millisecond)

	// What the library has started ends, and the rest goes on.
	var closing sync.WaitGroup
	for range 3 {
		for _, a := range apps {
			closing.Go(a.sessions.Close)
			closing.Go(a.tokens.Close)
			closing.Go(a.attempts.Close)
		}
	}
	closing.Wait()
	before := clients.count(doGuarded, http.StatusOK)
	eventuallyTrue(t, recoveryBound, "requests go on after Close", func() bool { return clients.count(doGuarded, http.StatusOK) > before+20 })

	// The client of one of them is taken away under it.
	if err := apps[1].mongo.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	time.Sleep(500 * time.Millisecond)
	stop()
	clients.report(t)
	t.Log(clients)
	token := apps[0].mustLogin(t, clients.names[0])
	apps[0].want(t, http.StatusOK, token, "at the other instance")
	apps[1].want(t, http.StatusServiceUnavailable, token, "without a client")
	for what, got := range map[string]answer{"log-out": apps[1].logout(token), "login": apps[1].login(clients.names[0])} {
		if got.status != http.StatusServiceUnavailable {
			t.Errorf("a %s without a client: %v, want 503", what, got)
		}
	}
}

// objecting is a server that answers some commands with an error.
type objecting struct {
	addr     string
	code     int
	name     string
	text     string
	on       atomic.Bool
	commands []string
	refused  atomic.Int64
}

// before starts it before the server.
func (o *objecting) before(t *testing.T) *objecting {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = listener.Addr().String()
	proxy := wireproxy.Start(listener, options.Client().ApplyURI(server.URI).Hosts[0], o.handle)
	t.Cleanup(proxy.Close)
	return o
}

func (o *objecting) handle(request wireproxy.Message, send func(wireproxy.Message) (wireproxy.Message, error)) (wireproxy.Message, error) {
	if !o.on.Load() || !slices.Contains(o.commands, request.Command()) {
		return send(request)
	}
	o.refused.Add(1)
	return wireproxy.Instead(bson.D{{Key: "ok", Value: 0.0}, {Key: "code", Value: o.code}, {Key: "codeName", Value: o.name}, {Key: "errmsg", Value: o.text}}, request, send)
}

var (
	reading  = []string{"find", "aggregate", "count"}
	writing  = []string{"insert", "update", "delete", "findAndModify"}
	indexing = []string{"createIndexes", "dropIndexes", "collMod", "create", "drop"}
)

func TestADatabaseUserWithoutIndexPrivileges(t *testing.T) {
	db := newDatabase(t)
	way := (&objecting{code: 13, name: "Unauthorized", text: "not authorized on app to execute command", commands: indexing}).before(t)
	way.on.Store(true)
	cfg := appConfig{way: way.addr, sessions: strategy.Config{Lifetime: time.Hour}}
	clear := func(err error) bool {
		var answered mongo.ServerError
		return errors.As(err, &answered) && answered.HasErrorCode(13) && strings.Contains(err.Error(), "not authorized")
	}

	a, err := startApp(t.Context(), db.Name(), cfg)
	a.close()
	if !clear(err) || !strings.Contains(err.Error(), "mongostore: ensure indexes: create the index token_1") {
		t.Errorf("EnsureIndexes: %v, want the server's answer, and what was done", err)
	}
	cfg.set = verifyIndexes
	a, err = startApp(t.Context(), db.Name(), cfg)
	a.close()
	if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "access_tokens lacks token_1") {
		t.Errorf("VerifyIndexes, without any: %v, want ErrIndexMismatch that names what is missing", err)
	}

	// Somebody else makes them.
	newAppOn(t, db.Name(), appConfig{sessions: cfg.sessions})
	if a, err = startApp(t.Context(), db.Name(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	a.mustRegister(t, "jo@example.com")
	token := a.mustLogin(t, "jo@example.com")
	a.want(t, http.StatusOK, token, "verified only")
	if got := a.logout(token); got.status != http.StatusNoContent {
		t.Errorf("the log-out: %v", got)
	}
	a.want(t, http.StatusUnauthorized, token, "after the log-out")
	if server.Capabilities.TTL { // else each start tries anew
		if err := ensureIndexes(t.Context(), a); err != nil {
			t.Errorf("EnsureIndexes, with all of them there: %v", err)
		}
	}

	way.commands = append(way.commands, "listIndexes")
	if err := verifyIndexes(t.Context(), a); !clear(err) || !strings.Contains(err.Error(), "list indexes") {
		t.Errorf("VerifyIndexes, by a user who may not even look: %v", err)
	}
}

// No real server is made read-only here: these are its answers.
func TestAReadOnlyServer(t *testing.T) {
	for _, c := range []struct {
		name     string
		way      *objecting
		readable bool
	}{
		{"a user who may only read", &objecting{code: 13, name: "Unauthorized", text: "not authorized on app to execute command", commands: writing}, true},
		{"a secondary", &objecting{code: 10107, name: "NotWritablePrimary", text: "not primary", commands: writing}, true},
		{"a secondary that is not read from", &objecting{code: 13435, name: "NotPrimaryNoSecondaryOk", text: "not primary and secondaryOk=false", commands: slices.Concat(reading, writing)}, false},
		{"a node that recovers", &objecting{code: 13436, name: "NotPrimaryOrSecondary", text: "node is not in primary or recovering state", commands: slices.Concat(reading, writing)}, false},
		{"a node that shuts down", &objecting{code: 11600, name: "InterruptedAtShutdown", text: "interrupted at shutdown", commands: slices.Concat(reading, writing)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the driver waits for the server to be well again
			db := newDatabase(t)
			way := c.way.before(t)
			// Every request is one that writes down that it was there.
			a := newAppOn(t, db.Name(), appConfig{way: way.addr, sessions: strategy.Config{
				Lifetime: time.Hour, IdleTimeout: time.Hour, TouchInterval: time.Millisecond,
			}})
			clients := newTraffic([]*application{a}, 4, 8)
			a.mustRegister(t, clients.names...)
			token := a.mustLogin(t, clients.names[0])
			stop := clients.background(t.Context(), *seed)
			way.on.Store(true)
			if c.readable {
				eventuallyTrue(t, recoveryBound, "what can be read is read", func() bool { return a.guarded(token).status == http.StatusOK })
			} else {
				a.want(t, http.StatusServiceUnavailable, token, "a guarded request")
			}
			for what, got := range map[string]answer{"login": a.login(clients.names[0]), "log-out": a.logout(token)} {
				if got.status != http.StatusServiceUnavailable {
					t.Errorf("a %s: %v, want 503", what, got)
				}
			}
			if way.refused.Load() == 0 {
				t.Error("nothing was refused")
			}
			way.on.Store(false)
			if _, err := clients.works(recoveryBound); err != nil {
				t.Error(err)
			}
			stop()
			clients.settle()
			clients.report(t)
			a.want(t, http.StatusOK, token, "in the end")
		})
	}
}

// Documents that are none of ours.

var (
	someID    = bson.Binary{Subtype: bson.TypeBinaryUUID, Data: slices.Repeat([]byte{7}, 16)}
	someTime  = bson.NewDateTimeFromTime(time.Now())
	soon      = bson.NewDateTimeFromTime(time.Now().Add(30 * time.Minute))
	farFuture = bson.NewDateTimeFromTime(time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC))
)

// with changes a document: a value of absent takes a field away.
func with(doc bson.D, key string, value any) bson.D {
	out := slices.DeleteFunc(slices.Clone(doc), func(e bson.E) bool { return e.Key == key })
	if value == absent {
		return out
	}
	return append(out, bson.E{Key: key, Value: value})
}

const absent = "absent"

// change is a foreign field in a document that is otherwise ours.
type change struct {
	field string
	value any
}

func (c change) String() string {
	if c.value == absent {
		return "without " + c.field
	}
	return fmt.Sprintf("%s is %T(%v)", c.field, c.value, c.value)
}

// foreignApp is an application with a user whose documents can be changed, and with
// another who must never notice.
type foreignApp struct {
	*application
	token, other string
}

func newForeignApp(t *testing.T, cfg appConfig) foreignApp {
	t.Helper()
	cfg.sessions.Lifetime = time.Hour
	a := newAppOn(t, newDatabase(t).Name(), cfg)
	a.mustRegister(t, "jo@example.com", "other@example.com")
	return foreignApp{a, a.mustLogin(t, "jo@example.com"), a.mustLogin(t, "other@example.com")}
}

// replace changes a document of a collection, whose _id too.
func (a foreignApp) replace(t *testing.T, collection string, filter bson.D, c change) {
	t.Helper()
	coll := a.db.Collection(collection)
	var doc bson.D
	if err := coll.FindOneAndDelete(t.Context(), filter).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	if _, err := coll.InsertOne(t.Context(), with(doc, c.field, c.value)); err != nil {
		t.Fatal(err)
	}
}

// wantOther checks that nobody else is affected.
func (a foreignApp) wantOther(t *testing.T) {
	t.Helper()
	a.want(t, http.StatusOK, a.other, "another user")
	token := a.mustLogin(t, "other@example.com")
	if got := a.logout(token); got.status != http.StatusNoContent {
		t.Errorf("another user's log-out: %v", got)
	}
	a.want(t, http.StatusUnauthorized, token, "another user, logged out")
}

// refusedAs reports whether an answer is one of those that a document may have which
// cannot be understood: it grants nothing.
func refusedAs(got answer, statuses ...int) bool {
	return slices.Contains(append(statuses, http.StatusServiceUnavailable), got.status)
}

func TestForeignTokens(t *testing.T) {
	a := newForeignApp(t, appConfig{sessions: strategy.Config{MaxSessions: 5}})
	withoutEnd := newAppOn(t, a.db.Name(), appConfig{sessions: strategy.Config{}, set: func(context.Context, *application) error { return nil }})
	for _, c := range []change{
		{"_id", "a string"}, {"_id", int32(7)}, {"_id", bson.NewObjectID()}, {"_id", bson.Binary{Data: []byte("short")}},
		{"user_id", absent}, {"user_id", "a string"}, {"user_id", int64(7)}, {"user_id", nil}, {"user_id", bson.D{{Key: "a", Value: 1}}},
		{"created_at", absent}, {"created_at", "2026-01-01T00:00:00Z"}, {"created_at", int64(4e12)}, {"created_at", nil},
		{"token", 12345}, {"token", absent},
		{"scopes", "admin"}, {"scopes", bson.A{1, 2}}, {"scopes", bson.D{}},
		{"expires_at", "tomorrow"}, {"expires_at", int64(4e12)}, {"last_used_at", "yesterday"}, {"authenticated_at", 7.5}, {"seen_not_before", "never"},
		{"name", 7}, {"user_agent", bson.A{}}, {"client_addr", true},
	} {
		t.Run(c.String(), func(t *testing.T) {
			token := a.mustLogin(t, "jo@example.com")
			a.want(t, http.StatusOK, token, "before")
			jo, err := a.users.ByEmail(t.Context(), "jo@example.com")
			if err != nil {
				t.Fatal(err)
			}
			page, err := a.sessions.Sessions(t.Context(), jo.ID, strategy.Page{Limit: 1})
			if err != nil || len(page.Sessions) != 1 {
				t.Fatalf("%d sessions, %v", len(page.Sessions), err)
			}
			a.replace(t, "access_tokens", bson.D{{Key: "_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: page.Sessions[0].ID[:]}}}, c)
			for _, on := range []*application{a.application, withoutEnd} {
				if got := on.guarded(token); !refusedAs(got, http.StatusUnauthorized) {
					t.Errorf("a guarded request: %v, want 401 or 503", got)
				}
				if got := on.ask(http.MethodGet, "/auth/sessions", token); !refusedAs(got, http.StatusUnauthorized) {
					t.Errorf("the list of sessions: %v, want 401 or 503", got)
				}
			}
			if got := a.login("jo@example.com"); !refusedAs(got, http.StatusOK) {
				t.Errorf("the user's next login: %v, want 200 or 503", got)
			}
			a.wantOther(t)
			if _, err := a.tokens.Purge(t.Context()); err != nil {
				t.Errorf("Purge: %v", err)
			}
			if got := a.logout(token); !refusedAs(got, http.StatusUnauthorized) {
				t.Errorf("the log-out: %v, want 401 or 503", got)
			}
			if err := a.sessions.DestroyAll(t.Context(), jo.ID); err != nil {
				t.Errorf("DestroyAll: %v", err)
			}
			if _, err := a.db.Collection("access_tokens").DeleteMany(t.Context(), bson.D{{Key: "token", Value: bson.D{{Key: "$exists", Value: false}}}}); err != nil {
				t.Fatal(err)
			}
			if got := a.login("jo@example.com"); !refusedAs(got, http.StatusOK) {
				t.Errorf("the user's login in the end: %v", got)
			}
		})
	}
}

func TestForeignUsers(t *testing.T) {
	for _, c := range []struct {
		change
		login int // beside 503
	}{
		{change{"_id", "a string"}, 0}, {change{"_id", int32(7)}, 0}, {change{"_id", bson.NewObjectID()}, 0},
		{change{"email", absent}, http.StatusBadRequest}, {change{"email", 7}, http.StatusBadRequest}, {change{"email", bson.A{}}, http.StatusBadRequest},
		{change{"hashed_password", absent}, http.StatusBadRequest}, {change{"hashed_password", 7}, 0}, {change{"hashed_password", "plain"}, http.StatusBadRequest},
		{change{"is_active", absent}, http.StatusBadRequest}, {change{"is_active", "yes"}, 0}, {change{"is_active", nil}, http.StatusBadRequest}, {change{"is_active", false}, http.StatusBadRequest},
		{change{"created_at", "long ago"}, 0}, {change{"is_superuser", "no"}, 0}, {change{"name", 7}, 0},
		{change{"tokens_not_before", "tomorrow"}, 0}, {change{"tokens_not_before", bson.D{}}, 0},
	} {
		t.Run(c.String(), func(t *testing.T) {
			a := newForeignApp(t, appConfig{})
			a.replace(t, "users", bson.D{{Key: "email", Value: "jo@example.com"}}, c.change)
			if got := a.login("jo@example.com"); !refusedAs(got, c.login) {
				t.Errorf("the login: %v, want %d or 503", got, c.login)
			}
			got := a.guarded(a.token)
			// What a guard does not ask for it may do without.
			lenient := c.field == "email" && c.value == absent || c.field == "hashed_password" && c.value != 7
			if !refusedAs(got, http.StatusUnauthorized) && !(lenient && got.status == http.StatusOK) {
				t.Errorf("a guarded request: %v, want 401 or 503", got)
			}
			if got := a.logout(a.token); !refusedAs(got, http.StatusUnauthorized, http.StatusNoContent) {
				t.Errorf("the log-out: %v", got)
			}
			a.wantOther(t)
		})
	}
}

func TestForeignAttempts(t *testing.T) {
	for _, closed := range []bool{false, true} {
		t.Run(fmt.Sprintf("FailClosed %v", closed), func(t *testing.T) {
			for _, c := range []change{
				{"failures", "many"}, {"failures", absent}, {"last", "yesterday"}, {"last", absent}, {"expires_at", "tomorrow"},
				{"expires_at", absent}, {"networks", "home"}, {"networks", bson.A{1}},
			} {
				t.Run(c.String(), func(t *testing.T) {
					a := newForeignApp(t, appConfig{limiter: &account.LimiterConfig{FailClosed: closed}})
					if got := a.loginWith("jo@example.com", "not the password"); got.status != http.StatusBadRequest {
						t.Fatalf("a wrong password: %v", got)
					}
					cur, err := a.db.Collection("login_attempts").Find(t.Context(), bson.D{})
					if err != nil {
						t.Fatal(err)
					}
					var docs []bson.D
					if err := cur.All(t.Context(), &docs); err != nil || len(docs) == 0 {
						t.Fatalf("%d counters, %v", len(docs), err)
					}
					for _, doc := range docs {
						a.replace(t, "login_attempts", bson.D{{Key: "_id", Value: doc[0].Value}}, c)
					}
					want := []int{http.StatusOK}
					if got := a.login("jo@example.com"); !refusedAs(got, want...) {
						t.Errorf("the login: %v, want 200 or 503", got)
					} else if !closed && got.status != http.StatusOK {
						t.Errorf("the login: %v, want 200: a limiter that fails lets logins pass", got)
					}
					if got := a.loginWith("jo@example.com", "not the password"); !refusedAs(got, http.StatusBadRequest) {
						t.Errorf("a wrong password: %v, want 400 or 503", got)
					}
					if _, err := a.attempts.Purge(t.Context()); err != nil {
						t.Errorf("Purge: %v", err)
					}
					a.want(t, http.StatusOK, a.other, "another user")
				})
			}
		})
	}
}

// Indexes cannot be made on what is there already in some cases. That is an error,
// no more.
func TestEnsureIndexesOnForeignDocuments(t *testing.T) {
	for collection, docs := range map[string][]any{
		"access_tokens":  {bson.D{{Key: "token", Value: "same"}}, bson.D{{Key: "token", Value: "same"}}},
		"users":          {bson.D{{Key: "email", Value: 7}}, bson.D{{Key: "email", Value: 7}}},
		"login_attempts": {bson.D{{Key: "expires_at", Value: "x"}}, bson.D{{Key: "expires_at", Value: 7}}},
		"revocations":    {bson.D{{Key: "at", Value: "x"}}, bson.D{{Key: "at", Value: 7}}, bson.D{}},
	} {
		t.Run(collection, func(t *testing.T) {
			db := newDatabase(t)
			if _, err := db.Collection(collection).InsertMany(t.Context(), docs); err != nil {
				t.Fatal(err)
			}
			a, err := startApp(t.Context(), db.Name(), appConfig{sessions: strategy.Config{Lifetime: time.Hour}})
			t.Cleanup(a.close)
			var answered mongo.ServerError // a duplicate key: FerretDB v1 has another code for it
			switch unique := collection == "access_tokens" || collection == "users"; {
			case unique && (!errors.As(err, &answered) || !strings.Contains(err.Error(), "mongostore: ensure indexes: create the index")):
				t.Errorf("got %v, want the server's error, and what was done", err)
			case !unique && err != nil:
				t.Error(err)
			}
		})
	}
}

// followers are two instances that share a database, the second with a cache that
// would keep a session for a minute if it did not learn of its end.
func followers(t *testing.T) (plain, cached *application, suspended, unread *atomic.Int64) {
	t.Helper()
	suspended, unread = new(atomic.Int64), new(atomic.Int64)
	db := newDatabase(t)
	plain = newAppOn(t, db.Name(), appConfig{sessions: strategy.Config{Lifetime: time.Hour}})
	cached = newAppOn(t, db.Name(), appConfig{sessions: strategy.Config{
		Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 50 * time.Millisecond},
		OnEvent: func(_ context.Context, e strategy.Event) {
			switch {
			case e.Kind == strategy.EventCacheSuspended:
				suspended.Add(1)
			case e.Kind == strategy.EventStoreFailed && strings.Contains(e.Err.Error(), "read the revocation "):
				unread.Add(1)
			}
		},
	}})
	plain.mustRegister(t, "jo@example.com")
	return plain, cached, suspended, unread
}

// wantFollowed checks that an instance learns of the log-outs at another one.
func wantFollowed(t *testing.T, plain, cached *application) {
	t.Helper()
	for range 3 {
		token := plain.mustLogin(t, "jo@example.com")
		cached.want(t, http.StatusOK, token, "at the instance with a cache")
		if got := plain.logout(token); got.status != http.StatusNoContent {
			t.Fatalf("the log-out: %v", got)
		}
		eventuallyTrue(t, 10*time.Second, "a log-out elsewhere is seen, far sooner than the cache forgets", func() bool {
			return cached.guarded(token).status == http.StatusUnauthorized
		})
	}
}

// A document that could not be read made every Next fail, until it was collected:
// for ten minutes, or for ever where it has no date. A date far ahead made followers
// deaf to all that came after it.
func TestForeignRevocationsDoNotStopTheFollowers(t *testing.T) {
	told := map[string]bool{ // of the others nothing is lost
		"a token that is a number": true, "a session that is a string": true, "a user of another type": true, "nothing but a date": true,
	}
	for name, doc := range map[string]bson.D{
		"an _id that is a string":       {{Key: "_id", Value: "x"}, {Key: "at", Value: someTime}, {Key: "token", Value: "y"}},
		"an _id that is an ObjectID":    {{Key: "at", Value: someTime}, {Key: "token", Value: "y"}},
		"an _id that is a document":     {{Key: "_id", Value: bson.D{{Key: "a", Value: 1}}}, {Key: "at", Value: someTime}, {Key: "token", Value: "y"}},
		"a token that is a number":      {{Key: "_id", Value: someID}, {Key: "at", Value: someTime}, {Key: "token", Value: 7}},
		"a session that is a string":    {{Key: "_id", Value: someID}, {Key: "at", Value: someTime}, {Key: "session_id", Value: "x"}},
		"a user of another type":        {{Key: "_id", Value: someID}, {Key: "at", Value: someTime}, {Key: "user_id", Value: int64(7)}},
		"nothing but a date":            {{Key: "_id", Value: someID}, {Key: "at", Value: someTime}},
		"a date that is a string":       {{Key: "_id", Value: someID}, {Key: "at", Value: "today"}, {Key: "token", Value: "y"}},
		"a date that is a document":     {{Key: "_id", Value: someID}, {Key: "at", Value: bson.D{}}, {Key: "token", Value: "y"}},
		"a date that is a regex":        {{Key: "_id", Value: someID}, {Key: "at", Value: bson.Regex{Pattern: "x"}}, {Key: "token", Value: "y"}},
		"a timestamp in the far future": {{Key: "_id", Value: someID}, {Key: "at", Value: bson.Timestamp{T: 4e9}}, {Key: "token", Value: "y"}},
		"no date":                       {{Key: "_id", Value: someID}, {Key: "token", Value: "y"}},
		"a date half an hour ahead":     {{Key: "_id", Value: someID}, {Key: "at", Value: soon}, {Key: "token", Value: "y"}},
		"a date in the far future":      {{Key: "_id", Value: someID}, {Key: "at", Value: farFuture}, {Key: "token", Value: "y"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, cached, suspended, unread := followers(t)
			if _, err := plain.db.Collection("revocations").InsertOne(t.Context(), doc); err != nil {
				t.Fatal(err)
			}
			wantFollowed(t, plain, cached)
			// An instance that starts with it there.
			late := newAppOn(t, plain.db.Name(), appConfig{sessions: strategy.Config{
				Lifetime: time.Hour, Cache: strategy.Cache{MaxStaleness: time.Minute, FollowInterval: 50 * time.Millisecond},
			}})
			wantFollowed(t, plain, late)
			if n := suspended.Load(); n > 0 {
				t.Errorf("the cache was suspended %d times", n)
			}
			want := int64(0)
			if told[name] {
				want = 1
			}
			if n := unread.Load(); n != want {
				t.Errorf("what could not be read was an error %d times, want %d", n, want)
			}
		})
	}
}
