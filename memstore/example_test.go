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
