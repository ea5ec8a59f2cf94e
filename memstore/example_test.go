package memstore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Customer is the user type of an application.
type Customer struct {
	account.User[uuid.UUID]
	Name string
}

// The stores replace MongoDB in unit tests: log in, use the token, revoke it.
func Example() {
	ctx := context.Background()
	users := memstore.NewUsers[Customer]()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	sessions, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(users, nil, attempts, uuid.New, account.Config{}, sessions)
	if err != nil {
		log.Fatal(err)
	}
	defer sessions.Close()

	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	if ann, err = accounts.Register(ctx, ann, "correct horse battery"); err != nil {
		log.Fatal(err)
	}
	token, _, err := sessions.WriteToken(ctx, ann)
	if err != nil {
		log.Fatal(err)
	}
	session, err := sessions.ReadToken(ctx, token.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the token belongs to", session.User.Name)

	if err := accounts.RevokeTokens(ctx, ann.ID); err != nil {
		log.Fatal(err)
	}
	_, err = sessions.ReadToken(ctx, token.Reveal())
	fmt.Println("revoked:", errors.Is(err, strategy.ErrInvalidToken))

	// Output:
	// the token belongs to Ann
	// revoked: true
}

// Update changes an account as an administrator would directly in the database.
func ExampleUsers_Update() {
	ctx := context.Background()
	users := memstore.NewUsers[Customer]()
	ann := Customer{Name: "Ann"}
	ann.ID, ann.Email = uuid.New(), "ann@example.com"
	if err := users.Insert(ctx, ann); err != nil {
		log.Fatal(err)
	}
	err := users.Update(ctx, ann.ID, func(c *Customer) { c.Name = "Anna" })
	if err != nil {
		log.Fatal(err)
	}
	ann, err = users.ByEmail(ctx, "ann@example.com")
	fmt.Println(ann.Name, err)

	// Output:
	// Anna <nil>
}

// A user has a few tokens of a purpose at a time, and each can be taken once.
func ExampleNewOneTimeTokens() {
	ctx := context.Background()
	store := memstore.NewOneTimeTokens[int64]()
	now := time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)
	for i, digest := range []string{"first", "second", "third", "fourth"} {
		err := store.Insert(ctx, account.OneTimeToken[int64]{
			Digest: digest, Purpose: account.PurposePasswordReset, UserID: 7,
			SentTo: "ann@example.com", Email: "ann@example.com",
			CreatedAt: now.Add(time.Duration(i) * time.Minute), ExpiresAt: now.Add(time.Hour),
		}, 3) // at most 3 remain
		if err != nil {
			log.Fatal(err)
		}
	}
	_, err := store.Find(ctx, account.PurposePasswordReset, "first")
	fmt.Println("the oldest is gone:", errors.Is(err, account.ErrOneTimeTokenNotFound))

	token, err := store.Take(ctx, account.PurposePasswordReset, "fourth")
	fmt.Println("taken:", token.UserID, token.SentTo, err)
	_, err = store.Take(ctx, account.PurposePasswordReset, "fourth")
	fmt.Println("again:", err)

	// Output:
	// the oldest is gone: true
	// taken: 7 ann@example.com <nil>
	// again: one-time token not found
}
