package testserver_test

import (
	"strings"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/integration/internal/testserver"
)

// outcome records how a test would have ended, without ending it.
type outcome struct {
	testing.TB
	skipped, failed bool
}

func (o *outcome) Helper()               {}
func (o *outcome) Skipf(string, ...any)  { o.skipped = true }
func (o *outcome) Fatalf(string, ...any) { o.failed = true }

func TestRequire(t *testing.T) {
	for name, c := range map[string]struct {
		have            bool
		required        string
		skipped, failed bool
	}{
		"present":                {have: true},
		"present and required":   {have: true, required: "all"},
		"missing":                {skipped: true},
		"missing, others needed": {required: "explain,changestreams", skipped: true},
		"missing and required":   {required: "explain, TTL", failed: true},
		"missing, all required":  {required: "all", failed: true},
		"missing, similar names": {required: "ttls,attl", skipped: true},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, map[string]string{"LATCHKEY_TEST_REQUIRE": c.required})
			got := &outcome{TB: t}
			// Skipf and Fatalf return here, so a failure is followed by a skip.
			testserver.Require(got, c.have, "ttl")
			if got.failed != c.failed || (got.skipped && !got.failed) != c.skipped {
				t.Errorf("skipped %t, failed %t", got.skipped, got.failed)
			}
		})
	}
}

func TestDatabaseIsDroppedAtTheEnd(t *testing.T) {
	setenv(t, noDocker(map[string]string{}))
	client := connect(t, start(t).URI)
	var first, second string
	t.Run("two databases", func(t *testing.T) {
		a, b := testserver.Database(t, client), testserver.Database(t, client)
		first, second = a.Name(), b.Name()
		if _, err := a.Collection("docs").InsertOne(t.Context(), bson.M{}); err != nil {
			t.Fatal(err)
		}
	})
	if first == second || !strings.HasPrefix(first, "lk_") || len(first) > 63 {
		t.Errorf("names %q, %q", first, second)
	}
	if names, err := client.ListDatabaseNames(t.Context(), bson.M{}); len(names) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
