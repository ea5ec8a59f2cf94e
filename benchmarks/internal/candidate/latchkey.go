package candidate

import (
	"context"
	"runtime"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// minuteCache is the cache of all candidates that have one.
var minuteCache = strategy.Cache{MaxStaleness: time.Minute}

// latchkeyUser is Latchkey as its README sets it up.
func latchkeyUser() Candidate {
	return Candidate{
		Name: "Latchkey, token and user", Work: User,
		Reads: "the token row, by its digest; the user, by ID", Revocable: "yes", Deactivated: "yes",
		Notes: "`lk.Auth.RequireUser()` with a lifetime, as in the README",
		build: buildLatchkey(latchkey.Config{}),
	}
}

// latchkeyCached is Latchkey with its cache.
func latchkeyCached() Candidate {
	return Candidate{
		Name: "Latchkey, cached", Work: User, Remembers: true,
		Reads:       "nothing; it reads each session again once per `MaxStaleness`, and the revocations once a second",
		Revocable:   "yes; within a second if another process revoked it",
		Deactivated: "yes; within a second if another process did it",
		Notes:       "`latchkey.Config.Cache` with a `MaxStaleness` of one minute",
		build:       buildLatchkey(latchkey.Config{Cache: minuteCache}),
	}
}

// Logins returns the candidates with logins at POST /auth/login: Latchkey with its default
// number of concurrent password hashes, and with one for each processor.
func Logins() []Candidate {
	many := latchkeyUser()
	many.Name = "Latchkey, a hash for each processor"
	many.build = buildLatchkey(latchkey.Config{MaxConcurrentHashes: runtime.GOMAXPROCS(0)})
	return []Candidate{latchkeyUser(), many}
}

func buildLatchkey(cfg latchkey.Config) func(context.Context, *DB) (*Site, error) {
	return func(_ context.Context, db *DB) (*Site, error) {
		lk, err := newLatchkey(db, cfg)
		if err != nil {
			return nil, err
		}
		r := engine()
		lk.Auth.Routes(r.Group("/auth"))
		return guardedBy(lk.Auth, r, db.Tokens), nil
	}
}

// guardedBy returns a site with a guard of Latchkey.
func guardedBy(auth *ginauth.Auth[Member], r *gin.Engine, tokens []string) *Site {
	r.GET(Path, auth.RequireUser(), func(c *gin.Context) {
		user, _ := auth.CurrentUser(c)
		answerUser(c, user.ID.String(), user.Email, user.Name)
	})
	return &Site{Handler: r, Sessions: bearers(tokens)}
}

// newLatchkey returns a Latchkey on the data, without logging. Closing db closes it.
func newLatchkey(db *DB, cfg latchkey.Config) (*latchkey.Latchkey[Member, uuid.UUID], error) {
	cfg.Lifetime = Lifetime
	cfg.PurgeInterval = Lifetime // no purge during a measurement
	cfg.OnEvent = func(context.Context, event.Event) {}
	lk, err := latchkey.New[Member](db.driver2, uuid.New, cfg)
	if err != nil {
		return nil, err
	}
	db.closers = append(db.closers, lk.Close)
	return lk, nil
}

// Register adds a user who can log in at POST /auth/login. The password is hashed with the
// default parameters of argon2id.
func Register(ctx context.Context, data Data, email, password string) error {
	db, err := Open(ctx, data, nil)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	lk, err := newLatchkey(db, latchkey.Config{})
	if err != nil {
		return err
	}
	_, err = lk.Accounts.Register(ctx, Member{User: account.User[uuid.UUID]{Email: email}, Name: "Mona Member"}, password)
	return err
}
