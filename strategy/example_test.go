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
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
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

	read, err := tokens.ReadToken(ctx, secret.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("it is", read.User.Email)

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

// exampleTokens returns a Database with one user, Ann.
func exampleTokens(ctx context.Context, cfg strategy.Config) (*strategy.Database[account.User[uuid.UUID], uuid.UUID], account.User[uuid.UUID]) {
	ann := account.User[uuid.UUID]{ID: uuid.New(), Email: "ann@example.com", Active: true}
	users := memstore.NewUsers[account.User[uuid.UUID]]()
	if err := users.Insert(ctx, ann); err != nil {
		log.Fatal(err)
	}
	tokens, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), users, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return tokens, ann
}

// See where a user is logged in, a page at a time, and end a session.
func ExampleDatabase_Sessions() {
	ctx := context.Background()
	tokens, ann := exampleTokens(ctx, strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: time.Hour})
	for _, device := range []string{"laptop", "phone", "tablet"} {
		if _, _, err := tokens.WriteToken(ctx, ann, strategy.WithName(device)); err != nil {
			log.Fatal(err)
		}
	}

	page := strategy.Page{Limit: 2}
	for {
		got, err := tokens.Sessions(ctx, ann.ID, page)
		if err != nil {
			log.Fatal(err)
		}
		for _, s := range got.Sessions {
			fmt.Println(s.Name)
			if s.Name == "phone" {
				if err := tokens.DestroySession(ctx, ann.ID, s.ID); err != nil {
					log.Fatal(err)
				}
			}
		}
		if page.After = got.Next; page.After == "" {
			break
		}
		fmt.Println("and more:")
	}

	left, err := tokens.Sessions(ctx, ann.ID, strategy.Page{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(left.Sessions), "are left")

	// Output:
	// tablet
	// phone
	// and more:
	// laptop
	// 2 are left
}

// Give a session a new secret, as after everything that raises its rights.
func ExampleDatabase_RotateToken() {
	ctx := context.Background()
	tokens, ann := exampleTokens(ctx, strategy.Config{Lifetime: 24 * time.Hour})
	old, before, err := tokens.WriteToken(ctx, ann)
	if err != nil {
		log.Fatal(err)
	}

	secret, after, err := tokens.RotateToken(ctx, old.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("the same session:", after.ID == before.ID, after.ExpiresAt.Equal(before.ExpiresAt))

	_, err = tokens.ReadToken(ctx, old.Reveal())
	fmt.Println("the old token is refused:", errors.Is(err, strategy.ErrInvalidToken))
	_, err = tokens.ReadToken(ctx, secret.Reveal())
	fmt.Println("the new one is good:", err == nil)

	// Output:
	// the same session: true true
	// the old token is refused: true
	// the new one is good: true
}

// A named token for a script may do what its scopes name, and no more.
func ExampleWithScopes() {
	ctx := context.Background()
	tokens, ann := exampleTokens(ctx, strategy.Config{Lifetime: 90 * 24 * time.Hour})
	secret, _, err := tokens.WriteToken(ctx, ann,
		strategy.WithName("ci"), strategy.WithScopes("deploy:write"), strategy.WithLifetime(30*24*time.Hour))
	if err != nil {
		log.Fatal(err)
	}

	session, err := tokens.ReadToken(ctx, secret.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session.Name, session.Scopes, session.ExpiresAt.Sub(session.CreatedAt))
	fmt.Println("deploy:", session.HasScopes("deploy:write"), "users:", session.HasScopes("users:write"))

	_, _, err = tokens.WriteToken(ctx, ann, strategy.WithScopes("two words"))
	fmt.Println("refused:", errors.Is(err, strategy.ErrInvalidOption))

	// Output:
	// ci [deploy:write] 720h0m0s
	// deploy: true users: false
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
