package main

import (
	"context"
	"fmt"
	"net/http"
)

// addresses are the addresses that the routes of accounts must not tell apart. The tags have
// the same length, so that the requests have the same length too.
var addresses = []struct {
	name, tag                string
	exists, active, verified bool
}{
	{"unknown", "nobod", false, false, false},
	{"unverified", "unver", true, true, false},
	{"verified", "verif", true, true, true},
	{"inactive", "inact", true, false, true},
}

// accountKinds creates the accounts for n requests of each kind, each with an address of its
// own, and returns the kinds, and the pairs of them that must look alike.
func accountKinds(ctx context.Context, app *app, n int) (all []*kind, pairs [][2]int, err error) {
	hash, err := app.accounts.HashPassword(ctx, rightPassword)
	if err != nil {
		return nil, nil, err
	}
	for _, route := range []string{"request-verify-token", "forgot-password", "register"} {
		first := len(all)
		for j, a := range addresses {
			email := func(i int) string { return fmt.Sprintf("%s.%.5s.%06d@example.com", a.tag, route, i) }
			for i := range n {
				if !a.exists {
					break
				}
				stored := user{Email: email(i), Active: a.active, Verified: a.verified}
				if _, err := app.accounts.CreateWithHash(ctx, stored, hash); err != nil {
					return nil, nil, err
				}
			}
			send := func(i int) (answer, error) {
				body := fmt.Sprintf(`{"email":%q}`, email(i))
				if route == "register" {
					body = fmt.Sprintf(`{"email":%q,"password":%q}`, email(i), wrongPassword)
				}
				return app.post(ctx, route, "application/json", body)
			}
			all = append(all, &kind{route, route + ", " + a.name, http.StatusAccepted, "null", send, nil})
			if j > 0 {
				pairs = append(pairs, [2]int{first, first + j})
			}
		}
	}
	return all, pairs, nil
}
