package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/onetime"
)

// OneTimeTokensConfig configures [OneTimeTokens]. The zero value is usable.
type OneTimeTokensConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of Purge and of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every row that cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// OneTimeTokens stores one-time tokens in a SQL table. Make it with [NewOneTimeTokens], and the
// table with [Migrate]. It is safe for concurrent use. A row that cannot be read is no token:
// Find and Take do not find it, each time with an event of the kind event.InvalidDocument; Take and
// DeleteByUser remove it. Events and errors show only the beginning of a digest.
type OneTimeTokens[ID UserID] struct {
	store
	table string // quoted
}

var _ account.OneTimeTokenStore[int64] = (*OneTimeTokens[int64])(nil)

// NewOneTimeTokens returns a store of one-time tokens. It does no I/O. It returns an error if a
// field of cfg is invalid.
func NewOneTimeTokens[ID UserID](db *sql.DB, dialect Dialect, cfg OneTimeTokensConfig) (*OneTimeTokens[ID], error) {
	s, err := newStore(db, dialect, "OneTimeTokensConfig", cfg.Tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, err
	}
	return &OneTimeTokens[ID]{s, dialect.quote(s.tables.OneTimeTokens)}, nil
}

// oneTimeColumns are the columns of a one-time token. id is its digest.
const oneTimeColumns = "id, purpose, user_id, sent_to, email, token_version, created_at, expires_at"

// Insert implements account.OneTimeTokenStore. It inserts the token, lists the user's tokens
// of its purpose, and deletes those that are too many.
func (o *OneTimeTokens[ID]) Insert(ctx context.Context, token account.OneTimeToken[ID], keep int) error {
	ctx, cancel := bounded(ctx, o.timeout)
	defer cancel()
	_, err := o.write(ctx, "INSERT INTO "+o.table+" ("+oneTimeColumns+") VALUES ("+placeholders(8)+")",
		token.Digest, string(token.Purpose), userIDValue(token.UserID), token.SentTo, token.Email,
		token.TokenVersion, token.CreatedAt.UnixMilli(), token.ExpiresAt.UnixMilli())
	if o.dialect.isDuplicate(err) {
		err = errors.New("the digest is taken") // the database's error may show the digest
	}
	if err != nil {
		return wrap("insert the one-time token", err)
	}
	rows, err := o.query(ctx, o.db, "SELECT id, created_at FROM "+o.table+" WHERE user_id = ? AND purpose = ?", userIDValue(token.UserID), string(token.Purpose))
	if err != nil {
		return wrap("list the user's one-time tokens", err)
	}
	var stored []onetime.Token
	for _, values := range rows {
		r := &row{columns: "id, created_at", values: values}
		if t := (onetime.Token{Digest: r.string(), CreatedAt: r.time()}); r.err == nil {
			stored = append(stored, t)
		}
	}
	surplus := onetime.Surplus(stored, token.CreatedAt, keep)
	if len(surplus) == 0 {
		return nil
	}
	var digests []any
	for _, digest := range surplus {
		digests = append(digests, digest)
	}
	_, err = o.write(ctx, "DELETE FROM "+o.table+" WHERE id IN ("+placeholders(len(digests))+")", digests...)
	return wrap("delete the oldest one-time tokens", err)
}

const byPurpose = "id = ? AND purpose = ?"

// Find implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Find(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	ctx, cancel := bounded(ctx, o.timeout)
	defer cancel()
	rows, err := o.query(ctx, o.db, "SELECT "+oneTimeColumns+" FROM "+o.table+" WHERE "+byPurpose, digest, string(purpose))
	if err != nil {
		return account.OneTimeToken[ID]{}, wrap("find the one-time token", err)
	}
	return o.valid(ctx, rows)
}

// Take implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) Take(ctx context.Context, purpose account.Purpose, digest string) (account.OneTimeToken[ID], error) {
	rows, err := o.take(ctx, o.table, oneTimeColumns, byPurpose, digest, string(purpose))
	if err != nil {
		return account.OneTimeToken[ID]{}, wrap("take the one-time token", err)
	}
	return o.valid(ctx, rows)
}

// DeleteByUser implements account.OneTimeTokenStore.
func (o *OneTimeTokens[ID]) DeleteByUser(ctx context.Context, userID ID, purpose account.Purpose) error {
	condition, args := "user_id = ?", []any{userIDValue(userID)}
	if purpose != "" {
		condition += " AND purpose = ?"
		args = append(args, string(purpose))
	}
	_, err := o.write(ctx, "DELETE FROM "+o.table+" WHERE "+condition, args...)
	return wrap("delete the user's one-time tokens", err)
}

// valid returns the token of the only row. It returns an error wrapping
// ErrOneTimeTokenNotFound if there is none, or if it is invalid.
func (o *OneTimeTokens[ID]) valid(ctx context.Context, rows [][]any) (account.OneTimeToken[ID], error) {
	if len(rows) == 0 {
		return account.OneTimeToken[ID]{}, fmt.Errorf("sqlstore: %w", account.ErrOneTimeTokenNotFound)
	}
	token, err := parseOneTimeToken[ID](rows[0])
	if err != nil {
		invalid(ctx, &o.store, o.tables.OneTimeTokens, beginning(token.Digest), token.UserID, err)
		return account.OneTimeToken[ID]{}, fmt.Errorf("sqlstore: %w: %w", account.ErrOneTimeTokenNotFound, err)
	}
	return token, nil
}

// beginning returns what events may show of a digest.
func beginning(digest string) string { return digest[:min(8, len(digest))] + "…" }

// parseOneTimeToken returns the token of a row, as far as it can be read.
func parseOneTimeToken[ID UserID](values []any) (account.OneTimeToken[ID], error) {
	r := &row{columns: oneTimeColumns, values: values}
	token := account.OneTimeToken[ID]{
		Digest: r.string(), Purpose: account.Purpose(r.string()), UserID: userID[ID](r), SentTo: r.string(), Email: r.string(),
		TokenVersion: r.int64(), CreatedAt: r.time(), ExpiresAt: r.time(),
	}
	if r.err == nil && (token.CreatedAt.IsZero() || token.ExpiresAt.IsZero()) {
		r.err = errors.New("the column \"created_at\" or \"expires_at\" is NULL")
	}
	return token, r.err
}
