package mongostore_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func tokensIn(t *testing.T, r *rig, cfg ...mongostore.TokensConfig) *mongostore.Tokens[uuid.UUID] {
	t.Helper()
	tokens, err := mongostore.NewTokens[uuid.UUID](r.Database, append(cfg, mongostore.TokensConfig{})[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tokens.Close)
	return tokens
}

// tokenRow is a row of access_tokens with a version of any type.
func tokenRow(version any) bson.D {
	binary := bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}
	return bson.D{
		{Key: "_id", Value: binary}, {Key: "token", Value: "digest"}, {Key: "user_id", Value: binary},
		{Key: "created_at", Value: bson.DateTime(1_800_000_000_123)}, {Key: "token_version", Value: version}, {Key: "name", Value: "Jo"},
	}
}

func TestTokenVersionsOfEveryNumericType(t *testing.T) {
	var version any
	r := newRig(t, func(command) bson.D { return found(tokenRow(version)) })
	var events recorder
	tokens := tokensIn(t, r, mongostore.TokensConfig{OnEvent: events.record})
	readable := integers(t)
	readable[nil] = 0
	for value, want := range readable {
		version = value
		got, err := tokens.ByToken(t.Context(), "digest")
		if err != nil || got.TokenVersion != want || got.ID != id || got.UserID != id || got.Name != "Jo" {
			t.Errorf("%T %v is read as %+v, %v; want the version %d", value, value, got, err, want)
		}
	}
	for want, value := range notIntegers(t) {
		version = value
		_, err := tokens.ByToken(t.Context(), "digest")
		if !errors.Is(err, strategy.ErrTokenNotFound) {
			t.Errorf("%T %v: got the error %v, want ErrTokenNotFound", value, value, err)
		}
		events.wantInvalid(t, "access_tokens", "decode the field token_version: "+want)
	}
}

func TestTokenIsFoundByItsDigestAlone(t *testing.T) {
	r := newRig(t, func(command) bson.D { return found() })
	if _, err := tokensIn(t, r).ByToken(t.Context(), "digest"); !errors.Is(err, strategy.ErrTokenNotFound) {
		t.Errorf("got the error %v, want ErrTokenNotFound", err)
	}
	sent := r.sent()
	if len(sent) != 1 || sent[0].body.Lookup("filter").String() != `{"token": "digest"}` {
		t.Errorf("sent %v, want one find by the token", sent)
	}
}

func TestTokenVersionZeroIsNotWritten(t *testing.T) {
	r := newRig(t, func(command) bson.D { return bson.D{{Key: "n", Value: 1}} })
	tokens := tokensIn(t, r)
	for _, version := range []int64{0, 1, 1 << 40} {
		if err := tokens.Insert(t.Context(), strategy.AccessToken[uuid.UUID]{ID: id, Digest: "digest", CreatedAt: time.Now(), TokenVersion: version}); err != nil {
			t.Fatal(err)
		}
		written, err := r.sent()[0].docs[0].LookupErr("token_version")
		if version == 0 && err == nil {
			t.Errorf("0 is written as %v", written)
		}
		if n, ok := written.Int64OK(); version != 0 && (!ok || n != version) {
			t.Errorf("%d is written as %v", version, written)
		}
	}
}

func TestRotateChangesWhatIsGiven(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_123)
	for _, c := range []struct {
		name string
		to   strategy.Rotation
		want string
	}{
		{"the digest alone", strategy.Rotation{Digest: "new"}, `{"$set":{"token":"new"}}`},
		{"the version", strategy.Rotation{Digest: "new", TokenVersion: 3}, `{"$set":{"token":"new"},"$max":{"token_version":3}}`},
		{
			"everything",
			strategy.Rotation{Digest: "new", LastUsedAt: at, AuthenticatedAt: at, TokenVersion: 3},
			`{"$set":{"token":"new","authenticated_at":DATE},"$max":{"last_used_at":DATE,"token_version":3}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(command) bson.D { return bson.D{{Key: "value", Value: tokenRow(int64(3))}} })
			row, err := tokensIn(t, r).Rotate(t.Context(), "digest", c.to)
			if err != nil || row.TokenVersion != 3 {
				t.Errorf("got %+v, %v; want the row with the version 3", row, err)
			}
			var sent struct{ Update json.RawMessage }
			b, err := bson.MarshalExtJSON(r.sent()[0].body, false, false)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &sent); err != nil {
				t.Fatal(err)
			}
			if got := strings.ReplaceAll(string(sent.Update), `{"$date":"2027-01-15T08:00:00.123Z"}`, "DATE"); got != c.want {
				t.Errorf("sent the update %s, want %s", got, c.want)
			}
		})
	}
}
