// Package candidate has the ways of guarding a route that the benchmarks compare, one a file, and the data that all of
// them work on.
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
	// Name is what reports call it.
	Name string
	// Module is the module whose version belongs to it; "" for none.
	Module string
	// Work is how much of the work it does.
	Work Work
	// Reads is what a guarded request reads from the database.
	Reads string
	// Revocable and Deactivated say whether the next request is refused after the session was revoked, and after the
	// user was deactivated.
	Revocable, Deactivated string
	// Notes are what else is to be known of it.
	Notes string
	// Remembers is set where the second request of a session takes less than the first. It is the second ones that
	// are measured.
	Remembers bool
	// Refuses is set where the requests are to be answered with 401.
	Refuses bool

	build func(ctx context.Context, db *DB) (*Site, error)
}

// Work is how much of the work a candidate does: only those with the same are alike.
type Work string

// The kinds of work, the least first.
const (
	NoGuard   Work = "no guard"
	Signature Work = "a signature, no look-up"
	Session   Work = "the session"
	User      Work = "the session and the user"
)

// Site is an application with a guarded route, GET [Path].
type Site struct {
	Handler http.Handler
	// Sessions are the headers that authenticate the users, one for each in their order.
	Sessions []Header

	remembers bool
	code      int // of an answer
}

// Header is a header of a request.
type Header struct{ Name, Value string }

// Path is the guarded route.
const Path = "/me"

// All returns the candidates, those that do the least first.
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

// UnderLoad returns the candidates to be compared under load: all, and beside the cache what is written by hand for maps.
func UnderLoad() []Candidate { return append(All(), byHandInMemory()) }

// ByName returns a candidate.
func ByName(name string) (Candidate, error) {
	for _, c := range slices.Concat(All(), InMemory(), Logins()) {
		if c.Name == name {
			return c, nil
		}
	}
	return Candidate{}, errors.New("no candidate is called " + name)
}

// Build makes the candidate's application over a database, with a session for each user.
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

// engine is what every candidate's application stands on.
func engine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(gin.Recovery())
	_ = r.SetTrustedProxies(nil)
	return r
}

// answerID answers with what a session tells of the user.
func answerID(c *gin.Context, id string) { c.JSON(http.StatusOK, gin.H{"id": id}) }

// answerUser answers with some of the user's document.
func answerUser(c *gin.Context, id, email, name string) {
	c.JSON(http.StatusOK, struct {
		ID    string `json:"id"`
		Email string `json:"email"`
		Name  string `json:"name"`
	}{id, email, name})
}

// ForEach calls f for 0 to n-1, several at a time.
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
