package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// purged is a store that counts its purges.
type purged struct {
	mu   sync.Mutex
	n    int
	rows int64
	err  error
}

func (p *purged) Purge(context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return p.rows, p.err
}

func (p *purged) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// eventLog keeps events.
type eventLog struct {
	mu     sync.Mutex
	events []event.Event
}

func (r *eventLog) record(_ context.Context, e event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *eventLog) take() []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.events
	r.events = nil
	return events
}

func migrate(t testing.TB, db *sql.DB, dialect sqlstore.Dialect, tables sqlstore.Tables) {
	t.Helper()
	if err := sqlstore.Migrate[int64](t.Context(), db, dialect, tables); err != nil {
		t.Fatal(err)
	}
}

func TestOneOfManyInstancesPurges(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, elsewhere)
		var stores [8]purged
		var purgers [8]*sqlstore.Purger
		var events eventLog
		for i := range purgers {
			var err error
			if purgers[i], err = sqlstore.NewPurger(db, dialect, sqlstore.PurgerConfig{OnEvent: events.record}, &stores[i]); err != nil {
				t.Fatal(err)
			}
		}
		interval := func() (purging []int) {
			t.Helper()
			var before [8]int
			var wg sync.WaitGroup
			for i, p := range purgers {
				before[i] = stores[i].count()
				wg.Go(func() { p.PurgeOnce(t.Context()) })
			}
			wg.Wait()
			for i := range stores {
				if stores[i].count() > before[i] {
					purging = append(purging, i)
				}
			}
			return purging
		}
		first := interval()
		if len(first) != 1 {
			t.Fatalf("the purgers %v purged in one interval, want one", first)
		}
		for range 3 {
			if again := interval(); len(again) != 1 || again[0] != first[0] {
				t.Fatalf("the purgers %v purged in the next interval, want %v again", again, first)
			}
		}
		// The lease of an instance that has died expires.
		died := purgers[first[0]]
		purgers[first[0]] = purgers[(first[0]+1)%8]
		execute(t, db, "UPDATE leases SET until_at = until_at - 89000")
		if taken := interval(); len(taken) > 0 {
			t.Fatalf("the purgers %v purged before the lease expired, want none", taken)
		}
		execute(t, db, "UPDATE leases SET until_at = until_at - 1001")
		second := interval()
		if len(second) != 1 {
			t.Fatalf("the purgers %v purged after the lease expired, want one", second)
		}
		died.PurgeOnce(t.Context()) // it was only slow
		if n := stores[first[0]].count(); n != 4 {
			t.Errorf("the former holder purged %d times, want 4", n)
		}
		if list := events.take(); len(list) > 0 {
			t.Errorf("got the events %+v, want none", list)
		}
	})
}

func TestClosedPurgerReleasesTheLease(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		tables := sqlstore.Tables{UsersElsewhere: true, Leases: "locks"}
		migrate(t, db, dialect, tables)
		var stores [2]purged
		var purgers [2]*sqlstore.Purger
		for i := range purgers {
			var err error
			if purgers[i], err = sqlstore.NewPurger(db, dialect, sqlstore.PurgerConfig{Tables: tables, Interval: time.Hour}, &stores[i]); err != nil {
				t.Fatal(err)
			}
			defer purgers[i].Close()
		}
		purgers[0].Start()
		purgers[0].PurgeOnce(t.Context())
		purgers[1].PurgeOnce(t.Context())
		purgers[0].Close()
		purgers[1].PurgeOnce(t.Context())
		if a, b := stores[0].count(), stores[1].count(); a != 1 || b != 1 {
			t.Errorf("the closed one purged %d times and the other %d times, want 1 and 1", a, b)
		}
	})
}

func TestPurgerGoesOnAfterFailures(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		var events eventLog
		now := time.UnixMilli(1790000000000).UTC()
		broken, works := &purged{rows: 2, err: errors.New("it is broken")}, &purged{rows: 3}
		purger, err := sqlstore.NewPurger(db, dialect, sqlstore.PurgerConfig{OnEvent: events.record, Now: func() time.Time { return now }}, broken, works)
		if err != nil {
			t.Fatal(err)
		}
		purger.PurgeOnce(t.Context())
		if list := events.take(); len(list) != 1 || list[0].Kind != event.StoreFailed || list[0].Err == nil || broken.count() > 0 {
			t.Errorf("without the table of leases, the events are %+v, want one failure and no purge", list)
		}
		migrate(t, db, dialect, elsewhere)
		purger.PurgeOnce(t.Context())
		list := events.take()
		if len(list) != 2 || list[0].Kind != event.StoreFailed || !errors.Is(list[0].Err, broken.err) ||
			list[1].Kind != event.Purged || list[1].Count != 5 || !list[1].Time.Equal(now) {
			t.Errorf("the events are %+v, want the failure of one store, and 5 deleted rows", list)
		}
		broken.rows, broken.err, works.rows = 0, nil, 0
		purger.PurgeOnce(t.Context())
		if list := events.take(); len(list) > 0 {
			t.Errorf("after a purge without expired rows, the events are %+v, want none", list)
		}
	})
}

// The lease lasts longer than the interval, by the database's clock, so the holder purges at each.
func TestPurgerPurgesAtEachInterval(t *testing.T) {
	db := migrated[int64](t, elsewhere)
	synctest.Test(t, func(t *testing.T) {
		// Without a database, each interval ends with an event.
		closed, err := sql.Open("sqlite", "file::memory:")
		if err != nil {
			t.Fatal(err)
		}
		if err := closed.Close(); err != nil {
			t.Fatal(err)
		}
		var events eventLog
		store := &purged{}
		purger, err := sqlstore.NewPurger(closed, sqlstore.SQLite, sqlstore.PurgerConfig{Interval: time.Minute, OnEvent: events.record}, store)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		purger.Start()
		purger.Start()
		time.Sleep(3*time.Minute + time.Second)
		if n := len(events.take()); n != 3 {
			t.Errorf("got %d events in 3 intervals, want 3", n)
		}
		purger.Close()
		purger.Close()
		purger.Start()
		time.Sleep(3 * time.Minute)
		if n := len(events.take()); n > 0 {
			t.Errorf("got %d events after Close, want none", n)
		}
	}) // fails if a goroutine is left
	never, err := sqlstore.NewPurger(db, sqlstore.SQLite, sqlstore.PurgerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	never.Close()
	var n int
	if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM leases").Scan(&n); err != nil || n != 0 {
		t.Errorf("a purger that was never started left %d leases (error %v), want 0", n, err)
	}
	_, err = sqlstore.NewPurger(db, sqlstore.SQLite, sqlstore.PurgerConfig{Interval: -1})
	if want := "PurgerConfig.Interval is -1ns"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("NewPurger returned the error %v, want one with %q", err, want)
	}
}

// counter is a dialect's list of the numbers from 1 to n, as a table.
func counter(dialect sqlstore.Dialect, n int) string {
	if dialect == sqlstore.PostgreSQL {
		return fmt.Sprintf("generate_series(1, %d) AS c(n)", n)
	}
	digits := "(SELECT 0 AS d"
	for d := 1; d < 10; d++ {
		digits += fmt.Sprint(" UNION ALL SELECT ", d)
	}
	digits += ")"
	return fmt.Sprintf("(SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d AS n FROM %s a, %s b, %s c, %s e, %s f) c WHERE n <= %d",
		digits, digits, digits, digits, digits, n)
}

// insertMany inserts tokens whose created_at is their number.
func insertMany(t testing.TB, db *sql.DB, dialect sqlstore.Dialect, n int) {
	t.Helper()
	id := map[sqlstore.Dialect]string{
		sqlstore.PostgreSQL: "lpad(n::text, 32, '0')::uuid", sqlstore.MySQL: "LPAD(n, 36, '0')", sqlstore.SQLite: "printf('%036d', n)",
	}[dialect]
	execute(t, db, "INSERT INTO access_tokens (id, token, user_id, created_at) SELECT "+id+", CONCAT('t', n), 1, n FROM "+counter(dialect, n))
}

func TestPurgeInBatches(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, elsewhere)
		insertMany(t, db, dialect, 6000)
		if dialect == sqlstore.PostgreSQL {
			execute(t, db, "CREATE TABLE batches (n BIGINT)",
				"CREATE FUNCTION count_batch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO batches SELECT COUNT(*) FROM gone; RETURN NULL; END'",
				"CREATE TRIGGER count_batch AFTER DELETE ON access_tokens REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_batch()")
		}
		var events eventLog
		tokens, err := sqlstore.NewTokens[int64](db, dialect, sqlstore.TokensConfig{
			Tables: elsewhere, Lifetime: time.Hour, Now: func() time.Time { return time.UnixMilli(5001).Add(time.Hour + 5*time.Minute) },
		})
		if err != nil {
			t.Fatal(err)
		}
		purger, err := sqlstore.NewPurger(db, dialect, sqlstore.PurgerConfig{Tables: elsewhere, OnEvent: events.record}, tokens)
		if err != nil {
			t.Fatal(err)
		}
		purger.PurgeOnce(t.Context())
		if list := events.take(); len(list) != 1 || list[0].Kind != event.Purged || list[0].Count != 5000 {
			t.Errorf("the events are %+v, want one of 5000 deleted rows", list)
		}
		var left, oldest int
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), MIN(created_at) FROM access_tokens").Scan(&left, &oldest); err != nil || left != 1000 || oldest != 5001 {
			t.Errorf("%d tokens are left, the oldest of %d (error %v), want 1000 of 5001", left, oldest, err)
		}
		if dialect == sqlstore.PostgreSQL {
			var n, largest int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*), MAX(n) FROM batches WHERE n > 0").Scan(&n, &largest); err != nil || n != 5 || largest != sqlstore.PurgeBatch {
				t.Errorf("%d batches of at most %d rows (error %v), want 5 of %d", n, largest, err, sqlstore.PurgeBatch)
			}
		}
	})
}

func TestPurgeUsesIndexes(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, elsewhere)
		insertMany(t, db, dialect, 50000)
		analyze := map[sqlstore.Dialect]string{
			sqlstore.PostgreSQL: "ANALYZE access_tokens", sqlstore.MySQL: "ANALYZE TABLE access_tokens", sqlstore.SQLite: "ANALYZE",
		}[dialect]
		execute(t, db, analyze)
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		for _, c := range []struct{ table, column string }{
			{"access_tokens", "created_at"}, {"access_tokens", "expires_at"}, {"api_tokens", "created_at"}, {"api_tokens", "expires_at"},
			{"revocations", "at"}, {"login_attempts", "expires_at"}, {"one_time_tokens", "expires_at"},
		} {
			statement, args := sqlstore.PurgeBatchOf(dialect, c.table, c.column, time.UnixMilli(25000))
			explain, scan := "EXPLAIN ", "Seq Scan"
			switch dialect {
			case sqlstore.PostgreSQL:
				if c.table != "access_tokens" { // the small ones are faster to scan
					if _, err := conn.ExecContext(t.Context(), "SET enable_seqscan = off"); err != nil {
						t.Fatal(err)
					}
				}
			case sqlstore.SQLite:
				explain, scan = "EXPLAIN QUERY PLAN ", "SCAN"
			default:
				scan = "ALL"
			}
			plan := explained(t, conn, explain+statement, args...)
			if strings.Contains(plan, scan) || !strings.Contains(plan, c.table+"_"+c.column) {
				t.Errorf("the purge of %s by %s does not use the index alone:\n%s", c.table, c.column, plan)
			}
		}
	})
}

// explained returns the rows of a plan as text.
func explained(t *testing.T, conn *sql.Conn, query string, args ...any) string {
	t.Helper()
	rows, err := conn.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			plan.WriteString(v.String + " ")
		}
		plan.WriteString("\n")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}

func TestPurgeKeepsWhatIsValid(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		db := open(t)
		migrate(t, db, dialect, elsewhere)
		now := time.UnixMilli(1790000000000).UTC()
		clock := func() time.Time { return now }
		tokens, err := sqlstore.NewTokens[int64](db, dialect, sqlstore.TokensConfig{Tables: elsewhere, Lifetime: time.Hour, Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		attempts, err := sqlstore.NewAttempts(db, dialect, sqlstore.AttemptsConfig{Tables: elsewhere, Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		oneTime, err := sqlstore.NewOneTimeTokens[int64](db, dialect, sqlstore.OneTimeTokensConfig{Tables: elsewhere, Now: clock})
		if err != nil {
			t.Fatal(err)
		}
		insert := func(name string, created, expires time.Time) {
			t.Helper()
			token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: name, UserID: 1, CreatedAt: created}
			mailed := account.OneTimeToken[int64]{Digest: name, Purpose: account.PurposeVerification, UserID: 1, CreatedAt: created, ExpiresAt: expires}
			_, err := attempts.Add(t.Context(), name, created, expires, false)
			if err := errors.Join(err, tokens.Insert(t.Context(), token), oneTime.Insert(t.Context(), mailed, 10)); err != nil {
				t.Fatal(err)
			}
		}
		insert("valid", now, now.Add(time.Hour))
		insert("in the grace", now.Add(-time.Hour-5*time.Minute), now.Add(-5*time.Minute))
		insert("expired", now.Add(-time.Hour-5*time.Minute-time.Millisecond), now.Add(-5*time.Minute-time.Millisecond))
		if err := tokens.PublishRevocation(t.Context(), strategy.Revocation[int64]{Digest: "valid"}); err != nil {
			t.Fatal(err)
		}
		execute(t, db, "UPDATE revocations SET at = "+fmt.Sprint(now.UnixMilli()))
		var events eventLog
		purger, err := sqlstore.NewPurger(db, dialect, sqlstore.PurgerConfig{OnEvent: events.record}, tokens, attempts, oneTime)
		if err != nil {
			t.Fatal(err)
		}
		purger.PurgeOnce(t.Context())
		if list := events.take(); len(list) != 1 || list[0].Kind != event.Purged || list[0].Count != 3 {
			t.Errorf("the events are %+v, want one of 3 deleted rows", list)
		}
		for table, want := range map[string]int{"access_tokens": 2, "one_time_tokens": 2, "login_attempts": 2, "revocations": 1} {
			var n int
			if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+table).Scan(&n); err != nil || n != want {
				t.Errorf("the table %s has %d rows (error %v), want %d", table, n, err, want)
			}
		}
	})
}

// waiting is a store whose purge ends when the channel is closed.
type waiting chan struct{}

func (w waiting) Purge(context.Context) (int64, error) {
	<-w
	return 0, nil
}

func TestLeaseIsRenewedDuringALongPurge(t *testing.T) {
	db := migrated[int64](t, elsewhere)
	done := make(waiting)
	purger, err := sqlstore.NewPurger(db, sqlstore.SQLite, sqlstore.PurgerConfig{Interval: 5 * time.Millisecond}, done)
	if err != nil {
		t.Fatal(err)
	}
	var purge sync.WaitGroup
	purge.Go(func() { purger.PurgeOnce(t.Context()) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var first, until int64
	for until == first || first == 0 {
		first = until
		err := db.QueryRowContext(ctx, "SELECT until_at FROM leases").Scan(&until)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			t.Errorf("the lease was not renewed: %v", err)
			break
		}
	}
	close(done)
	purge.Wait()
}
