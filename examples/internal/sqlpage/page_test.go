package sqlpage

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/source/iofs"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/sqlstore"
)

// Member is your user: an account, and the fields that you add.
type Member struct {
	account.User[uuid.UUID]
	Name string // the column name
}

func open(dsn string) (*sql.DB, error) {
	db, err := sql.Open("pgx", dsn) // import _ "github.com/jackc/pgx/v5/stdlib"
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(20) // the default of 2 closes and opens connections all the time
	db.SetConnMaxLifetime(time.Hour)
	return db, nil
}

func serve(ctx context.Context, db *sql.DB) (http.Handler, error) {
	lk, err := sqlstore.New[Member](db, sqlstore.PostgreSQL, uuid.New, latchkey.Config{Lifetime: 12 * time.Hour})
	if err != nil {
		return nil, err
	}
	if err := lk.EnsureIndexes(ctx); err != nil { // makes the tables too
		return nil, err
	}
	r := gin.New()
	lk.Auth.Routes(r.Group("/auth"))
	r.GET("/me", lk.Auth.RequireUser(), func(c *gin.Context) {
		me, _ := lk.Auth.CurrentUser(c)
		c.String(http.StatusOK, me.Name)
	})
	return r, nil
}

func otherNames(db *sql.DB, dialect sqlstore.Dialect) (*latchkey.Latchkey[Person, int64], error) {
	return sqlstore.New[Person](db, dialect, sqlstore.NewInt64ID, latchkey.Config{
		Lifetime:    12 * time.Hour,
		Collections: latchkey.Collections{Users: "people", AccessTokens: "sessions"},
		UserFields:  mongostore.Fields{Email: "mail", HashedPassword: "password", Active: "enabled", CreatedAt: "joined"},
	})
}

// Person is a row of the table people.
type Person struct {
	account.User[int64]
	Name     string
	Nickname *string   `db:"nick"`    // NULL is nil
	Roles    []string  `db:"roles"`   // in JSON
	Avatar   []byte    `db:"picture"` // as bytes
	loaded   time.Time // no column: unexported
}

func withGoose(ctx context.Context, db *sql.DB, gooseDialect goose.Dialect, dialect sqlstore.Dialect) error {
	files, err := sqlstore.Schema(dialect)
	if err != nil {
		return err
	}
	// A table of its own for the versions: those of your files begin with 1 too.
	provider, err := goose.NewProvider(gooseDialect, db, files, goose.WithTableName("latchkey_versions"))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

func withGolangMigrate(target database.Driver, dialect sqlstore.Dialect) error {
	files, err := sqlstore.Schema(dialect)
	if err != nil {
		return err
	}
	source, err := iofs.New(files, ".")
	if err != nil {
		return err
	}
	m, err := migrate.NewWithInstance("latchkey", source, dialect.String(), target)
	if err != nil {
		return err
	}
	if err := m.Up(); !errors.Is(err, migrate.ErrNoChange) {
		return err
	}
	return nil
}

func writeMigration(file string, cfg latchkey.Config) error {
	text, err := sqlstore.SchemaSQL[int64](sqlstore.PostgreSQL, sqlstore.TablesOf(cfg))
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
