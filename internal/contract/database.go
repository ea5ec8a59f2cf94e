package contract

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// call is a call of a store.
type call string

const (
	insertToken call = "insert the token"
	findToken   call = "look up the token"
	deleteToken call = "delete the token"
	findUser    call = "look up the user"
	findAccount call = "look up the account"
)

// database counts the calls of the stores and makes them fail when it is told.
type database struct {
	mu    sync.Mutex
	fault map[call]fault
	calls int
}

type fault struct {
	err  error
	late bool // the call is carried out before it fails
}

func newDatabase() *database { return &database{fault: make(map[call]fault)} }

// fail makes a call fail without effect.
func (db *database) fail(what call, err error) { db.set(what, fault{err: err}) }

// loseAnswer makes a call fail after it was carried out.
func (db *database) loseAnswer(what call, err error) { db.set(what, fault{err: err, late: true}) }

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

// callsDuring counts the calls while do runs.
func (db *database) callsDuring(do func()) int {
	before := db.count(0)
	do()
	return db.count(0) - before
}

func (db *database) count(more int) int {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.calls += more
	return db.calls
}

func (db *database) faultOf(what call) fault {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.fault[what]
}

// through makes a call, or has it fail.
func through[T any](db *database, what call, do func() (T, error)) (T, error) {
	db.count(1)
	f := db.faultOf(what)
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
type tokenStore struct {
	store strategy.Store[uuid.UUID]
	db    *database
}

type accessToken = strategy.AccessToken[uuid.UUID]

func (s tokenStore) Insert(ctx context.Context, token accessToken) error {
	_, err := through(s.db, insertToken, func() (any, error) { return nil, s.store.Insert(ctx, token) })
	return err
}

func (s tokenStore) ByToken(ctx context.Context, digest string, createdAfter time.Time) (accessToken, error) {
	return through(s.db, findToken, func() (accessToken, error) { return s.store.ByToken(ctx, digest, createdAfter) })
}

func (s tokenStore) Delete(ctx context.Context, digest string) (accessToken, error) {
	return through(s.db, deleteToken, func() (accessToken, error) { return s.store.Delete(ctx, digest) })
}

// userStore is the backend's store of accounts behind a database's faults.
type userStore struct {
	account.Store[Member, uuid.UUID]
	db *database
}

func (s userStore) ByID(ctx context.Context, id uuid.UUID) (Member, error) {
	return through(s.db, findUser, func() (Member, error) { return s.Store.ByID(ctx, id) })
}

func (s userStore) ByEmail(ctx context.Context, email string) (Member, error) {
	return through(s.db, findAccount, func() (Member, error) { return s.Store.ByEmail(ctx, email) })
}
