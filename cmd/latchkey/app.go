package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
)

// environment is what a command runs in.
type environment struct {
	*flags
	command *command
	stdin   io.Reader
	stderr  io.Writer
	idType  string

	mu     sync.Mutex
	events []event.Event // those with errors
}

// application is an [app] of any ID type.
type application interface {
	audit(context.Context) (report, error)
	normalize(context.Context) (report, error)
	convertTokens(context.Context) (report, error)
	verifyIndexes(context.Context) (report, error)
	ensureIndexes(context.Context) (report, error)
	createSuperuser(context.Context) (report, error)
	listSessions(context.Context) (report, error)
	endSessions(context.Context) (report, error)
	deactivate(context.Context) (report, error)
	activate(context.Context) (report, error)
}

// app has the library on the application's database.
type app[ID comparable] struct {
	*environment
	*latchkey.Latchkey[account.User[ID], ID]
	ids ids[ID]
}

// run connects, and runs the command.
func (e *environment) run(ctx context.Context) (report, error) {
	const wait = 10 * time.Second
	client, err := connect(e.uri)
	if err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
		defer cancel()
		_ = client.Disconnect(ctx)
	}()
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if err := client.Ping(bounded, readpref.Primary()); err != nil {
		return nil, fmt.Errorf("connect to the MongoDB server: %w", err)
	}
	db := client.Database(e.db)
	if e.idType, err = e.findIDType(ctx, db); err != nil {
		return nil, err
	}
	if err := e.refuseForeignTokens(ctx, db); err != nil {
		return nil, err
	}
	switch e.idType {
	case "uuid":
		return runOn(ctx, e, db, ids[uuid.UUID]{parse: uuid.Parse, new: uuid.New})
	case "objectid":
		return runOn(ctx, e, db, ids[bson.ObjectID]{parse: bson.ObjectIDFromHex, new: bson.NewObjectID})
	case "int64":
		return runOn(ctx, e, db, ids[int64]{parse: parseInt})
	default:
		return runOn(ctx, e, db, ids[string]{parse: func(s string) (string, error) { return s, nil }})
	}
}

// refuseForeignTokens returns an error if the collection of sessions has documents of
// fastapi-users: a command would find no sessions there, and could make an index by which the
// server removes its tokens.
func (e *environment) refuseForeignTokens(ctx context.Context, db *mongo.Database) error {
	switch e.command.name {
	case "audit", "normalize", "superuser create": // do not look at sessions
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tokens := cmp.Or(e.tokens, "access_tokens")
	// Latchkey's _id is a UUID, which servers sort before ObjectIDs.
	opts := options.FindOne().SetSort(bson.D{{Key: "_id", Value: -1}}).SetProjection(bson.D{{Key: "_id", Value: 1}})
	doc, err := db.Collection(tokens).FindOne(ctx, bson.D{}, opts).Raw()
	switch {
	case errors.Is(err, mongo.ErrNoDocuments):
		return nil
	case err != nil:
		return fmt.Errorf("look at the collection of sessions: %w", err)
	case doc.Lookup("_id").Type == bson.TypeObjectID:
		return usageError("%s has documents with ObjectIDs, as those of fastapi-users, which Latchkey never makes: name the application's Collections.AccessTokens with -tokens, and fastapi-users' collection with -legacy-tokens", tokens)
	}
	return nil
}

// runOn runs the command for an ID type.
func runOn[ID comparable](ctx context.Context, e *environment, db *mongo.Database, ids ids[ID]) (report, error) {
	lk, err := latchkey.New[account.User[ID]](db, ids.new, e.config())
	if err != nil {
		return nil, errUsage{err}
	}
	defer lk.Close()
	return e.command.run(&app[ID]{environment: e, Latchkey: lk, ids: ids}, ctx)
}

// config returns the configuration of the library.
func (e *environment) config() latchkey.Config {
	cfg := latchkey.Config{
		Collections: latchkey.Collections{
			Users: e.users, AccessTokens: e.tokens, APITokens: e.apiTokens,
			Revocations: e.revocations, LoginAttempts: e.attempts, OneTimeTokens: e.oneTimeTokens,
		},
		UserFields: e.fields, AnyCase: e.anyCase, IdleTimeout: e.idleTimeout, TTLGrace: e.ttlGrace,
		// Processes with a cache must hear of every revocation. Without one, a revocation is a
		// small document, which the server removes.
		PublishRevocations: true,
		PurgeInterval:      365 * 24 * time.Hour, // for a server without TTL indexes; the application purges
		OnEvent:            e.onEvent,
	}
	if e.lifetime != nil {
		cfg.Lifetime = *e.lifetime
	}
	if e.legacyTokens != "" {
		cfg.Legacy = mongostore.LegacyConfig{Collection: e.legacyTokens, Convert: e.command.name == "convert-tokens"}
		if e.legacyLifetime != nil {
			cfg.Legacy.Lifetime = *e.legacyLifetime
		}
	}
	if e.apiTokens != "" || !strings.HasPrefix(e.command.name, "indexes ") {
		// Whatever the application's policy is: to revoke all tokens of a user deletes the rows
		// of the API tokens too.
		cfg.APITokens = latchkey.APITokens{Scopes: []string{"any"}, SurvivePasswordChange: true, Lifetime: e.apiLifetime}
	}
	return cfg
}

// connect returns a client for a URI.
func connect(uri string) (*mongo.Client, error) {
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err == nil {
		return client, nil
	}
	lower := strings.ToLower(uri)
	for _, secret := range []string{"@", "password", "authmechanismproperties"} {
		if strings.Contains(lower, secret) { // the driver quotes parts of the URI
			return nil, usageError("the URI is not valid; a user name and a password must be percent-encoded. The cause is not shown, as it may quote the password")
		}
	}
	return nil, usageError("the URI is not valid: %w", err)
}

// redact removes the credentials of a URI from a text.
func redact(uri, text string) string {
	const hidden = "xxxxx"
	_, rest, ok := strings.Cut(uri, "://")
	at := strings.LastIndex(rest, "@")
	if !ok || at < 0 {
		return text
	}
	text = strings.ReplaceAll(text, rest[:at], hidden)
	_, password, _ := strings.Cut(rest[:at], ":")
	plain, err := url.PathUnescape(password)
	if err != nil {
		plain = password
	}
	for _, s := range []string{password, plain} {
		if len(s) > 3 { // a shorter one is in every text
			text = strings.ReplaceAll(text, s, hidden)
		}
	}
	return text
}

// onEvent keeps the events of failures.
func (e *environment) onEvent(_ context.Context, ev event.Event) {
	const most = 1000
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.Err != nil && len(e.events) < most {
		e.events = append(e.events, ev)
	}
}

// warnings returns the errors of events that err, the command's error, does not contain.
func (e *environment) warnings(err error) (all []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.events {
		if err != nil && ev.Kind == event.StoreFailed {
			continue
		}
		if text := redact(e.uri, ev.Err.Error()); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return all
}

// account returns the account with an ID or an address.
func (a *app[ID]) account(ctx context.Context) (user account.User[ID], err error) {
	err = account.ErrUserNotFound
	if id, failed := a.ids.parse(a.user); failed == nil {
		user, err = a.Accounts.ByID(ctx, id)
	}
	addresses := []string{a.user}
	if normal, failed := account.NormalizeEmail(a.user); failed == nil && normal != a.user {
		addresses = []string{normal, a.user}
	}
	for _, address := range addresses {
		if errors.Is(err, account.ErrUserNotFound) && strings.Contains(address, "@") {
			user, err = a.Users.ByEmail(ctx, address)
		}
	}
	if errors.Is(err, account.ErrUserNotFound) {
		hint := ""
		if strings.Contains(a.user, "@") && !a.anyCase {
			hint = "; with -any-case, addresses are compared without regard to case"
		}
		err = fmt.Errorf("no account in %s has the ID (of the type %s) or the address %q%s: %w", a.usersName(), a.idType, a.user, hint, err)
	}
	return user, err
}

// usersName returns the name of the collection of accounts.
func (e *environment) usersName() string { return cmp.Or(e.users, "users") }

// accountOf is an account in reports.
type accountOf struct {
	ID        any    `json:"id"`
	Email     string `json:"email"`
	Active    bool   `json:"active"`
	Verified  bool   `json:"verified"`
	Superuser bool   `json:"superuser"`
}

func reported[ID comparable](u account.User[ID]) accountOf {
	return accountOf{shown(u.ID), u.Email, u.Active, u.Verified, u.Superuser}
}

func (u accountOf) String() string {
	if u.ID == nil {
		return u.Email
	}
	return fmt.Sprintf("%s (ID %v)", u.Email, u.ID)
}
