package main

import (
	"net/http"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey/examples/internal/sqlrig"
)

func TestProgram(t *testing.T) {
	program := sqlrig.Build(t)
	sqlrig.OnEach(t, func(t *testing.T, database sqlrig.Database) {
		p := sqlrig.Start(t, program, database)
		p.Want(http.StatusOK, http.MethodGet, "/readyz", "", "")
		p.Want(http.StatusUnauthorized, http.MethodPost, "/notes", "", `{"text":"hello"}`)
		p.Register("ann@example.com", "Ann")
		p.Register("bob@example.com", "Bob")

		// Login, guard, log-out.
		ann, bob := p.Login("ann@example.com"), p.Login("bob@example.com")
		p.Want(http.StatusCreated, http.MethodPost, "/notes", ann, `{"text":"a note of hers"}`)
		p.Want(http.StatusCreated, http.MethodPost, "/notes", bob, `{"text":"a note of his"}`)
		p.Want(http.StatusNoContent, http.MethodPost, "/auth/logout", ann, "")
		p.Want(http.StatusUnauthorized, http.MethodPost, "/notes", ann, `{"text":"hello"}`)
		if body := p.Want(http.StatusOK, http.MethodGet, "/notes", "", ""); !strings.Contains(body, `"text":"a note of hers","user":{"name":"Ann"}`) {
			t.Errorf("the notes are %s", body)
		}

		// A restart migrates again, and keeps rows and tokens.
		ann = p.Login("ann@example.com")
		p.Stop()
		p = sqlrig.Start(t, program, database)
		p.Want(http.StatusCreated, http.MethodPost, "/notes", bob, `{"text":"another note of his"}`)

		// A deleted account.
		p.Want(http.StatusNoContent, http.MethodDelete, "/account", ann, "")
		p.Want(http.StatusUnauthorized, http.MethodPost, "/notes", ann, `{"text":"hello"}`)
		body := p.Want(http.StatusOK, http.MethodGet, "/notes", "", "")
		if strings.Contains(body, "hers") || !strings.Contains(body, "another note of his") {
			t.Errorf("after Ann's deletion the notes are %s", body)
		}
		p.Stop()
	})
}
