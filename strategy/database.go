package strategy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/internal/token"
)

// Database issues, reads, rotates and revokes access tokens. It keeps them in a [Store] and
// looks every token up there, unless it has a [Cache]. Make one with [NewDatabase]. It is
// safe for concurrent use.
type Database[U User[ID], ID comparable] struct {
	tokens  Store[ID]
	users   UserSource[U, ID]
	joined  func(ctx context.Context, digest string) (AccessToken[ID], U, error) // nil without a Joiner
	format  token.Format
	cfg     Config
	touches touches
	watches watches[ID]

	cache   *cache[U, ID]     // nil without Config.Cache
	log     RevocationLog[ID] // nil if revocations are not published
	legacy  LegacyStore[ID]   // nil if no legacy tokens are accepted
	unknown unknownQuota[ID]

	running    context.Context         // of the background work
	stop       context.CancelCauseFunc // stops it
	background sync.WaitGroup
	finishing  sync.RWMutex // read-locked by what is done behind an answer
}

// NewDatabase returns a Database over a store of tokens and a source of users. It returns an
// error that names the field if the configuration is invalid, or if the store would remove
// tokens before Lifetime has passed. With a Cache, call [Database.Close] when the
// application ends.
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
	if kept := tokens.Retention(); kept > 0 && (cfg.Lifetime == 0 || cfg.Lifetime > kept) {
		return nil, fmt.Errorf("strategy: Config.Lifetime is %v (0 means no expiry), but the store keeps tokens for only %v: configure both with the same lifetime", cfg.Lifetime, kept)
	}
	format, err := token.NewFormat(cfg.TokenPrefix)
	if err != nil {
		return nil, fmt.Errorf("strategy: Config.TokenPrefix: %w", err)
	}
	d := &Database[U, ID]{tokens: tokens, users: users, format: format, cfg: cfg}
	if j, ok := users.(Joiner[U, ID]); ok {
		d.joined = j.Join(tokens)
	}
	cached := cfg.Cache != Cache{}
	if cached {
		if d.cache, err = newCache[U, ID](cfg.Cache); err != nil {
			return nil, err
		}
	}
	if log, ok := tokens.(RevocationLog[ID]); ok && (cached || cfg.PublishRevocations) {
		d.log = log
	} else if cfg.PublishRevocations {
		return nil, fmt.Errorf("strategy: Config.PublishRevocations: %T does not implement RevocationLog", tokens)
	}
	if d.legacy, _ = tokens.(LegacyStore[ID]); d.legacy != nil && cfg.SurvivePasswordChange {
		return nil, fmt.Errorf("strategy: Config.SurvivePasswordChange is set, but %T accepts legacy tokens, which are logins: use a store without them", tokens)
	}
	d.running, d.stop = context.WithCancelCause(context.Background())
	if cached && d.log != nil {
		d.cache.needsLog = true
		next := d.log.FollowRevocations()
		d.background.Go(func() { d.follow(d.running, next) })
	}
	return d, nil
}

// Lifetime returns the lifetime of tokens issued without [WithLifetime]; 0 means that they
// do not expire.
func (d *Database[U, ID]) Lifetime() time.Duration { return d.cfg.Lifetime }

// Prefix returns the characters with which every token begins: Config.TokenPrefix.
func (d *Database[U, ID]) Prefix() string { return d.format.Prefix() }

// WellFormed reports, without I/O, whether a string has the format of the tokens, or of those of
// a [LegacyStore].
func (d *Database[U, ID]) WellFormed(token string) bool {
	return d.format.WellFormed(token) || d.isLegacy(token)
}

// now returns the time in whole milliseconds, the precision of stores, so that ages are
// exact.
func (d *Database[U, ID]) now() time.Time { return wholeMS(d.cfg.Now()) }

func wholeMS(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// WriteToken issues a token for user, which must be the value that was read when the
// credentials were checked: the token gets its token version, so it is invalid from the
// start if the password was changed meanwhile. WriteToken returns an error wrapping
// [ErrUserInactive] for an inactive user and [ErrInvalidOption] for an option that it cannot
// honour. If it returns an error, it has issued no token; sessions that the new one was to
// replace, and the oldest one beyond [Config.MaxSessions], may have ended all the same.
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
		return Secret{}, Session[U]{}, errors.New("strategy: the user has no ID: register the account first, or read it from the store")
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
		ID: id, Digest: digest, UserID: user.UserID(), CreatedAt: now, TokenVersion: user.TokenVersion(),
		Scopes: slices.Clone(o.scopes), Name: o.name, UserAgent: o.userAgent, ClientIP: o.clientIP,
	}
	if d.counts(&row) {
		if row.CreatedAt, err = d.creationTime(ctx, row); err != nil {
			return Secret{}, Session[U]{}, err
		}
	}
	if o.hasLifetime {
		row.ExpiresAt = row.CreatedAt.Add(o.lifetime).Truncate(time.Millisecond)
	}
	at := wholeMS(o.authenticatedAt)
	if at.IsZero() {
		at = now
	}
	if !at.Equal(row.CreatedAt) {
		row.AuthenticatedAt = at
	}
	replaced, err := d.resolve(ctx, o.replaces)
	if err != nil {
		return Secret{}, Session[U]{}, err
	}
	if err := d.insert(ctx, user, row, replaced); err != nil {
		// The row can exist even after a failed insert. No client gets its secret, so it
		// must not count against MaxSessions.
		d.finish(ctx, "delete the token of a failed login", func(ctx context.Context) error {
			_, err := d.tokens.Delete(ctx, row.Digest)
			return err
		})
		return Secret{}, Session[U]{}, err
	}
	d.emit(ctx, event.Event{Kind: event.TokenIssued, UserID: row.UserID, SessionID: row.ID})
	return NewSecret(secret), Session[U]{SessionInfo: d.info(row), User: user}, nil
}

// resolve returns the rows of the tokens that a new one replaces. Their sessions are ended
// by ID, because a rotation can give them other tokens meanwhile.
func (d *Database[U, ID]) resolve(ctx context.Context, tokens []string) (rows []AccessToken[ID], err error) {
	for _, token := range tokens {
		p, ok := d.parse(token)
		if !ok {
			continue
		}
		row, err := d.byToken(ctx, p)
		switch {
		case err == nil:
			rows = append(rows, row)
		case !errors.Is(err, ErrTokenNotFound):
			return nil, d.failed(ctx, "look up the replaced token", err)
		}
	}
	return rows, nil
}

// insert inserts a row, then ends the sessions beyond MaxSessions and those that the new one
// replaces.
func (d *Database[U, ID]) insert(ctx context.Context, user U, row AccessToken[ID], replaced []AccessToken[ID]) error {
	if err := d.tokens.Insert(ctx, row); err != nil {
		return d.failed(ctx, "insert the token", err)
	}
	if d.counts(&row) {
		if err := d.evict(ctx, user, replaced); err != nil {
			return err
		}
	}
	ctx, cancel := deadline.Uncancelled(ctx)
	defer cancel()
	for _, old := range replaced {
		if err := d.end(ctx, old, event.ReasonReplaced); err != nil {
			return err
		}
	}
	return nil
}

// ReadToken returns the session of a token and records its use. It returns an error wrapping
// [ErrInvalidToken] if, and only if, the token is certainly not valid; any other error means
// that a store failed. A malformed token causes no I/O.
//
// With a [Cache], requests share the session: do not change it.
func (d *Database[U, ID]) ReadToken(ctx context.Context, token string) (*Session[U], error) {
	// A legacy token is not cached: another program can revoke it without a word.
	if d.cache != nil && !d.isLegacy(token) {
		return d.readCached(ctx, token)
	}
	p, ok := d.parse(token)
	if !ok {
		return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	now := d.now()
	row, user, err := d.read(ctx, p, now, nil)
	if err != nil {
		return nil, err
	}
	s := &Session[U]{SessionInfo: d.info(row), User: user}
	if d.touchDue(&s.SessionInfo, now) && d.touch(ctx, &s.SessionInfo, p.digest, now) {
		s.LastUsedAt = now
	}
	return s, nil
}

// readCached is ReadToken with a cache.
func (d *Database[U, ID]) readCached(ctx context.Context, token string) (*Session[U], error) {
	key, ok := d.format.Key(token)
	if !ok {
		return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	now := d.cfg.Now() // not d.now: the cache uses the monotonic clock too
	e := d.cached(key, now)
	if e == nil { // the checksum of a cached token was checked before
		if !d.format.WellFormed(token) {
			return nil, d.denied(ctx, denyMalformed, AccessToken[ID]{})
		}
		var err error
		if e, err = d.readThrough(ctx, key, now); err != nil {
			return nil, err
		}
	}
	s := e.session.Load()
	if d.cfg.TouchInterval > 0 {
		if at := wholeMS(now); d.touchDue(&s.SessionInfo, at) && d.touch(ctx, &s.SessionInfo, key.Digest(), at) {
			e.touched(at)
			s = e.session.Load()
		}
	}
	return s, nil
}

// cached returns the entry of a valid token, or nil. It does not reject a token by its entry:
// another process may have used the session since, so that it is not idle.
func (d *Database[U, ID]) cached(key token.Key, now time.Time) *entry[U, ID] {
	e := d.cache.get(key, now)
	if e == nil || !d.withinLifetime(e, now) {
		return nil
	}
	return e
}

// withinLifetime reports whether an entry is neither expired nor idle, by the last use that
// this process knows of.
func (d *Database[U, ID]) withinLifetime(e *entry[U, ID], now time.Time) bool {
	if now.UnixMilli() > e.expiresAt {
		return false
	}
	if d.cfg.IdleTimeout == 0 {
		return true
	}
	s := e.session.Load()
	return s.Scoped() || !s.usedAt().Before(wholeMS(now).Add(-d.cfg.IdleTimeout))
}

// readThrough reads a token from the stores and caches it. Concurrent requests share a read,
// unless something was revoked, or the session expired, after the read began.
func (d *Database[U, ID]) readThrough(ctx context.Context, key token.Key, now time.Time) (*entry[U, ID], error) {
	for {
		fk := flightKey{key, d.cache.stripes.seq.Load()}
		f, own, err := d.cache.flights.do(ctx, fk, func(f *flight[U, ID]) error {
			// Another request can have cached the session just now.
			if f.entry = d.cached(key, now); f.entry != nil {
				return nil
			}
			return d.readEntry(ctx, f, key)
		})
		switch why, denied := errors.AsType[*denial](err); {
		case denied && !own:
			return nil, d.denied(ctx, why, f.row) // each request is an event
		case err != nil:
			return nil, err
		case own, now.Sub(f.entry.readAt) <= d.cfg.Cache.MaxStaleness && d.withinLifetime(f.entry, now):
			return f.entry, nil
		}
	}
}

// readEntry reads the entry of a token into f. It sets the row, if it found one, even if it
// returns an error.
func (d *Database[U, ID]) readEntry(ctx context.Context, f *flight[U, ID], key token.Key) error {
	e := &entry[U, ID]{readAt: d.cfg.Now(), seq: d.cache.stripes.seq.Load()}
	keep := d.cache.usable(e.readAt)
	digest := key.Digest()
	row, u, err := d.read(ctx, presented{digest: digest}, wholeMS(e.readAt), nil)
	if err != nil {
		f.row = row
		return err
	}
	s := &d.cache.stripes
	e.stripes = [3]uint32{s.ofDigest(digest), s.ofSession(row.ID), stripeOfUser(s, row.UserID)}
	e.set(Session[U]{SessionInfo: d.info(row), User: u})
	f.entry = e
	if keep {
		d.cache.put(key, e)
	}
	return nil
}

// reauthentication holds the arguments of WithReauthentication.
type reauthentication[ID comparable] struct {
	user User[ID]
	at   time.Time
}

// read returns the row of a valid token and its user. It returns the row, if it found one,
// even if it returns an error. re is nil, or a reauthentication whose time and token version
// raise those of the row.
func (d *Database[U, ID]) read(ctx context.Context, p presented, now time.Time, re *reauthentication[ID]) (row AccessToken[ID], user U, err error) {
	var userErr error
	joined := d.joined != nil && p.legacy == ""
	if joined {
		row, user, err = d.joined(ctx, p.digest)
		if errors.Is(err, ErrUserNotFound) {
			userErr, err = err, nil
		}
	} else {
		row, err = d.byToken(ctx, p)
	}
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return row, user, d.denied(ctx, denyUnknown, row)
	case err != nil:
		return row, user, d.failed(ctx, "look up the token", err)
	}
	if re != nil {
		if re.user.UserID() != row.UserID {
			return row, user, fmt.Errorf("strategy: %w: WithReauthentication names another user", ErrInvalidOption)
		}
		row.AuthenticatedAt = re.at
		row.TokenVersion = max(row.TokenVersion, re.user.TokenVersion())
	}
	if why := d.invalid(&row, now); why != nil {
		return row, user, d.denied(ctx, why, row)
	}
	if !joined {
		user, userErr = d.users.ByID(ctx, row.UserID)
	}
	switch why := d.refusal(&row, user, userErr); {
	case why != nil:
		return row, user, d.denied(ctx, why, row)
	case userErr != nil:
		return row, user, d.failed(ctx, "look up the user", userErr)
	}
	return row, user, nil
}

// refusal returns why a row is refused because of its user, or nil. err is the result of the
// user's look-up.
func (d *Database[U, ID]) refusal(row *AccessToken[ID], user U, err error) *denial {
	switch {
	case errors.Is(err, ErrUserNotFound):
		return denyUserGone
	case err != nil:
		return nil
	case !user.IsActive():
		return denyUserInactive
	case !d.current(row, user):
		return denySuperseded
	}
	return nil
}

// invalid returns why a row is expired, idle or older than Config.NotBefore, or nil. It does
// not look at the user. It is the authority on expiry, whether or not the store has removed
// the row.
func (d *Database[U, ID]) invalid(row *AccessToken[ID], now time.Time) *denial {
	switch {
	case d.cfg.Lifetime > 0 && row.CreatedAt.Before(now.Add(-d.cfg.Lifetime)),
		!row.ExpiresAt.IsZero() && row.ExpiresAt.Before(now):
		return denyExpired
	case d.cfg.IdleTimeout > 0 && row.Scopes == nil && !row.useUnknown() && row.usedAt().Before(now.Add(-d.cfg.IdleTimeout)):
		return denyIdle
	case row.authenticatedAt().Before(d.cfg.NotBefore):
		return denySuperseded
	}
	return nil
}

// DestroyToken revokes a token: once it has returned nil, the token is never accepted again.
// It is idempotent: an unknown token is a success, and a malformed one is a success without
// I/O. After an error the token may still be valid.
func (d *Database[U, ID]) DestroyToken(ctx context.Context, token string) error {
	p, ok := d.parse(token)
	if !ok {
		return nil
	}
	row, err := d.delete(ctx, p)
	err = d.announce(ctx, Revocation[ID]{Digest: p.digest}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return nil
	case err != nil:
		return d.failed(ctx, "delete the token", err)
	}
	e := event.Event{Kind: event.TokenRevoked, SessionID: row.ID}
	var none ID
	if row.UserID != none { // the store may have removed a row that it could not read
		e.UserID = row.UserID
	}
	d.emit(ctx, e)
	return nil
}

// RotateToken gives a valid session a new secret and invalidates the old one at once. The
// session keeps its ID and its expiry. RotateToken returns an error wrapping
// [ErrInvalidToken] if the token is not valid, or if a concurrent rotation came first, and
// [ErrInvalidOption] for an option that it cannot honour.
//
// If the store's answer is lost, RotateToken finds out whether the session was rotated. If it
// cannot, because the store keeps failing, it returns an error: either token may be the valid
// one then, and a client that has only the old one may have to log in again.
func (d *Database[U, ID]) RotateToken(ctx context.Context, token string, opts ...RotateOption) (Secret, Session[U], error) {
	var o rotateOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	now := d.now()
	old, ok := d.parse(token)
	if !ok {
		return Secret{}, Session[U]{}, d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	var re *reauthentication[ID]
	if o.reauthenticated {
		user, ok := o.user.(User[ID])
		if !ok {
			return Secret{}, Session[U]{}, fmt.Errorf("strategy: %w: WithReauthentication: %T is not the user type", ErrInvalidOption, o.user)
		}
		re = &reauthentication[ID]{user, wholeMS(o.at)}
	}
	row, user, err := d.read(ctx, old, now, re)
	if err != nil {
		return Secret{}, Session[U]{}, err
	}
	secret, digest := d.format.New()
	to := Rotation{Digest: digest}
	if re != nil {
		to.AuthenticatedAt, to.TokenVersion = row.AuthenticatedAt, row.TokenVersion
	}
	if row.Legacy { // from now on the token version counts
		to.TokenVersion = user.TokenVersion()
	}
	if d.cfg.TouchInterval > 0 {
		to.LastUsedAt = now
	}
	row, err = d.rotate(ctx, old, to)
	err = d.announce(ctx, Revocation[ID]{Digest: old.digest}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound): // rotated or revoked by a concurrent request
		return Secret{}, Session[U]{}, d.denied(ctx, denyUnknown, row)
	case err != nil:
		return Secret{}, Session[U]{}, d.failed(ctx, "rotate the token", err)
	}
	d.emit(ctx, event.Event{Kind: event.TokenRotated, UserID: row.UserID, SessionID: row.ID})
	return NewSecret(secret), Session[U]{SessionInfo: d.info(row), User: user}, nil
}

// lastTime is the last time that RFC 3339, and therefore JSON, can represent.
var lastTime = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)

// info returns the SessionInfo of a row.
func (d *Database[U, ID]) info(row AccessToken[ID]) SessionInfo {
	s := SessionInfo{
		ID: row.ID, UserID: row.UserID, CreatedAt: row.CreatedAt, LastUsedAt: row.LastUsedAt, ExpiresAt: row.ExpiresAt,
		Scopes: row.Scopes, Name: row.Name, UserAgent: row.UserAgent, ClientIP: row.ClientIP,
	}
	if !s.Scoped() {
		s.AuthenticatedAt = row.authenticatedAt()
	}
	if d.cfg.Lifetime > 0 {
		if end := row.CreatedAt.Add(d.cfg.Lifetime); s.ExpiresAt.IsZero() || end.Before(s.ExpiresAt) {
			s.ExpiresAt = end
		}
	}
	if s.ExpiresAt.After(lastTime) {
		s.ExpiresAt = lastTime
	}
	return s
}

func (d *Database[U, ID]) denied(ctx context.Context, why *denial, row AccessToken[ID]) error {
	e := event.Event{Kind: event.TokenDenied, Reason: why.reason, SessionID: row.ID}
	if row.ID != uuid.Nil {
		e.UserID = row.UserID
	}
	d.emit(ctx, e)
	return why
}

// failed reports a failure of a store and returns it wrapped. A client that has gone is no
// failure.
func (d *Database[U, ID]) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("strategy: %s: %w", doing, err)
	if !gone(ctx) {
		d.emit(ctx, event.Event{Kind: event.StoreFailed, Err: err})
	}
	return reported.Mark(err)
}

// gone reports whether a context was cancelled, as that of a request is when the client goes
// away. A context whose deadline has passed was not.
func gone(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

func (d *Database[U, ID]) emit(ctx context.Context, e event.Event) {
	if d.cfg.OnEvent == nil {
		return
	}
	e.Time, e.ClientIP = d.now(), event.ClientIP(ctx)
	d.cfg.OnEvent(ctx, e)
}
