package strategy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"regexp"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
	"github.com/latchkey-go/latchkey/strategy/memstore"
)

// Issue a token, read it, revoke it.
func ExampleNewDatabase() {
	ctx := context.Background()
	ann := account.User[uuid.UUID]{ID: uuid.New(), Email: "ann@example.com", Active: true}
	users := memstore.NewUsers[account.User[uuid.UUID]]()
	if err := users.Insert(ctx, ann); err != nil {
		log.Fatal(err)
	}

	tokens, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, strategy.Config{Lifetime: 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}

	secret, session, err := tokens.WriteToken(ctx, ann)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("issued", secret, "for", session.ExpiresAt.Sub(session.CreatedAt))

	session, err = tokens.ReadToken(ctx, secret.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("it is", session.User.Email)

	if err := tokens.DestroyToken(ctx, secret.Reveal()); err != nil {
		log.Fatal(err)
	}
	_, err = tokens.ReadToken(ctx, secret.Reveal())
	fmt.Println("refused:", errors.Is(err, strategy.ErrInvalidToken))

	// Output:
	// issued lk_…redacted for 24h0m0s
	// it is ann@example.com
	// refused: true
}

// The pattern is for the configuration of a secret scanner.
func ExampleTokenFormat_Pattern() {
	format, err := strategy.NewTokenFormat("my_app_")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(format.Pattern())

	secret, _ := format.New()
	leak := "Authorization: Bearer " + secret.Reveal()
	fmt.Println(regexp.MustCompile(format.Pattern()).ReplaceAllString(leak, "***"))

	// Output:
	// \bmy_app_[0-9A-Za-z]{49}\b
	// Authorization: Bearer ***
}

// A Secret may be printed, logged and marshalled without harm.
func ExampleSecret() {
	secret := strategy.NewSecret("lk_00000000000000000000000000000000000000000002Ejti4")
	fmt.Printf("%v %+v %q %x\n", secret, secret, secret, secret)

	answer, _ := json.Marshal(map[string]any{"access_token": secret})
	fmt.Println(string(answer))

	answer, _ = json.Marshal(map[string]any{"access_token": secret.Reveal()})
	fmt.Println(string(answer))

	// Output:
	// lk_…redacted lk_…redacted lk_…redacted lk_…redacted
	// {"access_token":"lk_…redacted"}
	// {"access_token":"lk_00000000000000000000000000000000000000000002Ejti4"}
}
