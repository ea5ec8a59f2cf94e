package candidate

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/alexedwards/scs/pgxstore"
	"github.com/alexedwards/scs/v2"
	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx" of database/sql

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// connections is the size of the pool of every candidate on PostgreSQL.
const connections = 16

// PostgreSQL is a schema of a PostgreSQL server with users and tokens, and the candidates'
// connections to it.
type PostgreSQL struct {
	Users  []uuid.UUID
	tokens []string // tokens[i] is the token of Users[i]

	name    string // of the schema
	pool    *pgxpool.Pool
	db      *sql.DB
	closers []func()
}

// OpenPostgreSQL makes a schema on a server, with tokens that are spread evenly over the users.
// Close drops it.
func OpenPostgreSQL(ctx context.Context, dsn string, users, tokens int) (_ *PostgreSQL, err error) {
	if tokens < users {
		return nil, fmt.Errorf("candidate: %d tokens are too few for %d users", tokens, users)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return nil, err
	}
	p := &PostgreSQL{name: "benchmark_" + strings.ReplaceAll(uuid.NewString(), "-", "")}
	q := u.Query()
	q.Set("search_path", p.name)
	u.RawQuery = q.Encode()
	if p.db, err = sql.Open("pgx", u.String()); err != nil {
		return nil, err
	}
	p.db.SetMaxOpenConns(connections)
	p.db.SetMaxIdleConns(connections)
	cfg, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	cfg.MaxConns = connections
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	if err := p.seed(ctx, users, tokens); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close ends the candidates' background work, drops the schema, and disconnects.
func (p *PostgreSQL) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, c := range p.closers {
		c()
	}
	_, err := p.pool.Exec(ctx, "DROP SCHEMA IF EXISTS "+p.name+" CASCADE")
	p.pool.Close()
	return errors.Join(err, p.db.Close())
}

func (p *PostgreSQL) seed(ctx context.Context, users, tokens int) error {
	if _, err := p.pool.Exec(ctx, "CREATE SCHEMA "+p.name); err != nil {
		return err
	}
	if err := sqlstore.Migrate[uuid.UUID](ctx, p.db, sqlstore.PostgreSQL, sqlstore.Tables{}); err != nil {
		return err
	}
	if _, err := p.pool.Exec(ctx, `ALTER TABLE users ADD COLUMN name TEXT NOT NULL DEFAULT '';
		CREATE TABLE sessions (token TEXT PRIMARY KEY, data BYTEA NOT NULL, expiry TIMESTAMPTZ NOT NULL)`); err != nil { // as pgxstore's page says
		return err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	_, err := p.pool.CopyFrom(ctx, pgx.Identifier{"users"}, []string{"id", "email", "hashed_password", "created_at", "name"}, pgx.CopyFromSlice(users, func(i int) ([]any, error) {
		m := member(i, now)
		p.Users = append(p.Users, m.ID)
		return []any{m.ID.String(), m.Email, m.HashedPassword.Reveal(), now.UnixMilli(), m.Name}, nil
	}))
	if err != nil {
		return err
	}
	_, err = p.pool.CopyFrom(ctx, pgx.Identifier{"access_tokens"}, []string{"id", "token", "user_id", "created_at", "user_agent", "client_ip"}, pgx.CopyFromSlice(tokens, func(i int) ([]any, error) {
		secret, digest := token.Default.New()
		user := p.Users[i%users]
		// The measured tokens are spread over the whole table.
		if n := len(p.tokens); n < users && i == n*(tokens/users) {
			p.tokens = append(p.tokens, secret)
			user = p.Users[n]
		}
		return []any{
			uuid.Must(uuid.NewV7()).String(), digest, user.String(), now.UnixMilli(),
			"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "192.0.2.1",
		}, nil
	}))
	if err != nil {
		return err
	}
	_, err = p.pool.Exec(ctx, "ANALYZE users, access_tokens")
	return err
}

// SQLCandidate is a way of guarding a route on PostgreSQL.
type SQLCandidate struct {
	// Name is its name in reports.
	Name string
	// Reads describes what a guarded request reads from the database.
	Reads string
	// ByHand is set for a guard by hand that checks the token and its user.
	ByHand bool

	build func(*PostgreSQL) (*Site, error)
}

// Build returns the candidate's application, with a session for each user.
func (c SQLCandidate) Build(p *PostgreSQL) (*Site, error) {
	site, err := c.build(p)
	if err == nil {
		site.code = http.StatusOK
	}
	return site, err
}

// OnPostgreSQL returns the candidates on PostgreSQL.
func OnPostgreSQL() []SQLCandidate {
	return []SQLCandidate{
		{Name: "scs, pgxstore", Reads: "the session, by its token in plain text; no user", build: scsPostgreSQL},
		{Name: "pgx by hand, two queries", Reads: "the token, by its digest; the user, by ID", ByHand: true, build: pgxTwoQueries},
		{Name: "pgx by hand, one join", Reads: "the token with its user, by the digest", ByHand: true, build: pgxJoin},
		{Name: "Latchkey, token and user", Reads: "the token with its user, by the digest", build: latchkeyPostgreSQL(latchkey.Config{})},
		{Name: "Latchkey, cached", Reads: "nothing; each session again once a minute, and the revocations once a second", build: latchkeyPostgreSQL(latchkey.Config{Cache: minuteCache})},
	}
}

// bearerDigest returns the digest of a request's token.
func bearerDigest(c *gin.Context) (string, bool) {
	secret, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	digest := sha256.Sum256([]byte(secret))
	return base64.RawURLEncoding.EncodeToString(digest[:]), ok
}

// sqlUser is what the guards by hand read of a user.
type sqlUser struct {
	id          [16]byte
	email, name string
	active      bool
}

// pgxGuard returns the application of a guard by hand. The user's tokens must not be older than the
// Lifetime, and the user must be active. No check of the token's format, no events, no scopes, no
// distinction of errors, no timeout on database calls.
func pgxGuard(p *PostgreSQL, read func(ctx context.Context, digest string) (user sqlUser, createdAt int64, err error)) (*Site, error) {
	r := engine()
	r.GET(Path, func(c *gin.Context) {
		digest, ok := bearerDigest(c)
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		user, createdAt, err := read(c.Request.Context(), digest)
		if err != nil || time.Since(time.UnixMilli(createdAt)) > Lifetime || !user.active {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		c.Set("user", user)
	}, func(c *gin.Context) {
		user := c.MustGet("user").(sqlUser)
		answerUser(c, uuid.UUID(user.id).String(), user.email, user.name)
	})
	return &Site{Handler: r, Sessions: bearers(p.tokens)}, nil
}

func pgxTwoQueries(p *PostgreSQL) (*Site, error) {
	return pgxGuard(p, func(ctx context.Context, digest string) (user sqlUser, createdAt int64, err error) {
		err = p.pool.QueryRow(ctx, "SELECT user_id, created_at FROM access_tokens WHERE token = $1", digest).Scan(&user.id, &createdAt)
		if err == nil {
			err = p.pool.QueryRow(ctx, "SELECT email, name, is_active FROM users WHERE id = $1", user.id).Scan(&user.email, &user.name, &user.active)
		}
		return user, createdAt, err
	})
}

func pgxJoin(p *PostgreSQL) (*Site, error) {
	return pgxGuard(p, func(ctx context.Context, digest string) (user sqlUser, createdAt int64, err error) {
		err = p.pool.QueryRow(ctx, "SELECT t.created_at, u.id, u.email, u.name, u.is_active FROM access_tokens t JOIN users u ON u.id = t.user_id WHERE t.token = $1", digest).
			Scan(&createdAt, &user.id, &user.email, &user.name, &user.active)
		return user, createdAt, err
	})
}

func scsPostgreSQL(p *PostgreSQL) (*Site, error) {
	sessions := scs.New()
	sessions.Lifetime = Lifetime
	// No clean-up: its goroutine would run until the process ends.
	sessions.Store = pgxstore.NewWithCleanupInterval(p.pool, 0)
	h := scsApplication(sessions)
	cookies, err := loginsOf(h, p.Users)
	return &Site{Handler: h, Sessions: cookies}, err
}

func latchkeyPostgreSQL(cfg latchkey.Config) func(*PostgreSQL) (*Site, error) {
	return func(p *PostgreSQL) (*Site, error) {
		cfg.Lifetime = Lifetime
		cfg.OnEvent = func(context.Context, event.Event) {}
		lk, err := sqlstore.New[Member](p.db, sqlstore.PostgreSQL, uuid.New, cfg)
		if err != nil {
			return nil, err
		}
		p.closers = append(p.closers, lk.Close)
		r := engine()
		lk.Auth.Routes(r.Group("/auth"))
		return guardedBy(lk.Auth, r, p.tokens), nil
	}
}
