// Package sqlrig runs the examples on SQL databases in tests.
package sqlrig

import (
	"bufio"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx

	"github.com/latchkey-go/latchkey/sqlstore"
)

// Database is an empty database.
type Database struct {
	Dialect sqlstore.Dialect
	DSN     string // of a server
	File    string // of SQLite
}

// OnEach runs a subtest on SQLite, and one on each PostgreSQL server that
// LATCHKEY_TEST_SQL_DSN names.
func OnEach(t *testing.T, test func(t *testing.T, db Database)) {
	t.Helper()
	OnAll(t, func(t *testing.T, db Database) {
		if db.Dialect == sqlstore.MySQL {
			t.Skip("the program does not know MySQL")
		}
		test(t, db)
	})
}

// OnAll is OnEach, with a subtest on each MySQL or MariaDB server too.
func OnAll(t *testing.T, test func(t *testing.T, db Database)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		test(t, Database{Dialect: sqlstore.SQLite, File: filepath.Join(t.TempDir(), "app.db")})
	})
	for dsn := range strings.FieldsSeq(os.Getenv("LATCHKEY_TEST_SQL_DSN")) {
		if dsn, ok := strings.CutPrefix(dsn, "mysql://"); ok {
			t.Run("mysql", func(t *testing.T) { test(t, onMySQL(t, dsn)) })
		} else {
			t.Run("postgresql", func(t *testing.T) { test(t, onPostgreSQL(t, dsn)) })
		}
	}
}

// onPostgreSQL makes a schema, which is dropped when the test ends.
func onPostgreSQL(t *testing.T, server string) Database {
	t.Helper()
	name := fmt.Sprintf("lk_%x", rand.Uint64())
	dsn, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	query := dsn.Query()
	query.Set("search_path", name)
	dsn.RawQuery = query.Encode()
	temporary(t, "pgx", server, "CREATE SCHEMA "+name, "DROP SCHEMA "+name+" CASCADE")
	return Database{Dialect: sqlstore.PostgreSQL, DSN: dsn.String()}
}

// onMySQL makes a database, which is dropped when the test ends.
func onMySQL(t *testing.T, server string) Database {
	t.Helper()
	cfg, err := mysql.ParseDSN(server)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DBName = fmt.Sprintf("lk_%x", rand.Uint64())
	temporary(t, "mysql", server, "CREATE DATABASE "+cfg.DBName, "DROP DATABASE "+cfg.DBName)
	return Database{Dialect: sqlstore.MySQL, DSN: cfg.FormatDSN()}
}

func temporary(t *testing.T, driver, dsn, create, drop string) {
	t.Helper()
	admin, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	if _, err := admin.ExecContext(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := admin.Exec(drop); err != nil {
			t.Error(err)
		}
	})
}

// Program is a running example.
type Program struct {
	t    *testing.T
	base string
	cmd  *exec.Cmd
	done chan error
}

// Build builds the program of the current directory and returns its file.
func Build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// Start starts a program on a database. It is killed when the test ends.
func Start(t *testing.T, program string, db Database) *Program {
	t.Helper()
	cmd := exec.Command(program, "-addr", "127.0.0.1:0", "-dsn", db.DSN, "-file", db.File, "-timeout", "1m") // tests share the processors
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Program{t: t, cmd: cmd, done: make(chan error, 1)}
	for lines := bufio.NewScanner(stdout); p.base == "" && lines.Scan(); {
		p.base, _ = strings.CutPrefix(lines.Text(), "listening on ")
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout) // until the program ends
		p.done <- cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-p.done })
	if p.base == "" {
		t.Fatalf("the program did not print its address: %v\n%s", <-p.done, stderr.String())
	}
	return p
}

// Stop interrupts the program and waits for its end, which must be a success.
func (p *Program) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("the program ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		p.t.Error("the program does not end")
	}
}

// Want sends a request and returns the body of its answer, which must have a status. The request
// has the token, if there is one, and a body of JSON, if there is one.
func (p *Program) Want(status int, method, path, token, body string) string {
	p.t.Helper()
	req, err := http.NewRequest(method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.StatusCode != status {
		p.t.Fatalf("%s %s answered %d, want %d", method, path, resp.StatusCode, status)
	}
	return string(answer)
}

const password = "correct horse battery staple"

// Register signs a user up.
func (p *Program) Register(email, name string) {
	p.t.Helper()
	p.Want(http.StatusCreated, http.MethodPost, "/auth/register", "", `{"email":"`+email+`","password":"`+password+`","name":"`+name+`"}`)
}

// Login logs a user in and returns the token.
func (p *Program) Login(email string) string {
	p.t.Helper()
	var body struct {
		AccessToken string `json:"access_token"`
	}
	answer := p.Want(http.StatusOK, http.MethodPost, "/auth/login", "", `{"username":"`+email+`","password":"`+password+`"}`)
	if err := json.Unmarshal([]byte(answer), &body); err != nil {
		p.t.Fatal(err)
	}
	return body.AccessToken
}
