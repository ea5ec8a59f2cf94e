package main

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
)

const testURI = "mongodb://jo:sesame%21@127.0.0.1:1/?serverSelectionTimeoutMS=1"

// runFor runs the program without a server.
func runFor(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs)
	if all := out.String() + errs.String(); strings.Contains(all, "sesame") {
		t.Errorf("latchkey %v printed the password: %s", args, all)
	}
	return code, out.String(), errs.String()
}

func TestWrongUsage(t *testing.T) {
	t.Setenv(envURI, testURI)
	for name, test := range map[string]struct {
		args []string
		want string // in stderr
	}{
		"no command":             {nil, "no command"},
		"unknown command":        {[]string{"-db", "app", "users"}, "unknown command users"},
		"half a command":         {[]string{"-db", "app", "indexes"}, "unknown command indexes"},
		"the URI as a command":   {[]string{testURI, "audit"}, "unknown command: "},
		"another argument":       {[]string{"-db", "app", "audit", testURI}, "takes flags only"},
		"unknown flag":           {[]string{"-db", "app", "-password=sesame", "audit"}, "-password"},
		"no database":            {[]string{"audit"}, "-db is missing"},
		"no change to apply":     {[]string{"-db", "app", "audit", "-apply"}, "-apply"},
		"unknown ID type":        {[]string{"-db", "app", "audit", "-id", "float"}, "uuid, objectid, string, int64"},
		"unknown field":          {[]string{"-db", "app", "-fields", "mail=x", "audit"}, "hashed_password"},
		"field without a name":   {[]string{"-db", "app", "-fields", "email=", "audit"}, "FIELD=NAME"},
		"field twice":            {[]string{"-db", "app", "-fields", "email=a,email=b", "audit"}, "twice"},
		"indexes of no lifetime": {[]string{"-db", "app", "indexes", "ensure"}, "-lifetime is missing"},
		"no duration":            {[]string{"-db", "app", "indexes", "verify", "-lifetime", "x"}, "-lifetime"},
		"no user":                {[]string{"-db", "app", "user", "deactivate"}, "-user is missing"},
		"no legacy tokens":       {[]string{"-db", "app", "convert-tokens", "-legacy-lifetime", "0"}, "-legacy-tokens is missing"},
		"no legacy lifetime":     {[]string{"-db", "app", "convert-tokens", "-legacy-tokens", "x"}, "-legacy-lifetime is missing"},
		"no address":             {[]string{"-db", "app", "superuser", "create"}, "-email is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := runFor(t, test.args...)
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) {
				t.Errorf("got %d, stdout %q and stderr %q, want %d and %q", code, stdout, stderr, exitUsage, test.want)
			}
		})
	}
	t.Setenv(envURI, "")
	if code, _, stderr := runFor(t, "-db", "app", "audit"); code != exitUsage || !strings.Contains(stderr, envURI) {
		t.Errorf("no URI: got %d and %q", code, stderr)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv(envURI, testURI)
	if code, _, stderr := runFor(t, "-mongodb-uri", testURI, "-h"); code != exitDone || !strings.Contains(stderr, "Exit codes") || !strings.Contains(stderr, "sessions end") {
		t.Errorf("got %d and %s", code, stderr)
	}
	for _, c := range commands {
		args := append([]string{"-db", "app", "-mongodb-uri", testURI}, strings.Fields(c.name)...)
		code, _, stderr := runFor(t, append(args, "-h")...)
		if code != exitDone || !strings.Contains(stderr, c.summary) || strings.Contains(stderr, "  -apply") != c.changes {
			t.Errorf("%s: got %d and %s", c.name, code, stderr)
		}
	}
}

func TestFailuresAreDocuments(t *testing.T) {
	t.Setenv(envURI, testURI)
	for _, args := range [][]string{{"audit"}, {"user", "activate", "-user", "jo"}} {
		code, stdout, _ := runFor(t, append([]string{"-db", "app", "-json"}, args...)...)
		var h struct {
			Command, Error string
			Applied        *bool
		}
		if err := json.Unmarshal([]byte(stdout), &h); err != nil || code != exitFailed || h.Error == "" || (h.Applied != nil) != (args[0] == "user") {
			t.Errorf("%v: got %d, %s and %v", args, code, stdout, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr bytes.Buffer
	if code := run(ctx, []string{"-db", "app", "audit"}, nil, &bytes.Buffer{}, &stderr); code != exitFailed || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("interrupted: got %d and %s", code, &stderr)
	}
}

func TestRedact(t *testing.T) {
	for _, text := range []string{"dial " + testURI + ": refused", "the user jo:sesame%21 is unknown", "sesame! is wrong", "sesame%21 is wrong"} {
		if got := redact(testURI, text); strings.Contains(got, "sesame") || !strings.Contains(got, "xxxxx") {
			t.Errorf("got %q", got)
		}
	}
	const text = "nothing to hide"
	for _, uri := range []string{"", "mongodb://127.0.0.1", "mongodb://jo@127.0.0.1", "mongodb://jo:t@127.0.0.1"} {
		if got := redact(uri, text); got != text {
			t.Errorf("%s: got %q", uri, got)
		}
	}
}

func TestTextCannotControlATerminal(t *testing.T) {
	var out bytes.Buffer
	rep := &userReport{User: accountOf{ID: "a", Email: "jo\x1b[2J@bücher.example"}, did: "activated"}
	if err := (header{}).print(&out, &out, &flags{}, rep); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "jo\ufffd[2J@bücher.example (ID a) was activated.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestShownIDs(t *testing.T) {
	id, object := uuid.New(), bson.NewObjectID()
	for name, test := range map[string]struct {
		id   any
		want string
	}{
		"UUID":            {id, `"` + id.String() + `"`},
		"binary UUID":     {bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}, `"` + id.String() + `"`},
		"other binary":    {bson.Binary{Subtype: 0, Data: []byte{1}}, `{"$binary":{"base64":"AQ==","subType":"00"}}`},
		"ObjectID":        {object, `"` + object.Hex() + `"`},
		"string":          {"a", `"a"`},
		"int64":           {int64(7), `7`},
		"document":        {bson.D{{Key: "a", Value: 1}}, `{"a":1}`},
		"missing":         {nil, `null`},
		"number with dot": {1.5, `1.5`},
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := json.Marshal(shown(test.id)); err != nil || string(got) != test.want {
				t.Errorf("got %s, %v, want %s", got, err, test.want)
			}
		})
	}
}

func TestProgressWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	show := lines(&out, "audit", func() time.Time { return now })
	for i := range int64(5) {
		now = now.Add(4 * time.Second)
		show(i, 5)
	}
	if got, want := out.String(), "audit: 2 of 5\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
