package testserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Require skips the test unless the server has what it needs: ttl, lookup, transactions, changestreams or explain,
// as Server.String names them. Where LATCHKEY_TEST_REQUIRE lists that name, or is "all", it fails the test instead.
func Require(tb testing.TB, have bool, what string) {
	tb.Helper()
	if have {
		return
	}
	required := strings.FieldsFunc(strings.ToLower(os.Getenv(envRequire)), func(r rune) bool { return r == ',' || r == ' ' })
	if slices.Contains(required, "all") || slices.Contains(required, strings.ToLower(what)) {
		tb.Fatalf("the server lacks %s, which %s requires", what, envRequire)
	}
	tb.Skipf("the server lacks %s (%s=%s makes this a failure)", what, envRequire, what)
}

// Database is a database of the test's own, dropped at its end. The client must live until then: disconnect it in a
// tb.Cleanup registered earlier, not in a defer.
func Database(tb testing.TB, client *mongo.Client) *mongo.Database {
	tb.Helper()
	db := client.Database(databaseName())
	tb.Cleanup(func() {
		if err := drop(context.Background(), db); err != nil {
			tb.Errorf("drop the database %s: %v", db.Name(), err)
		}
	})
	return db
}

// drop has a time limit of its own, and does not care whether the caller's context has ended.
func drop(ctx context.Context, db *mongo.Database) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return db.Drop(ctx)
}

// databaseName is new each time, and far below MongoDB's 63 bytes.
func databaseName() string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("lk_%x", random)
}
