package account_test

import (
	"encoding/json"
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

func TestJSONDoesNotSetTheHash(t *testing.T) {
	var m member
	body := `{"email":"eve@example.com","name":"Eve","HashedPassword":"x","hashed_password":"x","hashedpassword":"x","-":"x"}`
	if err := json.Unmarshal([]byte(body), &m); err != nil || m.Email != "eve@example.com" || !m.HashedPassword.IsZero() {
		t.Errorf("got %q, a hash: %v, and the error %v, want the address and no hash", m.Email, !m.HashedPassword.IsZero(), err)
	}
}

// Accounts of fastapi-users have no time of creation.
func TestJSONLeavesOutAnUnknownTimeOfCreation(t *testing.T) {
	got, err := json.Marshal(account.User[string]{ID: "a"})
	if err != nil || strings.Contains(string(got), "created_at") {
		t.Errorf("got %s, %v, want no created_at", got, err)
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
	if _, err := account.NewManager(memstore.NewUsers[shadowedID](), nil, newAttempts(t), uuid.New, account.Config{}); err == nil || !strings.Contains(err.Error(), "shadowedID "+want) {
		t.Errorf("an ID beside account.User: got %v, want an error that names the type", err)
	}
	if _, err := account.NewManager(memstore.NewUsers[deeplyEmbedded](), nil, newAttempts(t), uuid.New, account.Config{}); err == nil || !strings.Contains(err.Error(), "deeplyEmbedded "+want) {
		t.Errorf("an ID beside a struct that embeds account.User: got %v, want an error that names the type", err)
	}
	if _, err := account.NewManager(memstore.NewUsers[deeplyEmbeddedOnly](), nil, newAttempts(t), uuid.New, account.Config{}); err != nil {
		t.Errorf("no other ID: got %v, want nil", err)
	}
}
