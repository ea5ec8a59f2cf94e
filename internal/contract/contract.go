// Package contract checks the HTTP contract of ginauth row by row, through a
// real listener. A store package brings its stores and calls [Run], so that the
// contract holds on every database, and not only in memory.
package contract

import (
	"context"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Member is the user type of the application under test.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

// Backend is what a store package brings. It may hold other rows: every check
// makes its own users.
type Backend struct {
	// Tokens must keep tokens for an hour at least. The clock of the suite starts
	// at the present and runs ahead of it.
	Tokens strategy.Store[uuid.UUID]
	Users  account.Store[Member, uuid.UUID]
	// Attempts are the counters of the limiter of logins; nil means the default,
	// which are in memory.
	Attempts account.AttemptStore
	// SetFlags changes an account's flags as an application would in its own database.
	SetFlags func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error
	// DeleteUser removes an account.
	DeleteUser func(ctx context.Context, id uuid.UUID) error
}

// The lifetime of tokens, unless a check asks for another.
const lifetime = time.Hour

// everyWay are the rows that hold for both transports.
var everyWay = []rows{
	loginRows, rememberRows, limitRows, logoutRows, guardRows, freshRows, scopeRows,
	sessionRows, endSessionRows, logoutAllRows, reauthenticateRows, introspectRows, idleRows, revocationRows,
	attemptRows, hostileRows,
}

// Run checks every row of the contract, for both transports wherever it applies
// to both: a subtest each, named after the row, on a backend of its own that open
// returns. (Some databases of tests scan: what a row leaves would slow the next.)
func Run(t *testing.T, open func(testing.TB) Backend) {
	gin.SetMode(gin.TestMode)
	s := &suite{open: open, events: newEventLog()}
	t.Run("bearer", func(t *testing.T) {
		s.run(t, bearer, append(everyWay, bearerRows)...)
	})
	t.Run("cookie", func(t *testing.T) {
		s.run(t, cookie, append(everyWay, cookieRows)...)
	})
	t.Run("both", func(t *testing.T) {
		s.run(t, bearer, orderRows, replaceRows, originRows)
	})
	t.Run("no event holds a token, a digest or a password", s.events.holdNoSecret)
}

// RunHostile checks the rows of hostile requests alone, as Run does: for a test
// that looks at what they make a store send.
func RunHostile(t *testing.T, open func(testing.TB) Backend) {
	runPart(t, open, hostileRows, map[string]way{"bearer": bearer, "cookie": cookie})
}

// RunAttempts checks the rows of the limiter of logins alone: for counters that
// are not the default ones.
func RunAttempts(t *testing.T, open func(testing.TB) Backend) {
	runPart(t, open, attemptRows, map[string]way{"bearer": bearer})
}

func runPart(t *testing.T, open func(testing.TB) Backend, part rows, ways map[string]way) {
	gin.SetMode(gin.TestMode)
	s := &suite{open: open, events: newEventLog()}
	for name, w := range ways {
		t.Run(name, func(t *testing.T) { s.run(t, w, part) })
	}
}

// suite is what the checks of one Run share.
type suite struct {
	open   func(testing.TB) Backend
	events *eventLog
}

// rows are a part of the contract.
type rows struct {
	name string
	of   []row
}

// row is a line of the contract: its words, and the check of them.
type row struct {
	name  string
	check func(*testing.T, world)
}

// world is where a check takes place: on a backend, with a transport.
type world struct {
	*suite
	backend Backend
	way
}

func (s *suite) run(t *testing.T, w way, parts ...rows) {
	for _, part := range parts {
		t.Run(part.name, func(t *testing.T) {
			for _, r := range part.of {
				t.Run(r.name, func(t *testing.T) { r.check(t, world{s, s.open(t), w}) })
			}
		})
	}
}
