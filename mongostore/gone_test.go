package mongostore_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// blindServer holds one document. Its writes do not match the document a number of times,
// as those of DocumentDB beside an update by another command; its reads find it.
type blindServer struct {
	doc     bson.D // nil: removed
	misses  int    // how many more writes match nothing
	written bool
}

func (s *blindServer) answer(c command) bson.D {
	if c.name == "find" {
		if s.doc == nil {
			return found()
		}
		return found(s.doc)
	}
	doc := s.doc
	if doc != nil {
		if s.misses--; s.misses >= 0 {
			doc = nil
		}
	}
	n := 0
	if doc != nil {
		s.written, n = true, 1
		// A rotation hides the document from filters by the old token.
		if c.name != "update" {
			s.doc = nil
		}
	}
	if c.name == "findAndModify" {
		return bson.D{{Key: "value", Value: doc}}
	}
	return updated(n)
}

func TestWritesThatMatchNothingAreRepeatedWhileTheDocumentIsThere(t *testing.T) {
	off := false
	type stores struct {
		tokens *mongostore.Tokens[uuid.UUID]
		users  *mongostore.Users[member, uuid.UUID]
		mails  *mongostore.OneTimeTokens[uuid.UUID]
	}
	for _, c := range []struct {
		name    string
		doc     bson.D
		write   func(stores) error
		missing error // without a document
	}{
		{"Delete", tokenRow(nil), func(s stores) error {
			row, err := s.tokens.Delete(t.Context(), "digest")
			if err == nil && row.ID != id {
				t.Errorf("Delete returned %+v, want the row", row)
			}
			return err
		}, strategy.ErrTokenNotFound},
		{"DeleteSession", tokenRow(nil), func(s stores) error {
			row, err := s.tokens.DeleteSession(t.Context(), id, id)
			if err == nil && row.Digest != "digest" {
				t.Errorf("DeleteSession returned %+v, want the row", row)
			}
			return err
		}, strategy.ErrTokenNotFound},
		{"DeleteByUser", tokenRow(nil), func(s stores) error {
			_, err := s.tokens.DeleteByUser(t.Context(), id)
			return err
		}, nil},
		{"Rotate", tokenRow(nil), func(s stores) error {
			_, err := s.tokens.Rotate(t.Context(), "digest", strategy.Rotation{Digest: "new"})
			return err
		}, strategy.ErrTokenNotFound},
		{"Take", oneTimeDoc(), func(s stores) error {
			got, err := s.mails.Take(t.Context(), account.PurposeEmailChange, oneTimeDigest)
			if err == nil && got != oneTime() {
				t.Errorf("Take returned %+v, want the token", got)
			}
			return err
		}, account.ErrOneTimeTokenNotFound},
		{"DeleteByUser of one-time tokens", oneTimeDoc(), func(s stores) error {
			return s.mails.DeleteByUser(t.Context(), id, account.PurposeEmailChange)
		}, nil},
		{"Apply", userDoc(nil), func(s stores) error {
			return s.users.Apply(t.Context(), id, account.Change{Active: &off, RevokeTokens: true})
		}, account.ErrUserNotFound},
		{"Delete of an account", userDoc(nil), func(s stores) error { return s.users.Delete(t.Context(), id) }, account.ErrUserNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			write := func(server *blindServer) (sent []command, err error) {
				r := newRig(t, server.answer)
				err = c.write(stores{tokensIn(t, r), usersIn(t, r), oneTimeTokensIn(t, r)})
				return r.sent(), err
			}
			for misses := range 5 {
				server := &blindServer{doc: c.doc, misses: misses}
				if _, err := write(server); err != nil || !server.written {
					t.Errorf("after %d misses: got the error %v, written: %t, want nil and true", misses, err, server.written)
				}
			}
			sent, err := write(&blindServer{doc: c.doc, misses: 1 << 30})
			if err == nil || c.missing != nil && errors.Is(err, c.missing) || !strings.Contains(err.Error(), "did not match") {
				t.Errorf("a document that is never matched: got the error %v, want one that is not %v", err, c.missing)
			}
			if len(sent) > 40 {
				t.Errorf("a document that is never matched: sent %d commands, want at most 40", len(sent))
			}
			sent, err = write(&blindServer{})
			if !errors.Is(err, c.missing) || len(sent) != 2 {
				t.Errorf("without a document: got the error %v after %d commands, want %v after 2", err, len(sent), c.missing)
			}
		})
	}
}

// Without the sort, DocumentDB 0.106 crashes.
func TestDeletesOfOneRowHaveASort(t *testing.T) {
	r := newRig(t, func(command) bson.D { return bson.D{{Key: "value", Value: tokenRow(nil)}} })
	tokens := tokensIn(t, r)
	if _, err := tokens.Delete(t.Context(), "digest"); err != nil {
		t.Error(err)
	}
	if _, err := tokens.DeleteSession(t.Context(), id, id); err != nil {
		t.Error(err)
	}
	if _, err := oneTimeTokensIn(t, r).Take(t.Context(), account.PurposeEmailChange, oneTimeDigest); !errors.Is(err, account.ErrOneTimeTokenNotFound) {
		t.Error(err) // the row is none of one_time_tokens
	}
	for _, c := range r.sent() {
		if got := c.body.Lookup("sort").String(); got != `{"_id": {"$numberInt":"1"}}` {
			t.Errorf("%v has the sort %s, want by _id", c.body, got)
		}
	}
}
