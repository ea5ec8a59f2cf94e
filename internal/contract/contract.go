// Package contract checks the HTTP contract of ginauth row by row, over a listener. A store
// package calls [Run] with its stores, so that the contract is checked on every database and
// not only in memory.
package contract

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// Member is the user type of the application under test.
type Member struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

// Backend holds the stores under test. They may contain other rows: every check creates its
// own users.
type Backend struct {
	// Tokens must retain tokens for an hour at least. The clock of the suite starts at the
	// present and runs ahead of it.
	Tokens strategy.Store[uuid.UUID]
	Users  account.Store[Member, uuid.UUID]
	// Attempts counts failed logins. Default nil: in memory.
	Attempts account.AttemptStore
	// OneTime keeps one-time tokens. Default nil: in memory.
	OneTime account.OneTimeTokenStore[uuid.UUID]
	// SetFlags changes an account's flags as an application would in its own database.
	SetFlags func(ctx context.Context, id uuid.UUID, active, verified, superuser bool) error
	// DeleteUser removes an account.
	DeleteUser func(ctx context.Context, id uuid.UUID) error
	// Watch wraps the transport of the client, for a test that looks at every answer of an
	// application. Default nil: it is not wrapped.
	Watch func(tb testing.TB, auth *ginauth.Auth[Member], next http.RoundTripper) http.RoundTripper
}

// lifetime is the lifetime of tokens where a check does not set another one.
const lifetime = time.Hour

// commonSections are the sections that hold for each transport.
var commonSections = []section{
	loginRows, loginAttemptRows, rememberRows, sessionLimitRows, logoutRows, logoutAllRows,
	guardRows, freshRows, scopeRows, uploadRows,
	sessionRows, endSessionRows, idleRows, reauthenticateRows, introspectRows, revocationRows,
	hostileRows,
	registerRows, verifyRows, resetRows, meRows, usersRows,
}

// Run checks every row of the contract in a subtest of its name, with each transport to which the
// row applies. Each subtest has its own backend, because rows that others left slow down test
// databases without indexes.
func Run(t *testing.T, open func(testing.TB) Backend) {
	gin.SetMode(gin.TestMode)
	s := &suite{open: open, events: newEventLog()}
	t.Run("bearer", func(t *testing.T) {
		s.run(t, bearer, append(commonSections, bearerRows)...)
	})
	t.Run("cookie", func(t *testing.T) {
		s.run(t, cookie, append(commonSections, cookieRows)...)
	})
	t.Run("both transports", func(t *testing.T) {
		s.run(t, bearer, orderRows, bothLoginsRows, replacedSessionRows, crossOriginRows)
	})
	t.Run("no event contains a token, a digest or a password", s.events.expectNoSecret)
}

// RunHostile checks only the rows of hostile requests, for a test that inspects what they make a
// store send.
func RunHostile(t *testing.T, open func(testing.TB) Backend) {
	runSection(t, open, hostileRows, map[string]protocol{"bearer": bearer, "cookie": cookie})
}

// RunAttempts checks only the rows of login attempts, for a Backend with Attempts.
func RunAttempts(t *testing.T, open func(testing.TB) Backend) {
	runSection(t, open, loginAttemptRows, map[string]protocol{"bearer": bearer})
}

func runSection(t *testing.T, open func(testing.TB) Backend, part section, protocols map[string]protocol) {
	gin.SetMode(gin.TestMode)
	s := &suite{open: open, events: newEventLog()}
	for name, p := range protocols {
		t.Run(name, func(t *testing.T) { s.run(t, p, part) })
	}
}

// suite is the state that the checks of one Run share.
type suite struct {
	open   func(testing.TB) Backend
	events *eventLog
}

// section is a section of the contract.
type section struct {
	name string
	rows []row
}

// row is one row of the contract and its check.
type row struct {
	name  string
	check func(*testing.T, environment)
}

// environment is the environment of a check: a backend and a transport's protocol.
type environment struct {
	*suite
	backend Backend
	protocol
}

func (s *suite) run(t *testing.T, p protocol, sections ...section) {
	for _, section := range sections {
		t.Run(section.name, func(t *testing.T) {
			for _, row := range section.rows {
				t.Run(row.name, func(t *testing.T) { row.check(t, environment{s, s.open(t), p}) })
			}
		})
	}
}
