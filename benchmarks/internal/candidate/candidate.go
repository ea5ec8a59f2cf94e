// Package candidate implements the guards that the benchmarks compare, one in each file, and
// the data that they share.
package candidate

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

// Candidate is a way of guarding a route.
type Candidate struct {
	// Name is its name in reports.
	Name string
	// Module is the module whose version reports show. "" means this one.
	Module string
	// Work is what it checks.
	Work Work
	// Reads describes what a guarded request reads from the database.
	Reads string
	// Revocable and Deactivated say whether it refuses the next request after the session
	// was revoked, and after the user was deactivated.
	Revocable, Deactivated string
	// Notes are further properties for reports.
	Notes string
	// Remembers is set if the first request of a session is slower than later ones. Only
	// later ones are measured.
	Remembers bool
	// Refuses is set if the expected answer is 401.
	Refuses bool

	build func(ctx context.Context, db *DB) (*Site, error)
}

// Work is what a candidate checks. Only candidates with the same Work are comparable.
type Work string

// The kinds of work, in increasing order.
const (
	NoGuard   Work = "no guard"
	Signature Work = "signature, no look-up"
	Session   Work = "session"
	User      Work = "session and user"
)

// Site is an application with a guarded route, GET [Path].
type Site struct {
	Handler http.Handler
	// Sessions are the headers that authenticate the users, in the order of Data.UserIDs.
	Sessions []Header

	remembers bool
	code      int // the expected status
}

// Header is a request header.
type Header struct{ Name, Value string }

// Path is the guarded route.
const Path = "/me"

// All returns the candidates that use the database, in increasing order of Work.
func All() []Candidate {
	return []Candidate{
		bare(),
		ginJWT(),
		floorSession(),
		ginSessions(),
		scsSessions(),
		floorUser(),
		latchkeyUser(),
		latchkeyCached(),
	}
}

// UnderLoad returns the candidates to compare under load: All, and the guard by hand on
// maps, for comparison with the cache.
func UnderLoad() []Candidate { return append(All(), byHandInMemory()) }

// ByName returns the candidate with a name.
func ByName(name string) (Candidate, error) {
	for _, c := range slices.Concat(All(), InMemory(), Logins()) {
		if c.Name == name {
			return c, nil
		}
	}
	return Candidate{}, errors.New("candidate: unknown candidate " + name)
}

// Build returns the candidate's application on a database, with a session for each user.
func (c Candidate) Build(ctx context.Context, db *DB) (*Site, error) {
	site, err := c.build(ctx, db)
	if err != nil {
		return nil, err
	}
	site.remembers, site.code = c.Remembers, http.StatusOK
	if c.Refuses {
		site.code = http.StatusUnauthorized
	}
	return site, nil
}

// engine returns the Gin engine of every candidate, set up as in production.
func engine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.Recovery())
	_ = r.SetTrustedProxies(nil)
	return r
}

// answerID is the answer of candidates that do not load the user.
func answerID(c *gin.Context, id string) { c.JSON(http.StatusOK, gin.H{"id": id}) }

// answerUser is the answer of candidates that load the user.
func answerUser(c *gin.Context, id, email, name string) {
	c.JSON(http.StatusOK, struct {
		ID    string `json:"id"`
		Email string `json:"email"`
		Name  string `json:"name"`
	}{id, email, name})
}

// ForEach calls f for 0 to n-1 from eight goroutines. After an error, its goroutine stops.
func ForEach(n int, f func(i int) error) error {
	const workers = 8
	var next atomic.Int64
	var group sync.WaitGroup
	var errs [workers]error
	for w := range workers {
		group.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[w] = f(i)
			}
		})
	}
	group.Wait()
	return errors.Join(errs[:]...)
}
