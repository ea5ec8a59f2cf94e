package mongostore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

func oneTimeTokensIn(t *testing.T, r *rig, cfg ...mongostore.OneTimeTokensConfig) *mongostore.OneTimeTokens[uuid.UUID] {
	t.Helper()
	tokens, err := mongostore.NewOneTimeTokens[uuid.UUID](r.Database, append(cfg, mongostore.OneTimeTokensConfig{})[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	return tokens
}

// oneTimeDigest is the digest of a one-time token.
var oneTimeDigest = strings.Repeat("Ab3_-", 9)[:43]

// issued is when the one-time tokens of these tests were created.
var issued = time.UnixMilli(1_800_000_000_123).UTC()

// oneTimeDoc is a document of one_time_tokens.
func oneTimeDoc() bson.D {
	return bson.D{
		{Key: "_id", Value: oneTimeDigest}, {Key: "purpose", Value: "email_change"},
		{Key: "user_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}},
		{Key: "sent_to", Value: "new@example.com"}, {Key: "email", Value: "old@example.com"}, {Key: "token_version", Value: int64(3)},
		{Key: "created_at", Value: issued}, {Key: "expires_at", Value: issued.Add(time.Hour)},
	}
}

// oneTime is the token of oneTimeDoc.
func oneTime() account.OneTimeToken[uuid.UUID] {
	return account.OneTimeToken[uuid.UUID]{
		Digest: oneTimeDigest, Purpose: account.PurposeEmailChange, UserID: id, SentTo: "new@example.com", Email: "old@example.com",
		TokenVersion: 3, CreatedAt: issued, ExpiresAt: issued.Add(time.Hour),
	}
}

func TestOneTimeTokensConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]mongostore.OneTimeTokensConfig{
		"OneTimeTokensConfig.PurgeInterval is negative":     {PurgeInterval: -1},
		"OneTimeTokensConfig.Timeout is negative":           {Timeout: -1},
		"OneTimeTokensConfig.Registry":                      {Registry: bson.NewRegistry()},
		"OneTimeTokensConfig.Collection is \"system.a\\t\"": {Collection: "system.a\t"},
	} {
		t.Run(field, func(t *testing.T) {
			_, err := mongostore.NewOneTimeTokens[string](database(t), cfg)
			wantErrorNaming(t, err, field)
		})
	}
	_, err := mongostore.NewOneTimeTokens[string](nil, mongostore.OneTimeTokensConfig{})
	wantErrorNaming(t, err, "db is nil")
	_, err = mongostore.NewOneTimeTokens[complex128](database(t), mongostore.OneTimeTokensConfig{})
	wantErrorNaming(t, err, "the ID type complex128")
	tokens, err := mongostore.NewOneTimeTokens[string](database(t), mongostore.OneTimeTokensConfig{})
	if err != nil {
		t.Fatal(err)
	}
	tokens.Close() // no purge runs; a second call is allowed
	tokens.Close()
}

// Servers and shells write the version in any numeric type, or not at all.
func TestOneTimeTokenIsReadFromEveryValidDocument(t *testing.T) {
	var doc bson.D
	r := newRig(t, func(c command) bson.D {
		if c.name == "findAndModify" {
			return bson.D{{Key: "value", Value: doc}}
		}
		return found(doc)
	})
	tokens := oneTimeTokensIn(t, r)
	versions := integers(t)
	versions[nil] = 0
	for value, want := range versions {
		doc = append(changed(oneTimeDoc(), "token_version", value), bson.E{Key: "foreign", Value: true})
		for name, call := range map[string]func() (account.OneTimeToken[uuid.UUID], error){
			"Find": func() (account.OneTimeToken[uuid.UUID], error) {
				return tokens.Find(t.Context(), account.PurposeEmailChange, oneTimeDigest)
			},
			"Take": func() (account.OneTimeToken[uuid.UUID], error) {
				return tokens.Take(t.Context(), account.PurposeEmailChange, oneTimeDigest)
			},
		} {
			wanted := oneTime()
			wanted.TokenVersion = want
			if got, err := call(); err != nil || got != wanted {
				t.Errorf("%s with the version %T %v: got %+v, %v, want %+v", name, value, value, got, err, wanted)
			}
		}
	}
}

func TestInvalidOneTimeTokenIsNotFound(t *testing.T) {
	valid := oneTimeDoc()
	var doc bson.D
	r := newRig(t, func(c command) bson.D {
		if c.name == "findAndModify" {
			return bson.D{{Key: "value", Value: doc}}
		}
		return found(doc)
	})
	var events recorder
	tokens := oneTimeTokensIn(t, r, mongostore.OneTimeTokensConfig{OnEvent: events.record})
	for fault, invalid := range map[string]bson.D{
		"_id: unexpected type objectID":                      changed(valid, "_id", bson.NewObjectID()),
		"purpose: unexpected type 32-bit integer":            changed(valid, "purpose", int32(7)),
		"purpose: it is missing":                             changed(valid, "purpose"),
		"user_id: cannot decode":                             changed(valid, "user_id", "x"),
		"user_id: it is missing":                             changed(valid, "user_id", nil),
		"sent_to: unexpected type array":                     changed(valid, "sent_to", bson.A{"new@example.com"}),
		"sent_to: it is missing":                             changed(valid, "sent_to"),
		"email: unexpected type boolean":                     changed(valid, "email", true),
		"email: it is missing":                               changed(valid, "email", ""),
		"token_version: unexpected type string":              changed(valid, "token_version", "3"),
		"token_version: the double 3.5":                      changed(valid, "token_version", 3.5),
		"created_at: unexpected type string":                 changed(valid, "created_at", "2026-01-01T00:00:00Z"),
		"created_at: it is missing":                          changed(valid, "created_at"),
		"expires_at: unexpected type timestamp":              changed(valid, "expires_at", bson.Timestamp{T: 4e9}),
		"expires_at: the date is not in the years 0 to 9999": changed(valid, "expires_at", bson.DateTime(1<<62)),
		"expires_at: it is missing":                          changed(valid, "expires_at"),
	} {
		doc = invalid
		for name, call := range map[string]func() (account.OneTimeToken[uuid.UUID], error){
			"Find": func() (account.OneTimeToken[uuid.UUID], error) {
				return tokens.Find(t.Context(), account.PurposeEmailChange, oneTimeDigest)
			},
			"Take": func() (account.OneTimeToken[uuid.UUID], error) {
				return tokens.Take(t.Context(), account.PurposeEmailChange, oneTimeDigest)
			},
		} {
			got, err := call()
			if !errors.Is(err, account.ErrOneTimeTokenNotFound) || got != (account.OneTimeToken[uuid.UUID]{}) {
				t.Errorf("%s of a token with %s: got %+v, %v; want ErrOneTimeTokenNotFound", name, fault, got, err)
				continue
			}
			reported := events.take()
			if len(reported) != 1 {
				t.Errorf("%s of a token with %s: got the events %+v, want one", name, fault, reported)
				continue
			}
			wantErrorNaming(t, reported[0].Err, "one_time_tokens")
			wantErrorNaming(t, reported[0].Err, fault)
			if text := err.Error() + reported[0].Err.Error(); strings.Contains(text, oneTimeDigest) || strings.Contains(text, oneTimeDigest[:9]) {
				t.Errorf("%s of a token with %s: the error or the event shows the digest", name, fault)
			}
			if field, _, _ := strings.Cut(fault, ":"); field == "_id" {
				continue
			}
			wantErrorNaming(t, reported[0].Err, `"`+oneTimeDigest[:8]+"…")
			if strings.HasPrefix(fault, "user_id") != (reported[0].UserID == nil) {
				t.Errorf("%s of a token with %s: the event has the user %v", name, fault, reported[0].UserID)
			}
		}
	}
}

// The server's error would show the digest.
func TestTakenDigestIsAnErrorWithoutTheDigest(t *testing.T) {
	r := newRig(t, func(c command) bson.D {
		return refused(11000, `E11000 duplicate key error collection: app.one_time_tokens index: _id_ dup key: { _id: "`+oneTimeDigest+`" }`)
	})
	err := oneTimeTokensIn(t, r).Insert(t.Context(), oneTime(), 3)
	wantErrorNaming(t, err, "mongostore: insert the one-time token: the digest is taken")
	if err != nil && strings.Contains(err.Error(), oneTimeDigest) {
		t.Error("the error shows the digest")
	}
	if sent := r.sent(); len(sent) != 1 {
		t.Errorf("sent %d commands, want the insert alone", len(sent))
	}
}

// Documents that cannot be ordered take no token's place, and are not removed.
func TestInsertRemovesTheOldestOfTheTokensThatHaveAnOrder(t *testing.T) {
	at := func(digest any, created any) bson.D {
		return bson.D{{Key: "_id", Value: digest}, {Key: "created_at", Value: created}}
	}
	ago := func(d time.Duration) time.Time { return issued.Add(-d) }
	own := at(oneTimeDigest, issued)
	for _, c := range []struct {
		name    string
		stored  []any
		removed []string
	}{
		{"the first token", []any{own}, nil},
		{"at the limit", []any{own, at("a", ago(1e9)), at("b", ago(2e9))}, nil},
		{"beyond the limit", []any{at("c", ago(3e9)), at("a", ago(1e9)), own, at("d", ago(4e9)), at("b", ago(2e9))}, []string{"c", "d"}},
		{"invalid documents", []any{
			at("x", bson.Timestamp{T: 4e9}), at("y", "z"), at("z", nil), at(bson.NewObjectID(), issued.Add(time.Second)), at("w", bson.DateTime(1<<62)),
			own, at("a", ago(1e9)), at("b", ago(2e9)), at("c", ago(3e9)),
		}, []string{"c"}},
		{"tokens from a wrong clock", []any{at("x", ago(-time.Hour)), at("y", ago(-2*time.Hour)), at("z", ago(-3*time.Hour)), own}, []string{"x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			removed := false
			r := newRig(t, func(sent command) bson.D {
				switch {
				case sent.name == "delete":
					removed = true
				case sent.name == "find" && !removed:
					return found(c.stored...)
				case sent.name == "find":
					return found()
				}
				return updated(1)
			})
			if err := oneTimeTokensIn(t, r).Insert(t.Context(), oneTime(), 3); err != nil {
				t.Fatal(err)
			}
			var digests []string
			for _, sent := range r.sent() {
				if sent.name != "delete" {
					continue
				}
				values, err := sent.docs[0].Lookup("q", "_id", "$in").Array().Values()
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range values {
					digests = append(digests, v.StringValue())
				}
			}
			slices.Sort(digests)
			if !slices.Equal(digests, c.removed) {
				t.Errorf("removed %v, want %v", digests, c.removed)
			}
		})
	}
}

// An insert whose clean-up failed is an error: too many tokens may remain.
func TestInsertFailsIfTheOldestTokensCannotBeRemoved(t *testing.T) {
	for _, failing := range []string{"insert", "find", "delete"} {
		r := newRig(t, func(c command) bson.D {
			switch {
			case c.name == failing:
				return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 13}, {Key: "errmsg", Value: "not authorised"}}
			case c.name == "find":
				return found(bson.D{{Key: "_id", Value: "older"}, {Key: "created_at", Value: issued.Add(-time.Second)}}, oneTimeDoc())
			}
			return updated(1)
		})
		wantErrorNaming(t, oneTimeTokensIn(t, r).Insert(t.Context(), oneTime(), 1), "not authorised")
	}
}
