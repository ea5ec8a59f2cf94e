package mongostore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

func TestOAuthAccountsConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]mongostore.OAuthAccountsConfig{
		"OAuthAccountsConfig.Timeout is negative":           {Timeout: -1},
		"OAuthAccountsConfig.Registry":                      {Registry: bson.NewRegistry()},
		"OAuthAccountsConfig.Collection is \"system.a\\t\"": {Collection: "system.a\t"},
	} {
		t.Run(field, func(t *testing.T) {
			_, err := mongostore.NewOAuthAccounts[string](database(t), cfg)
			wantErrorNaming(t, err, field)
		})
	}
	_, err := mongostore.NewOAuthAccounts[string](nil, mongostore.OAuthAccountsConfig{})
	wantErrorNaming(t, err, "db is nil")
	_, err = mongostore.NewOAuthAccounts[complex128](database(t), mongostore.OAuthAccountsConfig{})
	wantErrorNaming(t, err, "the ID type complex128")
}

// The server's error would show who the user is at the provider.
func TestTakenOAuthAccountIsAnErrorWithoutTheSubject(t *testing.T) {
	r := newRig(t, func(command) bson.D {
		return refused(11000, `E11000 duplicate key error collection: app.oauth_accounts index: issuer_1_subject_1 dup key: { subject: "ann-at-the-provider" }`)
	})
	links, err := mongostore.NewOAuthAccounts[uuid.UUID](r.Database, mongostore.OAuthAccountsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	err = links.Insert(t.Context(), account.OAuthAccount[uuid.UUID]{Issuer: "https://id.example.com", Subject: "ann-at-the-provider", UserID: id})
	if !errors.Is(err, account.ErrOAuthAccountTaken) || strings.Contains(err.Error(), "ann-at") {
		t.Errorf("got the error %v, want ErrOAuthAccountTaken without the subject", err)
	}
}

// If another link cannot be looked for, the link stays and loses its mark.
func TestFailedDeletionOfAnOAuthAccountTakesItsMarkBack(t *testing.T) {
	r := newRig(t, func(c command) bson.D {
		if c.name == "find" {
			return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 13}, {Key: "errmsg", Value: "not authorised"}}
		}
		return updated(1)
	})
	links, err := mongostore.NewOAuthAccounts[uuid.UUID](r.Database, mongostore.OAuthAccountsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	wantErrorNaming(t, links.Delete(t.Context(), id, "https://id.example.com", "7", []string{"https://id.example.com"}), "not authorised")
	sent := r.sent()
	var names []string
	for _, c := range sent {
		names = append(names, c.name)
	}
	if got := strings.Join(names, " "); got != "update find update" {
		t.Fatalf("sent %s, want update find update", got)
	}
	if unset := sent[2].docs[0].Lookup("u", "$unset", "unlinking"); unset.IsZero() {
		t.Errorf("the last update is %v, want one that removes the mark", sent[2].docs[0])
	}
	if mark := sent[2].docs[0].Lookup("q", "unlinking"); !mark.Equal(sent[0].docs[0].Lookup("u", "$set", "unlinking")) {
		t.Errorf("the last update is of %v, want only the link with the same mark", sent[2].docs[0].Lookup("q"))
	}
}
