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

// Require skips the test if have is false. what names the missing capability as [Server.String]
// does: ttl, transactions, changestreams, explain or decimal128. If LATCHKEY_TEST_REQUIRE lists
// that name, or is "all", Require fails the test instead.
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

// Database returns a new database that is dropped when the test ends. The client must live until
// then: disconnect it in a tb.Cleanup registered earlier, not in a defer.
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

// drop drops a database within 20 seconds, even if the caller's context has ended.
func drop(ctx context.Context, db *mongo.Database) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	return db.Drop(ctx)
}

// databaseName returns a random name, well below MongoDB's limit of 63 bytes.
func databaseName() string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	return fmt.Sprintf("lk_%x", random)
}
