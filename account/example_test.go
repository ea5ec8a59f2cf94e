package account_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
)

// Customer is an application's user: an account, and fields of its own.
type Customer struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

// Register an account, log in, change the password.
func ExampleManager() {
	ctx := context.Background()
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(memstore.NewUsers[Customer](), attempts, uuid.New, account.Config{})
	if err != nil {
		log.Fatal(err)
	}

	ann := Customer{Name: "Ann"}
	ann.Email = "Ann@Example.com"
	ann, err = accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("registered", ann.Email, ann.HashedPassword)

	user, err := accounts.Authenticate(ctx, " ANN@example.com", "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("it is", user.Name)

	if _, err := accounts.ChangePassword(ctx, user.ID, "correct horse battery", "staple correct horse"); err != nil {
		log.Fatal(err)
	}
	_, err = accounts.Authenticate(ctx, "ann@example.com", "correct horse battery")
	fmt.Println("refused:", errors.Is(err, account.ErrBadCredentials))

	// Output:
	// registered ann@example.com …redacted
	// it is Ann
	// refused: true
}
