package sqlstore

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
)

// OAuthAccountsConfig configures [OAuthAccounts]. The zero value is usable.
type OAuthAccountsConfig struct {
	// Tables are the names of the tables.
	Tables Tables

	// Timeout bounds every call whose context has no deadline. Default 3 seconds.
	Timeout time.Duration

	// Now is the clock of events. Default [time.Now].
	Now func() time.Time

	// OnEvent receives an event for every row that cannot be read; see
	// strategy.Config.OnEvent. nil means no events.
	OnEvent func(context.Context, event.Event)
}

// OAuthAccounts stores the links of accounts to users of identity providers in a SQL table, for
// the module contrib/oidc. Make it with [NewOAuthAccounts], and the table with [Migrate]. By a
// foreign key, the database deletes the links of a user with the account. It is safe for concurrent
// use.
//
// A row that another program wrote and that cannot be read is a failure for Find and is left out by
// ListByUser, each time with an event of the kind event.InvalidDocument.
type OAuthAccounts[ID UserID] struct {
	store
	table string // quoted
}

var _ account.OAuthAccountStore[int64] = (*OAuthAccounts[int64])(nil)

// NewOAuthAccounts returns a store of links. It does no I/O. It returns an error if a field of cfg
// is invalid.
func NewOAuthAccounts[ID UserID](db *sql.DB, dialect Dialect, cfg OAuthAccountsConfig) (*OAuthAccounts[ID], error) {
	s, err := newStore(db, dialect, "OAuthAccountsConfig", cfg.Tables, cfg.Timeout, cfg.Now, cfg.OnEvent)
	if err != nil {
		return nil, err
	}
	return &OAuthAccounts[ID]{s, dialect.quote(s.tables.OAuthAccounts)}, nil
}

// oauthColumns are the columns of a link. The primary key is the issuer and the subject.
const oauthColumns = "issuer, subject, user_id, email, created_at"

// Conditions on a link.
const (
	bySubject = "issuer = ? AND subject = ?"
	byLink    = "user_id = ? AND " + bySubject
)

// Insert implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) Insert(ctx context.Context, link account.OAuthAccount[ID]) error {
	_, err := o.write(ctx, "INSERT INTO "+o.table+" ("+oauthColumns+") VALUES ("+placeholders(5)+")",
		link.Issuer, link.Subject, userIDValue(link.UserID), link.Email, link.CreatedAt.UnixMilli())
	if o.dialect.isDuplicate(err) {
		err = account.ErrOAuthAccountTaken // MySQL's error shows the subject
	}
	return wrap("insert the OAuth account", err)
}

// Find implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) Find(ctx context.Context, issuer, subject string) (account.OAuthAccount[ID], error) {
	ctx, cancel := bounded(ctx, o.timeout)
	defer cancel()
	rows, err := o.query(ctx, o.db, "SELECT "+oauthColumns+" FROM "+o.table+" WHERE "+bySubject, issuer, subject)
	if o.dialect.isImpossible(err) {
		err = nil
	}
	switch {
	case err != nil:
		return account.OAuthAccount[ID]{}, wrap("find the OAuth account", err)
	case len(rows) == 0:
		return account.OAuthAccount[ID]{}, fmt.Errorf("sqlstore: %w", account.ErrOAuthAccountNotFound)
	}
	link, err := o.read(ctx, rows[0])
	if err != nil {
		return account.OAuthAccount[ID]{}, wrap("read the OAuth account", err)
	}
	return link, nil
}

// ListByUser implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) ListByUser(ctx context.Context, userID ID) ([]account.OAuthAccount[ID], error) {
	ctx, cancel := bounded(ctx, o.timeout)
	defer cancel()
	rows, err := o.query(ctx, o.db, "SELECT "+oauthColumns+" FROM "+o.table+" WHERE user_id = ?", userIDValue(userID))
	if err != nil {
		return nil, wrap("list the OAuth accounts", err)
	}
	var links []account.OAuthAccount[ID]
	for _, values := range rows {
		if link, err := o.read(ctx, values); err == nil {
			links = append(links, link)
		}
	}
	slices.SortFunc(links, func(a, b account.OAuthAccount[ID]) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.Issuer, b.Issuer), strings.Compare(a.Subject, b.Subject))
	})
	return links, nil
}

// Delete implements account.OAuthAccountStore. With keep, it locks all links of the account, in a
// transaction, so that of concurrent calls the later ones see what the first has left.
func (o *OAuthAccounts[ID]) Delete(ctx context.Context, userID ID, issuer, subject string, keep []string) error {
	id, remove := userIDValue(userID), "DELETE FROM "+o.table+" WHERE "+byLink
	if len(keep) == 0 {
		n, err := o.write(ctx, remove, id, issuer, subject)
		if err == nil && n == 0 {
			err = account.ErrOAuthAccountNotFound
		}
		return wrap("delete the OAuth account", err)
	}
	lock := "SELECT issuer, subject FROM " + o.table + " WHERE user_id = ? ORDER BY issuer, subject"
	if o.dialect != SQLite { // there, the transactions that write are one after the other
		lock += " FOR UPDATE"
	}
	return wrap("delete the OAuth account", o.transact(ctx, func(ctx context.Context, tx querier) error {
		rows, err := o.query(ctx, tx, lock, id)
		if err != nil {
			return err
		}
		found, another := false, false
		for _, values := range rows {
			switch kept := textOf(values[0]); {
			case kept == issuer && textOf(values[1]) == subject:
				found = true
			case slices.ContainsFunc(keep, func(i string) bool { return i == kept }):
				another = true
			}
		}
		switch {
		case !found:
			return account.ErrOAuthAccountNotFound
		case !another:
			return account.ErrLastOAuthAccount
		}
		_, err = o.exec(ctx, tx, remove, id, issuer, subject)
		return err
	}))
}

// DeleteByUser implements account.OAuthAccountStore.
func (o *OAuthAccounts[ID]) DeleteByUser(ctx context.Context, userID ID) error {
	_, err := o.write(ctx, "DELETE FROM "+o.table+" WHERE user_id = ?", userIDValue(userID))
	return wrap("delete the user's OAuth accounts", err)
}

// read reads a row, and reports one that is invalid, without its subject.
func (o *OAuthAccounts[ID]) read(ctx context.Context, values []any) (account.OAuthAccount[ID], error) {
	r := &row{columns: oauthColumns, values: values}
	link := account.OAuthAccount[ID]{Issuer: r.string(), Subject: r.string(), UserID: userID[ID](r), Email: r.string(), CreatedAt: r.time()}
	if r.err != nil {
		invalid(ctx, &o.store, o.tables.OAuthAccounts, "of "+link.Issuer, link.UserID, r.err)
	}
	return link, r.err
}
