package adoption_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/integration/internal/testserver"
	"github.com/latchkey-go/latchkey/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	lifetime  = time.Hour
	password  = "correct horse battery"
	ownTokens = "latchkey_tokens"
)

// oldHash is the hash of password on the other side.
var oldHash = fastapiusers.Hash(password)

// member is the application's user type.
type member[ID comparable] struct {
	account.User[ID] `bson:",inline"`
}

// stage says how far the application has moved.
type stage string

const (
	beside  stage = "beside"
	convert stage = "convert"
	done    stage = "done"
)

// rig is an application that moves.
type rig[ID comparable] struct {
	t      *testing.T
	db     *mongo.Database
	python *fastapiusers.App[ID]
	newID  func() ID
	now    time.Time
	*latchkey.Latchkey[member[ID], ID]
}

// adapters runs a test with each adapter.
func adapters(t *testing.T, motor func(*testing.T, *rig[uuid.UUID]), beanie func(*testing.T, *rig[bson.ObjectID])) {
	t.Run("motor", func(t *testing.T) {
		r := &rig[uuid.UUID]{newID: uuid.New}
		r.start(t)
		r.python = fastapiusers.Motor(r.db, lifetime, r.clock)
		r.indexes()
		motor(t, r)
	})
	t.Run("beanie", func(t *testing.T) {
		r := &rig[bson.ObjectID]{newID: bson.NewObjectID}
		r.start(t)
		r.python = fastapiusers.Beanie(r.db, lifetime, r.clock)
		r.indexes()
		beanie(t, r)
	})
}

func (r *rig[ID]) start(t *testing.T) {
	r.t, r.now = t, time.Now().UTC().Truncate(time.Millisecond)
	r.db = testserver.Database(t, client(t))
}

func (r *rig[ID]) clock() time.Time { return r.now }

func (r *rig[ID]) indexes() {
	r.t.Helper()
	r.ok(r.python.EnsureIndexes(r.t.Context()))
}

func (r *rig[ID]) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// enter starts Latchkey in a stage.
func (r *rig[ID]) enter(s stage, change ...func(*latchkey.Config)) {
	r.t.Helper()
	cfg := config(s, r.python.UserID, r.python.Users.Name(), r.python.Tokens.Name())
	cfg.Now = r.clock
	for _, c := range change {
		c(&cfg)
	}
	var err error
	r.Latchkey, err = latchkey.New[member[ID]](r.db, r.newID, cfg)
	r.ok(err)
	r.t.Cleanup(r.Close)
	r.ok(r.EnsureIndexes(r.t.Context()))
}

// config is the configuration of a stage.
func config(s stage, userID, users, tokens string) latchkey.Config {
	cfg := latchkey.Config{
		Lifetime: 2 * lifetime, InsecureNoLimiter: true, PurgeInterval: time.Hour, AnyCase: true,
		Argon2: account.Argon2{MemoryKiB: 64, Iterations: 1, Parallelism: 1}, InsecureArgon2: true,
		Cookie:      ginauth.Cookie{Name: "fastapiusersauth"},
		Collections: latchkey.Collections{Users: users, AccessTokens: ownTokens},
		UserFields:  mongostore.Fields{ID: userID},
		OnEvent:     func(context.Context, event.Event) {},
	}
	if s != done {
		cfg.KeepHashes = s == beside
		cfg.Legacy = mongostore.LegacyConfig{Collection: tokens, Lifetime: lifetime, Convert: s == convert}
	}
	return cfg
}

// accepts reports whether Latchkey accepts a token.
func (r *rig[ID]) accepts(token string) bool {
	r.t.Helper()
	_, err := r.Sessions.ReadToken(r.t.Context(), token)
	if err != nil && !errors.Is(err, strategy.ErrInvalidToken) {
		r.t.Fatal(err)
	}
	return err == nil
}

// check compares what both sides say about a token with what they must.
func (r *rig[ID]) check(what, token string, python, latchkey bool) {
	r.t.Helper()
	got, err := r.python.Accepts(r.t.Context(), token)
	r.ok(err)
	if got != python {
		r.t.Errorf("%s: fastapi-users accepts the token: %v, want %v", what, got, python)
	}
	if got := r.accepts(token); got != latchkey {
		r.t.Errorf("%s: Latchkey accepts the token: %v, want %v", what, got, latchkey)
	}
}

// user makes an account on the other side.
func (r *rig[ID]) user(email string) ID {
	r.t.Helper()
	doc, id := r.python.User(email, oldHash)
	_, err := r.python.Users.InsertOne(r.t.Context(), doc)
	r.ok(err)
	return id
}

// login logs a user in on the other side.
func (r *rig[ID]) login(id ID) string {
	r.t.Helper()
	r.now = r.now.Add(time.Millisecond) // an order of the sessions
	token, err := r.python.Login(r.t.Context(), id)
	r.ok(err)
	return token
}

// loginHere logs a user in with Latchkey.
func (r *rig[ID]) loginHere(email string) string {
	r.t.Helper()
	r.now = r.now.Add(time.Millisecond)
	user, _, err := r.Accounts.Authenticate(r.t.Context(), email, password, "")
	r.ok(err)
	secret, _, err := r.Sessions.WriteToken(r.t.Context(), user)
	r.ok(err)
	return secret.Reveal()
}

// setPassword ends all sessions of a user.
func (r *rig[ID]) setPassword(id ID) {
	r.t.Helper()
	_, err := r.Accounts.SetPassword(r.t.Context(), id, password)
	r.ok(err)
}

func (r *rig[ID]) sessions(id ID) (ids []uuid.UUID) {
	r.t.Helper()
	for page := (strategy.Page{Limit: 2}); ; {
		got, err := r.Sessions.Sessions(r.t.Context(), id, page)
		r.ok(err)
		for _, s := range got.Sessions {
			ids = append(ids, s.ID)
		}
		if page.After = got.Next; got.Next == "" {
			return ids
		}
	}
}

func (r *rig[ID]) count(coll *mongo.Collection, filter bson.D) int64 {
	r.t.Helper()
	n, err := coll.CountDocuments(r.t.Context(), filter)
	r.ok(err)
	return n
}

// size is the number of users: what FerretDB's scans allow, unless a variable asks for more.
func size(t *testing.T, variable string, small int) int {
	t.Helper()
	s := os.Getenv(variable)
	if s == "" {
		return small
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const usersVariable = "LATCHKEY_TEST_ADOPTION_USERS"

func TestEveryLiveTokenIsAcceptedInEveryStage(t *testing.T) {
	adapters(t, everyToken[uuid.UUID], everyToken[bson.ObjectID])
}

func everyToken[ID comparable](t *testing.T, r *rig[ID]) {
	users := size(t, usersVariable, 100)
	sample, err := r.python.Fill(t.Context(), users, 2*users, oldHash)
	r.ok(err)
	all := func(what string, legacy bool) {
		t.Helper()
		var wg sync.WaitGroup
		var wrong atomic.Int64
		for part := range slices.Chunk(sample.Tokens, (len(sample.Tokens)+7)/8) {
			wg.Go(func() {
				for _, x := range part {
					_, err := r.Sessions.ReadToken(t.Context(), x.Token)
					want := x.Valid && legacy
					if (err == nil) == want && (err == nil || errors.Is(err, strategy.ErrInvalidToken)) {
						continue
					}
					if wrong.Add(1) <= 10 {
						t.Errorf("%s: a token %s: got %v, accepted it must be: %v", what, x.Kind, err, want)
					}
				}
			})
		}
		wg.Wait()
		if n := wrong.Load(); n > 0 {
			t.Errorf("%s: %d of %d answers are wrong", what, n, len(sample.Tokens))
		}
	}
	before := r.documents(r.python.Users, r.python.Tokens)
	r.enter(beside)
	all("beside", true)
	if after := r.documents(r.python.Users, r.python.Tokens); !slices.Equal(before, after) {
		t.Error("reading tokens has changed documents of fastapi-users")
	}
	if n := r.count(r.db.Collection(ownTokens), bson.D{}); n != 0 {
		t.Errorf("beside: %d rows in Latchkey's collection, want none", n)
	}

	r.enter(convert)
	half := len(sample.Tokens) / 2
	for _, x := range sample.Tokens[:half] { // on first use
		if got := r.accepts(x.Token); got != x.Valid {
			t.Errorf("convert: a token %s: accepted %v, want %v", x.Kind, got, x.Valid)
		}
	}
	var seen int64
	got, err := r.Legacy.ConvertAll(t.Context(), mongostore.ConvertConfig{Progress: func(done, total int64) { seen = done }})
	r.ok(err)
	if total := got.Converted + got.Already + got.Expired + got.Unreadable.Count; total != int64(len(sample.Tokens)) || seen != total || got.Converted == 0 || got.Already == 0 {
		t.Errorf("ConvertAll: got %+v and progress %d for %d tokens", got, seen, len(sample.Tokens))
	}
	again, err := r.Legacy.ConvertAll(t.Context(), mongostore.ConvertConfig{})
	r.ok(err)
	if again.Converted != 0 || again.Already != got.Converted+got.Already {
		t.Errorf("the second ConvertAll: got %+v after %+v", again, got)
	}
	if n := r.count(r.db.Collection(ownTokens), bson.D{}); n != again.Already {
		t.Errorf("convert: %d rows in Latchkey's collection, want %d", n, again.Already)
	}
	all("convert", true)

	n, err := r.Legacy.UndoConversion(t.Context())
	r.ok(err)
	if n != again.Already {
		t.Errorf("UndoConversion: got %d, want %d", n, again.Already)
	}
	r.enter(beside)
	all("back beside", true)

	r.enter(done)
	all("done", false)
}

// documents returns the documents of collections as text.
func (r *rig[ID]) documents(colls ...*mongo.Collection) (docs []string) {
	r.t.Helper()
	for _, coll := range colls {
		cur, err := coll.Find(r.t.Context(), bson.D{})
		r.ok(err)
		for cur.Next(r.t.Context()) {
			docs = append(docs, cur.Current.String())
		}
		r.ok(cur.Err())
	}
	slices.Sort(docs)
	return docs
}

func TestSessionsOfBothSidesAreListedLimitedAndRevoked(t *testing.T) {
	adapters(t, bothSides[uuid.UUID], bothSides[bson.ObjectID])
}

func bothSides[ID comparable](t *testing.T, r *rig[ID]) {
	for _, s := range []stage{beside, convert} {
		t.Run(string(s), func(t *testing.T) {
			r.t = t
			r.enter(s)
			email := fmt.Sprintf("Ann.%s@example.com", s)
			id := r.user(email)
			old1, old2 := r.login(id), r.login(id)
			own1 := r.loginHere("ann." + string(s) + "@EXAMPLE.com")
			old3 := r.login(id)
			first, err := r.Sessions.ReadToken(t.Context(), old1) // stage convert: it is copied
			r.ok(err)
			ids := r.sessions(id)
			if len(ids) != 4 || ids[3] != first.ID {
				t.Fatalf("got the sessions %v, want 4 with %v last", ids, first.ID)
			}
			// A log-out by token, and the end of a session by its ID.
			r.ok(r.Sessions.DestroyToken(t.Context(), old1))
			r.check("after a log-out", old1, false, false)
			r.ok(r.Sessions.DestroySession(t.Context(), id, ids[2]))
			r.check("after the end of a session", old2, false, false)
			if err := r.Sessions.DestroySession(t.Context(), id, ids[2]); !errors.Is(err, strategy.ErrSessionNotFound) {
				t.Errorf("the end of a session that has ended: got %v, want ErrSessionNotFound", err)
			}
			r.check("another session", old3, true, true)
			r.ok(r.Sessions.DestroyAll(t.Context(), id, ids[0]))
			r.check("all but one ended: the one", old3, true, true)
			r.check("all but one ended: another", own1, false, false)
			// A log-out on the other side.
			if s == beside {
				r.ok(r.python.Logout(t.Context(), old3))
				r.check("after a log-out there", old3, false, false)
			}
			r.ok(r.Sessions.DestroyAll(t.Context(), id))
			r.check("after the end of all", old3, false, false)
			if ids := r.sessions(id); len(ids) != 0 {
				t.Errorf("got the sessions %v, want none", ids)
			}

			// A password change revokes what both sides have issued, even if an update on the
			// other side drops the token version afterwards.
			old4, own2 := r.login(id), r.loginHere(email)
			r.setPassword(id)
			own3 := r.loginHere(email)
			r.ok(r.python.Patch(t.Context(), id))
			r.check("after a password change", old4, false, false)
			r.check("after a password change", own2, false, false)
			r.check("logged in after the password change", own3, false, true)
			r.ok(r.Accounts.Deactivate(t.Context(), id))
			r.check("after deactivation", own3, false, false)
			if n := r.count(r.python.Tokens, bson.D{}) + r.count(r.db.Collection(ownTokens), bson.D{}); n != 0 {
				t.Errorf("%d rows remain, want none", n)
			}
		})
	}
}

func TestLimitOfSessionsCountsBothSides(t *testing.T) {
	adapters(t, limitBoth[uuid.UUID], limitBoth[bson.ObjectID])
}

func limitBoth[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(beside, func(cfg *latchkey.Config) { cfg.MaxSessions = 2 })
	id := r.user("ann@example.com")
	old1, old2 := r.login(id), r.login(id)
	own := r.loginHere("ann@example.com")
	r.check("the oldest session", old1, false, false)
	r.check("a newer session", old2, true, true)
	r.check("the new session", own, false, true)
}

func TestRotationGivesALegacySessionATokenOfLatchkey(t *testing.T) {
	adapters(t, rotate[uuid.UUID], rotate[bson.ObjectID])
}

func rotate[ID comparable](t *testing.T, r *rig[ID]) {
	for _, s := range []stage{beside, convert} {
		t.Run(string(s), func(t *testing.T) {
			r.t = t
			r.enter(s)
			id := r.user(string(s) + "@example.com")
			// Its token version must survive the last stage.
			r.setPassword(id)
			old := r.login(id)
			before, err := r.Sessions.ReadToken(t.Context(), old)
			r.ok(err)
			secret, after, err := r.Sessions.RotateToken(t.Context(), old)
			r.ok(err)
			if after.ID != before.ID || !after.CreatedAt.Equal(before.CreatedAt) || !after.ExpiresAt.Equal(before.ExpiresAt) {
				t.Errorf("got the session %+v, want that of %+v", after.SessionInfo, before.SessionInfo)
			}
			r.check("the old token", old, false, false)
			r.check("the new token", secret.Reveal(), false, true)
			if _, _, err := r.Sessions.RotateToken(t.Context(), old); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("a second rotation of the old token: got %v, want ErrInvalidToken", err)
			}
			if ids := r.sessions(id); len(ids) != 1 {
				t.Errorf("got the sessions %v, want one", ids)
			}
			n, err := r.Legacy.UndoConversion(t.Context())
			r.ok(err)
			if n != 0 {
				t.Errorf("UndoConversion has deleted %d sessions, want none", n)
			}
			r.enter(done)
			r.check("the new token at the end", secret.Reveal(), false, true)
			r.now = before.ExpiresAt.Add(time.Millisecond)
			r.check("the new token after the lifetime of the old one", secret.Reveal(), false, false)
		})
	}
}

func TestLegacyTokensExpireByTheShorterLifetime(t *testing.T) {
	adapters(t, shorter[uuid.UUID], shorter[bson.ObjectID])
}

func shorter[ID comparable](t *testing.T, r *rig[ID]) {
	id := r.user("ann@example.com")
	start := r.now
	for _, s := range []stage{beside, convert} {
		for _, own := range []time.Duration{lifetime / 2, 2 * lifetime, 0} {
			r.now = start
			token := r.login(id)
			issued := r.now
			r.enter(s, func(cfg *latchkey.Config) { cfg.Lifetime = own })
			if !r.accepts(token) {
				t.Fatalf("%s: a new token is refused", s)
			}
			end := issued.Add(lifetime)
			if own > 0 && own < lifetime {
				end = issued.Add(own)
			}
			r.now = end
			if !r.accepts(token) {
				t.Errorf("%s, Lifetime %v: the token is refused in its last millisecond", s, own)
			}
			if r.now = end.Add(time.Millisecond); r.accepts(token) {
				t.Errorf("%s, Lifetime %v: the token is accepted after its last millisecond", s, own)
			}
		}
	}
}

func TestCopiesHonourALifetimeThatIsSetLater(t *testing.T) {
	adapters(t, lateLifetime[uuid.UUID], lateLifetime[bson.ObjectID])
}

// Tokens were converted without fastapi-users' lifetime, by mistake.
func lateLifetime[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(convert, func(cfg *latchkey.Config) { cfg.Legacy.Lifetime = 0 })
	id := r.user("ann@example.com")
	token := r.login(id)
	r.check("converted", token, true, true)
	r.enter(convert)
	page, err := r.Sessions.Sessions(t.Context(), id, strategy.Page{})
	r.ok(err)
	if got, want := page.Sessions[0].ExpiresAt, r.now.Add(lifetime); !got.Equal(want) {
		t.Errorf("the listed session expires at %v, want %v", got, want)
	}
	r.now = r.now.Add(lifetime + time.Second)
	r.check("after fastapi-users' lifetime", token, false, false)
	if ids := r.sessions(id); len(ids) != 0 {
		t.Errorf("%d sessions are listed, want none", len(ids))
	}
}

func TestIdleTimeoutBeginsWithTheFirstStoredUse(t *testing.T) {
	adapters(t, idle[uuid.UUID], idle[bson.ObjectID])
}

func idle[ID comparable](t *testing.T, r *rig[ID]) {
	id := r.user("ann@example.com")
	token := r.login(id)
	idle := func(cfg *latchkey.Config) { cfg.IdleTimeout = 10 * time.Minute }
	r.enter(beside, idle)
	r.now = r.now.Add(11 * time.Minute) // it may have been used on the other side
	r.check("beside", token, true, true)
	r.enter(convert, idle)
	r.now = r.now.Add(11 * time.Minute)
	r.check("first use", token, true, true)
	r.now = r.now.Add(10 * time.Minute)
	r.check("used in time", token, true, true)
	r.now = r.now.Add(10*time.Minute + time.Millisecond)
	r.check("idle", token, true, false)
}

func TestPasswordHashesAreLeftAloneBeside(t *testing.T) {
	adapters(t, keepHashes[uuid.UUID], keepHashes[bson.ObjectID])
}

func keepHashes[ID comparable](t *testing.T, r *rig[ID]) {
	id := r.user("Ann@example.com")
	hash := func() string {
		t.Helper()
		var doc struct {
			Hash string `bson:"hashed_password"`
		}
		r.ok(r.python.Users.FindOne(t.Context(), bson.D{{Key: r.python.UserID, Value: id}}).Decode(&doc))
		return doc.Hash
	}
	r.enter(beside)
	r.loginHere("ann@example.com")
	if hash() != oldHash {
		t.Error("beside: the hash was replaced, so that a Python application may not know it")
	}
	r.enter(convert)
	r.loginHere("ann@example.com")
	if hash() == oldHash {
		t.Error("convert: the hash was not replaced")
	}
}

func TestClientsKeepTheirCookie(t *testing.T) {
	adapters(t, keepCookie[uuid.UUID], keepCookie[bson.ObjectID])
}

func keepCookie[ID comparable](t *testing.T, r *rig[ID]) {
	r.enter(beside)
	token := r.login(r.user("ann@example.com"))
	routes := gin.New()
	r.Web.Routes(routes.Group("/auth"))
	routes.GET("/me", r.Auth.RequireUser(), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	call := func(method, path string) *http.Response {
		req := httptest.NewRequest(method, path, nil)
		req.AddCookie(&http.Cookie{Name: "fastapiusersauth", Value: token})
		w := httptest.NewRecorder()
		routes.ServeHTTP(w, req)
		return w.Result()
	}
	if got := call("GET", "/me").StatusCode; got != http.StatusNoContent {
		t.Errorf("a request with the old cookie: got %d, want 204", got)
	}
	res := call("POST", "/auth/logout")
	if res.StatusCode != http.StatusNoContent {
		t.Errorf("a log-out with the old cookie: got %d, want 204", res.StatusCode)
	}
	for _, k := range res.Cookies() {
		if k.Name == "fastapiusersauth" && (k.MaxAge >= 0 || k.Path != "/" || !k.Secure || !k.HttpOnly || k.SameSite != http.SameSiteLaxMode) {
			t.Errorf("got the cookie %+v, want one that deletes that of fastapi-users", k)
		}
	}
	r.check("after the log-out", token, false, false)
	if got := call("GET", "/me").StatusCode; got != http.StatusUnauthorized {
		t.Errorf("a request after the log-out: got %d, want 401", got)
	}
}

func TestPasswordResetsAreNotRevived(t *testing.T) {
	adapters(t, resetRevived[uuid.UUID], resetRevived[bson.ObjectID])
}

// An update on the other side drops the token version, by which a password change invalidates
// the reset that was requested before it.
func resetRevived[ID comparable](t *testing.T, r *rig[ID]) {
	mails := make(chan account.Message, 10)
	r.enter(beside, func(cfg *latchkey.Config) {
		cfg.Mail.Mailer = account.MailerFunc(func(_ context.Context, m account.Message) error {
			mails <- m
			return nil
		})
	})
	id := r.user("ann@example.com")
	r.ok(r.Accounts.RequestPasswordReset(t.Context(), "ann@example.com"))
	mail := <-mails
	r.setPassword(id)
	r.ok(r.python.Patch(t.Context(), id))
	if _, err := r.Accounts.ResetPassword(t.Context(), mail.Token.Reveal(), "another password"); !errors.Is(err, account.ErrBadOneTimeToken) {
		t.Errorf("a reset from before the password change: got %v, want ErrBadOneTimeToken", err)
	}
}

func TestCollectionOfFastAPIUsersGetsNoTTLIndex(t *testing.T) {
	adapters(t, noTTL[uuid.UUID], noTTL[bson.ObjectID])
}

// An application that forgets to name a collection of its own would use that of fastapi-users.
func noTTL[ID comparable](t *testing.T, r *rig[ID]) {
	r.login(r.user("ann@example.com"))
	tokens, err := mongostore.NewTokens[ID](r.db, mongostore.TokensConfig{
		Collection: r.python.Tokens.Name(), Lifetime: time.Minute, PurgeInterval: time.Hour,
	})
	r.ok(err)
	t.Cleanup(tokens.Close)
	if err := tokens.EnsureIndexes(t.Context()); err == nil || !strings.Contains(err.Error(), "TokensConfig.Collection") {
		t.Errorf("got %v, want an error that names TokensConfig.Collection", err)
	}
}
