package candidate

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// InMemory returns the candidates that show what Latchkey's own code takes: they look up in maps, and need no database.
func InMemory() []Candidate {
	bare := bare()
	return []Candidate{
		bare,
		byHandInMemory(),
		{Name: "Latchkey, in memory", Work: User, Reads: "two maps", build: inMemory(strategy.Config{})},
		{
			Name: "Latchkey, cached, in memory", Work: User, Reads: "nothing", Remembers: true,
			build: inMemory(cached),
		},
		ginJWT(),
		malformed("Latchkey, a malformed token", func(token string) string { return token[:len(token)-1] + "-" }),
		malformed("Latchkey, a malformed token of 8,000 bytes", func(token string) string { return token + strings.Repeat("x", 8_000-len(token)) }),
	}
}

// byHandInMemory guards with maps that never change, as one would write it.
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

var cached = strategy.Config{Cache: strategy.Cache{MaxStaleness: time.Minute}}

// malformed presents tokens that were changed.
func malformed(name string, change func(token string) string) Candidate {
	return Candidate{
		Name: name, Reads: "nothing", Refuses: true,
		build: func(ctx context.Context, db *DB) (*Site, error) {
			site, err := inMemory(cached)(ctx, db)
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

// inMemory is Latchkey over the maps.
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
		r := engine()
		r.GET(Path, auth.RequireUser(), func(c *gin.Context) {
			user, _ := auth.CurrentUser(c)
			answerUser(c, user.ID.String(), user.Email, user.Name)
		})
		return &Site{Handler: r, Sessions: bearers(db.Tokens)}, nil
	}
}

// maps are the data in memory. They do not change.
type maps struct {
	rows  map[string]strategy.AccessToken[uuid.UUID]
	users userMap
}

func newMaps(db *DB) (*maps, error) {
	format, err := strategy.NewTokenFormat("")
	if err != nil {
		return nil, err
	}
	m := &maps{make(map[string]strategy.AccessToken[uuid.UUID]), make(userMap)}
	now := time.Now().UTC().Truncate(time.Millisecond)
	for i, token := range db.Tokens {
		digest, err := format.Digest(token)
		if err != nil {
			return nil, err
		}
		user := member(i, now)
		user.ID = db.UserIDs[i]
		m.users[user.ID] = user
		m.rows[digest] = strategy.AccessToken[uuid.UUID]{ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: user.ID, CreatedAt: now}
	}
	return m, nil
}

// guard is what one would write for these maps.
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

// tokenMap is the store as far as a guard needs it.
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

// Retention implements strategy.Store: rows are kept for ever.
func (m tokenMap) Retention() time.Duration { return 0 }

type userMap map[uuid.UUID]Member

func (m userMap) ByID(_ context.Context, id uuid.UUID) (Member, error) {
	user, ok := m[id]
	if !ok {
		return user, strategy.ErrUserNotFound
	}
	return user, nil
}
