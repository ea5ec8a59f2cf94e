package account_test

import (
	"context"
	"crypto/sha512"
	"crypto/subtle"
	"errors"
	"fmt"
	"github.com/latchkey-go/latchkey/strategy"
	"log"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
)

// Customer is the user type of an application: an account with fields of its own.
type Customer struct {
	account.User[uuid.UUID] `bson:",inline"`
	Name                    string `bson:"name"`
}

// newManager returns a Manager over stores in memory. An application uses
// mongostore.NewUsers and mongostore.NewAttempts.
func newManager(cfg account.Config, sessions ...account.Sessions[uuid.UUID]) *account.Manager[Customer, uuid.UUID] {
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	cfg.Timeout = time.Minute // under the race detector, hashes take seconds
	accounts, err := account.NewManager(memstore.NewUsers[Customer](), nil, attempts, uuid.New, cfg, sessions...)
	if err != nil {
		log.Fatal(err)
	}
	return accounts
}

// Register an account, log in, and change the password.
func ExampleManager() {
	ctx := context.Background()
	accounts := newManager(account.Config{})

	ann := Customer{Name: "Ann"}
	ann.Email = "Ann@Example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("registered", ann.Email, ann.HashedPassword)

	user, _, err := accounts.Authenticate(ctx, " ANN@example.com", "correct horse battery", "")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("logged in:", user.Name)

	if _, err := accounts.ChangePassword(ctx, user.ID, "correct horse battery", "staple correct horse"); err != nil {
		log.Fatal(err)
	}
	_, _, err = accounts.Authenticate(ctx, "ann@example.com", "correct horse battery", "")
	fmt.Println("old password rejected:", errors.Is(err, account.ErrBadCredentials))

	// Output:
	// registered ann@example.com …redacted
	// logged in: Ann
	// old password rejected: true
}

// Create an administrator, with flags that Register would reset.
func ExampleManager_Create() {
	admin := Customer{Name: "Root"}
	admin.Email = "root@example.com"
	admin.Active, admin.Verified, admin.Superuser = true, true, true
	admin, err := newManager(account.Config{}).Create(context.Background(), admin, "a long first password")
	fmt.Println(admin.Superuser, err)

	// Output:
	// true <nil>
}

// Import an account with the password hash of another system. Without a hash, the account has
// no password: its user logs in with OAuth or a passkey.
func ExampleManager_CreateWithHash() {
	ctx := context.Background()
	accounts := newManager(account.Config{})
	_, err := accounts.ImportHash("plain text!")
	fmt.Println(errors.Is(err, account.ErrUnusableHash), err)

	hash, err := accounts.ImportHash("$2b$12$TeeRorSas/1pgjdXTKqnUecb34YCE0mh45gqHgFWpVVbYVqo0KRA6")
	if err != nil {
		log.Fatal(err)
	}
	ann := Customer{Name: "Ann"}
	ann.Email, ann.Active = "ann@example.com", true
	if _, err := accounts.CreateWithHash(ctx, ann, hash); err != nil {
		log.Fatal(err)
	}
	ann, _, err = accounts.Authenticate(ctx, "ann@example.com", "herminetincture", "")
	fmt.Println(ann.Name, err)

	var none account.PasswordHash
	bob := Customer{Name: "Bob"}
	bob.Email, bob.Active = "bob@example.com", true
	bob, err = accounts.CreateWithHash(ctx, bob, none)
	if err != nil {
		log.Fatal(err)
	}
	_, _, err = accounts.Authenticate(ctx, "bob@example.com", "a guess", "")
	fmt.Println(bob.Name, err)

	// Output:
	// true account: unusable password hash: it has none of the known schemes (argon2id, argon2i, bcrypt, bcrypt_sha256, scrypt, PBKDF2)
	// Ann <nil>
	// Bob account: bad credentials
}

// Verify the hashes of an old system, "old$salt$" and the SHA-512 of salt and password in hex. Each is
// replaced when its user logs in.
func ExampleConfig_verifyHash() {
	accounts := newManager(account.Config{VerifyHash: func(_ context.Context, hash, password string) (bool, error) {
		parts := strings.Split(hash, "$")
		if len(parts) != 3 || parts[0] != "old" || len(parts[2]) != 128 {
			return false, fmt.Errorf("%w: not of the form old$salt$key", account.ErrUnusableHash)
		}
		if password == "" { // ImportHash asks only for the form
			return false, nil
		}
		key := fmt.Sprintf("%x", sha512.Sum512([]byte(parts[1]+password)))
		return subtle.ConstantTimeCompare([]byte(key), []byte(parts[2])) == 1, nil
	}})

	hash, err := accounts.ImportHash(fmt.Sprintf("old$salt$%x", sha512.Sum512([]byte("saltherminetincture"))))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	ann := Customer{Name: "Ann"}
	ann.Email, ann.Active = "ann@example.com", true
	if _, err := accounts.CreateWithHash(ctx, ann, hash); err != nil {
		log.Fatal(err)
	}
	ann, _, err = accounts.Authenticate(ctx, "ann@example.com", "herminetincture", "")
	fmt.Println(ann.Name, err, strings.HasPrefix(ann.HashedPassword.Reveal(), "$argon2id$"))

	// Output:
	// Ann <nil> true
}

// An administrator sets the password of a user who has lost it. That ends the user's sessions.
func ExampleManager_SetPassword() {
	ctx := context.Background()
	accounts := newManager(account.Config{}, printed{})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := accounts.SetPassword(ctx, ann.ID, "staple correct horse"); err != nil {
		log.Fatal(err)
	}
	_, _, err = accounts.Authenticate(ctx, "ann@example.com", "staple correct horse", "")
	fmt.Println(err)

	// Output:
	// changed, tokens revoked: by password
	// <nil>
}

// Write the hash of a password into another program's database.
func ExampleManager_HashPassword() {
	hash, err := newManager(account.Config{}).HashPassword(context.Background(), "correct horse battery")
	fmt.Println(hash, err) // hash.Reveal() is the hash

	// Output:
	// …redacted <nil>
}

func ExampleManager_Update() {
	ctx := context.Background()
	accounts := newManager(account.Config{})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	ann, err = accounts.Update(ctx, ann.ID, account.Update{Verified: new(true), Superuser: new(true)})
	if err != nil {
		log.Fatal(err)
	}
	ann, _, err = accounts.Authenticate(ctx, "ann@example.com", "correct horse battery", "")
	fmt.Println("active:", ann.Active, "verified:", ann.Verified, "superuser:", ann.Superuser, err)

	// Output:
	// active: true verified: true superuser: true <nil>
}

// Show all accounts, a page at a time, or find one by the beginning of its address.
func ExampleManager_List() {
	ctx := context.Background()
	accounts := newManager(account.Config{})
	for _, email := range []string{"carl@example.com", "ann@example.com", "bob@example.com"} {
		if _, err := accounts.CreateWithHash(ctx, Customer{User: account.User[uuid.UUID]{Email: email}}, account.PasswordHash{}); err != nil {
			log.Fatal(err)
		}
	}
	query := account.Query{Limit: 2}
	for {
		page, err := accounts.List(ctx, query)
		if err != nil {
			log.Fatal(err)
		}
		for _, user := range page.Users {
			fmt.Println(user.Email)
		}
		if page.Next == "" {
			break
		}
		fmt.Println("next page")
		query.After = page.Next
	}
	page, err := accounts.List(ctx, account.Query{Email: "Bob"})
	fmt.Println("found", len(page.Users), err)

	// Output:
	// ann@example.com
	// bob@example.com
	// next page
	// carl@example.com
	// found 1 <nil>
}

// Change the application's own fields. What edit sets in the account's fields has no effect.
func ExampleManager_Edit() {
	ctx := context.Background()
	accounts := newManager(account.Config{})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	ann, err = accounts.Edit(ctx, ann.ID, func(c *Customer) error {
		c.Name = "Anna"
		c.Superuser = true
		return nil
	})
	fmt.Println(ann.Name, "superuser:", ann.Superuser, err)

	_, err = accounts.Edit(ctx, ann.ID, func(c *Customer) error {
		return errors.New("the name is too long")
	})
	fmt.Println(err)

	// Output:
	// Anna superuser: false <nil>
	// the name is too long
}

// A sign-up that conceals which addresses have an account: the second one has the same result.
func ExampleManager_RequestRegistration() {
	ctx := context.Background()
	mails := make(chan account.Message, 1)
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(memstore.NewUsers[Customer](), memstore.NewOneTimeTokens[uuid.UUID](), attempts, uuid.New, account.Config{
		Timeout: time.Minute, // under the race detector, hashes take seconds
		Mail: account.MailConfig{Mailer: account.MailerFunc(func(_ context.Context, m account.Message) error {
			mails <- m
			return nil
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer accounts.Close()

	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	fmt.Println(accounts.RequestRegistration(ctx, ann, "correct horse battery"))
	m := <-mails
	fmt.Println(m.Kind, "to", m.To)
	ann, err = accounts.Verify(ctx, m.Token.Reveal())
	fmt.Println(ann.Name, "verified:", ann.Verified, err)

	fmt.Println(accounts.RequestRegistration(ctx, ann, "a stranger's password"))
	m = <-mails
	fmt.Println(m.Kind, "to", m.To)

	// Output:
	// <nil>
	// verification to ann@example.com
	// Ann verified: true <nil>
	// <nil>
	// email_taken to ann@example.com
}

func ExampleManager_Delete() {
	ctx := context.Background()
	accounts := newManager(account.Config{}, printed{})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	if err := accounts.Delete(ctx, ann.ID); err != nil {
		log.Fatal(err)
	}
	_, _, err = accounts.Authenticate(ctx, "ann@example.com", "correct horse battery", "")
	fmt.Println(errors.Is(err, account.ErrBadCredentials))

	// Output:
	// changed, tokens revoked: all
	// true
}

// printed prints what an application's sessions are told.
type printed struct{}

func (printed) UserChanged(_ context.Context, _ uuid.UUID, revoked strategy.Revoked) error {
	fmt.Println("changed, tokens revoked:", revoked)
	return nil
}

// Pass the strategy.Database to NewManager: then a change takes effect at once in its cache,
// and in those of other processes.
func ExampleSessions() {
	ctx := context.Background()
	accounts := newManager(account.Config{}, printed{})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	ann, err := accounts.Register(ctx, ann, "correct horse battery")
	if err != nil {
		log.Fatal(err)
	}
	if err := errors.Join(accounts.RevokeTokens(ctx, ann.ID), accounts.Activate(ctx, ann.ID)); err != nil {
		log.Fatal(err)
	}

	// Output:
	// changed, tokens revoked: all
	// changed, tokens revoked: none
}

func ExampleConfig_checkPassword() {
	accounts := newManager(account.Config{
		MinPasswordLength: 12,
		CheckPassword: func(_ context.Context, password string) error {
			if strings.Contains(strings.ToLower(password), "webshop") {
				return errors.New("it contains the name of this site")
			}
			return nil
		},
	})

	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	for _, password := range []string{"too short", "Webshop-2026!", "correct horse battery"} {
		_, err := accounts.Register(context.Background(), ann, password)
		fmt.Println(errors.Is(err, account.ErrInvalidPassword), err)
	}

	// Output:
	// true account: invalid password: too short: less than 12 characters
	// true account: invalid password: it contains the name of this site
	// false <nil>
}

// Allow 3 failed logins on one account, then one attempt a minute, later one in 30 minutes. A
// client that presents the device token of an earlier login is not limited by the failures
// of others. The other limits keep their defaults.
func ExampleLimiterConfig() {
	accounts := newManager(account.Config{
		Limiter: account.LimiterConfig{
			Account:    account.Limit{Failures: 3, Delay: time.Minute, MaxDelay: 30 * time.Minute},
			FailClosed: true,
		},
	})
	ann := Customer{Name: "Ann"}
	ann.Email = "ann@example.com"
	if _, err := accounts.Register(context.Background(), ann, "correct horse battery"); err != nil {
		fmt.Println(err)
		return
	}

	// ginauth does this for every request, and keeps the device token in a cookie.
	ctx := event.ContextWithClientIP(context.Background(), "192.0.2.1")
	_, device, err := accounts.Authenticate(ctx, "ann@example.com", "correct horse battery", "")
	fmt.Println(device[:4], err)

	attacker := event.ContextWithClientIP(context.Background(), "203.0.113.1")
	for range 3 {
		_, _, err := accounts.Authenticate(attacker, "ann@example.com", "a guess", "")
		fmt.Println(err)
	}
	_, _, err = accounts.Authenticate(attacker, "ann@example.com", "a guess", "")
	var tooMany *account.TooManyAttemptsError
	if errors.As(err, &tooMany) {
		fmt.Println("retry in", tooMany.RetryAfter.Round(time.Minute))
	}

	_, _, err = accounts.Authenticate(ctx, "ann@example.com", "correct horse battery", device)
	fmt.Println("Ann:", err)

	// Output:
	// lkd_ <nil>
	// account: bad credentials
	// account: bad credentials
	// account: bad credentials
	// retry in 1m0s
	// Ann: <nil>
}

// A user who forgot the password gets a message with a token, and sets a new password with it.
func ExampleManager_ResetPassword() {
	ctx := context.Background()
	mails := make(chan account.Message, 1)
	attempts, err := memstore.NewAttempts(0)
	if err != nil {
		log.Fatal(err)
	}
	accounts, err := account.NewManager(memstore.NewUsers[Customer](), memstore.NewOneTimeTokens[uuid.UUID](), attempts, uuid.New, account.Config{
		Timeout: time.Minute, // under the race detector, hashes take seconds
		Mail: account.MailConfig{Mailer: account.MailerFunc(func(_ context.Context, m account.Message) error {
			// An application sends a mail with a link to its page, which posts the token.
			mails <- m
			return nil
		})},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer accounts.Close()
	if _, err := accounts.Register(ctx, Customer{User: account.User[uuid.UUID]{Email: "ann@example.com"}}, "correct horse battery"); err != nil {
		log.Fatal(err)
	}

	if err := accounts.RequestPasswordReset(ctx, "ann@example.com"); err != nil {
		log.Fatal(err)
	}
	m := <-mails
	fmt.Println(m.Kind, "to", m.To)
	if _, err := accounts.ResetPassword(ctx, m.Token.Reveal(), "staple on a new horse"); err != nil {
		log.Fatal(err)
	}
	_, err = accounts.ResetPassword(ctx, m.Token.Reveal(), "staple on a new horse")
	fmt.Println("again:", err)
	// Output:
	// password_reset to ann@example.com
	// again: account: bad one-time token
}
