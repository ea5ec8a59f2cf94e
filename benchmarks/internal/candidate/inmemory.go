package candidate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// InMemory returns the candidates that measure Latchkey's own code: they look up in maps
// instead of a database.
func InMemory() []Candidate {
	bare := bare()
	return []Candidate{
		bare,
		byHandInMemory(),
		{Name: "Latchkey, in memory", Work: User, Reads: "two maps", build: inMemory(strategy.Config{})},
		{
			Name: "Latchkey, cached, in memory", Work: User, Reads: "nothing", Remembers: true,
			build: inMemory(strategy.Config{Cache: minuteCache}),
		},
		ginJWT(),
		malformed("Latchkey, a malformed token", func(token string) string { return token[:len(token)-1] + "-" }),
		malformed("Latchkey, a malformed token of 8,000 bytes", func(token string) string { return token + strings.Repeat("x", 8_000-len(token)) }),
	}
}

// byHandInMemory is a hand-written guard on maps that never change.
func byHandInMemory() Candidate {
	return Candidate{
		Name: "by hand, in memory", Work: User, Reads: "two maps",
		build: func(_ context.Context, db *DB) (*Site, error) {
			m, err := newMaps(db)
			if err != nil {
				return nil, err
			}
			r := engine()
			r.GET(Path, m.guard, func(c *gin.Context) {
				user := c.MustGet("user").(Member)
				answerUser(c, user.ID.String(), user.Email, user.Name)
			})
			return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
		},
	}
}

// malformed is Latchkey with requests whose tokens were changed.
func malformed(name string, change func(token string) string) Candidate {
	return Candidate{
		Name: name, Reads: "nothing", Refuses: true,
		build: func(ctx context.Context, db *DB) (*Site, error) {
			site, err := inMemory(strategy.Config{Cache: minuteCache})(ctx, db)
			if err != nil {
				return nil, err
			}
			bad := make([]string, len(db.Tokens))
			for i, token := range db.Tokens {
				bad[i] = change(token)
			}
			site.Sessions = bearers(bad)
			return site, nil
		},
	}
}

// inMemory builds Latchkey on maps.
func inMemory(cfg strategy.Config) func(context.Context, *DB) (*Site, error) {
	cfg.Lifetime = Lifetime
	return func(_ context.Context, db *DB) (*Site, error) {
		m, err := newMaps(db)
		if err != nil {
			return nil, err
		}
		sessions, err := strategy.NewDatabase[Member, uuid.UUID](tokenMap{rows: m.rows}, m.users, cfg)
		if err != nil {
			return nil, err
		}
		auth, err := ginauth.New(sessions, nil, ginauth.Config{})
		if err != nil {
			return nil, err
		}
		db.closers = append(db.closers, sessions.Close)
		return guardedBy(auth, engine(), db.Tokens), nil
	}
}

// maps are the users and tokens in memory. They never change.
type maps struct {
	rows  map[string]strategy.AccessToken[uuid.UUID]
	users userMap
}

func newMaps(db *DB) (*maps, error) {
	m := &maps{make(map[string]strategy.AccessToken[uuid.UUID]), make(userMap)}
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, secret := range db.Tokens {
		digest, ok := token.Default.Digest(secret)
		if !ok {
			return nil, errors.New("candidate: a token of the data is malformed")
		}
		user := member(i, now)
		user.ID = db.UserIDs[i]
		m.users[user.ID] = user
		m.rows[digest] = strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: user.ID, CreatedAt: now}
	}
	return m, nil
}

// guard is the hand-written guard.
func (m *maps) guard(c *gin.Context) {
	token, ok := strings.CutPrefix(c.GetHeader("Authorization"), "Bearer ")
	if !ok {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	digest := sha256.Sum256([]byte(token))
	row, ok := m.rows[base64.RawURLEncoding.EncodeToString(digest[:])]
	if !ok || time.Since(row.CreatedAt) > Lifetime {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	user, ok := m.users[row.UserID]
	if !ok || !user.Active {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	c.Set("user", user)
}

// tokenMap implements the part of strategy.Store that a guard needs.
type tokenMap struct {
	strategy.Store[uuid.UUID]
	rows map[string]strategy.AccessToken[uuid.UUID]
}

func (m tokenMap) ByToken(_ context.Context, digest string) (strategy.AccessToken[uuid.UUID], error) {
	row, ok := m.rows[digest]
	if !ok {
		return row, strategy.ErrTokenNotFound
	}
	return row, nil
}

// Retention implements strategy.Store. Rows are kept for ever.
func (m tokenMap) Retention() time.Duration { return 0 }

type userMap map[uuid.UUID]Member

func (m userMap) ByID(_ context.Context, id uuid.UUID) (Member, error) {
	user, ok := m[id]
	if !ok {
		return user, strategy.ErrUserNotFound
	}
	return user, nil
}
