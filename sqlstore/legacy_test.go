package sqlstore_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/sqlstore/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/storetest"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestLegacyTokens(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		empty := func(t testing.TB) (*sql.DB, sqlstore.Dialect) { return open(t), dialect }
		t.Run("uuid", func(t *testing.T) { testLegacyTokens(t, uuid.New, empty) })
		t.Run("int64", func(t *testing.T) { testLegacyTokens(t, newInt, empty) })
	})
}

// testLegacyTokens checks the contract beside fastapi-users and during conversion, and that of all
// stores.
func testLegacyTokens[ID uuid.UUID | int64](t *testing.T, newID func() ID, empty func(testing.TB) (*sql.DB, sqlstore.Dialect)) {
	for name, convert := range map[string]bool{"beside": false, "convert": true} {
		t.Run(name, func(t *testing.T) {
			open := func(t testing.TB) (strategy.LegacyStore[ID], storetest.Issue[ID]) {
				legacy, app := newLegacy[ID](t, empty, sqlstore.LegacyConfig{Table: "accesstoken", Convert: convert}, sqlstore.TokensConfig{})
				return legacy, func(ctx context.Context, userID ID, createdAt time.Time) (string, error) {
					token := fastapiusers.NewToken()
					return token, app.Insert(ctx, token, createdAt, userID)
				}
			}
			storetest.RunLegacy(t, newID, open)
			var id ID
			if _, ok := any(id).(uuid.UUID); ok && convert {
				storetest.Run(t, newID, func(t testing.TB) strategy.Store[ID] {
					legacy, _ := open(t)
					return legacy
				})
			}
		})
	}
}

// newLegacy returns a store in an empty database with the tables of fastapi-users, without
// users.
func newLegacy[ID uuid.UUID | int64](t testing.TB, empty func(testing.TB) (*sql.DB, sqlstore.Dialect), cfg sqlstore.LegacyConfig, tokensCfg sqlstore.TokensConfig) (*sqlstore.LegacyTokens[ID], *fastapiusers.App[ID]) {
	t.Helper()
	db, dialect := empty(t)
	app := &fastapiusers.App[ID]{DB: db, Dialect: dialect, Lifetime: time.Hour, Now: time.Now, Fraction: true, Elsewhere: true}
	if err := app.CreateTables(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := sqlstore.Migrate[ID](t.Context(), db, dialect, elsewhere); err != nil {
		t.Fatal(err)
	}
	tokensCfg.Tables = elsewhere
	tokens, err := sqlstore.NewTokens[ID](db, dialect, tokensCfg)
	if err != nil {
		t.Fatal(err)
	}
	legacy, err := sqlstore.NewLegacyTokens(tokens, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := legacy.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := legacy.VerifySchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	return legacy, app
}

func TestLegacyConfigErrorsNameTheField(t *testing.T) {
	tokens := newTokens[uuid.UUID](t)
	for part, cfg := range map[string]sqlstore.LegacyConfig{
		`LegacyConfig.Table is ""`:              {},
		`LegacyConfig.Table is "Access_Tokens"`: {Table: "Access_Tokens"},
		`LegacyConfig.Table is "users"`:         {Table: "users"},
		`LegacyConfig.Table is "a$b"`:           {Table: "a$b"},
		"LegacyConfig.Lifetime is -1ns":         {Table: "old", Lifetime: -1},
	} {
		if _, err := sqlstore.NewLegacyTokens(tokens, cfg); err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("got the error %v, want one with %s", err, part)
		}
	}
	if _, err := sqlstore.NewLegacyTokens[uuid.UUID](nil, sqlstore.LegacyConfig{Table: "old"}); err == nil {
		t.Error("got no error for nil tokens")
	}
}

func TestLegacyTokensAre43CharactersOfBase64URL(t *testing.T) {
	legacy, err := sqlstore.NewLegacyTokens(newTokens[uuid.UUID](t), sqlstore.LegacyConfig{Table: "old"})
	if err != nil {
		t.Fatal(err)
	}
	good := strings.Repeat("aZ09-_x", 7)[:43]
	for name, c := range map[string]struct {
		token string
		want  bool
	}{
		"letters, digits, - and _": {good, true},
		"42 characters":            {good[1:], false},
		"44 characters":            {good + "a", false},
		"a plus sign":              {good[1:] + "+", false},
		"a space":                  {" " + good[1:], false},
		"a NUL":                    {good[1:] + "\x00", false},
		"43 bytes of UTF-8":        {good[2:] + "é", false},
		"nothing":                  {"", false},
	} {
		if got := legacy.Legacy(c.token); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

// SQLite accepts any value in any column.
func TestLegacyRowsThatAreNoTokensAreReported(t *testing.T) {
	var events []event.Event
	empty := func(t testing.TB) (*sql.DB, sqlstore.Dialect) { return sqlite(t), sqlstore.SQLite }
	legacy, app := newLegacy[uuid.UUID](t, empty, sqlstore.LegacyConfig{Table: "accesstoken"}, sqlstore.TokensConfig{
		OnEvent: func(_ context.Context, e event.Event) { events = append(events, e) },
	})
	user := uuid.New()
	at := "2026-11-28 04:15:00.123456"
	for name, c := range map[string]struct {
		createdAt any
		userID    string
		want      string // the creation time, or "" for a row that is no token
	}{
		"as SQLAlchemy writes it":    {at, user.String(), "2026-11-28T04:15:00.123Z"},
		"without a fraction":         {"2026-11-28 04:15:00", user.String(), "2026-11-28T04:15:00Z"},
		"with an offset":             {"2026-11-28 05:15:00.123456+01:00", user.String(), "2026-11-28T04:15:00.123Z"},
		"with a T and a Z":           {"2026-11-28T04:15:00Z", user.String(), "2026-11-28T04:15:00Z"},
		"a number":                   {1790000000, user.String(), ""},
		"no time":                    {"yesterday", user.String(), ""},
		"zero":                       {"0000-00-00 00:00:00", user.String(), ""},
		"before 1970":                {"1969-12-31 23:59:59", user.String(), ""},
		"a UUID without hyphens":     {at, strings.ReplaceAll(user.String(), "-", ""), ""},
		"a UUID in capitals":         {at, strings.ToUpper(user.String()), ""},
		"a user that is no UUID":     {at, "carl", ""},
		"a UUID followed by a space": {at, user.String() + " ", ""},
	} {
		token := fastapiusers.NewToken()
		if _, err := app.DB.ExecContext(t.Context(), "INSERT INTO accesstoken VALUES (?, ?, ?)", token, c.createdAt, c.userID); err != nil {
			t.Fatal(err)
		}
		events = nil
		row, err := legacy.ByLegacyToken(t.Context(), token)
		if c.want == "" {
			if err == nil || len(events) != 1 || events[0].Kind != event.InvalidDocument {
				t.Errorf("%s: got the error %v and %d events, want a row that is no token and an event", name, err, len(events))
			}
			for _, e := range events {
				if strings.Contains(fmt.Sprint(e), token) {
					t.Errorf("%s: the event has the token", name)
				}
			}
		} else if got := row.CreatedAt.Format(time.RFC3339Nano); err != nil || got != c.want || row.UserID != user {
			t.Errorf("%s: got %v, the user %v and the error %v, want %v", name, got, row.UserID, err, c.want)
		}
	}
	rows, err := legacy.ByUser(t.Context(), user, strategy.Position{}, 100)
	if err != nil || len(rows) != 4 {
		t.Errorf("ByUser returned %d tokens and the error %v, want 4", len(rows), err)
	}
}

// MySQL's usual collations compare text without regard to case.
func TestLegacyTokenInAnotherCaseIsUnknown(t *testing.T) {
	eachDialect(t, func(t *testing.T, dialect sqlstore.Dialect, open func(testing.TB) *sql.DB) {
		empty := func(t testing.TB) (*sql.DB, sqlstore.Dialect) { return open(t), dialect }
		for _, convert := range []bool{false, true} {
			legacy, app := newLegacy[uuid.UUID](t, empty, sqlstore.LegacyConfig{Table: "accesstoken", Convert: convert}, sqlstore.TokensConfig{})
			token := strings.Repeat("aB", 21) + "c"
			if err := app.Insert(t.Context(), token, time.Now(), uuid.New()); err != nil {
				t.Fatal(err)
			}
			other := strings.ToLower(token)
			_, found := legacy.ByLegacyToken(t.Context(), other)
			_, rotated := legacy.RotateLegacyToken(t.Context(), other, strategy.Rotation{Digest: "new"})
			_, deleted := legacy.DeleteLegacyToken(t.Context(), other)
			for name, err := range map[string]error{"ByLegacyToken": found, "RotateLegacyToken": rotated, "DeleteLegacyToken": deleted} {
				if err == nil {
					t.Errorf("convert %v: %s accepts the token in lower case", convert, name)
				}
			}
			if _, err := legacy.ByLegacyToken(t.Context(), token); err != nil {
				t.Errorf("convert %v: %v", convert, err)
			}
		}
	})
}
