package account_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
)

// member is the user type of an application.
type member struct {
	account.User[uuid.UUID]
	Name string `json:"name"`
}

func TestPrintingAUserShowsNoHash(t *testing.T) {
	const hash = "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5"
	ann := member{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "ann@example.com", HashedPassword: hash}, Name: "Ann"}
	values := map[string]any{
		"a hash":               ann.HashedPassword,
		"a pointer to a hash":  &ann.HashedPassword,
		"a slice of hashes":    []account.PasswordHash{hash},
		"an account":           ann.User,
		"a user":               ann,
		"a pointer to a user":  &ann,
		"a slice of users":     []member{ann},
		"a map of users":       map[string]member{"ann": ann},
		"a user in a struct":   struct{ Member any }{ann},
		"an error with a user": fmt.Errorf("update %+v", ann),
	}
	sinks := map[string]func(any) string{
		"slog text": func(v any) string {
			var b bytes.Buffer
			slog.New(slog.NewTextHandler(&b, nil)).Info("user", "value", v)
			return b.String()
		},
		"Println": func(v any) string { return fmt.Sprintln(v) },
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		sinks[verb] = func(v any) string { return fmt.Sprintf(verb, v) }
	}
	for sink, print := range sinks {
		for name, value := range values {
			out := print(value)
			for _, form := range []string{"argon2id", "a2V5", fmt.Sprintf("%x", "argon2id"), fmt.Sprintf("%X", "argon2id")} {
				if strings.Contains(out, form) {
					t.Errorf("%s of %s shows the hash: %s", sink, name, out)
				}
			}
		}
	}

	// JSON of a user leaves out the hash. (JSON of a PasswordHash itself shows it.)
	for name, v := range map[string]any{"a user": ann, "a pointer to a user": &ann, "a map of users": map[string]any{"ann": ann}} {
		b, err := json.Marshal(v)
		if err != nil || bytes.Contains(b, []byte("argon2id")) || bytes.Contains(b, []byte("redacted")) {
			t.Errorf("JSON of %s: got %s, %v, want no hash", name, b, err)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("user", "value", v)
		if strings.Contains(log.String(), "argon2id") {
			t.Errorf("slog JSON of %s shows the hash: %s", name, log.String())
		}
	}
	if got := string(ann.HashedPassword); got != hash {
		t.Errorf("string(HashedPassword): got %q, want the hash", got)
	}
}

func TestJSONDoesNotSetTheHash(t *testing.T) {
	var m member
	body := `{"email":"eve@example.com","name":"Eve","HashedPassword":"x","hashed_password":"x","hashedpassword":"x","-":"x"}`
	if err := json.Unmarshal([]byte(body), &m); err != nil || m.Email != "eve@example.com" || m.HashedPassword != "" {
		t.Errorf("got %q and a hash of %d bytes, %v, want the address and no hash", m.Email, len(m.HashedPassword), err)
	}
}

func TestStructThatEmbedsUserIsAUser(t *testing.T) {
	id := uuid.New()
	m := member{User: account.User[uuid.UUID]{ID: id, Active: true, Superuser: true, CreatedAt: time.UnixMilli(1)}}
	if m.UserID() != id || !m.IsActive() || m.IsVerified() || !m.IsSuperuser() {
		t.Errorf("got %v, active %v, verified %v, superuser %v, want %v, true, false, true",
			m.UserID(), m.IsActive(), m.IsVerified(), m.IsSuperuser(), id)
	}
	m.Account().Verified = true
	if !m.IsVerified() {
		t.Error("Account returned a copy, want the account inside the struct")
	}
}

type shadowedID struct {
	account.User[uuid.UUID]
	ID string
}

type deeplyEmbedded struct {
	member
	ID uuid.UUID
}

type deeplyEmbeddedOnly struct{ member }

func TestOwnIDFieldIsRejected(t *testing.T) {
	const want = "has an ID field of its own"
	if _, err := account.NewManager(memstore.NewUsers[shadowedID](), newAttempts(t), uuid.New, account.Config{}); err == nil || !strings.Contains(err.Error(), "shadowedID "+want) {
		t.Errorf("an ID beside account.User: got %v, want an error that names the type", err)
	}
	if _, err := account.NewManager(memstore.NewUsers[deeplyEmbedded](), newAttempts(t), uuid.New, account.Config{}); err == nil || !strings.Contains(err.Error(), "deeplyEmbedded "+want) {
		t.Errorf("an ID beside a struct that embeds account.User: got %v, want an error that names the type", err)
	}
	if _, err := account.NewManager(memstore.NewUsers[deeplyEmbeddedOnly](), newAttempts(t), uuid.New, account.Config{}); err != nil {
		t.Errorf("no other ID: got %v, want nil", err)
	}
}
