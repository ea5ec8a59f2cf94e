package main

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"gorm.io/gorm"

	"github.com/latchkey-go/latchkey/examples/internal/sqlrig"
)

func TestProgram(t *testing.T) {
	program := sqlrig.Build(t)
	sqlrig.OnEach(t, func(t *testing.T, database sqlrig.Database) {
		p := sqlrig.Start(t, program, database)
		p.Want(http.StatusOK, http.MethodGet, "/readyz", "", "")
		p.Want(http.StatusUnauthorized, http.MethodGet, "/notes", "", "")
		p.Register("ann@example.com", "Ann")
		p.Register("bob@example.com", "Bob")

		// Login, guard, log-out.
		token := p.Login("ann@example.com")
		p.Want(http.StatusCreated, http.MethodPost, "/notes", token, `{"text":"buy milk"}`)
		p.Want(http.StatusUnprocessableEntity, http.MethodPost, "/notes", token, `{"text":""}`)
		p.Want(http.StatusNoContent, http.MethodPost, "/auth/logout", token, "")
		p.Want(http.StatusUnauthorized, http.MethodGet, "/notes", token, "")

		// A restart keeps the tables and the tokens.
		token, bob := p.Login("ann@example.com"), p.Login("bob@example.com")
		p.Stop()
		p = sqlrig.Start(t, program, database)
		if body := p.Want(http.StatusOK, http.MethodGet, "/notes", token, ""); !strings.Contains(body, "buy milk") {
			t.Errorf("Ann's notes are %s", body)
		}
		if body := p.Want(http.StatusOK, http.MethodGet, "/notes", bob, ""); body != "[]" {
			t.Errorf("Bob's notes are %s", body)
		}

		// A deleted account.
		p.Want(http.StatusNoContent, http.MethodDelete, "/account", token, "")
		p.Want(http.StatusUnauthorized, http.MethodGet, "/notes", token, "")
		p.Want(http.StatusOK, http.MethodGet, "/notes", bob, "")
		p.Register("ann@example.com", "Ann again")
		if body := p.Want(http.StatusOK, http.MethodGet, "/notes", p.Login("ann@example.com"), ""); body != "[]" {
			t.Errorf("the notes of Ann's new account are %s", body)
		}
		p.Stop()
	})
}

func TestGORMBesideLatchkey(t *testing.T) {
	program := sqlrig.Build(t)
	sqlrig.OnEach(t, func(t *testing.T, database sqlrig.Database) {
		p := sqlrig.Start(t, program, database)
		p.Register("ann@example.com", "Ann")
		token := p.Login("ann@example.com")
		p.Want(http.StatusCreated, http.MethodPost, "/notes", token, `{"text":"buy milk"}`)

		db, _, err := open(database.DSN, database.File)
		if err != nil {
			t.Fatal(err)
		}
		pool, err := db.DB()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = pool.Close() }()
		var ann User
		if err := db.Take(&ann, "email = ?", "ann@example.com").Error; err != nil {
			t.Fatal(err)
		}
		if ann.Name != "Ann" || !ann.IsActive || ann.CreatedAt.IsZero() || ann.HashedPassword == "" {
			t.Error("GORM's model does not have the columns that Latchkey wrote")
		}
		tokens := func(tx *gorm.DB) (n int64) {
			t.Helper()
			if err := tx.Table("access_tokens").Where("user_id = ?", ann.ID).Count(&n).Error; err != nil {
				t.Fatal(err)
			}
			return n
		}

		rollback := errors.New("roll back")
		err = db.Transaction(func(tx *gorm.DB) error {
			if err := deleteUser(tx, ann.ID); err != nil {
				return err
			}
			if n := tokens(tx); n != 0 {
				t.Errorf("%d tokens are in the transaction that deleted the user, want 0", n)
			}
			return rollback
		})
		if !errors.Is(err, rollback) {
			t.Fatal(err)
		}
		if n := tokens(db); n != 1 {
			t.Errorf("after the rollback there are %d tokens, want 1", n)
		}
		if body := p.Want(http.StatusOK, http.MethodGet, "/notes", token, ""); !strings.Contains(body, "buy milk") {
			t.Errorf("after the rollback, the notes are %s", body)
		}

		// An old copy of the user, saved, does not undo a revocation.
		if err := db.Exec("UPDATE users SET token_version = 1").Error; err != nil {
			t.Fatal(err)
		}
		ann.Name = "Ann B."
		if err := db.Save(&ann).Error; err != nil {
			t.Fatal(err)
		}
		p.Want(http.StatusUnauthorized, http.MethodGet, "/notes", token, "")
		if err := db.Take(&ann).Error; err != nil || ann.Name != "Ann B." || ann.TokenVersion != 1 {
			t.Errorf("the saved user has the name %q and the token version %d (error %v)", ann.Name, ann.TokenVersion, err)
		}
		token = p.Login("ann@example.com")

		if err := db.Transaction(func(tx *gorm.DB) error { return deleteUser(tx, ann.ID) }); err != nil {
			t.Fatal(err)
		}
		if n := tokens(db); n != 0 {
			t.Errorf("after the commit there are %d tokens, want 0", n)
		}
		p.Want(http.StatusUnauthorized, http.MethodGet, "/notes", token, "")
	})
}
