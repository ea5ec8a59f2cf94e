package strategy_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/strategy"
)

func TestContextCarriesASession(t *testing.T) {
	type admin struct{ name string }
	type guest struct{ name string }
	session := strategy.Session[admin]{
		SessionInfo: strategy.SessionInfo{ID: uuid.New(), CreatedAt: time.UnixMilli(1), Scopes: []string{"a"}}, User: admin{"ann"},
	}
	ctx := strategy.ContextWithSession(t.Context(), session)

	if got, ok := strategy.SessionFromContext[admin](ctx); !ok || !reflect.DeepEqual(got, session) {
		t.Errorf("SessionFromContext: got %v, %v, want %v, true", got, ok, session)
	}
	if got, ok := strategy.UserFromContext[admin](ctx); !ok || got != session.User {
		t.Errorf("UserFromContext: got %v, %v, want %v, true", got, ok, session.User)
	}
	if got, ok := strategy.UserFromContext[guest](ctx); ok || got != (guest{}) {
		t.Errorf("UserFromContext of another user type: got %v, %v, want none", got, ok)
	}
	if got, ok := strategy.UserFromContext[*admin](ctx); ok || got != nil {
		t.Errorf("UserFromContext of a pointer to the user type: got %v, %v, want none", got, ok)
	}
	if got, ok := strategy.SessionFromContext[admin](t.Context()); ok || !reflect.DeepEqual(got, strategy.Session[admin]{}) {
		t.Errorf("SessionFromContext without a session: got %v, %v, want none", got, ok)
	}
	if got, ok := strategy.UserFromContext[admin](context.Background()); ok || got != (admin{}) {
		t.Errorf("UserFromContext without a session: got %v, %v, want none", got, ok)
	}

	// A session hides an outer one of the same user type only.
	ctx = strategy.ContextWithSession(ctx, strategy.Session[guest]{User: guest{"gus"}})
	ctx = strategy.ContextWithSession(ctx, strategy.Session[admin]{User: admin{"bob"}})
	if got, _ := strategy.UserFromContext[guest](ctx); got.name != "gus" {
		t.Errorf("the guest: got %q, want %q", got.name, "gus")
	}
	if got, _ := strategy.UserFromContext[admin](ctx); got.name != "bob" {
		t.Errorf("the admin: got %q, want %q", got.name, "bob")
	}
}

// With a cache, requests share a session. A handler that changes its copy must not affect
// others.
func TestSessionsFromContextAreCopies(t *testing.T) {
	shared := strategy.Session[string]{SessionInfo: strategy.SessionInfo{Scopes: []string{"read", "write"}}, User: "ann"}
	ctx := strategy.ContextWithSession(t.Context(), shared)
	session, _ := strategy.SessionFromContext[string](ctx)
	if len(session.Scopes) != 2 {
		t.Fatalf("got the scopes %q, want two", session.Scopes)
	}
	session.Scopes[0] = "admin"
	again, _ := strategy.SessionFromContext[string](ctx)
	if shared.Scopes[0] != "read" || again.Scopes[0] != "read" {
		t.Errorf("a change of the copy reached the session: %q, %q", shared.Scopes, again.Scopes)
	}
	login, ok := strategy.SessionFromContext[string](strategy.ContextWithSession(t.Context(), strategy.Session[string]{}))
	if !ok || login.Scopes != nil {
		t.Errorf("a login: got the scopes %#v, %v, want nil", login.Scopes, ok)
	}
}
