package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	_ "modernc.org/sqlite"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// Customer is an application's user.
type Customer struct {
	account.User[int64]
	Company string // the column company
}

// open opens a SQLite database in a directory. The application chooses the driver.
func open(dir string) (*sql.DB, error) {
	file := filepath.Join(dir, "app.db")
	return sql.Open("sqlite", "file:"+file+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=foreign_keys(1)&_txlock=immediate")
}

func ExampleNew() {
	gin.SetMode(gin.TestMode)
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()

	// The application's own table of users, usually made by its migrations. Latchkey makes the
	// others.
	if _, err := db.ExecContext(ctx, `CREATE TABLE users (
		id INTEGER PRIMARY KEY, email TEXT NOT NULL UNIQUE, hashed_password TEXT NOT NULL,
		is_active BOOLEAN NOT NULL, is_verified BOOLEAN NOT NULL, is_superuser BOOLEAN NOT NULL,
		created_at INTEGER NOT NULL, token_version INTEGER NOT NULL, company TEXT)`); err != nil {
		fmt.Println(err)
		return
	}

	lk, err := sqlstore.New[Customer](db, sqlstore.SQLite, sqlstore.NewInt64ID, latchkey.Config{Lifetime: 24 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer lk.Close()
	if err := lk.EnsureIndexes(ctx); err != nil {
		fmt.Println(err)
		return
	}

	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/company", lk.Auth.RequireUser(), func(c *gin.Context) {
		me, _ := lk.Auth.CurrentUser(c)
		c.String(200, me.Company)
	})
	fmt.Println(len(r.Routes()), "routes")
	// Output: 7 routes
}

// The stores alone, without New.
func Example_stores() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	db, err := open(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer db.Close()

	if err := sqlstore.Migrate[int64](ctx, db, sqlstore.SQLite, sqlstore.Tables{}); err != nil {
		fmt.Println(err)
		return
	}
	if _, err := db.ExecContext(ctx, "ALTER TABLE users ADD COLUMN company TEXT"); err != nil {
		fmt.Println(err)
		return
	}
	users, err := sqlstore.NewUsers[Customer](db, sqlstore.SQLite, sqlstore.UsersConfig{})
	if err != nil {
		fmt.Println(err)
		return
	}
	tokens, err := sqlstore.NewTokens[int64](db, sqlstore.SQLite, sqlstore.TokensConfig{Lifetime: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}

	ann := Customer{User: account.User[int64]{ID: 1, Email: "ann@example.com", CreatedAt: time.UnixMilli(0)}, Company: "Example Ltd"}
	if err := users.Insert(ctx, ann); err != nil {
		fmt.Println(err)
		return
	}
	token := strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: "the token's digest", UserID: 1, CreatedAt: time.Now()}
	if err := tokens.Insert(ctx, token); err != nil {
		fmt.Println(err)
		return
	}
	found, err := users.ByEmail(ctx, "ann@example.com")
	fmt.Println(found.Company, err)

	// The tokens end with the account.
	if err := users.Delete(ctx, 1); err != nil {
		fmt.Println(err)
		return
	}
	_, err = tokens.ByToken(ctx, token.Digest)
	fmt.Println(errors.Is(err, strategy.ErrTokenNotFound))
	// Output:
	// Example Ltd <nil>
	// true
}
