package sqlstore_test

import (
	"testing"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
)

type jsonUser struct {
	account.User[uuid.UUID]
	Roles []string
}

func TestJSONColumnOnServers(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.dialect.String(), func(t *testing.T) {
			db := serverDB[uuid.UUID](t, s, sqlstore.Tables{})
			typ := "JSONB"
			if s.dialect == sqlstore.MySQL {
				typ = "JSON"
			}
			if _, err := db.ExecContext(t.Context(), "ALTER TABLE users ADD COLUMN roles "+typ); err != nil {
				t.Fatal(err)
			}
			users, err := sqlstore.NewUsers[jsonUser](db, s.dialect, sqlstore.UsersConfig{})
			if err != nil {
				t.Fatal(err)
			}
			ann := jsonUser{Roles: []string{"editor"}}
			ann.ID, ann.Email = uuid.New(), "ann@example.com"
			if err := users.Insert(t.Context(), ann); err != nil {
				t.Fatal(err)
			}
			edited, err := users.Edit(t.Context(), ann.ID, func(u *jsonUser) error { u.Roles = append(u.Roles, "author"); return nil })
			if err != nil {
				t.Fatal(err)
			}
			found, err := users.ByID(t.Context(), ann.ID)
			if err != nil || len(found.Roles) != 2 || found.Roles[1] != "author" || len(edited.Roles) != 2 {
				t.Errorf("got %v, %v, want two roles", found.Roles, err)
			}
		})
	}
}
