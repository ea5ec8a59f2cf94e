package strategy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Database is the [Strategy] that keeps tokens in a [Store] and looks every one
// of them up there. Make one with [NewDatabase]. It is safe for concurrent use.
type Database[U User[ID], ID comparable] struct {
	tokens  Store[ID]
	users   UserSource[U, ID]
	format  TokenFormat
	cfg     Config
	touches touches

	cache *cache[U, ID]     // nil: none
	log   RevocationLog[ID] // nil: nobody is told of revocations
	// unfound bounds the revocations of what is not there.
	unfound unfound[ID]

	joined JoinedSource[U, ID] // nil: the user is read after the token

	closing    sync.Once
	closers    []func()
	background sync.WaitGroup
}

var (
	_ Strategy[User[int64]]       = (*Database[User[int64], int64])(nil)
	_ SessionManager[User[int64]] = (*Database[User[int64], int64])(nil)
	_ TokenReader                 = (*Database[User[int64], int64])(nil)
)

// NewDatabase returns a Database over a store of tokens and a source of users.
// It returns an error that names the field where the configuration is wrong, or
// where the store would remove tokens sooner than Lifetime (see [Retainer]). With a
// Cache, call Close when the application ends.
func NewDatabase[U User[ID], ID comparable](tokens Store[ID], users UserSource[U, ID], cfg Config) (*Database[U, ID], error) {
	if tokens == nil {
		return nil, errors.New("strategy: tokens is nil")
	}
	if users == nil {
		return nil, errors.New("strategy: users is nil")
	}
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	if r, ok := tokens.(Retainer); ok {
		if kept := r.Retention(); kept > 0 && (cfg.Lifetime == 0 || cfg.Lifetime > kept) {
			return nil, fmt.Errorf("strategy: Config.Lifetime is %v (0 means no expiry), but the store keeps tokens for %v only", cfg.Lifetime, kept)
		}
	}
	format, err := NewTokenFormat(cfg.TokenPrefix)
	if err != nil {
		return nil, fmt.Errorf("strategy: Config.TokenPrefix: %w", err)
	}
	d := &Database[U, ID]{tokens: tokens, users: users, format: format, cfg: cfg}
	d.joined, _ = users.(JoinedSource[U, ID])
	cached := cfg.Cache != Cache{}
	if cached {
		if d.cache, err = newCache[U, ID](cfg.Cache); err != nil {
			return nil, err
		}
	}
	if log, ok := tokens.(RevocationLog[ID]); ok && (cached || cfg.PublishRevocations) {
		d.log = log
	} else if cfg.PublishRevocations {
		return nil, fmt.Errorf("strategy: Config.PublishRevocations: %T is no RevocationLog", tokens)
	}
	d.listen()
	return d, nil
}

// Lifetime returns the lifetime of tokens that are issued without
// [WithLifetime]; 0 means that they do not expire.
func (d *Database[U, ID]) Lifetime() time.Duration { return d.cfg.Lifetime }

// now is in whole milliseconds, as stores keep times, so that ages are exact.
func (d *Database[U, ID]) now() time.Time { return wholeMS(d.cfg.Now()) }

func wholeMS(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// WriteToken implements [Strategy].
func (d *Database[U, ID]) WriteToken(ctx context.Context, user U, opts ...TokenOption) (Secret, Session[U], error) {
	var o tokenOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	if err := o.check(d.cfg.Lifetime); err != nil {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: %w", err)
	}
	var none ID
	if user.UserID() == none {
		return Secret{}, Session[U]{}, errors.New("strategy: the user has no ID")
	}
	if !user.IsActive() {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: %w", ErrUserInactive)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: make a session ID: %w", err)
	}
	now := d.now()
	secret, digest := d.format.New()
	row := AccessToken[ID]{
		ID: id, Digest: digest, UserID: user.UserID(), CreatedAt: now, SeenNotBefore: seenNotBefore(user),
		Scopes: slices.Clone(o.scopes), Name: o.name, UserAgent: o.userAgent, ClientAddr: o.clientAddr,
	}
	if d.cfg.MaxSessions > 0 && d.cfg.WhenFull == EvictOldest && row.Scopes == nil {
		if row.CreatedAt, err = d.newest(ctx, row); err != nil {
			return Secret{}, Session[U]{}, err
		}
	}
	if o.hasLifetime {
		row.ExpiresAt = row.CreatedAt.Add(o.lifetime).Truncate(time.Millisecond)
	}
	// For instances of older versions, which go by this and not by SeenNotBefore:
	// whatever its clock says, a new login is not older than its account accepts.
	at := o.authenticatedAt.UTC().Truncate(time.Millisecond)
	if at.IsZero() {
		at = now
	}
	if at = latest(at, notBefore(user)); !at.Equal(row.CreatedAt) {
		row.AuthenticatedAt = at
	}
	replaced, err := d.resolve(ctx, o.replaces)
	if err != nil {
		return Secret{}, Session[U]{}, err
	}
	err = d.tokens.Insert(ctx, row)
	if err != nil {
		err = d.failed(ctx, "insert the token", err)
	} else {
		err = d.settle(ctx, user, row, replaced)
	}
	if err != nil {
		// Nobody will have the secret, and the row, which can be there after a
		// failure too, must not count.
		if _, undo := d.tokens.Delete(context.WithoutCancel(ctx), row.Digest); undo != nil && !errors.Is(undo, ErrTokenNotFound) {
			_ = d.failed(ctx, "take the token back", undo)
		}
		return Secret{}, Session[U]{}, err
	}
	d.emit(ctx, Event{Kind: EventTokenIssued, UserID: row.UserID, SessionID: row.ID})
	return secret, Session[U]{SessionInfo: d.info(row), User: user}, nil
}

// resolve returns the rows of tokens that are about to be replaced. They are ended
// by their IDs: a rotation can give them other tokens meanwhile.
func (d *Database[U, ID]) resolve(ctx context.Context, tokens []string) (rows []AccessToken[ID], err error) {
	for _, token := range tokens {
		digest, err := d.format.Digest(token)
		if err != nil {
			continue
		}
		row, err := d.tokens.ByToken(ctx, digest, time.Time{})
		switch {
		case err == nil:
			rows = append(rows, row)
		case !errors.Is(err, ErrTokenNotFound):
			return nil, d.failed(ctx, "look up the token before", err)
		}
	}
	return rows, nil
}

// settle makes room for a new row: it keeps the user to MaxSessions, and ends the
// sessions that the new one replaces.
func (d *Database[U, ID]) settle(ctx context.Context, user U, row AccessToken[ID], replaced []AccessToken[ID]) error {
	if d.cfg.MaxSessions > 0 && row.Scopes == nil {
		if err := d.limit(ctx, user, row, replaced); err != nil {
			return err
		}
	}
	for _, old := range replaced {
		if err := d.destroy(context.WithoutCancel(ctx), old.UserID, old.ID, ReasonReplaced); err != nil && !errors.Is(err, ErrSessionNotFound) {
			return err
		}
	}
	return nil
}

// ReadToken implements [Strategy]. A malformed token causes no I/O.
func (d *Database[U, ID]) ReadToken(ctx context.Context, token string) (Session[U], error) {
	s, err := d.ReadSession(ctx, token)
	if err != nil {
		return Session[U]{}, err
	}
	return s.own(), nil
}

// ReadSession is ReadToken without a copy: with a [Cache], all requests with the
// token have the same session, and nothing of it may be changed.
func (d *Database[U, ID]) ReadSession(ctx context.Context, token string) (*Session[U], error) {
	return d.use(ctx, token, true)
}

// ReadTokenInfo implements [TokenReader].
func (d *Database[U, ID]) ReadTokenInfo(ctx context.Context, token string) (SessionInfo, error) {
	s, err := d.use(ctx, token, false)
	if err != nil {
		return SessionInfo{}, err
	}
	return s.SessionInfo.own(), nil
}

// use reads a token for a request, and writes down that it was used.
func (d *Database[U, ID]) use(ctx context.Context, token string, withUser bool) (*Session[U], error) {
	if d.cache != nil {
		return d.useCached(ctx, token, withUser)
	}
	key, err := d.format.key(token)
	if err != nil {
		return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	now, digest := d.now(), key.digest()
	row, user, err := d.read(ctx, digest, now, withUser)
	if err != nil {
		return nil, err
	}
	s := &Session[U]{SessionInfo: d.info(row), User: user}
	if d.touchDue(&s.SessionInfo, now) && d.touch(ctx, &s.SessionInfo, digest, now) {
		s.LastUsedAt = now
	}
	return s, nil
}

// useCached is use with the cache before the stores.
func (d *Database[U, ID]) useCached(ctx context.Context, token string, withUser bool) (*Session[U], error) {
	if !d.format.fits(token) {
		return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	key := keyOf(token)
	now := d.cfg.Now() // with its monotonic reading, which no change of the clock disturbs
	e := d.cached(key, now, withUser)
	if e == nil { // else the token is well-formed
		if !d.format.wellFormed(token) {
			return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
		}
		var err error
		if e, err = d.readThrough(ctx, key, now, withUser); err != nil {
			return nil, err
		}
	}
	s := e.session.Load()
	if d.cfg.TouchInterval > 0 {
		if at := wholeMS(now); d.touchDue(&s.SessionInfo, at) && d.touch(ctx, &s.SessionInfo, key.digest(), at) {
			e.touched(at)
			s = e.session.Load()
		}
	}
	return s, nil
}

// cached returns what is known of a token, if that says yes; it cannot say no:
// another process may have used the session since, and it would not be idle.
func (d *Database[U, ID]) cached(key tokenKey, now time.Time, withUser bool) *entry[U, ID] {
	e := d.cache.get(key, now, withUser)
	if e == nil || !d.lives(e, now) {
		return nil
	}
	return e
}

// lives reports whether an entry is good by its times, of which the last use is
// that which this process knows of.
func (d *Database[U, ID]) lives(e *entry[U, ID], now time.Time) bool {
	if now.UnixMilli() > e.until {
		return false
	}
	if d.cfg.IdleTimeout == 0 {
		return true
	}
	s := e.session.Load()
	return s.Scoped() || !s.usedAt().Before(wholeMS(now).Add(-d.cfg.IdleTimeout))
}

// readThrough reads a token from the stores and keeps it. Of many requests at once
// one reads, and none takes an answer from before what it must know of: neither a
// revocation, nor the end of a limit since.
func (d *Database[U, ID]) readThrough(ctx context.Context, key tokenKey, now time.Time, withUser bool) (*entry[U, ID], error) {
	for {
		of := flightKey{key, withUser, d.cache.marks.seq.Load()}
		f, own, err := d.cache.flights.do(ctx, of, func(f *flight[U, ID]) error {
			// The reading of another request can have ended just now.
			if f.entry = d.cached(key, now, withUser); f.entry != nil {
				return nil
			}
			return d.readEntry(ctx, f, key, withUser)
		})
		switch why, denied := errors.AsType[*denial](err); {
		case denied && !own:
			return nil, d.denied(ctx, why, f.row) // an event for each request
		case err != nil:
			return nil, err
		case own, now.Sub(f.entry.readAt) <= d.cfg.Cache.MaxStaleness && d.lives(f.entry, now):
			return f.entry, nil
		}
	}
}

// readEntry makes the entry of a token. It tells what it has found of the row beside
// an error too.
func (d *Database[U, ID]) readEntry(ctx context.Context, f *flight[U, ID], key tokenKey, withUser bool) error {
	e := &entry[U, ID]{hasUser: withUser, readAt: d.cfg.Now(), seq: d.cache.marks.seq.Load()}
	keep := d.cache.usable(e.readAt)
	digest := key.digest()
	row, u, err := d.read(ctx, digest, wholeMS(e.readAt), withUser)
	if err != nil {
		f.row = row
		return err
	}
	m := &d.cache.marks
	e.slots = [3]uint32{m.digest(digest), m.session(row.ID), user(m, row.UserID)}
	e.keep(Session[U]{SessionInfo: d.info(row), User: u})
	f.entry = e
	if keep {
		d.cache.put(key, e)
	}
	return nil
}

// read returns the row of a token that is good, and its user where that is asked
// for.
func (d *Database[U, ID]) read(ctx context.Context, digest string, now time.Time, withUser bool) (row AccessToken[ID], user U, err error) {
	return d.readFor(ctx, digest, now, Rotation{}, withUser)
}

// readFor is read for a rotation: of a row with the credentials that it brings.
func (d *Database[U, ID]) readFor(ctx context.Context, digest string, now time.Time, to Rotation, withUser bool) (row AccessToken[ID], user U, err error) {
	var createdAfter time.Time
	if d.cfg.Lifetime > 0 {
		createdAfter = now.Add(-d.cfg.Lifetime)
	}
	joined := withUser && d.joined != nil
	if joined {
		row, user, err = d.joined.ByToken(ctx, digest, createdAfter)
	} else {
		row, err = d.tokens.ByToken(ctx, digest, createdAfter)
	}
	gone := joined && errors.Is(err, ErrUserNotFound)
	switch {
	case gone: // what is to be said of the token comes first
	case errors.Is(err, ErrTokenNotFound):
		return row, user, d.denied(ctx, denyUnknown, row)
	case err != nil:
		return row, user, d.failed(ctx, "look up the token", err)
	}
	if !to.AuthenticatedAt.IsZero() {
		row.AuthenticatedAt = latest(row.authenticatedAt(), to.AuthenticatedAt)
	}
	row.SeenNotBefore = latest(row.SeenNotBefore, to.SeenNotBefore)
	if why := d.dead(&row, row.usedAt(), now); why != nil {
		return row, user, d.denied(ctx, why, row)
	}
	if !withUser {
		return row, user, nil
	}
	if !joined {
		user, err = d.users.ByID(ctx, row.UserID)
		gone = errors.Is(err, ErrUserNotFound)
	}
	switch {
	case gone:
		return row, user, d.denied(ctx, denyUserGone, row)
	case err != nil:
		return row, user, d.failed(ctx, "look up the user", err)
	case !user.IsActive():
		return row, user, d.denied(ctx, denyUserInactive, row)
	case supersededByUser(&row, notBefore(user)):
		return row, user, d.denied(ctx, denySuperseded, row)
	}
	return row, user, nil
}

// dead returns why a row that was last used then is no longer good by itself, or
// nil. It is the authority on that, whatever the store has or has not collected.
func (d *Database[U, ID]) dead(row *AccessToken[ID], used, now time.Time) *denial {
	switch {
	case d.cfg.Lifetime > 0 && row.CreatedAt.Before(now.Add(-d.cfg.Lifetime)),
		!row.ExpiresAt.IsZero() && row.ExpiresAt.Before(now):
		return denyExpired
	case d.cfg.IdleTimeout > 0 && row.Scopes == nil && used.Before(now.Add(-d.cfg.IdleTimeout)):
		return denyIdle
	case superseded(row, d.cfg.NotBefore):
		return denySuperseded
	}
	return nil
}

// superseded reports whether the credentials for a row were given before they had
// to be.
func superseded[ID comparable](row *AccessToken[ID], notBefore time.Time) bool {
	return row.authenticatedAt().Before(notBefore)
}

// supersededByUser reports whether a user accepts only later logins than a row's.
// It goes by what the login saw of the user, not by clocks, which differ: a login
// that was complete before a change cannot have seen it. Of a row that does not say
// what was seen only the time is known.
func supersededByUser[ID comparable](row *AccessToken[ID], notBefore time.Time) bool {
	if row.SeenNotBefore.IsZero() {
		return superseded(row, notBefore)
	}
	return notBefore.After(row.SeenNotBefore)
}

// DestroyToken implements [Strategy]. A malformed token causes no I/O.
func (d *Database[U, ID]) DestroyToken(ctx context.Context, token string) error {
	digest, err := d.format.Digest(token)
	if err != nil {
		return nil
	}
	row, err := d.tokens.Delete(ctx, digest)
	err = d.revoked(ctx, Revocation[ID]{Digest: digest}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return nil
	case err != nil:
		return d.failed(ctx, "delete the token", err)
	}
	d.emit(ctx, Event{Kind: EventTokenRevoked, UserID: row.UserID, SessionID: row.ID})
	return nil
}

// RotateToken implements [SessionManager].
func (d *Database[U, ID]) RotateToken(ctx context.Context, token string, opts ...RotateOption) (Secret, Session[U], error) {
	var o rotateOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	at := o.reauthenticatedAt.UTC().Truncate(time.Millisecond)
	now := d.now()
	old, err := d.format.Digest(token)
	if err != nil {
		return Secret{}, Session[U]{}, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	to := Rotation{AuthenticatedAt: at}
	if !at.IsZero() {
		to.SeenNotBefore = seenNotBefore(o.user)
	}
	row, user, err := d.readFor(ctx, old, now, to, true)
	if err != nil {
		return Secret{}, Session[U]{}, err
	}
	if u, ok := o.user.(User[ID]); !at.IsZero() && (!ok || u.UserID() != row.UserID) {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: %w: Reauthenticated names another user", ErrInvalidOption)
	}
	secret, digest := d.format.New()
	to.Digest = digest
	if !at.IsZero() {
		to.AuthenticatedAt = row.AuthenticatedAt // a store knows no default for it
	}
	if d.cfg.TouchInterval > 0 {
		to.LastUsedAt = now
	}
	row, err = d.tokens.Rotate(ctx, old, to)
	err = d.revoked(ctx, Revocation[ID]{Digest: old}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound): // rotated or revoked meanwhile
		return Secret{}, Session[U]{}, d.denied(ctx, denyUnknown, row)
	case err != nil:
		return Secret{}, Session[U]{}, d.failed(ctx, "rotate the token", err)
	}
	d.emit(ctx, Event{Kind: EventTokenRotated, UserID: row.UserID, SessionID: row.ID})
	return secret, Session[U]{SessionInfo: d.info(row), User: user}, nil
}

// info returns what is known of a row's session.
func (d *Database[U, ID]) info(row AccessToken[ID]) SessionInfo {
	s := SessionInfo{
		ID: row.ID, UserID: row.UserID, CreatedAt: row.CreatedAt, LastUsedAt: row.LastUsedAt, ExpiresAt: row.ExpiresAt,
		Scopes: row.Scopes, Name: row.Name, UserAgent: row.UserAgent, ClientAddr: row.ClientAddr,
	}
	if !s.Scoped() {
		s.AuthenticatedAt = row.authenticatedAt()
	}
	if d.cfg.Lifetime > 0 {
		if end := row.CreatedAt.Add(d.cfg.Lifetime); s.ExpiresAt.IsZero() || end.Before(s.ExpiresAt) {
			s.ExpiresAt = end
		}
	}
	return s
}

func (d *Database[U, ID]) denied(ctx context.Context, why *denial, row AccessToken[ID]) error {
	e := Event{Kind: EventTokenDenied, Reason: why.reason, SessionID: row.ID}
	if row.ID != uuid.Nil {
		e.UserID = row.UserID
	}
	d.emit(ctx, e)
	return why
}

func (d *Database[U, ID]) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("strategy: %s: %w", doing, err)
	d.emit(ctx, Event{Kind: EventStoreFailed, Err: err})
	return err
}

func (d *Database[U, ID]) emit(ctx context.Context, e Event) {
	if d.cfg.OnEvent == nil {
		return
	}
	e.Time, e.ClientAddr = d.now(), ClientAddr(ctx)
	d.cfg.OnEvent(ctx, e)
}
