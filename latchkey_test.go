package latchkey_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

type member struct {
	account.User[uuid.UUID] `bson:",inline"`
}

// database returns a database of a client that connects when it is first used.
func database(t *testing.T, uri string) *mongo.Database {
	t.Helper()
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Disconnect(context.Background()) })
	return client.Database("app")
}

func TestZeroConfigIsUsable(t *testing.T) {
	lk, err := latchkey.New[member](database(t, "mongodb://127.0.0.1"), uuid.New, latchkey.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	lk.Web.Routes(r.Group("/web"))
	for _, path := range []string{"/auth/login", "/auth/logout", "/web/login", "/web/logout"} {
		found := false
		for _, route := range r.Routes() {
			found = found || route.Method == http.MethodPost && route.Path == path
		}
		if !found {
			t.Errorf("POST %s is not routed", path)
		}
	}
}

func TestConfigurationErrorsNameTheField(t *testing.T) {
	db := database(t, "mongodb://127.0.0.1")
	for field, cfg := range map[string]latchkey.Config{
		"Lifetime":            {Lifetime: -time.Hour},
		"IdleTimeout":         {IdleTimeout: -time.Hour},
		"TouchInterval":       {IdleTimeout: time.Hour, TouchInterval: 2 * time.Hour},
		"BriefLifetime":       {Lifetime: time.Hour, BriefLifetime: 2 * time.Hour},
		"MaxSessions":         {MaxSessions: -1},
		"TokenPrefix":         {TokenPrefix: "No Prefix"},
		"Cache.MaxStaleness":  {Cache: strategy.Cache{MaxStaleness: time.Hour}},
		"Limiter":             {Limiter: account.LimiterConfig{DeviceLifetime: -1}},
		"MinPasswordLength":   {MinPasswordLength: -1},
		"Argon2":              {Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}},
		"MaxConcurrentHashes": {MaxConcurrentHashes: -1},
		"MaxHashWait":         {MaxHashWait: -time.Second},
		"Cookie.Name":         {Cookie: ginauth.Cookie{InsecureHTTP: true}},
		"Bearer.Realm":        {Bearer: ginauth.Bearer{Realm: `"`}},
		"TrustedOrigins":      {TrustedOrigins: []string{"example.com"}},
		"BodyTimeout":         {BodyTimeout: -time.Second},
		"TTLGrace":            {TTLGrace: -time.Second},
		"PurgeInterval":       {PurgeInterval: -time.Second},
		"Timeout":             {Timeout: -time.Second},
		"Mail.ResetLifetime":  {Mail: account.MailConfig{ResetLifetime: 2 * time.Hour}},
		"Retention":           {AuditRetention: time.Millisecond},
		"Mail.Queue":          {Mail: account.MailConfig{Queue: -1}},
		// A collection of another store by its default name, and one that MongoDB reserves.
		"Collections.AccessTokens and Revocations": {Collections: latchkey.Collections{AccessTokens: "revocations"}},
		"Collection is \"a$b\"":                    {Collections: latchkey.Collections{Users: "a$b"}},
	} {
		t.Run(field, func(t *testing.T) {
			if _, err := latchkey.New[member](db, uuid.New, cfg); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("got the error %v, want one that names %s", err, field)
			}
		})
	}
	if _, err := latchkey.New[member](nil, uuid.New, latchkey.Config{}); err == nil {
		t.Error("no database: got no error")
	}
}

// Every field of Config must change the configuration of a package: a field that New
// forgets would be without effect.
func TestEveryConfigFieldReachesAPackage(t *testing.T) {
	set := latchkey.Config{
		Lifetime: 1, IdleTimeout: 1, BriefLifetime: 1, MaxSessions: 1, RequireVerified: true,
		Cookie: ginauth.Cookie{Name: "a"}, Bearer: ginauth.Bearer{Realm: "a"}, TrustedOrigins: []string{"a"},
		OnRefusal: func(*gin.Context, *ginauth.Refusal) {}, Cache: strategy.Cache{MaxEntries: 1},
		Limiter: account.LimiterConfig{FailClosed: true}, InsecureNoLimiter: true, MinPasswordLength: 1,
		CheckPassword: func(context.Context, string) error { return nil }, Argon2: account.Argon2{Iterations: 1},
		VerifyHash:     func(context.Context, string, string) (bool, error) { return false, nil },
		InsecureArgon2: true, MaxConcurrentHashes: 1, MaxHashWait: 1, Mail: account.MailConfig{Workers: 1}, AccountRoutes: ginauth.AccountsConfig{MaxAge: 1}, TouchInterval: 1, NotBefore: time.Unix(1, 0),
		TokenPrefix: "a", PublishRevocations: true, BodyTimeout: 1, OmitUserAgent: true, OmitClientIP: true,
		TTLGrace: 1, PurgeInterval: 1, Timeout: 1, Registry: mongostore.NewRegistry(), Now: time.Now,
		OnEvent: func(context.Context, event.Event) {}, UserFields: mongostore.Fields{ID: "id"}, AnyCase: true,
		APITokens: latchkey.APITokens{Lifetime: 1}, RegistrationsPerNetwork: 1,
		KeepHashes: true, Legacy: mongostore.LegacyConfig{Lifetime: 1},
		AuditRetention: 1, WatchInterval: 1, WatchGrace: 1,
	}
	none := latchkey.Config{}.Parts()
	for _, c := range []latchkey.Collections{{Users: "a"}, {AccessTokens: "a"}, {LoginAttempts: "a"}, {Revocations: "a"}, {OneTimeTokens: "a"}, {APITokens: "a"}, {Audit: "a"}} {
		if reflect.DeepEqual(latchkey.Config{Collections: c}.Parts(), none) {
			t.Errorf("%+v reaches no package", c)
		}
	}
	set.Collections.Users = "a"
	all := reflect.ValueOf(set)
	for i := range all.NumField() {
		name := all.Type().Field(i).Name
		if all.Field(i).IsZero() {
			t.Errorf("the test sets no %s", name)
		}
		var one latchkey.Config
		reflect.ValueOf(&one).Elem().Field(i).Set(all.Field(i))
		if reflect.DeepEqual(one.Parts(), none) {
			t.Errorf("%s reaches no package", name)
		}
	}
}

func TestEnsureIndexesWithoutAServerNamesTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close() // nothing listens there now
	lk, err := latchkey.New[member](database(t, "mongodb://"+addr+"/?serverSelectionTimeoutMS=50"), uuid.New, latchkey.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	for name, f := range map[string]func(context.Context) error{"EnsureIndexes": lk.EnsureIndexes, "VerifyIndexes": lk.VerifyIndexes} {
		err := f(t.Context())
		if err == nil || !strings.Contains(err.Error(), addr) || strings.Count(err.Error(), "mongostore:") != 1 {
			t.Errorf("%s: got the error %v, want one message that names %s", name, err, addr)
		}
	}
}

func TestPingSaysWhatIsNotReady(t *testing.T) {
	db := database(t, "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=50")
	lk, err := latchkey.New[member](db, uuid.New, latchkey.Config{Cache: strategy.Cache{MaxStaleness: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	got := fmt.Sprint(lk.Ping(t.Context()))
	for _, part := range []string{"latchkey: not ready: mongostore: no MongoDB server answers at 127.0.0.1:1", "revocations of other processes have not been read yet"} {
		if !strings.Contains(got, part) {
			t.Errorf("got the error %q, want one that contains %q", got, part)
		}
	}
	lk.Close()
	if err := lk.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "Close was called") {
		t.Errorf("after Close: got the error %v", err)
	}
}

func TestPingIsBoundedByTheTimeout(t *testing.T) {
	lk, err := latchkey.New[member](database(t, "mongodb://127.0.0.1:1"), uuid.New, latchkey.Config{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer lk.Close()
	began := time.Now()
	if err := lk.Ping(t.Context()); err == nil {
		t.Error("got no error without a server")
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Ping took %v, want about 50 ms", took)
	}
}
