package strategy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"text/template"

	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// reveals returns the encoding in which out contains the secret part of a token, or "".
func reveals(out, token string) string {
	secret := token[strings.LastIndexByte(token, '_')+1:]
	numbers := strings.Trim(fmt.Sprint([]byte(secret)), "[]")
	for _, form := range []string{
		secret,
		hex.EncodeToString([]byte(secret)),
		strings.ToUpper(hex.EncodeToString([]byte(secret))),
		numbers,
		strings.ReplaceAll(numbers, " ", ", "),
		strings.ReplaceAll(numbers, " ", ","),
		base64.StdEncoding.EncodeToString([]byte(token)),
	} {
		if strings.Contains(out, form) {
			return form
		}
	}
	return ""
}

// login is a struct of an application that contains Secrets.
type login struct {
	Token  strategy.Secret
	hidden strategy.Secret
	Inner  struct{ Token strategy.Secret }
	Ptr    *strategy.Secret
	List   []strategy.Secret
	Any    any
}

func newLogin(s strategy.Secret) login {
	l := login{Token: s, hidden: s, Ptr: &s, List: []strategy.Secret{s}, Any: s}
	l.Inner.Token = s
	return l
}

func TestOnlyRevealShowsTheSecret(t *testing.T) {
	secret := newSecret()
	token := secret.Reveal()

	values := map[string]any{
		"a Secret":               secret,
		"a pointer":              &secret,
		"a slice":                []strategy.Secret{secret},
		"an array":               [1]strategy.Secret{secret},
		"a map":                  map[string]strategy.Secret{"token": secret},
		"a struct":               newLogin(secret),
		"a pointer to a struct":  new(newLogin(secret)),
		"a slice of interfaces":  []any{secret, &secret, newLogin(secret)},
		"an error that wraps it": fmt.Errorf("log in with %v: %w", secret, errors.New("refused")),
	}
	sinks := map[string]func(any) string{
		"slog text": func(v any) string {
			var b bytes.Buffer
			slog.New(slog.NewTextHandler(&b, nil)).Info("login", "value", v, slog.Group("group", "value", v))
			return b.String()
		},
		"slog JSON": func(v any) string {
			var b bytes.Buffer
			slog.New(slog.NewJSONHandler(&b, nil)).Info("login", "value", v, slog.Group("group", "value", v))
			return b.String()
		},
		"json": func(v any) string { b, err := json.Marshal(v); return fmt.Sprint(string(b), err) },
		"xml":  func(v any) string { b, err := xml.Marshal(v); return fmt.Sprint(string(b), err) },
		"bson": func(v any) string {
			b, err := bson.Marshal(bson.M{"v": v})
			return fmt.Sprint(string(b), bson.Raw(b), err)
		},
		"gob": func(v any) string {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(v)
			return fmt.Sprint(b.String(), err)
		},
		"text/template": func(v any) string {
			var b bytes.Buffer
			err := template.Must(template.New("").Parse("{{.}} {{printf \"%#v\" .}}")).Execute(&b, v)
			return fmt.Sprint(b.String(), err)
		},
		"Print":   func(v any) string { return fmt.Sprint(v) },
		"Println": func(v any) string { return fmt.Sprintln(v) },
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%#x", "%d", "%c", "%t", "%08.3f", "%!", "%T", "%p"} {
		sinks[verb] = func(v any) string { return fmt.Sprintf(verb, v) }
	}
	for sink, print := range sinks {
		for name, value := range values {
			if out := print(value); reveals(out, token) != "" {
				t.Errorf("%s of %s shows the token: %s", sink, name, out)
			}
		}
	}
}

func TestSecretPrintsItsPrefixOnly(t *testing.T) {
	made := func(prefix string) strategy.Secret {
		format, err := token.NewFormat(prefix)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := format.New()
		return strategy.NewSecret(text)
	}
	for _, c := range []struct {
		name   string
		secret strategy.Secret
		want   string
	}{
		{"the default prefix", made(""), "lk_…redacted"},
		{"a prefix of several words", made("my_app_"), "my_app_…redacted"},
		{"a token wrapped again", strategy.NewSecret(made("").Reveal()), "lk_…redacted"},
		{"the zero Secret", strategy.Secret{}, "…redacted"},
		{"an empty token", strategy.NewSecret(""), "…redacted"},
		// In a token of another kind (a JWT, say), the characters before an underscore may
		// be secret.
		{"a token of another kind", strategy.NewSecret("eyJhbGciOi.JIUzI1NiJ9.c2VjcmV0_x"), "…redacted"},
		{"a token with a bad checksum", strategy.NewSecret("secret_" + strings.Repeat("0", 49)), "…redacted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%#x"} {
				if got := fmt.Sprintf(verb, c.secret); got != c.want {
					t.Errorf("%s: got %q, want %q", verb, got, c.want)
				}
			}
			if got := c.secret.LogValue().String(); got != c.want {
				t.Errorf("LogValue: got %q, want %q", got, c.want)
			}
			if got, err := json.Marshal(c.secret); string(got) != `"`+c.want+`"` || err != nil {
				t.Errorf("JSON: got %s, %v, want %q", got, err, c.want)
			}
		})
	}
}

func TestRevealReturnsTheWrappedToken(t *testing.T) {
	for _, token := range []string{"", "x", "lk_", "no underscore", "é\x00\xff"} {
		if got := strategy.NewSecret(token).Reveal(); got != token {
			t.Errorf("Reveal: got %q, want %q", got, token)
		}
	}
	if got := (strategy.Secret{}).Reveal(); got != "" {
		t.Errorf("Reveal of the zero Secret: got %q, want \"\"", got)
	}
}
