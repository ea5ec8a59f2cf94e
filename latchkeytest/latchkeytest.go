// Package latchkeytest is a kit for the tests of applications that use Latchkey. It needs no
// database, and it works only in programs that "go test" has built.
//
//	func TestNotes(t *testing.T) {
//		kit := latchkeytest.New[Member](t, uuid.New, latchkey.Config{Lifetime: time.Hour})
//		router := app.Router(kit.Latchkey)
//		ann := kit.NewUser(t, Member{Name: "Ann"})
//
//		w := httptest.NewRecorder()
//		router.ServeHTTP(w, kit.As(t, ann).Request("GET", "/notes", nil))
//		…
//	}
//
// A [Kit] is a latchkey.Latchkey whose stores are in memory: the same guards, routes and settings
// as in production. It also has a clock that only [Kit.Advance] moves, the messages ([Mail]) and the
// events ([Events]).
//
// [Kit.As] logs a user in without a password, for requests, clients and browsers. For each check
// of package ginauth there is an option:
//
//	guard                         kit.As(t, ann) …
//	RequireUser()                 passes
//	RequireUser(Verified)         passes with Verified
//	RequireUser(Superuser)        passes with Superuser
//	RequireUser(Fresh(d))         passes, and fails with LoginAge of more than d
//	RequireUser(Scopes("a"))      passes, and fails with Scopes("b")
//
// [ContextAs] needs no kit: guards admit a request with its context as they admit a login. It is for
// tests of a few handlers.
package latchkeytest

import (
	"testing"

	"github.com/latchkey-go/latchkey/internal/testhook"
)

func init() {
	if testing.Testing() {
		testhook.Enable()
	}
}

// check panics outside of tests. Nothing else could end the caller there: a testing.TB can come
// from testing.Benchmark, or from a type that embeds one.
func check(t testing.TB) {
	if !testing.Testing() {
		panic(`latchkeytest: it works only in programs that "go test" has built`)
	}
	if t == nil {
		panic("latchkeytest: t is nil, want the testing.TB of the test")
	}
}
