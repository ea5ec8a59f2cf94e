package sqlstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// LegacyConfig configures [LegacyTokens].
type LegacyConfig struct {
	// Table is the table in which fastapi-users keeps its tokens: "accesstoken" with its
	// SQLAlchemy adapter, unless the application has chosen another name. It must not be one
	// of Tables. Required.
	Table string

	// Lifetime is the lifetime_seconds of fastapi-users' DatabaseStrategy. A legacy token is
	// accepted for this time and for that of TokensConfig.Lifetime, whichever is shorter. 0
	// means that only the latter counts.
	Lifetime time.Duration

	// Convert copies each legacy token into Latchkey's table when it is first used. Set it
	// once fastapi-users has been switched off. Default false: its table is read, and tokens
	// that end are deleted from it; nothing else is changed.
	Convert bool
}

// LegacyTokens is a store of tokens that also accepts those of fastapi-users' database strategy
// on SQLAlchemy, so that an application can move to Latchkey without logging anybody out. Make
// it with [NewLegacyTokens]. It is safe for concurrent use.
//
// A legacy token is valid only while its row is in the table of fastapi-users, in every stage:
// a copy of it counts only together with that row. So one DELETE there revokes it, by whichever
// side, and nothing else can bring it back.
//
// It never writes a digest into the table of fastapi-users, which would accept the digest as a
// token. Listings, limits and revocations count the tokens of both tables.
//
// The columns must be token, created_at and user_id. A user's ID that is a UUID must be stored
// natively, or as text of 36 characters in lower case. A time must be one with time zone on
// PostgreSQL; in another database it is taken for UTC unless it has an offset, as SQLAlchemy
// does. A row with other values is no token.
//
// A legacy token gets its session ID from its creation time and its hash. It cannot be renamed
// before it is converted.
type LegacyTokens[ID UserID] struct {
	*Tokens[ID]
	name, old string // fastapi-users' table: its name, and quoted
	lifetime  time.Duration
	convert   bool
	lookups   chan struct{} // a semaphore
}

var (
	_ strategy.LegacyStore[int64]   = (*LegacyTokens[int64])(nil)
	_ strategy.RevocationLog[int64] = (*LegacyTokens[int64])(nil)
)

// maxLegacyLookups is the maximum number of concurrent look-ups and deletes of legacy tokens.
// Anybody can make up tokens of their form, which has no checksum. Such requests wait for each
// other.
const maxLegacyLookups = 32

// NewLegacyTokens returns a store of the tokens in tokens and in the table of fastapi-users. It
// does no I/O. It returns an error if a field of cfg is invalid.
func NewLegacyTokens[ID UserID](tokens *Tokens[ID], cfg LegacyConfig) (*LegacyTokens[ID], error) {
	if tokens == nil {
		return nil, errors.New("sqlstore: tokens is nil")
	}
	if cfg.Table == "" {
		return nil, errors.New(`sqlstore: LegacyConfig.Table is "": set it to the name of the table of fastapi-users' tokens, such as "accesstoken"`)
	}
	if err := checkName("LegacyConfig.Table", cfg.Table); err != nil {
		return nil, err
	}
	for _, own := range tokens.tables.names() {
		if strings.EqualFold(cfg.Table, own) {
			return nil, fmt.Errorf("sqlstore: LegacyConfig.Table is %q, and so is a table of Latchkey: give the latter another name, since fastapi-users would accept the digests that Latchkey writes", cfg.Table)
		}
	}
	if cfg.Lifetime < 0 {
		return nil, fmt.Errorf("sqlstore: LegacyConfig.Lifetime is %v: it must not be negative; 0 means that only TokensConfig.Lifetime counts", cfg.Lifetime)
	}
	return &LegacyTokens[ID]{tokens, cfg.Table, tokens.dialect.quote(cfg.Table), cfg.Lifetime, cfg.Convert, make(chan struct{}, maxLegacyLookups)}, nil
}

// names returns the names of all tables.
func (t Tables) names() []string {
	return []string{t.AccessTokens, t.APITokens, t.Revocations, t.Leases, t.Users, t.LoginAttempts, t.OneTimeTokens, t.OAuthAccounts}
}

// legacySecret is the length of the tokens of fastapi-users: 32 bytes in base64url.
const legacySecret = 43

// Legacy implements strategy.LegacyStore: 43 characters of base64url are a token of
// fastapi-users.
func (l *LegacyTokens[ID]) Legacy(token string) bool {
	if len(token) != legacySecret {
		return false
	}
	for i := range len(token) {
		c := token[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// legacyRow is a row of fastapi-users.
type legacyRow[ID UserID] struct {
	strategy.AccessToken[ID]
	secret string
}

// ByLegacyToken implements strategy.LegacyStore. At most 32 look-ups run at a time; others wait
// for them.
func (l *LegacyTokens[ID]) ByLegacyToken(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, l.timeout)
	defer cancel()
	if err := l.wait(ctx); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	defer l.done()
	if !l.convert {
		row, err := l.find(ctx, secret)
		return row.AccessToken, err
	}
	copied, err := l.findCopy(ctx, secret)
	if !errors.Is(err, strategy.ErrTokenNotFound) {
		return copied, err
	}
	row, err := l.find(ctx, secret)
	if err != nil || l.expired(&row.AccessToken) {
		return row.AccessToken, err
	}
	inserted, err := l.insertCopy(ctx, row)
	switch {
	case l.dialect.isDuplicate(err): // a concurrent request was faster
		return l.findCopy(ctx, secret)
	case l.dialect.isForeignKey(err): // its user is gone
		return row.AccessToken, nil
	case err != nil:
		// The database can be read but not written. The token is valid all the same.
		l.failed(ctx, row, wrap("convert a legacy token", err))
		return row.AccessToken, nil
	case !inserted: // revoked or rotated meanwhile
		return strategy.AccessToken[ID]{}, fmt.Errorf("sqlstore: %w", strategy.ErrTokenNotFound)
	}
	return row.AccessToken, nil
}

// failed reports a failure that the caller does not see.
func (l *LegacyTokens[ID]) failed(ctx context.Context, row legacyRow[ID], err error) {
	if l.onEvent != nil {
		l.onEvent(ctx, event.Event{
			Kind: event.StoreFailed, Time: l.now().UTC(), ClientIP: event.ClientIP(ctx), UserID: row.UserID, SessionID: row.ID, Err: err,
		})
	}
}

// wait waits until another call for a legacy token that anybody can make may run. It must be
// followed by done unless it returns an error.
func (l *LegacyTokens[ID]) wait(ctx context.Context) error {
	select {
	case l.lookups <- struct{}{}:
		return nil
	case <-ctx.Done():
		return wrap("wait for a look-up of legacy tokens", ctx.Err())
	}
}

func (l *LegacyTokens[ID]) done() { <-l.lookups }

// oldColumns are the columns of a row of fastapi-users, in the order of parseOld. The time is
// read in a form that does not depend on the driver's settings.
func (l *LegacyTokens[ID]) oldColumns() string {
	at := map[Dialect]string{
		PostgreSQL: "CAST(EXTRACT(EPOCH FROM created_at) * 1000000 AS DOUBLE PRECISION)",
		MySQL:      "CAST(created_at AS CHAR)",
		SQLite:     "CAST(created_at AS TEXT)",
	}[l.dialect]
	return "token, " + at + ", user_id"
}

// bySecret returns the condition on the row of a legacy token, and its arguments. MySQL compares
// text without regard to case unless the column says otherwise.
func (l *LegacyTokens[ID]) bySecret(secret string) (string, []any) {
	if l.dialect == MySQL {
		return "token = ? AND CAST(token AS BINARY) = CAST(? AS BINARY)", []any{secret, secret}
	}
	return byToken, []any{secret}
}

// find returns the row of a token in the table of fastapi-users.
func (l *LegacyTokens[ID]) find(ctx context.Context, secret string) (legacyRow[ID], error) {
	condition, args := l.bySecret(secret)
	rows, err := l.query(ctx, l.db, "SELECT "+l.oldColumns()+" FROM "+l.old+" WHERE "+condition, args...)
	switch {
	case err != nil:
		return legacyRow[ID]{}, wrap("find the legacy token", err)
	case len(rows) == 0:
		return legacyRow[ID]{}, fmt.Errorf("sqlstore: %w", strategy.ErrTokenNotFound)
	}
	row, err := l.parseOld(rows[0])
	if err != nil {
		l.unreadable(ctx, row, err)
		return row, fmt.Errorf("sqlstore: %w: %w", strategy.ErrTokenNotFound, err)
	}
	return row, nil
}

// findCopy returns the copy of a token, if the row of fastapi-users is there too.
func (l *LegacyTokens[ID]) findCopy(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	condition, args := l.bySecret(secret)
	rows, err := l.query(ctx, l.db, l.selectWhere(byCopy+" AND EXISTS (SELECT 1 FROM "+l.old+" WHERE "+condition+")"),
		append([]any{token.DigestOf(secret), true}, args...)...)
	if err != nil {
		return strategy.AccessToken[ID]{}, wrap("find the copy of a legacy token", err)
	}
	copied, err := l.valid(ctx, rows)
	l.limit(&copied)
	return copied, err
}

// byCopy is the condition on the copy of a legacy token.
const byCopy = "token = ? AND legacy = ?"

// unreadable reports a row of fastapi-users that is no token. The row is known by its session
// ID, since its key is the token.
func (l *LegacyTokens[ID]) unreadable(ctx context.Context, row legacyRow[ID], err error) {
	invalid(ctx, &l.store, l.name, row.ID, row.UserID, err)
}

// parseOld reads a row of fastapi-users. It returns an error that names the first column that
// has another value. It also returns the fields that it could read.
func (l *LegacyTokens[ID]) parseOld(values []any) (legacyRow[ID], error) {
	r := &row{columns: "token, created_at, user_id", values: values}
	var x legacyRow[ID]
	x.Legacy = true
	x.secret = r.string()
	if r.err == nil && !l.Legacy(x.secret) {
		r.err = fmt.Errorf("the column %q is not 43 characters of base64url", "token")
	}
	x.Digest = token.DigestOf(x.secret)
	x.CreatedAt = r.legacyTime()
	x.UserID = userID[ID](r)
	x.ID = legacySession(x.CreatedAt, x.Digest)
	l.limit(&x.AccessToken)
	return x, r.err
}

// legacyTime reads a time of fastapi-users: microseconds since 1970, or text. It truncates to
// milliseconds, so that a token never lives longer than on the other side.
func (r *row) legacyTime() time.Time {
	v := r.next()
	var t time.Time
	switch v := v.(type) {
	case float64:
		if v > 0 && v < math.MaxInt64 {
			t = time.UnixMicro(int64(math.Round(v)))
		}
	case string:
		for _, layout := range []string{
			"2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", // fractions are accepted too
			"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00",
		} {
			if parsed, err := time.Parse(layout, v); err == nil {
				t = parsed
				break
			}
		}
	}
	ms := t.UnixMilli()
	if ms <= 0 || ms >= 1<<48 { // more than a session ID holds
		r.failed(v, "a time")
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// limit applies fastapi-users' lifetime. A copy can have been made without it.
func (l *LegacyTokens[ID]) limit(row *strategy.AccessToken[ID]) {
	if !row.Legacy || l.lifetime == 0 || row.CreatedAt.IsZero() {
		return
	}
	if end := row.CreatedAt.Add(l.lifetime).Truncate(time.Millisecond); row.ExpiresAt.IsZero() || row.ExpiresAt.After(end) {
		row.ExpiresAt = end
	}
}

// expired reports whether a legacy token is too old to be converted or listed.
func (l *LegacyTokens[ID]) expired(row *strategy.AccessToken[ID]) bool {
	now := l.now()
	return !row.ExpiresAt.IsZero() && row.ExpiresAt.Before(now) ||
		l.Retention() > 0 && row.CreatedAt.Before(now.Add(-l.Retention()))
}

// RotateLegacyToken implements strategy.LegacyStore. In one transaction it deletes the row of
// fastapi-users and the copy, and inserts the session with its new token.
func (l *LegacyTokens[ID]) RotateLegacyToken(ctx context.Context, secret string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
	var session strategy.AccessToken[ID]
	err := l.transact(ctx, func(ctx context.Context, tx querier) error {
		row, err := l.takeOld(ctx, tx, secret)
		if err != nil {
			return err
		}
		session = row.AccessToken
		copies, err := l.takeIn(ctx, tx, l.table, tokenColumns, byCopy, row.Digest, true)
		if err != nil {
			return err
		}
		if len(copies) > 0 {
			if copied, err := parseToken[ID](copies[0]); err == nil {
				session = copied
				l.limit(&session)
			}
		}
		session.Legacy, session.Digest = false, to.Digest
		session.TokenVersion = max(session.TokenVersion, to.TokenVersion)
		if !to.AuthenticatedAt.IsZero() {
			session.AuthenticatedAt = to.AuthenticatedAt
		}
		if to.LastUsedAt.After(session.LastUsedAt) {
			session.LastUsedAt = to.LastUsedAt
		}
		values := tokenValues(session)
		_, err = l.exec(ctx, tx, l.insertInto()+"VALUES ("+placeholders(len(values))+")", values...)
		if l.dialect.isDuplicate(err) {
			err = strategy.ErrDuplicateToken // MySQL's error shows the digest
		}
		return err
	})
	if err != nil {
		return strategy.AccessToken[ID]{}, wrap("rotate the legacy token", err)
	}
	return session, nil
}

// insertInto is the beginning of an INSERT of a token.
func (t *Tokens[ID]) insertInto() string {
	return "INSERT INTO " + t.table + " (" + t.dialect.columns(tokenColumns) + ") "
}

// takeOld deletes the row of a legacy token and returns it. It returns an error wrapping
// ErrTokenNotFound, and the transaction must then end, if there is none or it is no token.
func (l *LegacyTokens[ID]) takeOld(ctx context.Context, tx querier, secret string) (legacyRow[ID], error) {
	values, err := l.deleteOld(ctx, tx, secret)
	if err == nil && values == nil {
		err = strategy.ErrTokenNotFound
	}
	if err != nil {
		return legacyRow[ID]{}, err
	}
	row, err := l.parseOld(values)
	if err != nil {
		err = fmt.Errorf("%w: %w", strategy.ErrTokenNotFound, err)
	}
	return row, err
}

// deleteOld deletes the row of a legacy token and returns its columns, or nil if there is none.
func (l *LegacyTokens[ID]) deleteOld(ctx context.Context, tx querier, secret string) ([]any, error) {
	condition, args := l.bySecret(secret)
	remove := "DELETE FROM " + l.old + " WHERE " + condition
	read := "SELECT " + l.oldColumns() + " FROM " + l.old + " WHERE " + condition + " FOR UPDATE"
	if l.dialect.returning() {
		read = remove + " RETURNING " + l.oldColumns()
	}
	rows, err := l.query(ctx, tx, read, args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	if !l.dialect.returning() {
		_, err = l.exec(ctx, tx, remove, args...)
	}
	return rows[0], err
}

// DeleteLegacyToken implements strategy.LegacyStore. Like look-ups, at most 32 run at a time:
// anybody can log out with a made-up token.
func (l *LegacyTokens[ID]) DeleteLegacyToken(ctx context.Context, secret string) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, l.timeout)
	defer cancel()
	if err := l.wait(ctx); err != nil {
		return strategy.AccessToken[ID]{}, err
	}
	defer l.done()
	digest := token.DigestOf(secret)
	row, err := l.deleteBoth(ctx, "delete the legacy token", secret, byCopy, digest, true)
	if err == nil {
		row.Digest = digest
	}
	return row, err
}

// DeleteSession implements strategy.Store. For a legacy session it reads the user's rows in the
// table of fastapi-users.
func (l *LegacyTokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	if !isLegacySession(id) {
		return l.Tokens.DeleteSession(ctx, userID, id)
	}
	ctx, cancel := bounded(ctx, l.timeout)
	defer cancel()
	rows, err := l.ofUser(ctx, userID)
	if err != nil {
		return strategy.AccessToken[ID]{}, wrap("find the session", err)
	}
	var secret string
	for _, row := range rows {
		if row.ID == id {
			secret = row.secret
		}
	}
	row, err := l.deleteBoth(ctx, "delete the session", secret, bySession, id.String(), userIDValue(userID))
	if err == nil {
		row.ID, row.UserID = id, userID
	}
	return row, err
}

// deleteBoth deletes the row of fastapi-users of a token, if it is not "", and the row of
// Latchkey that a condition finds. It returns what can be read of one of them.
func (l *LegacyTokens[ID]) deleteBoth(ctx context.Context, doing, secret, condition string, args ...any) (row strategy.AccessToken[ID], err error) {
	err = l.transact(ctx, func(ctx context.Context, tx querier) error {
		row = strategy.AccessToken[ID]{}
		var old []any
		if secret != "" {
			if old, err = l.deleteOld(ctx, tx, secret); err != nil {
				return err
			}
		}
		own, err := l.takeIn(ctx, tx, l.table, tokenColumns, condition, args...)
		switch {
		case err != nil:
			return err
		case len(own) > 0:
			row, _ = parseToken[ID](own[0]) // an invalid row is gone too
		case old != nil:
			parsed, _ := l.parseOld(old)
			row = parsed.AccessToken
		default:
			return strategy.ErrTokenNotFound
		}
		return nil
	})
	return row, wrap(doing, err)
}

// DeleteByUser implements strategy.Store.
func (l *LegacyTokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (n int64, err error) {
	ctx, cancel := bounded(ctx, l.timeout)
	defer cancel()
	user := userIDValue(userID)
	old, oldArgs := "user_id = ?", []any{user}
	if slices.ContainsFunc(except, isLegacySession) {
		rows, err := l.ofUser(ctx, userID)
		if err != nil {
			return 0, wrap("find the user's legacy tokens", err)
		}
		for _, row := range rows {
			if slices.Contains(except, row.ID) {
				oldArgs = append(oldArgs, row.secret)
			}
		}
		if kept := len(oldArgs) - 1; kept > 0 {
			old += " AND token NOT IN (" + placeholders(kept) + ")"
		}
	}
	own, ownArgs := "user_id = ?", []any{user}
	if len(except) > 0 {
		own += " AND id NOT IN (" + placeholders(len(except)) + ")"
		for _, id := range except {
			ownArgs = append(ownArgs, id.String())
		}
	}
	err = l.transact(ctx, func(ctx context.Context, tx querier) error {
		legacy, err := l.exec(ctx, tx, "DELETE FROM "+l.old+" WHERE "+old, oldArgs...)
		if err != nil {
			return err
		}
		// Copies do not count.
		if _, err := l.exec(ctx, tx, "DELETE FROM "+l.table+" WHERE "+own+" AND legacy = ?", append(ownArgs[:len(ownArgs):len(ownArgs)], true)...); err != nil {
			return err
		}
		others, err := l.exec(ctx, tx, "DELETE FROM "+l.table+" WHERE "+own, ownArgs...)
		n = legacy + others
		return err
	})
	if err != nil {
		return 0, wrap("delete the user's tokens", err)
	}
	return n, nil
}

// ByUser implements strategy.Store. It reads all of the user's rows in the table of
// fastapi-users, and leaves the expired ones out.
func (l *LegacyTokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, l.timeout)
	defer cancel()
	// A session that is rotated between the two reads is in both, and not in neither.
	rows, err := l.ofUser(ctx, userID)
	if err != nil {
		return nil, wrap("list the legacy tokens", err)
	}
	legacy := make(map[uuid.UUID]bool, len(rows))
	var all []strategy.AccessToken[ID]
	for _, row := range rows {
		if !l.expired(&row.AccessToken) {
			legacy[row.ID] = true
			if (after == strategy.Position{}) || older(row.CreatedAt, row.ID, after) {
				all = append(all, row.AccessToken)
			}
		}
	}
	own, err := l.ownByUser(ctx, userID, after, limit, legacy)
	if err != nil {
		return nil, err
	}
	// Own rows come first, so that a copy takes the place of its legacy row.
	all = append(own, all...)
	slices.SortStableFunc(all, func(a, b strategy.AccessToken[ID]) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), bytes.Compare(b.ID[:], a.ID[:]))
	})
	all = slices.CompactFunc(all, func(a, b strategy.AccessToken[ID]) bool { return a.ID == b.ID })
	return all[:min(limit, len(all))], nil
}

// older reports whether a session comes after a position in the list of a user's sessions.
func older(createdAt time.Time, id uuid.UUID, after strategy.Position) bool {
	at := after.CreatedAt.Truncate(time.Millisecond)
	return createdAt.Before(at) || createdAt.Equal(at) && bytes.Compare(id[:], after.ID[:]) < 0
}

// ofUser returns the rows of a user in the table of fastapi-users, without those that are no
// tokens.
func (l *LegacyTokens[ID]) ofUser(ctx context.Context, userID ID) ([]legacyRow[ID], error) {
	rows, err := l.query(ctx, l.db, "SELECT "+l.oldColumns()+" FROM "+l.old+" WHERE user_id = ?", userIDValue(userID))
	if err != nil {
		return nil, err
	}
	all := make([]legacyRow[ID], 0, len(rows))
	for _, values := range rows {
		row, err := l.parseOld(values)
		if err != nil {
			l.unreadable(ctx, row, err)
			continue
		}
		all = append(all, row)
	}
	return all, nil
}

// ownByUser is Tokens.ByUser without the copies whose rows of fastapi-users are gone, and before
// conversion without copies at all.
func (l *LegacyTokens[ID]) ownByUser(ctx context.Context, userID ID, after strategy.Position, limit int, legacy map[uuid.UUID]bool) (own []strategy.AccessToken[ID], err error) {
	for {
		rows, err := l.Tokens.ByUser(ctx, userID, after, limit)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if after = (strategy.Position{CreatedAt: row.CreatedAt, ID: row.ID}); !row.Legacy || l.convert && legacy[row.ID] {
				l.limit(&row)
				own = append(own, row)
			}
		}
		if len(rows) < limit || len(own) >= limit {
			return own[:min(limit, len(own))], nil
		}
	}
}

// A session ID of a legacy token is a UUIDv7 of its creation time, with 58 bits of a hash of
// its digest and the mark of legacy sessions at the end. The mark spares other sessions a look
// into the table of fastapi-users.
const legacyMark = 0x1e9a

func legacySession(createdAt time.Time, digest string) (id uuid.UUID) {
	sum := sha256.Sum256([]byte(digest))
	binary.BigEndian.PutUint64(id[:8], uint64(max(0, createdAt.UnixMilli()))<<16)
	copy(id[6:14], sum[:])
	id[6] = 7<<4 | id[6]&0x0f
	id[8] = 2<<6 | id[8]&0x3f
	binary.BigEndian.PutUint16(id[14:], legacyMark)
	return id
}

// isLegacySession reports whether a session ID can be that of a legacy token.
func isLegacySession(id uuid.UUID) bool {
	return id.Version() == 7 && binary.BigEndian.Uint16(id[14:]) == legacyMark
}
