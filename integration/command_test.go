package integration_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/internal/fastapiusers"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

// programDir has the program cmd/latchkey, once a test has built it. TestMain removes it.
var programDir string

var buildProgram = sync.OnceValues(func() (string, error) {
	var err error
	if programDir, err = os.MkdirTemp("", "latchkey"); err != nil {
		return "", err
	}
	program := filepath.Join(programDir, "latchkey")
	out, err := exec.Command("go", "build", "-o", program, "github.com/latchkey-go/latchkey/cmd/latchkey").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build cmd/latchkey: %w\n%s", err, out)
	}
	return program, nil
})

// ran is what the program has printed, and its exit code.
type ran struct {
	stdout, stderr string
	code           int
}

// latchkeyCommand returns the program with the server's URI in the environment.
func latchkeyCommand(t *testing.T, uri string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := buildProgram()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "LATCHKEY_MONGODB_URI="+uri)
	return cmd
}

// runProgram runs the program.
func runProgram(t *testing.T, uri, stdin string, args ...string) ran {
	t.Helper()
	cmd := latchkeyCommand(t, uri, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// program runs the program on a database.
type program struct {
	t  *testing.T
	db *mongo.Database
}

// run runs a command, and checks the exit code.
func (p program) run(code int, args ...string) ran {
	p.t.Helper()
	got := runProgram(p.t, server.URI, password+"\n", append([]string{"-db", p.db.Name()}, args...)...)
	if got.code != code {
		p.t.Errorf("latchkey %v: got the exit code %d, want %d; stdout:\n%s\nstderr:\n%s", args, got.code, code, got.stdout, got.stderr)
	}
	if strings.Contains(got.stdout+got.stderr, password) {
		p.t.Errorf("latchkey %v printed the password", args)
	}
	return got
}

// document is the JSON document of a command.
type document struct {
	Command string
	Applied *bool
	IDType  string `json:"id_type"`
	Error   string
	Result  map[string]any
}

// json is run with -json.
func (p program) json(code int, args ...string) document {
	p.t.Helper()
	got := p.run(code, append([]string{"-json"}, args...)...)
	var doc document
	if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil {
		p.t.Fatalf("latchkey %v: %v in %s", args, err, got.stdout)
	}
	if !strings.HasPrefix(strings.Join(args, " "), doc.Command) {
		p.t.Errorf("latchkey %v: got the document of %s", args, doc.Command)
	}
	return doc
}

// value returns what is at a path in the result: a number or a string, as text.
func (d document) value(path ...string) string {
	var v any = d.Result
	for _, name := range path {
		m, _ := v.(map[string]any)
		v = m[name]
	}
	return fmt.Sprint(v)
}

// content returns all documents of the database as text.
func (p program) content() string {
	p.t.Helper()
	names, err := p.db.ListCollectionNames(p.t.Context(), bson.D{})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Sort(names)
	var all []string
	for _, name := range names {
		cur, err := p.db.Collection(name).Find(p.t.Context(), bson.D{}, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
		var docs []bson.Raw
		if err == nil {
			err = cur.All(p.t.Context(), &docs)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		indexes, err := p.db.Collection(name).Indexes().ListSpecifications(p.t.Context())
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, fmt.Sprint(name, docs, len(indexes)))
	}
	return strings.Join(all, "\n")
}

// dryRun runs a command that changes something without -apply, and checks that nothing has
// changed.
func (p program) dryRun(code int, args ...string) document {
	p.t.Helper()
	before := p.content()
	doc := p.json(code, args...)
	if doc.Applied == nil || *doc.Applied {
		p.t.Errorf("latchkey %v: the document does not say that it was a dry run", args)
	}
	if p.content() != before {
		p.t.Errorf("latchkey %v: a dry run has changed the database", args)
	}
	return doc
}

// insert stores accounts as another program has stored them.
func (p program) insert(docs ...any) {
	p.t.Helper()
	users := p.db.Collection("users", options.Collection().SetRegistry(mongostore.NewRegistry()))
	if _, err := users.InsertMany(p.t.Context(), docs); err != nil {
		p.t.Fatal(err)
	}
}

func (p program) wantValue(doc document, want string, path ...string) {
	p.t.Helper()
	if got := doc.value(path...); got != want {
		p.t.Errorf("latchkey %s: got %s %s, want %s", doc.Command, strings.Join(path, "."), got, want)
	}
}

func newProgram(t *testing.T) program {
	t.Helper()
	return program{t, database(t)}
}

func TestCommandAuditsAndNormalizes(t *testing.T) {
	p := newProgram(t)
	for _, d := range dirty {
		p.insert(d.doc)
	}
	args := []string{"-id", "string"}
	audit := p.json(3, append([]string{"audit"}, args...)...)
	for finding, of := range map[string]func(i int) bool{
		"not_normal": func(i int) bool { return dirty[i].notNormal }, "collisions": func(i int) bool { return dirty[i].collides },
		"unreadable": func(i int) bool { return dirty[i].unreadable },
	} {
		n := 0
		for i := range dirty {
			if of(i) {
				n++
			}
		}
		p.wantValue(audit, fmt.Sprint(n), finding, "count")
	}
	p.wantValue(audit, "2", "unusable_hashes", "count") // "good" and "bad" of the table
	if text := p.run(3, append(args, "audit")...).stdout; !strings.Contains(text, `"upper"`) {
		t.Errorf("the text does not name the _ids: %s", text)
	}

	p.wantValue(p.dryRun(3, append([]string{"normalize"}, args...)...), "3", "changed")
	normalize := append([]string{"normalize", "-apply", "-keep-as", "email_as_typed"}, args...)
	p.wantValue(p.json(3, normalize...), "3", "changed")
	p.wantValue(p.json(3, normalize...), "0", "changed")
	if n, err := p.db.Collection("users").CountDocuments(t.Context(), bson.D{{Key: "email", Value: "john@example.com"}, {Key: "email_as_typed", Value: "John@Example.com"}}); n != 1 || err != nil {
		t.Errorf("got %d accounts, %v, want one with both spellings", n, err)
	}
	p.run(1, append([]string{"normalize", "-keep-as", "email"}, args...)...)
}

func TestCommandFindsTheIDType(t *testing.T) {
	id := uuid.New()
	for name, test := range map[string]struct {
		ids  []any
		args []string
		want string // the type, or what the error says
		code int
	}{
		"UUIDs":              {[]any{uuid.New(), uuid.New()}, nil, "uuid", 0},
		"ObjectIDs":          {[]any{bson.NewObjectID(), bson.NewObjectID()}, nil, "objectid", 0},
		"strings":            {[]any{"a", "b"}, nil, "string", 0},
		"numbers":            {[]any{int32(1), int64(2)}, nil, "int64", 0},
		"mixed":              {[]any{"a", bson.NewObjectID()}, nil, "have several types, objectid and string: name the type with -id", 2},
		"mixed, with a flag": {[]any{"a", bson.NewObjectID()}, []string{"-id", "string"}, "string", 3},
		"none":               {nil, nil, "has no accounts with the field _id that show the type of the IDs: check -db and -users, or name the type with -id", 2},
		"old UUIDs":          {[]any{bson.Binary{Subtype: bson.TypeBinaryUUIDOld, Data: id[:]}}, nil, "the type binary of subtype 3 and 16 bytes", 2},
		"another field":      {[]any{bson.NewObjectID(), bson.NewObjectID()}, []string{"-fields", "id=uid,email=mail"}, "string", 0},
		"no other field":     {[]any{"a"}, []string{"-fields", "id=number"}, "no accounts with the field number", 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProgram(t)
			for i, id := range test.ids {
				address := fmt.Sprintf("user%d@example.com", i)
				p.insert(bson.D{{Key: "_id", Value: id}, {Key: "email", Value: address}, {Key: "mail", Value: address}, {Key: "uid", Value: fmt.Sprint("u", i)}})
			}
			if doc := p.json(test.code, append([]string{"audit"}, test.args...)...); doc.IDType != test.want && !strings.Contains(doc.Error, test.want) {
				t.Errorf("got the type %q and the error %q, want %q", doc.IDType, doc.Error, test.want)
			}
		})
	}
}

// fastapi-users' Motor adapter keeps the accounts' IDs in the field id, beside ObjectIDs in _id.
// With the _id, no session of fastapi-users would be found, and none would be ended.
func TestCommandRefusesToGuessBetweenTwoIDs(t *testing.T) {
	p := newProgram(t)
	p.insert(bson.D{{Key: "_id", Value: bson.NewObjectID()}, {Key: "id", Value: uuid.New()}, {Key: "email", Value: "ann@example.com"}})
	end := []string{"sessions", "end", "-user", "ann@example.com"}
	for _, command := range [][]string{{"audit"}, {"indexes", "verify", "-lifetime", "1h"}, end} {
		if got := p.run(2, command...); !strings.Contains(got.stderr, "add -fields id=id") {
			t.Errorf("latchkey %v: got the error %q, which does not name the remedy", command, got.stderr)
		}
	}
	for idType, args := range map[string][]string{"uuid": {"-fields", "id=id"}, "objectid": {"-id", "objectid"}} {
		if doc := p.json(0, append(end, args...)...); doc.IDType != idType {
			t.Errorf("latchkey %v: got the type %q, want %q", args, doc.IDType, idType)
		}
	}
}

// With fastapi-users' collection as that of the sessions, indexes ensure would make an index by
// which the server removes its tokens.
func TestCommandRefusesTheCollectionOfOthersTokens(t *testing.T) {
	p := newProgram(t)
	python := fastapiusers.Motor(p.db, time.Hour, time.Now)
	if _, err := python.Fill(t.Context(), 1, 1, ""); err != nil {
		t.Fatal(err)
	}
	flags := []string{"-users", python.Users.Name(), "-fields", "id=" + python.UserID, "-tokens", python.Tokens.Name()}
	before := p.content()
	for _, command := range [][]string{
		{"indexes", "verify", "-lifetime", "1h"}, {"indexes", "ensure", "-lifetime", "1h", "-apply"},
		{"sessions", "list", "-user", "user0@example.com"}, {"sessions", "end", "-user", "user0@example.com", "-apply"},
		{"user", "deactivate", "-user", "user0@example.com", "-apply"},
	} {
		if got := p.run(2, append(command, flags...)...); !strings.Contains(got.stderr, "with -legacy-tokens") {
			t.Errorf("latchkey %v: got the error %q, which does not name the remedy", command, got.stderr)
		}
	}
	if p.content() != before {
		t.Error("a refused command has changed the database")
	}
}

func TestCommandConvertsTokens(t *testing.T) {
	t.Run("Motor", func(t *testing.T) {
		convertTokens(t, "uuid", func(db *mongo.Database) *fastapiusers.App[uuid.UUID] {
			return fastapiusers.Motor(db, time.Hour, time.Now)
		})
	})
	t.Run("Beanie", func(t *testing.T) {
		convertTokens(t, "objectid", func(db *mongo.Database) *fastapiusers.App[bson.ObjectID] {
			return fastapiusers.Beanie(db, time.Hour, time.Now)
		})
	})
}

func convertTokens[ID comparable](t *testing.T, idType string, open func(*mongo.Database) *fastapiusers.App[ID]) {
	p := newProgram(t)
	python := open(p.db)
	sample, err := python.Fill(t.Context(), 20, 40, "")
	if err != nil {
		t.Fatal(err)
	}
	var live, unreadable int // the live tokens of the sample are those that are not expired
	for _, x := range sample.Tokens {
		switch {
		case !x.Readable:
			unreadable++
		case x.Kind != "expired":
			live++
		}
	}
	flags := []string{
		"-users", python.Users.Name(), "-fields", "id=" + python.UserID, "-tokens", "own_tokens",
		"-legacy-tokens", python.Tokens.Name(), "-legacy-lifetime", "1h",
	}
	convert := append([]string{"convert-tokens"}, flags...)
	want := func(doc document, converted, already int) {
		t.Helper()
		if doc.IDType != idType {
			t.Errorf("got the type %s, want %s", doc.IDType, idType)
		}
		p.wantValue(doc, fmt.Sprint(converted), "converted")
		p.wantValue(doc, fmt.Sprint(already), "already")
		p.wantValue(doc, "1", "expired")
		p.wantValue(doc, fmt.Sprint(unreadable), "unreadable", "count")
	}
	want(p.dryRun(3, convert...), live, 0)
	want(p.json(3, append(convert, "-apply")...), live, 0)
	want(p.json(3, append(convert, "-apply")...), 0, live)

	p.dryRun(0, append(convert, "-undo")...)
	p.wantValue(p.json(0, append(convert, "-undo", "-apply")...), fmt.Sprint(live), "deleted")
	want(p.json(3, append(convert, "-apply")...), live, 0)

	// Sessions of both collections are listed once, and end on both sides.
	user := append([]string{"-user", "user0@example.com"}, flags...)
	list := p.json(0, append([]string{"sessions", "list"}, user...)...)
	if got := list.Result["sessions"].([]any); len(got) != 2 {
		t.Errorf("got the sessions %v, want 2", got)
	}
	accepted := func() (n int) {
		t.Helper()
		for _, i := range []int{0, 20} {
			ok, err := python.Accepts(t.Context(), sample.Tokens[i].Token)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				n++
			}
		}
		return n
	}
	if n := accepted(); n != 2 {
		t.Errorf("fastapi-users accepts %d tokens, want 2", n)
	}
	p.dryRun(0, append([]string{"sessions", "end"}, user...)...)
	p.run(0, append([]string{"sessions", "end", "-apply"}, user...)...)
	if n := accepted(); n != 0 {
		t.Errorf("fastapi-users accepts %d tokens after their sessions were ended, want none", n)
	}
	list = p.json(0, append([]string{"sessions", "list"}, user...)...)
	p.wantValue(list, "[]", "sessions")

	// The collection must not be that of Latchkey.
	p.run(2, append(convert, "-tokens", python.Tokens.Name())...)
}

func TestCommandMakesIndexes(t *testing.T) {
	p := newProgram(t)
	lifetime := []string{"-lifetime", "1h", "-api-tokens", "scripts", "-legacy-tokens", "legacy"}
	verify := append([]string{"indexes", "verify"}, lifetime...)
	ensure := append([]string{"indexes", "ensure"}, lifetime...)
	if doc := p.json(3, verify...); len(doc.Result["differences"].([]any)) < 5 {
		t.Errorf("got %v, want the missing indexes", doc.Result)
	}
	p.dryRun(0, ensure...)
	if text := p.run(0, ensure...).stdout; !strings.Contains(text, "would be made") || !strings.Contains(text, "users lacks email_1") {
		t.Errorf("a dry run printed %s", text)
	}
	p.json(0, append(ensure, "-apply")...)
	p.wantValue(p.json(0, verify...), "[]", "differences")
	p.wantValue(p.json(0, append(ensure, "-apply")...), "[]", "differences")

	for _, name := range []string{"users", "scripts", "legacy"} {
		if n, err := p.db.Collection(name).Indexes().ListSpecifications(t.Context()); err != nil || len(n) < 2 {
			t.Errorf("%s has the indexes %v, %v", name, n, err)
		}
	}
	if _, err := p.db.Collection("users").Indexes().CreateOne(t.Context(), mongo.IndexModel{Keys: bson.D{{Key: "mail", Value: 1}}}); err != nil {
		t.Fatal(err)
	}
	// An index that is not unique is not changed.
	got := p.run(3, append(ensure, "-apply", "-fields", "email=mail")...)
	if !strings.Contains(got.stdout, "missing or differ") {
		t.Errorf("got %s", got.stdout)
	}
}

func TestCommandCreatesASuperuser(t *testing.T) {
	p := newProgram(t)
	create := []string{"superuser", "create", "-id", "uuid", "-email", "Root@Example.com"}
	p.wantValue(p.dryRun(0, create...), "root@example.com", "user", "email")
	made := p.json(0, append(create, "-apply")...)
	p.run(1, append(create, "-apply")...) // the address is taken
	p.run(1, create...)

	f := newFacade(t, p.db, latchkey.Config{})
	user, _, err := f.Accounts.Authenticate(t.Context(), "root@example.com", password, "")
	if err != nil || !user.Active || !user.Verified || !user.Superuser {
		t.Fatalf("got %+v, %v, want an active and verified superuser", user, err)
	}
	p.wantValue(made, user.ID.String(), "user", "id")

	short := runProgram(t, server.URI, "short\n", "-db", p.db.Name(), "superuser", "create", "-email", "two@example.com", "-apply")
	if short.code != 1 || !strings.Contains(short.stderr, "too short") {
		t.Errorf("a short password: got %+v", short)
	}
	none := runProgram(t, server.URI, "", "-db", p.db.Name(), "superuser", "create", "-email", "two@example.com", "-apply")
	if none.code != 2 || !strings.Contains(none.stderr, "no password") {
		t.Errorf("no password: got %+v", none)
	}
}

func TestCommandCreatesASuperuserWithAnIDOfTheApplication(t *testing.T) {
	p := newProgram(t)
	create := []string{"superuser", "create", "-apply", "-email", "root@example.com", "-id", "int64", "-fields", "id=number"}
	if got := p.run(2, create...); !strings.Contains(got.stderr, "-new-id") {
		t.Errorf("got %s, want an error that names the flag", got.stderr)
	}
	p.run(2, append(create, "-new-id", "seven")...)
	p.wantValue(p.json(0, append(create, "-new-id", "7")...), "7", "user", "id")
	p.wantValue(p.json(0, "user", "deactivate", "-fields", "id=number", "-user", "7"), "root@example.com", "user", "email")
}

func TestCommandInterruptedAtThePassword(t *testing.T) {
	p := newProgram(t)
	cmd := latchkeyCommand(t, server.URI, "-db", p.db.Name(), "superuser", "create", "-id", "uuid", "-email", "root@example.com", "-apply")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stdin.Close() }()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 64)
	if n, err := stderr.Read(first); err != nil || !strings.Contains(string(first[:n]), "reading the password") {
		t.Fatalf("got %q, %v", first[:n], err)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(stderr)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(rest), "interrupted") {
		t.Errorf("got the exit code %d and %s", code, rest)
	}
	if n, err := p.db.Collection("users").CountDocuments(t.Context(), bson.D{}); n != 0 || err != nil {
		t.Errorf("got %d accounts, %v, want none", n, err)
	}
}

func TestCommandEndsSessionsAndDeactivates(t *testing.T) {
	p := newProgram(t)
	f := newFacade(t, p.db, latchkey.Config{
		Lifetime: time.Hour, PublishRevocations: true,
		APITokens: latchkey.APITokens{Scopes: []string{"read"}, SurvivePasswordChange: true},
	})
	ann := f.register("ann@example.com")
	sessions := func() (ids []string) {
		t.Helper()
		list := p.json(0, "sessions", "list", "-user", "ANN@example.com", "-lifetime", "1h")
		for _, s := range list.Result["sessions"].([]any) {
			ids = append(ids, fmt.Sprint(s.(map[string]any)["id"]))
		}
		return ids
	}
	apiToken := func() strategy.Secret {
		t.Helper()
		secret, _, err := f.APITokens.WriteToken(t.Context(), ann, strategy.WithScopes("read"), strategy.WithName("backup"))
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	next := f.Tokens.FollowRevocations()
	revoked := func() (all []strategy.Revocation[uuid.UUID]) {
		t.Helper()
		all, err := next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	revoked()

	one, two := f.login("ann@example.com"), f.login("ann@example.com")
	apiToken()
	all := sessions()
	if len(all) != 3 {
		t.Fatalf("got the sessions %v, want 2 and an API token", all)
	}
	if text := p.run(0, "sessions", "list", "-user", ann.ID.String()).stdout; !strings.Contains(text, "3 sessions and API tokens") || !strings.Contains(text, `"backup"`) {
		t.Errorf("got %s", text)
	}

	// One session.
	p.dryRun(0, "sessions", "end", "-user", ann.ID.String(), "-session", all[1])
	p.run(0, "sessions", "end", "-user", ann.ID.String(), "-session", all[1], "-apply")
	p.run(4, "sessions", "end", "-user", ann.ID.String(), "-session", all[1], "-apply")
	p.run(2, "sessions", "end", "-user", ann.ID.String(), "-session", "x", "-apply")
	if got := revoked(); len(got) != 1 || got[0].SessionID.String() != all[1] {
		t.Errorf("got the revocations %v, want that of the session", got)
	}
	f.wantStatus("/me", 401, one) // the list begins with the newest
	f.wantStatus("/me", 200, two)

	// All sessions.
	ended := p.dryRun(0, "sessions", "end", "-user", "ann@example.com")
	if got := ended.Result["sessions"].([]any); len(got) != 2 {
		t.Errorf("a dry run named the sessions %v, want 2", got)
	}
	f.wantStatus("/me", 200, two)
	if got := p.run(0, "sessions", "end", "-user", "ann@example.com", "-apply").stdout; !strings.Contains(got, "2 sessions and API tokens were ended") {
		t.Errorf("got %s", got)
	}
	f.wantStatus("/me", 401, two)
	if got := revoked(); !slices.ContainsFunc(got, func(r strategy.Revocation[uuid.UUID]) bool { return r.UserID == ann.ID }) {
		t.Errorf("got the revocations %v, want that of the user", got)
	}

	// The account.
	three, script := f.login("ann@example.com"), apiToken()
	p.dryRun(0, "user", "deactivate", "-user", "ann@example.com")
	f.wantStatus("/me", 200, three)
	p.wantValue(p.json(0, "user", "deactivate", "-user", "ann@example.com", "-apply"), "false", "user", "active")
	f.wantStatus("/me", 401, three)
	if got := revoked(); !slices.ContainsFunc(got, func(r strategy.Revocation[uuid.UUID]) bool { return r.UserID == ann.ID }) {
		t.Errorf("got the revocations %v, want that of the user", got)
	}
	if w := f.call("POST", "/auth/login", url.Values{"username": {"ann@example.com"}, "password": {password}}); w.Code == 200 {
		t.Error("an inactive user has logged in")
	}
	p.dryRun(0, "user", "activate", "-user", "ann@example.com")
	p.wantValue(p.json(0, "user", "activate", "-user", "ann@example.com", "-apply"), "true", "user", "active")
	f.login("ann@example.com")
	f.wantStatus("/me", 401, three)
	if _, err := f.APITokens.ReadToken(t.Context(), script.Reveal()); err == nil {
		t.Errorf("the API token of before the deactivation is valid")
	}

	for _, command := range [][]string{{"sessions", "list"}, {"sessions", "end", "-apply"}, {"user", "deactivate", "-apply"}, {"user", "activate"}} {
		for _, user := range []string{"bob@example.com", uuid.NewString(), "bob"} {
			p.run(4, append(command, "-user", user)...)
		}
	}
}

func TestCommandFindsAnyCase(t *testing.T) {
	p := newProgram(t)
	p.insert(bson.D{{Key: "_id", Value: uuid.New()}, {Key: "email", Value: "John@Example.com"}})
	if got := p.run(4, "user", "deactivate", "-user", "john@example.com"); !strings.Contains(got.stderr, "with -any-case") {
		t.Errorf("got the error %q, which does not name -any-case", got.stderr)
	}
	p.run(0, "user", "deactivate", "-user", "John@Example.com") // as it is stored
	p.run(0, "user", "deactivate", "-user", "john@example.com", "-any-case")
}

func TestCommandWithoutAServer(t *testing.T) {
	const secret = "open%2Fsesame"
	for uri, code := range map[string]int{
		"mongodb://jo:" + secret + "@127.0.0.1:1/?serverSelectionTimeoutMS=200": 1,
		"mongodb://jo:open/sesame@127.0.0.1:1":                                  2,
		"mongodb://jo:" + secret + "@127.0.0.1:port":                            2,
	} {
		got := runProgram(t, uri, "", "-db", "app", "-json", "audit")
		if got.code != code || strings.Contains(got.stdout+got.stderr, "sesame") || got.stderr == "" {
			t.Errorf("got %+v, want the exit code %d and no password", got, code)
		}
		var doc document
		if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || doc.Error == "" {
			t.Errorf("got %s, %v, want a document with the error", got.stdout, err)
		}
	}
}
