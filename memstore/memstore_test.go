package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/internal/sameuser"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

var counter atomic.Int64

func nextInt() int64     { return counter.Add(1) }
func nextString() string { return fmt.Sprint("user ", counter.Add(1)) }

func TestTokensSatisfyTheContract(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { storetest.Run(t, uuid.New, openTokens[uuid.UUID]) })
	t.Run("object ID", func(t *testing.T) { storetest.Run(t, bson.NewObjectID, openTokens[bson.ObjectID]) })
	t.Run("string", func(t *testing.T) { storetest.Run(t, nextString, openTokens[string]) })
	t.Run("int64", func(t *testing.T) { storetest.Run(t, nextInt, openTokens[int64]) })
}

func openTokens[ID comparable](testing.TB) strategy.Store[ID] { return memstore.NewTokens[ID]() }

func TestOneTimeTokensSatisfyTheContract(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { storetest.RunOneTimeTokens(t, uuid.New, openOneTimeTokens[uuid.UUID]) })
	t.Run("object ID", func(t *testing.T) { storetest.RunOneTimeTokens(t, bson.NewObjectID, openOneTimeTokens[bson.ObjectID]) })
	t.Run("string", func(t *testing.T) { storetest.RunOneTimeTokens(t, nextString, openOneTimeTokens[string]) })
	t.Run("int64", func(t *testing.T) { storetest.RunOneTimeTokens(t, nextInt, openOneTimeTokens[int64]) })
}

func openOneTimeTokens[ID comparable](testing.TB) account.OneTimeTokenStore[ID] {
	return memstore.NewOneTimeTokens[ID]()
}

func TestOAuthAccountsSatisfyTheContract(t *testing.T) {
	t.Run("uuid", func(t *testing.T) { storetest.RunOAuthAccounts(t, uuid.New, openOAuthAccounts[uuid.UUID]) })
	t.Run("object ID", func(t *testing.T) { storetest.RunOAuthAccounts(t, bson.NewObjectID, openOAuthAccounts[bson.ObjectID]) })
	t.Run("string", func(t *testing.T) { storetest.RunOAuthAccounts(t, nextString, openOAuthAccounts[string]) })
	t.Run("int64", func(t *testing.T) { storetest.RunOAuthAccounts(t, nextInt, openOAuthAccounts[int64]) })
}

func openOAuthAccounts[ID comparable](testing.TB) account.OAuthAccountStore[ID] {
	return memstore.NewOAuthAccounts[ID]()
}

// member is the user type of an application.
type member[ID comparable] struct {
	account.User[ID]
	Name  string
	Roles []string
	Born  time.Time
}

func newMember[ID comparable](id ID, email string) member[ID] {
	return member[ID]{
		User: account.User[ID]{
			ID: id, Email: email, HashedPassword: account.NewPasswordHash("old"), Active: true, Verified: true, Superuser: true,
			CreatedAt: time.Date(2026, 3, 29, 1, 59, 59, 987e6, time.UTC),
			Version:   7,
		},
		Name:  "Ann",
		Roles: []string{"editor", "author"},
		Born:  time.Date(1990, 2, 3, 0, 0, 0, 0, time.UTC),
	}
}

func TestUsersSatisfyTheContract(t *testing.T) {
	t.Run("uuid", func(t *testing.T) {
		storetest.RunUsers(t,
			func(email string) member[uuid.UUID] { return newMember(uuid.New(), email) },
			func(testing.TB) account.Store[member[uuid.UUID], uuid.UUID] {
				return memstore.NewUsers[member[uuid.UUID]]()
			})
	})
	t.Run("int64", func(t *testing.T) {
		storetest.RunUsers(t,
			func(email string) member[int64] { return newMember(nextInt(), email) },
			func(testing.TB) account.Store[member[int64], int64] { return memstore.NewUsers[member[int64]]() })
	})
}

func TestUpdateKeepsIDAndEmail(t *testing.T) {
	users := memstore.NewUsers[member[int64]]()
	ann := newMember(nextInt(), "ann@example.com")
	bob := newMember(nextInt(), "bob@example.com")
	if err := errors.Join(users.Insert(t.Context(), ann), users.Insert(t.Context(), bob)); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	err := users.Update(t.Context(), ann.ID, func(m *member[int64]) {
		m.Active, m.Name = false, "Anna"
		m.ID, m.Email = bob.ID, bob.Email
	})
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	want := ann
	want.Active, want.Name = false, "Anna"
	for _, want := range []member[int64]{want, bob} {
		if got, err := users.ByID(t.Context(), want.ID); !sameuser.Equal(got, want) || err != nil {
			t.Errorf("ByID: got %+v, %v, want %+v", got, err, want)
		}
		if got, err := users.ByEmail(t.Context(), want.Email); !sameuser.Equal(got, want) || err != nil {
			t.Errorf("ByEmail: got %+v, %v, want %+v", got, err, want)
		}
	}
	err = users.Update(t.Context(), nextInt(), func(*member[int64]) { t.Error("Update called the function without an account") })
	if !errors.Is(err, account.ErrUserNotFound) {
		t.Errorf("Update of an unknown account: got %v, want ErrUserNotFound", err)
	}
}

func TestUpdateHonoursCancellation(t *testing.T) {
	users := memstore.NewUsers[member[int64]]()
	ann := newMember(nextInt(), "ann@example.com")
	if err := users.Insert(t.Context(), ann); err != nil {
		t.Fatalf("Insert: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := users.Update(cancelled, ann.ID, func(m *member[int64]) { m.Active = false }); !errors.Is(err, context.Canceled) {
		t.Errorf("Update: got %v, want context.Canceled", err)
	}
	if got, err := users.ByID(t.Context(), ann.ID); !sameuser.Equal(got, ann) || err != nil {
		t.Errorf("ByID: got %+v, %v, want %+v unchanged", got, err, ann)
	}
}
