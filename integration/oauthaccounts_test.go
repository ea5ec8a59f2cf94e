package integration_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/storetest"
)

// newOAuthAccounts returns a store with its indexes.
func newOAuthAccounts[ID comparable](tb testing.TB, db *mongo.Database, cfg mongostore.OAuthAccountsConfig) *mongostore.OAuthAccounts[ID] {
	tb.Helper()
	links, err := mongostore.NewOAuthAccounts[ID](db, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(links.Close)
	if err := links.EnsureIndexes(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	return links
}

func TestOAuthAccountsKeepTheContract(t *testing.T) {
	t.Run("uuid.UUID", func(t *testing.T) { testOAuthAccounts(t, uuid.New) })
	t.Run("bson.ObjectID", func(t *testing.T) { testOAuthAccounts(t, bson.NewObjectID) })
	t.Run("string", func(t *testing.T) { testOAuthAccounts(t, uuid.NewString) })
	t.Run("int64", func(t *testing.T) { testOAuthAccounts(t, counter()) })
}

func testOAuthAccounts[ID comparable](t *testing.T, newID func() ID) {
	storetest.RunOAuthAccounts(t, newID, func(tb testing.TB) account.OAuthAccountStore[ID] {
		return newOAuthAccounts[ID](tb, database(tb), mongostore.OAuthAccountsConfig{})
	})
}

func TestOAuthAccountsIndexesAreCreatedAndVerified(t *testing.T) {
	db := database(t)
	links, err := mongostore.NewOAuthAccounts[uuid.UUID](db, mongostore.OAuthAccountsConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(links.Close)
	err = links.VerifyIndexes(t.Context())
	if !errors.Is(err, mongostore.ErrIndexMismatch) || !strings.Contains(err.Error(), "oauth_accounts lacks issuer_1_subject_1") {
		t.Errorf("before: got the error %v, want ErrIndexMismatch that names the index", err)
	}
	for range 2 {
		if err := links.EnsureIndexes(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := names(indexes(t, db.Collection("oauth_accounts"))), "_id_, issuer_1_subject_1 unique, user_id_1"; got != want {
			t.Errorf("oauth_accounts has %s, want %s", got, want)
		}
		if err := links.VerifyIndexes(t.Context()); err != nil {
			t.Errorf("after: %v", err)
		}
	}
}

// Other programs can read the documents.
func TestOAuthAccountDocumentIsAsDocumented(t *testing.T) {
	db := database(t)
	links := newOAuthAccounts[uuid.UUID](t, db, mongostore.OAuthAccountsConfig{})
	link := account.OAuthAccount[uuid.UUID]{Issuer: "https://id.example.com", Subject: "7", UserID: uuid.New(), Email: jo, CreatedAt: time.UnixMilli(1_800_000_000_123).UTC()}
	if err := links.Insert(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	// A refused deletion leaves no mark.
	if err := links.Delete(t.Context(), link.UserID, link.Issuer, link.Subject, []string{link.Issuer}); !errors.Is(err, account.ErrLastOAuthAccount) {
		t.Fatalf("got the error %v, want ErrLastOAuthAccount", err)
	}
	var got bson.M
	if err := db.Collection("oauth_accounts").FindOne(t.Context(), bson.D{}).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := bson.M{"_id": got["_id"], "issuer": link.Issuer, "subject": "7", "user_id": id4(link.UserID), "email": jo, "created_at": bson.NewDateTimeFromTime(link.CreatedAt)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the document is\n%#v, want\n%#v", got, want)
	}
}

// A process that died while it deleted a link leaves a mark, which is ignored after a while.
func TestMarkOfAnUnfinishedDeletionIsIgnoredAfterAWhile(t *testing.T) {
	db, now := database(t), time.UnixMilli(1_800_000_000_123).UTC()
	links := newOAuthAccounts[uuid.UUID](t, db, mongostore.OAuthAccountsConfig{Now: func() time.Time { return now }})
	first := account.OAuthAccount[uuid.UUID]{Issuer: "https://a.example.com", Subject: "7", UserID: uuid.New(), CreatedAt: now}
	second := first
	second.Issuer = "https://b.example.com"
	if err := errors.Join(links.Insert(t.Context(), first), links.Insert(t.Context(), second)); err != nil {
		t.Fatal(err)
	}
	mark := bson.D{{Key: "$set", Value: bson.D{{Key: "unlinking", Value: "of another process"}, {Key: "unlinking_at", Value: now}}}}
	if _, err := db.Collection("oauth_accounts").UpdateOne(t.Context(), bson.D{{Key: "issuer", Value: second.Issuer}}, mark); err != nil {
		t.Fatal(err)
	}
	keep := []string{first.Issuer, second.Issuer}
	if err := links.Delete(t.Context(), first.UserID, first.Issuer, first.Subject, keep); !errors.Is(err, account.ErrLastOAuthAccount) {
		t.Fatalf("while the other deletion may go on: got the error %v, want ErrLastOAuthAccount", err)
	}
	if got, err := links.Find(t.Context(), second.Issuer, second.Subject); err != nil || got != second {
		t.Errorf("the marked link: got %+v, %v, want it", got, err)
	}
	now = now.Add(5*time.Minute + time.Millisecond)
	if err := links.Delete(t.Context(), first.UserID, first.Issuer, first.Subject, keep); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestDocumentOfAnotherProgramIsNoOAuthAccount(t *testing.T) {
	db, log := database(t), new(events)
	links := newOAuthAccounts[uuid.UUID](t, db, mongostore.OAuthAccountsConfig{OnEvent: log.add})
	user := uuid.New()
	if _, err := db.Collection("oauth_accounts").InsertOne(t.Context(), bson.D{
		{Key: "issuer", Value: "https://a.example.com"}, {Key: "subject", Value: "7"}, {Key: "user_id", Value: id4(user)}, {Key: "created_at", Value: "yesterday"},
	}); err != nil {
		t.Fatal(err)
	}
	got, err := links.Find(t.Context(), "https://a.example.com", "7")
	if err == nil || errors.Is(err, account.ErrOAuthAccountNotFound) {
		t.Errorf("got %+v, %v, want a failure", got, err)
	}
	if found := log.all(event.InvalidDocument); len(found) != 1 || found[0].UserID != user || !strings.Contains(found[0].Err.Error(), "created_at") {
		t.Errorf("got the events %+v, want one of the user that names created_at", found)
	}
	if got, err := links.ListByUser(t.Context(), user); err != nil || len(got) != 0 {
		t.Errorf("got the list %+v, %v, want none", got, err)
	}
}
