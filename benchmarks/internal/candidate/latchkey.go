package candidate

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// latchkeyUser is the library as its README puts it together.
func latchkeyUser() Candidate {
	return Candidate{
		Name: "Latchkey, token and user", Work: User,
		Reads: "the token row, by its digest; the user, by ID", Revocable: "yes", Deactivated: "yes",
		Notes: "`auth.RequireUser()` with a lifetime, as the README has it",
		build: settings{}.build,
	}
}

// latchkeyCached is the library with its cache.
func latchkeyCached() Candidate {
	return Candidate{
		Name: "Latchkey, cached", Work: User, Remembers: true,
		Reads:     "nothing; each session again once in `MaxStaleness`, and what was revoked once a second",
		Revocable: "yes; within a second where another process did it", Deactivated: "the same",
		Notes: "`strategy.Config.Cache` with `MaxStaleness` of a minute",
		build: settings{tokens: strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute}}}.build,
	}
}

// Logins returns the candidates that users can log in to, at POST /auth/login: as it is by default, and with as many
// password hashes at once as there are processors.
func Logins() []Candidate {
	many := latchkeyUser()
	many.Name = "Latchkey, a hash for each processor"
	many.build = settings{accounts: account.Config{MaxConcurrentHashes: runtime.GOMAXPROCS(0)}}.build
	return []Candidate{latchkeyUser(), many}
}

// settings are what is otherwise than the README has it.
type settings struct {
	accounts account.Config
	tokens   strategy.Config
}

func (s settings) build(_ context.Context, db *DB) (*Site, error) {
	l, err := newLatchkey(db, s)
	if err != nil {
		return nil, err
	}
	r := engine()
	l.auth.Routes(r.Group("/auth"))
	r.GET(Path, l.auth.RequireUser(), func(c *gin.Context) {
		user, _ := l.auth.CurrentUser(c)
		answerUser(c, user.ID.String(), user.Email, user.Name)
	})
	return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
}

// latchkey is the library over the data.
type latchkey struct {
	users    *mongostore.Users[Member, uuid.UUID]
	tokens   *mongostore.Tokens[uuid.UUID]
	accounts *account.Manager[Member, uuid.UUID]
	auth     *ginauth.Auth[Member]
}

func newLatchkey(db *DB, s settings) (*latchkey, error) {
	users, err := mongostore.NewUsers[Member](db.driver2, mongostore.UsersConfig{})
	if err != nil {
		return nil, err
	}
	tokens, err := mongostore.NewTokens[uuid.UUID](db.driver2, mongostore.TokensConfig{Lifetime: Lifetime, PurgeInterval: Lifetime})
	if err != nil {
		return nil, err
	}
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		return nil, err
	}
	accounts, err := account.NewManager(users, attempts, uuid.New, s.accounts)
	if err != nil {
		return nil, err
	}
	s.tokens.Lifetime = Lifetime
	sessions, err := strategy.NewDatabase(tokens, users, s.tokens)
	if err != nil {
		return nil, err
	}
	db.closers = append(db.closers, sessions.Close)
	auth, err := ginauth.New(sessions, accounts, ginauth.Config{})
	if err != nil {
		return nil, err
	}
	return &latchkey{users, tokens, accounts, auth}, nil
}

func (l *latchkey) ensureIndexes(ctx context.Context) error {
	return errors.Join(l.users.EnsureIndexes(ctx), l.tokens.EnsureIndexes(ctx))
}

// Register adds a user who can log in at POST /auth/login, with the default parameters of argon2id.
func Register(ctx context.Context, data Data, email, password string) error {
	db, err := Open(ctx, data, nil)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(ctx) }()
	l, err := newLatchkey(db, settings{})
	if err != nil {
		return err
	}
	_, err = l.accounts.Register(ctx, Member{User: account.User[uuid.UUID]{Email: email}, Name: "Mona Member"}, password)
	return err
}
