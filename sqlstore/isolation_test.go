package sqlstore_test

import (
	"database/sql"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// A database can have another isolation level by default. PostgreSQL then refuses writes and reads
// because of concurrent ones; the stores repeat them.
func TestContractsOnPostgreSQLThatIsSerializable(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.PostgreSQL {
			continue
		}
		u, err := url.Parse(s.dsn)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		q.Set("default_transaction_isolation", "serializable")
		u.RawQuery = q.Encode()
		s.dsn = u.String()
		contracts(t, s, newInt)
	}
}

// newToken returns a token of the user 7.
func newToken(digest string) strategy.AccessToken[int64] {
	return strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: 7, CreatedAt: time.UnixMilli(1)}
}

// The deletion of all tokens of a user locks the first and waits for the second, which another
// transaction has locked, and that one then waits for the first. The database ends one of the two.
func TestDeadlockIsRepeated(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			from := s.create(t)
			db, sent := openRecorded(t, from)
			if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, elsewhere); err != nil {
				t.Fatal(err)
			}
			tokens, err := sqlstore.NewTokens[int64](db, s.dialect, sqlstore.TokensConfig{Tables: elsewhere, Timeout: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			for _, digest := range []string{"first", "second"} {
				if err := tokens.Insert(t.Context(), newToken(digest)); err != nil {
					t.Fatal(err)
				}
			}
			for range 50 { // MySQL ends the transaction that has changed fewer rows
				other := newToken(uuid.NewString())
				other.UserID = 8
				if err := tokens.Insert(t.Context(), other); err != nil {
					t.Fatal(err)
				}
			}
			sent.reset()
			tx, err := openDB(t, from).BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted}) // it locks no other rows
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			for _, condition := range []string{"user_id = 8", "token = 'second'"} {
				if _, err := tx.ExecContext(t.Context(), "UPDATE access_tokens SET name = 'locked' WHERE "+condition); err != nil {
					t.Fatal(err)
				}
			}
			deleted := make(chan error, 1)
			go func() {
				_, err := tokens.DeleteByUser(t.Context(), 7)
				deleted <- err
			}()
			time.Sleep(200 * time.Millisecond) // it has the first, and waits for the second
			_, deadlock := tx.ExecContext(t.Context(), "UPDATE access_tokens SET name = 'locked' WHERE token = 'first'")
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			if err := <-deleted; err != nil {
				t.Errorf("DeleteByUser: %v", err)
			}
			if list, err := tokens.ByUser(t.Context(), 7, strategy.Position{}, 10); err != nil || len(list) > 0 {
				t.Errorf("%d tokens are left (error %v), want none", len(list), err)
			}
			isConflict := func(err error) bool { return sqlstore.IsConflict(s.dialect, err) }
			if deadlock == nil && !slices.ContainsFunc(sent.failed, isConflict) {
				t.Error("there was no deadlock")
			}
			t.Logf("the other transaction: %v; the store: %v", deadlock, sent.failed)
		})
	}
}

// A MySQL server gives up the wait for a lock after innodb_lock_wait_timeout. That is an error, and
// the transaction of the call has ended without a change.
func TestLockWaitTimeoutOfMySQL(t *testing.T) {
	for _, s := range servers(t) {
		if s.dialect != sqlstore.MySQL {
			continue
		}
		from := s.create(t)
		from.dsn += "?innodb_lock_wait_timeout=1"
		if strings.Count(from.dsn, "?") > 1 {
			t.Skip("the data source has parameters")
		}
		db := openDB(t, from)
		if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, elsewhere); err != nil {
			t.Fatal(err)
		}
		tokens, err := sqlstore.NewTokens[int64](db, s.dialect, sqlstore.TokensConfig{Tables: elsewhere, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		token := newToken("first")
		if err := tokens.Insert(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		if _, err := tx.ExecContext(t.Context(), "UPDATE access_tokens SET name = 'locked'"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = tokens.Rotate(t.Context(), "first", strategy.Rotation{Digest: "second"})
		if err == nil || errors.Is(err, strategy.ErrTokenNotFound) || time.Since(start) > 10*time.Second {
			t.Errorf("Rotate returned the error %v after %v, want the server's after 1 s", err, time.Since(start))
		}
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
		noneInUse(t, db)
		if got, err := tokens.ByToken(t.Context(), "first"); err != nil || got.ID != token.ID {
			t.Errorf("ByToken returned %v, want the token unchanged", err)
		}
		if _, err := tokens.Delete(t.Context(), "first"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
}
