package contract

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// call is a call of a store.
type call string

const (
	insertToken  call = "insert the token"
	findToken    call = "look up the token"
	touchToken   call = "touch the token"
	rotateToken  call = "rotate the token"
	listTokens   call = "list the tokens"
	deleteToken  call = "delete the token" // by its digest or by its session's ID
	deleteTokens call = "delete the tokens of a user"
	findUser     call = "look up the user"
	findAccount  call = "look up the account"
)

// database keeps the calls of the stores and makes them fail when it is told.
type database struct {
	mu    sync.Mutex
	fault map[call]fault
	made  []made
}

// made is a call that was made, and the string that it asked by, if it was one.
type made struct {
	what call
	by   string
}

type fault struct {
	err    error
	late   bool   // the call is carried out before it fails
	after  int    // so many calls succeed before
	before func() // runs once before the call
	then   func() // runs once after the call, before its answer is there
}

func newDatabase() *database {
	return &database{fault: make(map[call]fault)}
}

// fail makes a call fail without effect.
func (db *database) fail(what call, err error) { db.set(what, fault{err: err}) }

// loseAnswer makes a call fail after it was carried out.
func (db *database) loseAnswer(what call, err error) { db.set(what, fault{err: err, late: true}) }

// failAfter makes a call fail after it has succeeded n times.
func (db *database) failAfter(n int, what call, err error) { db.set(what, fault{err: err, after: n}) }

// before lets something happen, once, before a call.
func (db *database) before(what call, do func()) { db.set(what, fault{before: do}) }

// then lets something happen, once, after a call, before its answer is there.
func (db *database) then(what call, do func()) { db.set(what, fault{then: do}) }

func (db *database) set(what call, f fault) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.fault[what] = f
}

// mend makes every call succeed again.
func (db *database) mend() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.fault)
}

// callsDuring counts the calls while do runs, of some kinds or of all.
func (db *database) callsDuring(do func(), kinds ...call) int {
	before := db.calls(kinds)
	do()
	return db.calls(kinds) - before
}

func (db *database) calls(kinds []call) (n int) {
	for _, m := range db.since(0) {
		if len(kinds) == 0 || slices.Contains(kinds, m.what) {
			n++
		}
	}
	return n
}

// since returns the calls but for the first n.
func (db *database) since(n int) []made {
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.Clone(db.made[n:])
}

// begin keeps a call and returns the fault that it has.
func (db *database) begin(what call, by string) fault {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.made = append(db.made, made{what, by})
	f := db.fault[what]
	switch {
	case f.before != nil, f.then != nil:
		delete(db.fault, what)
	case f.after > 0:
		db.fault[what] = fault{err: f.err, after: f.after - 1}
		return fault{}
	}
	return f
}

// through makes a call, or has it fail. by is the string that it asks by, or "".
func through[T any](db *database, what call, by string, do func() (T, error)) (T, error) {
	f := db.begin(what, by)
	if f.before != nil {
		f.before()
	}
	if f.then != nil {
		defer f.then()
	}
	if f.err == nil {
		return do()
	}
	if f.late {
		_, _ = do()
	}
	var none T
	return none, fmt.Errorf("store: %w", f.err)
}

// tokenStore is the backend's store of tokens behind a database's faults. It
// hides a strategy.Retainer: checks choose their own lifetimes.
func (s tokenStore) Retention() time.Duration { return s.store.Retention() }

type tokenStore struct {
	store strategy.Store[uuid.UUID]
	db    *database
}

type accessToken = strategy.AccessToken[uuid.UUID]

func (s tokenStore) Insert(ctx context.Context, token accessToken) error {
	_, err := through(s.db, insertToken, token.Digest, func() (any, error) { return nil, s.store.Insert(ctx, token) })
	return err
}

func (s tokenStore) ByToken(ctx context.Context, digest string) (accessToken, error) {
	return through(s.db, findToken, digest, func() (accessToken, error) { return s.store.ByToken(ctx, digest) })
}

func (s tokenStore) Delete(ctx context.Context, digest string) (accessToken, error) {
	return through(s.db, deleteToken, digest, func() (accessToken, error) { return s.store.Delete(ctx, digest) })
}

func (s tokenStore) Touch(ctx context.Context, digest string, at time.Time) error {
	_, err := through(s.db, touchToken, digest, func() (any, error) { return nil, s.store.Touch(ctx, digest, at) })
	return err
}

func (s tokenStore) Rotate(ctx context.Context, digest string, to strategy.Rotation) (accessToken, error) {
	return through(s.db, rotateToken, digest, func() (accessToken, error) { return s.store.Rotate(ctx, digest, to) })
}

func (s tokenStore) ByUser(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]accessToken, error) {
	return through(s.db, listTokens, "", func() ([]accessToken, error) { return s.store.ByUser(ctx, userID, after, limit) })
}

func (s tokenStore) DeleteSession(ctx context.Context, userID, id uuid.UUID) (accessToken, error) {
	return through(s.db, deleteToken, "", func() (accessToken, error) { return s.store.DeleteSession(ctx, userID, id) })
}

func (s tokenStore) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	return through(s.db, deleteTokens, "", func() (int64, error) { return s.store.DeleteByUser(ctx, userID, except...) })
}

// userStore is the backend's store of accounts behind a database's faults.
type userStore struct {
	account.Store[Member, uuid.UUID]
	db *database
}

func (s userStore) ByID(ctx context.Context, id uuid.UUID) (Member, error) {
	return through(s.db, findUser, "", func() (Member, error) { return s.Store.ByID(ctx, id) })
}

func (s userStore) ByEmail(ctx context.Context, email string) (Member, error) {
	return through(s.db, findAccount, email, func() (Member, error) { return s.Store.ByEmail(ctx, email) })
}
