package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

// TokensConfig configures [Tokens]. The zero value is usable: tokens are stored until they
// are deleted.
type TokensConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// Lifetime must be the Lifetime of strategy.Config. Purge removes a token once it is older
	// than Lifetime plus Grace. 0 means that tokens do not expire.
	Lifetime time.Duration

	// Grace is how long Purge keeps an expired token. Default 5 minutes.
	Grace time.Duration

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of Purge and of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every row that Tokens leaves out because it cannot be
	// read; see strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// Tokens stores access tokens in a SQL table. Make it with [NewTokens], and the table with
// [Migrate]. It is safe for concurrent use.
//
// A row that another program wrote and that cannot be read is no token: it is not found and
// not listed, each time with an event of the kind event.InvalidDocument. Deletes remove it as
// they remove any other.
type Tokens[ID UserID] struct {
	store
	lifetime, grace    time.Duration
	name               string // of the table
	table, revocations string // quoted
}

var (
	_ strategy.Store[int64]         = (*Tokens[int64])(nil)
	_ strategy.RevocationLog[int64] = (*Tokens[int64])(nil)
)

// NewTokens returns a store of access tokens. It does no I/O. It returns an error if a field of cfg
// is invalid.
func NewTokens[ID UserID](db *sql.DB, dialect Dialect, cfg TokensConfig) (*Tokens[ID], error) {
	return newTokens[ID](db, dialect, cfg, func(t Tables) string { return t.AccessTokens })
}

// NewAPITokens is NewTokens for the tokens of scripts, which have a table of their own.
func NewAPITokens[ID UserID](db *sql.DB, dialect Dialect, cfg TokensConfig) (*Tokens[ID], error) {
	return newTokens[ID](db, dialect, cfg, func(t Tables) string { return t.APITokens })
}

func newTokens[ID UserID](db *sql.DB, dialect Dialect, cfg TokensConfig, table func(Tables) string) (*Tokens[ID], error) {
	s, err := newStore(db, dialect, "TokensConfig", cfg.Tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, err
	}
	if cfg.Lifetime < 0 {
		return nil, fmt.Errorf("sqlstore: TokensConfig.Lifetime is %v: it must not be negative; 0 means that tokens do not expire", cfg.Lifetime)
	}
	if cfg.Grace < 0 {
		return nil, fmt.Errorf("sqlstore: TokensConfig.Grace is %v: it must not be negative; 0 means 5 minutes", cfg.Grace)
	}
	t := &Tokens[ID]{
		store: s, lifetime: cfg.Lifetime, grace: cfg.Grace, name: table(s.tables),
		table: dialect.quote(table(s.tables)), revocations: dialect.quote(s.tables.Revocations),
	}
	if t.grace == 0 {
		t.grace = 5 * time.Minute
	}
	return t, nil
}

// tokenColumns are the columns of a token, in the order of tokenValues and parseToken.
const tokenColumns = "id, token, user_id, created_at, last_used_at, authenticated_at, token_version, expires_at, legacy, scopes, name, user_agent, client_ip"

// numTokenColumns is the number of tokenColumns.
const numTokenColumns = 13

func tokenValues[ID UserID](t strategy.AccessToken[ID]) []any {
	var scopes any
	if t.Scopes != nil {
		list, _ := json.Marshal(t.Scopes) // strings cannot fail
		scopes = string(list)
	}
	return []any{
		t.ID.String(), t.Digest, userIDValue(t.UserID), t.CreatedAt.UnixMilli(), millis(t.LastUsedAt), millis(t.AuthenticatedAt),
		t.TokenVersion, millis(t.ExpiresAt), t.Legacy, scopes, t.Name, t.UserAgent, t.ClientIP,
	}
}

// parseToken returns the token of a row, as far as it can be read.
func parseToken[ID UserID](values []any) (strategy.AccessToken[ID], error) {
	r := &row{columns: tokenColumns, values: values}
	t := strategy.AccessToken[ID]{
		ID: r.uuid(), Digest: r.string(), UserID: userID[ID](r), CreatedAt: r.time(), LastUsedAt: r.time(), AuthenticatedAt: r.time(),
		TokenVersion: r.int64(), ExpiresAt: r.time(), Legacy: r.bool(), Scopes: r.strings(),
		Name: r.string(), UserAgent: r.string(), ClientIP: r.string(),
	}
	if r.err == nil && t.CreatedAt.IsZero() {
		r.err = fmt.Errorf("the column %q is NULL", "created_at")
	}
	return t, r.err
}

// Retention implements strategy.Store. It returns TokensConfig.Lifetime.
func (t *Tokens[ID]) Retention() time.Duration { return t.lifetime }

// Insert implements strategy.Store.
func (t *Tokens[ID]) Insert(ctx context.Context, token strategy.AccessToken[ID]) error {
	values := tokenValues(token)
	_, err := t.write(ctx, "INSERT INTO "+t.table+" ("+t.dialect.columns(tokenColumns)+") VALUES ("+placeholders(len(values))+")", values...)
	if t.dialect.isDuplicate(err) {
		err = strategy.ErrDuplicateToken // MySQL's error shows the digest
	}
	return wrap("insert the token", err)
}

// placeholders returns n placeholders.
func placeholders(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// ByToken implements strategy.Store.
func (t *Tokens[ID]) ByToken(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.timeout)
	defer cancel()
	rows, err := t.query(ctx, t.db, t.selectWhere(byToken), digest)
	if err != nil {
		return strategy.AccessToken[ID]{}, wrap("find the token", err)
	}
	return t.valid(ctx, rows)
}

// Conditions on a row.
const (
	byToken   = "token = ?"
	bySession = "id = ? AND user_id = ?"
)

func (t *Tokens[ID]) selectWhere(condition string) string {
	return "SELECT " + t.dialect.columns(tokenColumns) + " FROM " + t.table + " WHERE " + condition
}

// Touch implements strategy.Store.
func (t *Tokens[ID]) Touch(ctx context.Context, digest string, at time.Time) error {
	ms := at.UnixMilli()
	_, err := t.write(ctx, "UPDATE "+t.table+" SET last_used_at = ? WHERE token = ? AND (last_used_at IS NULL OR last_used_at < ?)", ms, digest, ms)
	return wrap("touch the token", err)
}

// Rename implements strategy.Store.
func (t *Tokens[ID]) Rename(ctx context.Context, userID ID, id uuid.UUID, name string) error {
	ctx, cancel := bounded(ctx, t.timeout)
	defer cancel()
	n, err := t.write(ctx, "UPDATE "+t.table+" SET name = ? WHERE "+bySession, name, id.String(), userIDValue(userID))
	if err != nil || n > 0 {
		return wrap("rename the session", err)
	}
	// MySQL does not count a row that has the name already.
	rows, err := t.query(ctx, t.db, "SELECT 1 FROM "+t.table+" WHERE "+bySession+" AND name = ?", id.String(), userIDValue(userID), name)
	if err == nil && len(rows) == 0 {
		err = strategy.ErrTokenNotFound
	}
	return wrap("rename the session", err)
}

// Rotate implements strategy.Store.
func (t *Tokens[ID]) Rotate(ctx context.Context, digest string, to strategy.Rotation) (strategy.AccessToken[ID], error) {
	set, args := "token = ?", []any{to.Digest}
	if !to.AuthenticatedAt.IsZero() {
		set += ", authenticated_at = ?"
		args = append(args, to.AuthenticatedAt.UnixMilli())
	}
	if !to.LastUsedAt.IsZero() {
		set += ", last_used_at = CASE WHEN last_used_at > ? THEN last_used_at ELSE ? END"
		args = append(args, to.LastUsedAt.UnixMilli(), to.LastUsedAt.UnixMilli())
	}
	if to.TokenVersion > 0 {
		set += ", token_version = CASE WHEN token_version > ? THEN token_version ELSE ? END"
		args = append(args, to.TokenVersion, to.TokenVersion)
	}
	update := "UPDATE " + t.table + " SET " + set + " WHERE "
	ctx, cancel := bounded(ctx, t.timeout)
	defer cancel()
	var rows [][]any
	var err error
	if t.dialect.returning() {
		rows, err = t.writeReturning(ctx, tokenColumns, update+byToken, append(args, digest)...)
	} else {
		err = t.transact(ctx, func(ctx context.Context, tx querier) error {
			rows, err = t.query(ctx, tx, "SELECT id FROM "+t.table+" WHERE "+byToken+" FOR UPDATE", digest)
			if err != nil || len(rows) == 0 {
				return err
			}
			id := textOf(rows[0][0])
			if _, err := t.exec(ctx, tx, update+"id = ?", append(args, id)...); err != nil {
				return err
			}
			rows, err = t.query(ctx, tx, t.selectWhere("id = ?"), id)
			return err
		})
	}
	if t.dialect.isDuplicate(err) {
		err = strategy.ErrDuplicateToken // MySQL's error shows the digest
	}
	if err != nil {
		return strategy.AccessToken[ID]{}, wrap("rotate the token", err)
	}
	return t.valid(ctx, rows)
}

// ByUser implements strategy.Store.
func (t *Tokens[ID]) ByUser(ctx context.Context, userID ID, after strategy.Position, limit int) ([]strategy.AccessToken[ID], error) {
	ctx, cancel := bounded(ctx, t.timeout)
	defer cancel()
	condition, args := "user_id = ?", []any{userIDValue(userID)}
	if (after != strategy.Position{}) {
		ms := after.CreatedAt.UnixMilli()
		condition += " AND (created_at < ? OR (created_at = ? AND id < ?))"
		args = append(args, ms, ms, after.ID.String())
	}
	query := t.selectWhere(condition + " ORDER BY created_at DESC, id DESC LIMIT ?")
	for ask := limit; ; ask *= 2 {
		rows, err := t.query(ctx, t.db, query, append(args, ask)...)
		if err != nil {
			return nil, wrap("list the tokens", err)
		}
		var tokens []strategy.AccessToken[ID]
		var unread []func()
		for _, values := range rows {
			token, err := parseToken[ID](values)
			if err != nil {
				unread = append(unread, func() { invalid(ctx, &t.store, t.name, token.ID, token.UserID, err) })
				continue
			}
			tokens = append(tokens, token)
		}
		// Invalid rows took places, so ask for more.
		if len(tokens) < limit && len(rows) == ask {
			continue
		}
		for _, report := range unread {
			report()
		}
		return tokens[:min(limit, len(tokens))], nil
	}
}

// Delete implements strategy.Store.
func (t *Tokens[ID]) Delete(ctx context.Context, digest string) (strategy.AccessToken[ID], error) {
	token, err := t.delete(ctx, "delete the token", byToken, digest)
	if err == nil {
		token.Digest = digest
	}
	return token, err
}

// DeleteSession implements strategy.Store.
func (t *Tokens[ID]) DeleteSession(ctx context.Context, userID ID, id uuid.UUID) (strategy.AccessToken[ID], error) {
	token, err := t.delete(ctx, "delete the session", bySession, id.String(), userIDValue(userID))
	if err == nil {
		token.ID, token.UserID = id, userID
	}
	return token, err
}

// delete deletes the row that a condition finds. It returns what can be read of it.
func (t *Tokens[ID]) delete(ctx context.Context, doing, condition string, args ...any) (token strategy.AccessToken[ID], err error) {
	rows, err := t.take(ctx, t.table, tokenColumns, condition, args...)
	if err == nil && len(rows) == 0 {
		err = strategy.ErrTokenNotFound
	}
	if err != nil {
		return token, wrap(doing, err)
	}
	token, _ = parseToken[ID](rows[0]) // an invalid row is gone too
	return token, nil
}

// DeleteByUser implements strategy.Store.
func (t *Tokens[ID]) DeleteByUser(ctx context.Context, userID ID, except ...uuid.UUID) (int64, error) {
	condition, args := "user_id = ?", []any{userIDValue(userID)}
	if len(except) > 0 {
		condition += " AND id NOT IN (" + placeholders(len(except)) + ")"
		for _, id := range except {
			args = append(args, id.String())
		}
	}
	n, err := t.write(ctx, "DELETE FROM "+t.table+" WHERE "+condition, args...)
	return n, wrap("delete the user's tokens", err)
}

// valid returns the token of the only row. It returns an error wrapping ErrTokenNotFound if
// there is none, or if it is invalid.
func (t *Tokens[ID]) valid(ctx context.Context, rows [][]any) (strategy.AccessToken[ID], error) {
	if len(rows) == 0 {
		return strategy.AccessToken[ID]{}, fmt.Errorf("sqlstore: %w", strategy.ErrTokenNotFound)
	}
	token, err := parseToken[ID](rows[0])
	if err != nil {
		invalid(ctx, &t.store, t.name, token.ID, token.UserID, err)
		return strategy.AccessToken[ID]{}, fmt.Errorf("sqlstore: %w: %w", strategy.ErrTokenNotFound, err)
	}
	return token, nil
}
