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

// call is the kind of a call to a store.
type call string

const (
	insertToken  call = "insert the token"
	findToken    call = "look up the token"
	touchToken   call = "touch the token"
	rotateToken  call = "rotate the token"
	listTokens   call = "list the tokens"
	deleteToken  call = "delete the token" // by its digest or by the ID of its session
	deleteTokens call = "delete the tokens of a user"
	findUser     call = "look up the user"
	findAccount  call = "look up the account"

	insertAccount call = "insert the account"
	applyChange   call = "change the account"
	editAccount   call = "edit the account"
	deleteAccount call = "delete the account"
)

// database records the calls to the stores and injects faults into them.
type database struct {
	mu     sync.Mutex
	faults map[call]fault
	calls  []storeCall
}

// storeCall is a call to a store. key is the digest or the address that it looks up, or "".
type storeCall struct {
	what call
	key  string
}

type fault struct {
	err    error
	late   bool   // the call takes effect before it fails
	after  int    // the number of calls that succeed first
	before func() // runs once before the call
	then   func() // runs once after the call, before it returns
}

func newDatabase() *database {
	return &database{faults: make(map[call]fault)}
}

// fail makes a call fail without effect.
func (db *database) fail(what call, err error) { db.set(what, fault{err: err}) }

// loseAnswer makes a call fail after it took effect.
func (db *database) loseAnswer(what call, err error) { db.set(what, fault{err: err, late: true}) }

// failAfter makes a call fail after n successful calls.
func (db *database) failAfter(n int, what call, err error) { db.set(what, fault{err: err, after: n}) }

// before runs do once, before a call.
func (db *database) before(what call, do func()) { db.set(what, fault{before: do}) }

// then runs do once, after a call and before it returns.
func (db *database) then(what call, do func()) { db.set(what, fault{then: do}) }

func (db *database) set(what call, f fault) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.faults[what] = f
}

// repair makes every call succeed again.
func (db *database) repair() {
	db.mu.Lock()
	defer db.mu.Unlock()
	clear(db.faults)
}

// callsDuring counts the calls of these kinds while do runs. Without kinds it counts all calls.
func (db *database) callsDuring(do func(), kinds ...call) (n int) {
	before := len(db.since(0))
	do()
	for _, c := range db.since(before) {
		if len(kinds) == 0 || slices.Contains(kinds, c.what) {
			n++
		}
	}
	return n
}

// since returns the calls after the first n.
func (db *database) since(n int) []storeCall {
	db.mu.Lock()
	defer db.mu.Unlock()
	return slices.Clone(db.calls[n:])
}

// start records a call and returns its fault.
func (db *database) start(what call, key string) fault {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.calls = append(db.calls, storeCall{what, key})
	f := db.faults[what]
	switch {
	case f.before != nil, f.then != nil:
		delete(db.faults, what)
	case f.after > 0:
		db.faults[what] = fault{err: f.err, after: f.after - 1}
		return fault{}
	}
	return f
}

// callStore makes a call to a store, with its fault.
func callStore[T any](db *database, what call, key string, do func() (T, error)) (T, error) {
	f := db.start(what, key)
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

type accessToken = strategy.AccessToken[uuid.UUID]

// tokenStore is the backend's store of tokens with the faults of a database.
type tokenStore struct {
	store strategy.Store[uuid.UUID]
	db    *database
}

// Retention returns 0, so that checks can choose lifetimes beyond the backend's retention.
func (tokenStore) Retention() time.Duration { return 0 }

func (s tokenStore) Insert(ctx context.Context, token accessToken) error {
	_, err := callStore(s.db, insertToken, token.Digest, func() (any, error) { return nil, s.store.Insert(ctx, token) })
	return err
}

func (s tokenStore) ByToken(ctx context.Context, digest string) (accessToken, error) {
	return callStore(s.db, findToken, digest, func() (accessToken, error) { return s.store.ByToken(ctx, digest) })
}

func (s tokenStore) Delete(ctx context.Context, digest string) (accessToken, error) {
	return callStore(s.db, deleteToken, digest, func() (accessToken, error) { return s.store.Delete(ctx, digest) })
}

func (s tokenStore) Touch(ctx context.Context, digest string, at time.Time) error {
	_, err := callStore(s.db, touchToken, digest, func() (any, error) { return nil, s.store.Touch(ctx, digest, at) })
	return err
}

func (s tokenStore) Rotate(ctx context.Context, digest string, to strategy.Rotation) (accessToken, error) {
	return callStore(s.db, rotateToken, digest, func() (accessToken, error) { return s.store.Rotate(ctx, digest, to) })
}

func (s tokenStore) ByUser(ctx context.Context, userID uuid.UUID, after strategy.Position, limit int) ([]accessToken, error) {
	return callStore(s.db, listTokens, "", func() ([]accessToken, error) { return s.store.ByUser(ctx, userID, after, limit) })
}

func (s tokenStore) DeleteSession(ctx context.Context, userID, id uuid.UUID) (accessToken, error) {
	return callStore(s.db, deleteToken, "", func() (accessToken, error) { return s.store.DeleteSession(ctx, userID, id) })
}

func (s tokenStore) Rename(ctx context.Context, userID, id uuid.UUID, name string) error {
	_, err := callStore(s.db, touchToken, "", func() (struct{}, error) { return struct{}{}, s.store.Rename(ctx, userID, id, name) })
	return err
}

func (s tokenStore) DeleteByUser(ctx context.Context, userID uuid.UUID, except ...uuid.UUID) (int64, error) {
	return callStore(s.db, deleteTokens, "", func() (int64, error) { return s.store.DeleteByUser(ctx, userID, except...) })
}

// userStore is the backend's store of accounts with the faults of a database.
type userStore struct {
	account.Store[Member, uuid.UUID]
	db *database
}

func (s userStore) Insert(ctx context.Context, user Member) error {
	_, err := callStore(s.db, insertAccount, "", func() (any, error) { return nil, s.Store.Insert(ctx, user) })
	return err
}

func (s userStore) Apply(ctx context.Context, id uuid.UUID, change account.Change) error {
	_, err := callStore(s.db, applyChange, "", func() (any, error) { return nil, s.Store.Apply(ctx, id, change) })
	return err
}

func (s userStore) Edit(ctx context.Context, id uuid.UUID, edit func(*Member) error) (Member, error) {
	return callStore(s.db, editAccount, "", func() (Member, error) { return s.Store.Edit(ctx, id, edit) })
}

func (s userStore) Delete(ctx context.Context, id uuid.UUID) error {
	_, err := callStore(s.db, deleteAccount, "", func() (any, error) { return nil, s.Store.Delete(ctx, id) })
	return err
}

func (s userStore) ByID(ctx context.Context, id uuid.UUID) (Member, error) {
	return callStore(s.db, findUser, "", func() (Member, error) { return s.Store.ByID(ctx, id) })
}

func (s userStore) ByEmail(ctx context.Context, email string) (Member, error) {
	return callStore(s.db, findAccount, email, func() (Member, error) { return s.Store.ByEmail(ctx, email) })
}
