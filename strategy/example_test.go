package strategy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
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

// List the sessions of a user page by page, and end one of them.
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
		fmt.Println("next page:")
	}

	left, err := tokens.Sessions(ctx, ann.ID, strategy.Page{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(left.Sessions), "sessions are left")

	// Output:
	// tablet
	// phone
	// next page:
	// laptop
	// 2 sessions are left
}

// Give a session a new secret, for example after its user got more rights.
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
	fmt.Println("the new token is valid:", err == nil)

	// Output:
	// the same session: true true
	// the old token is refused: true
	// the new token is valid: true
}

// A token for a script is restricted to its scopes.
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

// Employee is a user type that does not embed account.User.
type Employee struct {
	Number  int64
	Name    string
	Left    bool
	Version int64 // raised with every change of the password
}

func (e Employee) UserID() int64       { return e.Number }
func (e Employee) IsActive() bool      { return !e.Left }
func (e Employee) IsVerified() bool    { return true }
func (e Employee) IsSuperuser() bool   { return false }
func (e Employee) TokenVersion() int64 { return e.Version }

// Directory is the source of employees.
type Directory map[int64]Employee

func (d Directory) ByID(_ context.Context, number int64) (Employee, error) {
	e, ok := d[number]
	if !ok {
		return Employee{}, fmt.Errorf("employee %d: %w", number, strategy.ErrUserNotFound)
	}
	return e, nil
}

// Use a user type, an ID type and a source of your own.
func ExampleUser() {
	ctx := context.Background()
	directory := Directory{7: {Number: 7, Name: "Ann"}}
	tokens, err := strategy.NewDatabase(memstore.NewTokens[int64](), directory, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	secret, _, err := tokens.WriteToken(ctx, directory[7])
	if err != nil {
		log.Fatal(err)
	}
	session, err := tokens.ReadToken(ctx, secret.Reveal())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(session.User.Name, session.UserID)

	// Raising the version ends every session of the user.
	ann := directory[7]
	ann.Version++
	directory[7] = ann
	_, err = tokens.ReadToken(ctx, secret.Reveal())
	fmt.Println("refused:", errors.Is(err, strategy.ErrInvalidToken))

	// Output:
	// Ann 7
	// refused: true
}

// Keep the session of a user who changes the password, and end all others.
func ExampleWithReauthentication() {
	ctx := context.Background()
	directory := Directory{7: {Number: 7, Name: "Ann"}}
	tokens, err := strategy.NewDatabase(memstore.NewTokens[int64](), directory, strategy.Config{Lifetime: time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	phone, _, err := tokens.WriteToken(ctx, directory[7])
	if err != nil {
		log.Fatal(err)
	}
	laptop, _, err := tokens.WriteToken(ctx, directory[7])
	if err != nil {
		log.Fatal(err)
	}

	// The user gives the old password and a new one on the laptop. The application checks the
	// old one, stores the new one, and raises the version in the same write.
	at := time.Now()
	ann := directory[7]
	ann.Version++
	directory[7] = ann
	laptop, _, err = tokens.RotateToken(ctx, laptop.Reveal(), strategy.WithReauthentication(ann, at))
	if err != nil {
		log.Fatal(err)
	}

	_, err = tokens.ReadToken(ctx, laptop.Reveal())
	fmt.Println("the laptop is logged in:", err == nil)
	_, err = tokens.ReadToken(ctx, phone.Reveal())
	fmt.Println("the phone is logged out:", errors.Is(err, strategy.ErrInvalidToken))

	// Output:
	// the laptop is logged in: true
	// the phone is logged out: true
}

// Cache sessions, and read a user again after a change that the cache cannot see.
func ExampleDatabase_UserChanged() {
	ctx := context.Background()
	directory := Directory{7: {Number: 7, Name: "Ann"}}
	tokens, err := strategy.NewDatabase(memstore.NewTokens[int64](), directory, strategy.Config{
		Lifetime: time.Hour,
		Cache:    strategy.Cache{MaxStaleness: 30 * time.Second},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer tokens.Close()
	secret, _, err := tokens.WriteToken(ctx, directory[7])
	if err != nil {
		log.Fatal(err)
	}
	name := func() string {
		session, err := tokens.ReadToken(ctx, secret.Reveal())
		if err != nil {
			log.Fatal(err)
		}
		return session.User.Name
	}
	fmt.Println(name())

	directory[7] = Employee{Number: 7, Name: "Anne"}
	if err := tokens.UserChanged(ctx, 7, strategy.RevokedNone); err != nil {
		log.Fatal(err)
	}
	fmt.Println(name())

	// Output:
	// Ann
	// Anne
}

// Code below the handlers gets the user from the context.
func ExampleUserFromContext() {
	greet := func(ctx context.Context) {
		ann, ok := strategy.UserFromContext[Employee](ctx)
		fmt.Println(ann.Name, ok)
	}

	// A guard of the Gin plugin does this; so can a test.
	session := strategy.Session[Employee]{User: Employee{Number: 7, Name: "Ann"}}
	greet(strategy.ContextWithSession(context.Background(), session))
	greet(context.Background())

	// Output:
	// Ann true
	//  false
}

// A job that goes on only while the session of its user is valid.
func ExampleDatabase_Watch() {
	ctx := context.Background()
	tokens, ann := exampleTokens(ctx, strategy.Config{Lifetime: 50 * time.Millisecond})
	secret, session, err := tokens.WriteToken(ctx, ann)
	if err != nil {
		log.Fatal(err)
	}

	ctx, stop := tokens.Watch(ctx, secret.Reveal(), session.SessionInfo)
	defer stop()
	<-ctx.Done()
	fmt.Println(context.Cause(ctx))
	fmt.Println("expired:", errors.Is(context.Cause(ctx), strategy.ErrSessionExpired))

	// Output:
	// strategy: session expired: invalid token: expired
	// expired: true
}

// A Secret can be printed, logged and marshalled safely.
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
