package candidate

import (
	"context"
	"errors"
	"runtime"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// latchkeyUser is the library as its README puts it together.
func latchkeyUser() Candidate {
	return Candidate{
		Name: "Latchkey, token and user", Work: User,
		Reads: "the token row, by its digest; the user, by ID", Revocable: "yes", Deactivated: "yes",
		Notes: "`auth.RequireUser()` with a lifetime, as the README has it",
		build: buildLatchkey(account.Config{}),
	}
}

// hashThreads is how many threads each password hash takes, by default.
const hashThreads = 4

// Logins returns the candidates that users can log in to, at POST /auth/login: as it is by default, and with no more
// password hashes at once than there are processors for their threads.
func Logins() []Candidate {
	few := latchkeyUser()
	few.Name = "Latchkey, fewer hashes at once"
	few.build = buildLatchkey(account.Config{MaxConcurrentHashes: max(1, runtime.GOMAXPROCS(0)/hashThreads)})
	return []Candidate{latchkeyUser(), few}
}

func buildLatchkey(accounts account.Config) func(context.Context, *DB) (*Site, error) {
	return func(_ context.Context, db *DB) (*Site, error) {
		l, err := newLatchkey(db, accounts)
		if err != nil {
			return nil, err
		}
		r := engine()
		l.auth.Routes(r.Group("/auth"))
		r.GET(Path, l.auth.RequireUser(), func(c *gin.Context) {
			user, _ := l.auth.CurrentUser(c)
			answerUser(c, user.ID.String(), user.Email, user.Name)
		})
		return &Site{r, bearers(db.Tokens)}, nil
	}
}

// latchkey is the library over the data.
type latchkey struct {
	users    *mongostore.Users[Member, uuid.UUID]
	tokens   *mongostore.Tokens[uuid.UUID]
	accounts *account.Manager[Member, uuid.UUID]
	auth     *ginauth.Auth[Member]
}

func newLatchkey(db *DB, cfg account.Config) (*latchkey, error) {
	users, err := mongostore.NewUsers[Member](db.driver2, mongostore.UsersConfig{})
	if err != nil {
		return nil, err
	}
	tokens, err := mongostore.NewTokens[uuid.UUID](db.driver2, mongostore.TokensConfig{Lifetime: Lifetime})
	if err != nil {
		return nil, err
	}
	accounts, err := account.NewManager(users, uuid.New, cfg)
	if err != nil {
		return nil, err
	}
	sessions, err := strategy.NewDatabase(tokens, users, strategy.Config{Lifetime: Lifetime})
	if err != nil {
		return nil, err
	}
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
	l, err := newLatchkey(db, account.Config{})
	if err != nil {
		return err
	}
	_, err = l.accounts.Register(ctx, Member{User: account.User[uuid.UUID]{Email: email}, Name: "Mona Member"}, password)
	return err
}
