package account_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"
	"text/template"

	"github.com/gin-gonic/gin/binding"
	"github.com/gin-gonic/gin/render"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
)

// The key of the hash is "keykeykey…" in base64.
const secretKey, phcString = "a2V5a2V5a2V5", "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$a2V5a2V5a2V5a2V5a2V5"

// showsHash reports whether out contains the key of phcString in some encoding.
func showsHash(out string) bool {
	numbers := strings.Trim(fmt.Sprint([]byte(secretKey)), "[]")
	for _, form := range []string{
		secretKey,
		hex.EncodeToString([]byte(secretKey)),
		strings.ToUpper(hex.EncodeToString([]byte(secretKey))),
		numbers,
		strings.ReplaceAll(numbers, " ", ", "),
		strings.ReplaceAll(numbers, " ", ","),
		base64.StdEncoding.EncodeToString([]byte(phcString)),
	} {
		if strings.Contains(out, form) {
			return true
		}
	}
	return false
}

// profile is a struct of an application that contains hashes.
type profile struct {
	Hash   account.PasswordHash
	hidden account.PasswordHash
	member member
	Inner  struct{ Hash account.PasswordHash }
	Ptr    *account.PasswordHash
	List   []account.PasswordHash
	Any    any
}

func newProfile(m member) profile {
	h := m.HashedPassword
	p := profile{Hash: h, hidden: h, member: m, Ptr: &h, List: []account.PasswordHash{h}, Any: m}
	p.Inner.Hash = h
	return p
}

func TestOnlyRevealShowsTheHash(t *testing.T) {
	hash := account.NewPasswordHash(phcString)
	ann := member{User: account.User[uuid.UUID]{ID: uuid.New(), Email: "ann@example.com", HashedPassword: hash}, Name: "Ann"}
	users := memstore.NewUsers[member]()
	if err := users.Insert(t.Context(), ann); err != nil {
		t.Fatal(err)
	}
	values := map[string]any{
		"a hash":                hash,
		"a pointer to a hash":   &hash,
		"a slice of hashes":     []account.PasswordHash{hash},
		"an array of hashes":    [1]account.PasswordHash{hash},
		"a map of hashes":       map[string]account.PasswordHash{"ann": hash},
		"an account":            ann.User,
		"a user":                ann,
		"a pointer to a user":   &ann,
		"a slice of users":      []member{ann},
		"a map of users":        map[string]member{"ann": ann},
		"a struct":              newProfile(ann),
		"a pointer to a struct": new(newProfile(ann)),
		"an unexported field":   struct{ hidden member }{ann},
		"a slice of interfaces": []any{hash, &hash, ann, newProfile(ann)},
		"an error with a user":  fmt.Errorf("update %+v", ann),
		"a store in memory":     users,
	}
	buffered := func(encode func(b *bytes.Buffer) error) string {
		var b bytes.Buffer
		err := encode(&b)
		return fmt.Sprint(b.String(), err)
	}
	rendered := func(r render.Render) string {
		w := httptest.NewRecorder()
		err := r.Render(w)
		return fmt.Sprint(w.Body.String(), err)
	}
	marshalled := func(b []byte, err error) string { return fmt.Sprint(string(b), err) }
	logged := func(l *slog.Logger, v any) { l.Info("user", "value", v, slog.Group("group", "value", v)) }
	sinks := map[string]func(any) string{
		"slog text": func(v any) string {
			return buffered(func(b *bytes.Buffer) error { logged(slog.New(slog.NewTextHandler(b, nil)), v); return nil })
		},
		"slog JSON": func(v any) string {
			return buffered(func(b *bytes.Buffer) error { logged(slog.New(slog.NewJSONHandler(b, nil)), v); return nil })
		},
		"json":          func(v any) string { return marshalled(json.Marshal(v)) },
		"xml":           func(v any) string { return marshalled(xml.Marshal(v)) },
		"Gin's JSON":    func(v any) string { return rendered(render.JSON{Data: v}) },
		"Gin's XML":     func(v any) string { return rendered(render.XML{Data: v}) },
		"Gin's YAML":    func(v any) string { return rendered(render.YAML{Data: v}) },
		"Gin's TOML":    func(v any) string { return rendered(render.TOML{Data: map[string]any{"v": v}}) },
		"Gin's msgpack": func(v any) string { return rendered(render.MsgPack{Data: v}) },
		"Gin's BSON":    func(v any) string { return rendered(render.BSON{Data: bson.M{"v": v}}) },
		"gob": func(v any) string {
			return buffered(func(b *bytes.Buffer) error { return gob.NewEncoder(b).Encode(v) })
		},
		"bson": func(v any) string { return marshalled(bson.Marshal(bson.M{"v": v})) },
		"extended JSON": func(v any) string {
			return marshalled(bson.MarshalExtJSON(bson.M{"v": v}, false, false))
		},
		"text/template": func(v any) string {
			return buffered(func(b *bytes.Buffer) error {
				return template.Must(template.New("").Parse("{{.}} {{printf \"%#v\" .}}")).Execute(b, v)
			})
		},
		"Print":   func(v any) string { return fmt.Sprint(v) },
		"Println": func(v any) string { return fmt.Sprintln(v) },
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%c", "%t", "%08.3f", "%!", "%T", "%p"} {
		sinks[verb] = func(v any) string { return fmt.Sprintf(verb, v) }
	}
	for sink, print := range sinks {
		for name, value := range values {
			if out := print(value); showsHash(out) {
				t.Errorf("%s of %s shows the hash: %s", sink, name, out)
			}
		}
	}
}

func TestHashesPrintAlike(t *testing.T) {
	const want = "…redacted"
	for name, hash := range map[string]account.PasswordHash{
		"a hash":       account.NewPasswordHash(phcString),
		"an empty one": account.NewPasswordHash(""),
		"the zero one": {},
	} {
		for _, verb := range []string{"%v", "%#v", "%d"} {
			if got := fmt.Sprintf(verb, hash); got != want {
				t.Errorf("%s of %s: got %q, want %q", verb, name, got, want)
			}
		}
		if got := hash.LogValue().String(); got != want {
			t.Errorf("LogValue of %s: got %q, want %q", name, got, want)
		}
		if got, err := json.Marshal(hash); string(got) != `"`+want+`"` || err != nil {
			t.Errorf("JSON of %s: got %s, %v, want %q", name, got, err, want)
		}
	}
}

func TestRevealReturnsTheHash(t *testing.T) {
	for _, phc := range []string{"", phcString, "x", "é\x00\xff"} {
		hash := account.NewPasswordHash(phc)
		if got := hash.Reveal(); got != phc || hash.IsZero() != (phc == "") {
			t.Errorf("got %q, IsZero %v, want %q, %v", got, hash.IsZero(), phc, phc == "")
		}
	}
	var zero account.PasswordHash
	if zero.Reveal() != "" || !zero.IsZero() {
		t.Errorf("the zero hash: got %q, IsZero %v, want \"\", true", zero.Reveal(), zero.IsZero())
	}
}

// An application that writes a user with the driver's default registry must not lose the
// password without noticing.
func TestDefaultBSONRegistryRefusesHashes(t *testing.T) {
	want := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "mongostore.NewRegistry") {
			t.Errorf("%s: got the error %v, want one that names mongostore.NewRegistry", what, err)
		}
	}
	type row struct {
		account.User[bson.ObjectID] `bson:",inline"`
	}
	for name, hash := range map[string]account.PasswordHash{"a hash": account.NewPasswordHash(phcString), "no password": {}} {
		_, err := bson.Marshal(row{account.User[bson.ObjectID]{HashedPassword: hash}})
		want("write "+name, err)
		_, err = bson.Marshal(bson.M{"$set": bson.M{"hashed_password": hash}})
		want("update "+name, err)
	}
	for name, stored := range map[string]any{"a hash": phcString, "no password": ""} {
		doc, err := bson.Marshal(bson.M{"hashed_password": stored})
		if err != nil {
			t.Fatal(err)
		}
		want("read "+name, bson.Unmarshal(doc, &row{}))
	}
}

// No decoder reads back what MarshalText prints.
func TestRedactedHashIsNotReadBack(t *testing.T) {
	for _, c := range []struct {
		decoder binding.BindingBody
		body    string
	}{
		{binding.JSON, `{"Hash":"%s"}`},
		{binding.YAML, "hash: %s"},
		{binding.TOML, `Hash = "%s"`},
		{binding.XML, "<v><Hash>%s</Hash></v>"},
	} {
		for _, s := range []string{"…redacted", phcString} {
			var v struct{ Hash account.PasswordHash }
			if err := c.decoder.BindBody(fmt.Appendf(nil, c.body, s), &v); !v.Hash.IsZero() {
				t.Errorf("%s: %q was read as a hash, error %v", c.decoder.Name(), s, err)
			}
		}
	}
}
