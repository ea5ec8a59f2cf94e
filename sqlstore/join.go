package sqlstore

import (
	"context"
	"errors"
	"strings"

	"github.com/latchkey-go/latchkey/strategy"
)

// Join implements strategy.Joiner: one query reads a token with its user. It returns nil unless
// tokens is a Tokens on the same *sql.DB with the same Tables. It is nil for LegacyTokens, whose
// look-up depends on a third table.
func (u *Users[U, ID]) Join(tokens strategy.Store[ID]) func(ctx context.Context, digest string) (strategy.AccessToken[ID], U, error) {
	t, ok := tokens.(*Tokens[ID])
	if !ok || t.db != u.db || t.dialect != u.dialect || t.tables != u.tables {
		return nil
	}
	var columns []string
	for column := range strings.SplitSeq(tokenColumns, ", ") {
		columns = append(columns, "t."+t.dialect.quote(column))
	}
	for column := range strings.SplitSeq(u.columnList(), ", ") {
		columns = append(columns, "u."+column)
	}
	query := u.dialect.bind("SELECT " + strings.Join(columns, ", ") + " FROM " + t.table + " t LEFT JOIN " + u.table + " u ON u." + u.col.ID + " = t.user_id WHERE t.token = ?")
	return func(ctx context.Context, digest string) (token strategy.AccessToken[ID], user U, err error) {
		ctx, cancel := bounded(ctx, u.timeout)
		defer cancel()
		err = retry(ctx, u.dialect, func() error {
			token, user, err = u.joined(ctx, t, query, digest)
			return err
		})
		return token, user, wrap("find the token with its user", err)
	}
}

// joined is what Join returns.
func (u *Users[U, ID]) joined(ctx context.Context, t *Tokens[ID], query, digest string) (token strategy.AccessToken[ID], user U, err error) {
	defer func() { err = ended(ctx, err) }()
	rows, err := u.db.QueryContext(ctx, query, digest)
	if err != nil {
		return token, user, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return token, user, err
		}
		return token, user, strategy.ErrTokenNotFound
	}
	values := make([]any, numTokenColumns)
	into := make([]any, len(values), len(values)+accountColumns+len(u.own))
	for i := range values {
		into[i] = &values[i]
	}
	user, there, unread := u.scanInto(rows, into)
	if errors.Is(unread, errNotRead) {
		return token, user, unread
	}
	if token, err = t.valid(ctx, [][]any{values}); err != nil {
		return token, user, err
	}
	var none U
	switch {
	case !there:
		return token, none, strategy.ErrUserNotFound
	case unread != nil:
		u.report(ctx, []invalidAccount[ID]{{u.of(&user).ID, unread}})
		return token, none, unread
	}
	return token, user, rows.Err()
}
