package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// secretDigest is a digest that everyCall uses.
const secretDigest = "hcYpSLBlrq1tiDaTZ7q_h8jPcrpk4E78lU48_althes"

// everyCall returns a call of each method of each store that does I/O, by its name.
func everyCall(t testing.TB, db *sql.DB, dialect sqlstore.Dialect, timeout time.Duration) map[string]func(context.Context) error {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tokens, err := sqlstore.NewTokens[int64](db, dialect, sqlstore.TokensConfig{Timeout: timeout, Lifetime: time.Hour})
	must(err)
	users, err := sqlstore.NewUsers[account.User[int64]](db, dialect, sqlstore.UsersConfig{Timeout: timeout})
	must(err)
	attempts, err := sqlstore.NewAttempts(db, dialect, sqlstore.AttemptsConfig{Timeout: timeout})
	must(err)
	mails, err := sqlstore.NewOneTimeTokens[int64](db, dialect, sqlstore.OneTimeTokensConfig{Timeout: timeout})
	must(err)
	links, err := sqlstore.NewOAuthAccounts[int64](db, dialect, sqlstore.OAuthAccountsConfig{Timeout: timeout})
	must(err)
	now := time.UnixMilli(1)
	user := account.User[int64]{ID: 7, Email: "ann@example.com", HashedPassword: account.NewPasswordHash("hash of the password"), CreatedAt: now}
	token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: secretDigest, UserID: 7, CreatedAt: now}
	mail := account.OneTimeToken[int64]{Digest: secretDigest, Purpose: "verify", UserID: 7, SentTo: "ann@example.com", Email: "ann@example.com", CreatedAt: now, ExpiresAt: now}
	link := account.OAuthAccount[int64]{Issuer: "https://a.example.com", Subject: "248289761001", UserID: 7, CreatedAt: now}
	return map[string]func(context.Context) error{
		"Tokens.Insert":  func(ctx context.Context) error { return tokens.Insert(ctx, token) },
		"Tokens.ByToken": func(ctx context.Context) error { _, err := tokens.ByToken(ctx, secretDigest); return err },
		"Tokens.Touch":   func(ctx context.Context) error { return tokens.Touch(ctx, secretDigest, now) },
		"Tokens.Rename":  func(ctx context.Context) error { return tokens.Rename(ctx, 7, token.ID, "laptop") },
		"Tokens.Rotate": func(ctx context.Context) error {
			_, err := tokens.Rotate(ctx, secretDigest, strategy.Rotation{Digest: "x"})
			return err
		},
		"Tokens.ByUser":        func(ctx context.Context) error { _, err := tokens.ByUser(ctx, 7, strategy.Position{}, 10); return err },
		"Tokens.Delete":        func(ctx context.Context) error { _, err := tokens.Delete(ctx, secretDigest); return err },
		"Tokens.DeleteSession": func(ctx context.Context) error { _, err := tokens.DeleteSession(ctx, 7, token.ID); return err },
		"Tokens.DeleteByUser":  func(ctx context.Context) error { _, err := tokens.DeleteByUser(ctx, 7); return err },
		"Tokens.Purge":         func(ctx context.Context) error { _, err := tokens.Purge(ctx); return err },
		"Tokens.PublishRevocation": func(ctx context.Context) error {
			return tokens.PublishRevocation(ctx, strategy.Revocation[int64]{Digest: secretDigest})
		},
		"Tokens.FollowRevocations": func(ctx context.Context) error { _, err := tokens.FollowRevocations()(ctx); return err },

		"Users.Insert":  func(ctx context.Context) error { return users.Insert(ctx, user) },
		"Users.ByID":    func(ctx context.Context) error { _, err := users.ByID(ctx, 7); return err },
		"Users.ByEmail": func(ctx context.Context) error { _, err := users.ByEmail(ctx, "ann@example.com"); return err },
		"Users.Apply": func(ctx context.Context) error {
			return users.Apply(ctx, 7, account.Change{Password: &user.HashedPassword})
		},
		"Users.Edit": func(ctx context.Context) error {
			_, err := users.Edit(ctx, 7, func(*account.User[int64]) error { return nil })
			return err
		},
		"Users.List":   func(ctx context.Context) error { _, err := users.List(ctx, "", "", 10); return err },
		"Users.Delete": func(ctx context.Context) error { return users.Delete(ctx, 7) },

		"Attempts.Counters": func(ctx context.Context) error { _, err := attempts.Counters(ctx, now, "key"); return err },
		"Attempts.Add":      func(ctx context.Context) error { _, err := attempts.Add(ctx, "key", now, now, false); return err },
		"Attempts.Withdraw": func(ctx context.Context) error { return attempts.Withdraw(ctx, now, "key", 1) },
		"Attempts.Clear":    func(ctx context.Context) error { return attempts.Clear(ctx, "key") },
		"Attempts.Remember": func(ctx context.Context) error { return attempts.Remember(ctx, "key", now, now) },
		"Attempts.Purge":    func(ctx context.Context) error { _, err := attempts.Purge(ctx); return err },

		"OneTimeTokens.Insert":       func(ctx context.Context) error { return mails.Insert(ctx, mail, 3) },
		"OneTimeTokens.Find":         func(ctx context.Context) error { _, err := mails.Find(ctx, "verify", secretDigest); return err },
		"OneTimeTokens.Take":         func(ctx context.Context) error { _, err := mails.Take(ctx, "verify", secretDigest); return err },
		"OneTimeTokens.DeleteByUser": func(ctx context.Context) error { return mails.DeleteByUser(ctx, 7, "") },
		"OneTimeTokens.Purge":        func(ctx context.Context) error { _, err := mails.Purge(ctx); return err },

		"OAuthAccounts.Insert":     func(ctx context.Context) error { return links.Insert(ctx, link) },
		"OAuthAccounts.Find":       func(ctx context.Context) error { _, err := links.Find(ctx, link.Issuer, link.Subject); return err },
		"OAuthAccounts.ListByUser": func(ctx context.Context) error { _, err := links.ListByUser(ctx, 7); return err },
		"OAuthAccounts.Delete":     func(ctx context.Context) error { return links.Delete(ctx, 7, link.Issuer, link.Subject, nil) },
		"OAuthAccounts.Delete kept": func(ctx context.Context) error {
			return links.Delete(ctx, 7, link.Issuer, link.Subject, []string{link.Issuer})
		},
		"OAuthAccounts.DeleteByUser": func(ctx context.Context) error { return links.DeleteByUser(ctx, 7) },
	}
}

// expected reports whether an error is one of those that say what the store found.
func expected(err error) bool {
	for _, known := range []error{
		nil, strategy.ErrTokenNotFound, strategy.ErrDuplicateToken, account.ErrUserNotFound, account.ErrEmailTaken, account.ErrConflict,
		account.ErrOneTimeTokenNotFound, account.ErrOAuthAccountNotFound, account.ErrOAuthAccountTaken, account.ErrLastOAuthAccount,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "foreign key") || strings.Contains(text, "the digest is taken")
}

// tablesLocked runs do while another transaction holds all tables, for writing and reading.
func tablesLocked(t *testing.T, db *sql.DB, dialect sqlstore.Dialect, do func()) {
	t.Helper()
	const all = "users access_tokens api_tokens revocations login_attempts one_time_tokens oauth_accounts"
	var lock, unlock []string
	switch dialect {
	case sqlstore.PostgreSQL:
		lock = []string{"BEGIN", "LOCK TABLE " + strings.ReplaceAll(all, " ", ", ") + " IN ACCESS EXCLUSIVE MODE"}
		unlock = []string{"ROLLBACK"}
	case sqlstore.MySQL:
		lock, unlock = []string{"LOCK TABLES " + strings.ReplaceAll(all, " ", " WRITE, ") + " WRITE"}, []string{"UNLOCK TABLES"}
	default:
		lock, unlock = []string{"BEGIN EXCLUSIVE"}, []string{"ROLLBACK"}
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, statement := range lock {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	do()
	for _, statement := range unlock {
		if _, err := conn.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
}

// connect fills the pool with n connections.
func connect(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	for range n {
		conn, err := db.Conn(t.Context())
		if err == nil {
			err = conn.PingContext(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
}

// Every statement waits for the lock of another transaction. A cancelled call ends at once, and one
// without a deadline after the Timeout.
func TestCallsThatWaitForALockAreBounded(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		from := s.create(t)
		from.dsn = strings.Replace(from.dsn, "&_pragma=journal_mode(WAL)", "", 1) // in WAL mode, reads do not wait
		db, locker := openDB(t, from), openDB(t, from)
		if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		const timeout, longest = 150 * time.Millisecond, 3 * time.Second
		for _, c := range []struct {
			name    string
			timeout time.Duration
			cancel  bool
			want    error
		}{
			{"cancelled", time.Minute, true, context.Canceled},
			{"without a deadline", timeout, false, context.DeadlineExceeded},
		} {
			t.Run(c.name, func(t *testing.T) {
				calls := everyCall(t, db, s.dialect, c.timeout)
				// As many at once as the pool has connections, so that each is in a statement.
				for batch := range slices.Chunk(slices.Sorted(maps.Keys(calls)), 12) {
					connect(t, db, 12)
					tablesLocked(t, locker, s.dialect, func() {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						if c.cancel {
							time.AfterFunc(timeout, cancel)
						}
						var wg sync.WaitGroup
						for _, name := range batch {
							wg.Go(func() {
								start := time.Now()
								err := calls[name](ctx)
								if took := time.Since(start); took < timeout/2 || took > longest {
									t.Errorf("%s returned after %v, want about %v: %v", name, took, timeout, err)
								}
								if !errors.Is(err, c.want) {
									t.Errorf("%s returned the error %v, want %v", name, err, c.want)
								}
								if err != nil && strings.Contains(err.Error(), secretDigest) {
									t.Errorf("%s returned an error with a digest", name)
								}
							})
						}
						wg.Wait()
					})
				}
			})
		}
		noneInUse(t, db)
		for name, call := range everyCall(t, db, s.dialect, time.Minute) {
			if err := call(t.Context()); !expected(err) {
				t.Errorf("afterwards, %s returned %v", name, err)
			}
		}
	})
}

// noneInUse fails unless all connections return to the pool.
func noneInUse(t *testing.T, db *sql.DB) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); db.Stats().InUse > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are still in use", db.Stats().InUse)
		}
	}
}

// A call can be cancelled at any moment.
func TestManyCancelledCallsKeepNoConnection(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := serverDB[int64](t, s, sqlstore.Tables{})
		calls := everyCall(t, db, s.dialect, time.Minute)
		names := slices.Sorted(maps.Keys(calls))
		const workers = 4
		longest, each := 3*time.Millisecond, 1000/workers
		if s.dialect == sqlstore.PostgreSQL { // its driver closes the connection of a cancelled statement, and a new one takes long
			longest, each = 20*time.Millisecond, 300/workers
		}
		var mu sync.Mutex
		cancelled := 0
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				for i := range each {
					name := names[(worker*each+i)%len(names)]
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(longest))))
					err := calls[name](ctx)
					cancel()
					switch {
					case errors.Is(err, context.DeadlineExceeded):
						mu.Lock()
						cancelled++
						mu.Unlock()
					case !expected(err):
						t.Errorf("%s returned %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		noneInUse(t, db)
		if cancelled == 0 {
			t.Error("no call was cancelled")
		}
		t.Logf("%d of %d calls were cancelled", cancelled, workers*each)
		for name, call := range calls {
			if err := call(t.Context()); !expected(err) {
				t.Errorf("afterwards, %s returned %v", name, err)
			}
		}
	})
}

func TestCancelledContextStopsEveryCallWithoutAStatement(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db, sent := openRecorded(t, s.create(t))
		if err := sqlstore.Migrate[int64](t.Context(), db, s.dialect, sqlstore.Tables{}); err != nil {
			t.Fatal(err)
		}
		sent.reset()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for name, call := range everyCall(t, db, s.dialect, time.Minute) {
			if err := call(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s returned %v, want context.Canceled", name, err)
			}
		}
		if len(sent.sent) > 0 {
			t.Errorf("%d statements were sent; the first: %s", len(sent.sent), sent.sent[0].text)
		}
	})
}

// Errors are logged. They name what failed, and show no digest and no hash, whatever the database
// says.
func TestErrorsShowNoDigestAndNoHash(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		db := serverDB[int64](t, s, sqlstore.Tables{})
		calls := everyCall(t, db, s.dialect, time.Minute)
		check := func(when string) (failed int) {
			t.Helper()
			for _, name := range slices.Sorted(maps.Keys(calls)) {
				err := calls[name](t.Context())
				if err == nil {
					continue
				}
				failed++
				text := fmt.Sprintf("%v %+v %#v", err, err, err)
				for _, secret := range []string{secretDigest, "hash of the password", "248289761001"} {
					if strings.Contains(text, secret) {
						t.Errorf("%s: %s returned an error with a secret: %v", when, name, err)
					}
				}
				if !strings.HasPrefix(err.Error(), "sqlstore: ") {
					t.Errorf("%s: %s returned %q, want an error that begins with the package", when, name, err)
				}
			}
			return failed
		}
		for _, name := range []string{"Users.Insert", "Tokens.Insert", "OneTimeTokens.Insert", "OAuthAccounts.Insert"} {
			if err := calls[name](t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		check("with rows that exist")
		check("after they were deleted")
		for _, table := range []string{"one_time_tokens", "oauth_accounts", "access_tokens", "api_tokens", "users", "login_attempts", "revocations"} {
			if _, err := db.ExecContext(t.Context(), "DROP TABLE "+table); err != nil {
				t.Fatal(err)
			}
		}
		if failed := check("without tables"); failed != len(calls) {
			t.Errorf("without tables, %d of %d calls failed, want all", failed, len(calls))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if failed := check("with a closed database"); failed != len(calls) {
			t.Errorf("with a closed database, %d of %d calls failed, want all", failed, len(calls))
		}
	})
}

// With the data source of the documentation, in WAL mode, a writer holds up no reader, and other
// writers no longer than their Timeout, also on new connections.
func TestWriterOfSQLiteHoldsUpOtherWritersOnly(t *testing.T) {
	from := sqliteFile(t)
	locker := openDB(t, from)
	if err := sqlstore.Migrate[int64](t.Context(), locker, sqlstore.SQLite, sqlstore.Tables{}); err != nil {
		t.Fatal(err)
	}
	tx, err := locker.BeginTx(t.Context(), nil) // by _txlock=immediate, it has the lock
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	calls := everyCall(t, openDB(t, from), sqlstore.SQLite, 100*time.Millisecond)
	start := time.Now()
	if err := calls["Tokens.ByToken"](t.Context()); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("ByToken returned %v, want ErrTokenNotFound", err)
	}
	if err := calls["Tokens.Delete"](t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Delete returned %v, want context.DeadlineExceeded", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the calls took %v, want about 100 ms", took)
	}
}
