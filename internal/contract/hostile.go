package contract

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
)

var hostileRows = section{"hostile", []row{
	{"hostile requests reach a store only as plain strings", hostileRequests},
	{"a password may have 1,024 bytes; a longer one is refused without a database call", passwordBounds},
}}

// Two of the values that the hostile requests make a store write and look up.
const (
	HostileUserAgent = `{"$set": {"is_superuser": true}}`
	HostileUsername  = `{"$ne": null}`
)

// attack is a hostile request, with the expected answer and the expected calls to the stores.
type attack struct {
	name  string
	route string // method and path
	token string // "" for no token
	body  body
	size  int // spaces pad the body to this size
	sent  transmission

	// want is the answer. If at is set, the answer is 422 with errors at these places.
	want answer
	at   []string
	// storeCalls are all calls to the stores, except those of a guard that accepts the token.
	storeCalls []storeCall
}

// transmission is how a body is sent.
type transmission int

const (
	whole           transmission = iota // with its length
	inChunks                            // in chunks
	verbatim                            // as raw chunks, which may be malformed
	cut                                 // with too great a length; then the client closes its side
	cutInChunks                         // without the last chunk; then the client closes its side
	stalled                             // with too great a length; then the client sends nothing more
	stalledInChunks                     // without the last chunk; then the client sends nothing more
	trickling                           // byte by byte, without end
)

// slow reports whether only a timeout of the server ends the request.
func (s transmission) slow() bool { return s >= stalled }

// hostileRig is a rig for hostile requests, with a user and a superuser who are logged in.
type hostileRig struct {
	*rig
	email, token, superToken string
	// sent holds the names of the attacks by the client's address.
	sent map[string]string
}

// hostileRequests sends every attack. Only plain strings of an attack may reach a store, and only
// in the calls that the table lists.
func hostileRequests(t *testing.T, env environment) {
	newRig := func(timeout time.Duration) *hostileRig {
		r := env.rig(t, neverExpires, withPlugin(func(cfg *ginauth.Config) { cfg.BodyTimeout = timeout }))
		user := r.user(active)
		// A successful login stores its headers.
		agent := header("User-Agent", HostileUserAgent)
		token := r.issuedToken(r.tryLogin(user, agent, forwardedFor(HostileUserAgent)))
		return &hostileRig{r, user.Email, token, r.login(r.user(flags{active: true, superuser: true})), make(map[string]string)}
	}
	patient, impatient := newRig(time.Minute), newRig(50*time.Millisecond)
	n := 0
	for _, r := range []*hostileRig{patient, impatient} {
		for _, x := range r.attacks() {
			if x.sent.slow() != (r == impatient) {
				continue
			}
			n++
			r.checkAttack(x)
			r.clock.advance(25 * time.Hour) // the limiter forgets failures
		}
		for _, token := range []string{r.token, r.superToken} {
			if got := r.get("/guarded", r.withToken(token)); got.Code != http.StatusOK {
				t.Errorf("the sessions afterwards: got %+v, want them valid", got.answer)
			}
		}
		r.expectBoundedReads()
	}
	t.Logf("%d requests", n)
}

// checkAttack sends a request and checks the answer and the calls to the stores.
func (r *hostileRig) checkAttack(x attack) {
	r.t.Helper()
	x.name = x.route + ": " + x.name
	before := len(r.db.since(0))
	got, by := r.sendAttack(x)
	r.sent[by] = x.name
	if x.at != nil {
		r.expectInvalid(x.name, got, anyType, x.at...)
	} else {
		r.expect(x.name, got, x.want)
	}
	want := x.storeCalls
	if x.token == r.token || x.token == r.superToken {
		want = append(r.lookUp(x.token), want...)
	}
	if calls := r.db.since(before); !slices.Equal(calls, want) {
		r.t.Errorf("%s: got the store calls %q, want %q", x.name, calls, want)
	}
}

// expectBoundedReads checks how much the server has read of each request. It reads an unread
// body to its end, even after the answer, but only up to a limit.
func (r *hostileRig) expectBoundedReads() {
	r.t.Helper()
	const most = 1 << 20
	for by, name := range r.sent {
		if n, ok := r.bytesRead.Load(by); ok && n.(*atomic.Int64).Load() > most {
			r.t.Errorf("%s: got %d bytes read, want at most %d", name, n.(*atomic.Int64).Load(), most)
		}
	}
}

// sendAttack sends a request over a new connection, with exactly the bytes of the attack, and
// returns the answer and the client's address.
func (r *hostileRig) sendAttack(x attack) (answer reply, by string) {
	r.t.Helper()
	address := strings.TrimPrefix(r.url, "http://")
	dialled, err := net.Dial("tcp", address)
	if err != nil {
		r.t.Fatal(err)
	}
	conn := dialled.(*net.TCPConn)
	var writer sync.WaitGroup
	defer writer.Wait()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		r.t.Fatal(err)
	}
	request := bytes.NewBufferString(x.route + " HTTP/1.1\r\nHost: " + address + "\r\n")
	if x.token != "" {
		template := &http.Request{Header: make(http.Header)}
		r.withToken(x.token)(template)
		for name, values := range template.Header {
			request.WriteString(name + ": " + values[0] + "\r\n")
		}
	}
	if x.body.contentType != "" {
		request.WriteString("Content-Type: " + x.body.contentType + "\r\n")
	}
	content, filler := x.body.content, max(x.size-len(x.body.content), 0)
	const more = 10_000
	switch x.sent {
	case whole:
		fmt.Fprintf(request, "Content-Length: %d\r\n\r\n", len(content)+filler)
	case cut, stalled, trickling:
		fmt.Fprintf(request, "Content-Length: %d\r\n\r\n", len(content)+filler+more)
	default:
		request.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	}
	tail := ""
	if x.sent == inChunks || x.sent == cutInChunks || x.sent == stalledInChunks {
		if len(content)+filler > 0 {
			fmt.Fprintf(request, "%x\r\n", len(content)+filler)
			tail = "\r\n"
		}
		if x.sent == inChunks {
			tail += "0\r\n\r\n"
		}
	}
	request.WriteString(content)
	writer.Go(func() {
		// An error is expected: the server may have refused the request and closed the connection.
		_, err := io.Copy(conn, io.MultiReader(request, io.LimitReader(spaces{}, int64(filler)), strings.NewReader(tail)))
		switch x.sent {
		case cut, cutInChunks:
			_ = conn.CloseWrite()
		case trickling:
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for err == nil {
				<-tick.C
				_, err = conn.Write([]byte("x"))
			}
		}
	})
	method, path, _ := strings.Cut(x.route, " ")
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		r.t.Errorf("%s: got no answer: %v", x.name, err)
		return reply{}, conn.LocalAddr().String()
	}
	defer resp.Body.Close()
	answered, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Errorf("%s: read the answer: %v", x.name, err)
	}
	if x.sent.slow() {
		// The server has closed or reset the connection, so its goroutine has ended.
		if _, err := in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Errorf("%s: got the connection open after the answer (%v), want it closed", x.name, err)
		}
	}
	if strings.Contains(path, "/auth/") {
		expectNotStored(r.t, x.name, resp)
	}
	return replyOf(resp, string(answered)), conn.LocalAddr().String()
}

// spaces is an endless reader of spaces.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// The routes that read a body.
const (
	loginRoute          = "POST /auth/login"
	reauthenticateRoute = "POST /auth/reauthenticate"
	introspectRoute     = "POST /auth/introspect"
	logoutAllRoute      = "POST /auth/logout-all"
)

// attacks returns the table. The attacks on bodies do not depend on the transport, so only one
// transport runs them.
func (r *hostileRig) attacks() []attack {
	if r.transport == cookie.transport {
		return r.malformedTokens()
	}
	return slices.Concat(r.valuesOfOtherTypes(), r.malformedJSON(), r.duplicateFields(), r.bracketedNames(), r.lookalikeStrings(), r.longPasswords(),
		r.malformedForms(), r.malformedMultipart(), r.wrongContentTypes(), r.largeBodies(), r.truncatedBodies(), r.slowBodies(), r.malformedQueriesAndIDs(), r.malformedTokens())
}

// guarded returns the routes behind a guard that read a body, each with a valid token and with
// its field.
func (r *hostileRig) guarded() []struct{ route, token, field string } {
	return []struct{ route, token, field string }{
		{reauthenticateRoute, r.token, "password"},
		{introspectRoute, r.superToken, "token"},
		{logoutAllRoute, r.token, "keep_current"},
	}
}

// lookedUp returns the store call for a name. A malformed address is looked up as it is.
func lookedUp(name string) []storeCall {
	if normal, err := account.NormalizeEmail(name); err == nil {
		name = normal
	}
	return []storeCall{{findAccount, name}}
}

// right returns the fields of a valid login in JSON.
func (r *hostileRig) right() (name, secret string) {
	return `"username": ` + quoted(r.email), `"password": ` + quoted(password)
}

const bodyPlace = "body"

var bothFields = []string{"body.username", "body.password"}

// valuesOfOtherTypes sends every field of every body with values that are not strings.
func (r *hostileRig) valuesOfOtherTypes() (table []attack) {
	name, secret := r.right()
	for what, value := range map[string]string{
		"$ne":               `{"$ne": null}`,
		"$gt":               `{"$gt": ""}`,
		"$regex":            `{"$regex": ".*", "$options": "s"}`,
		"$where":            `{"$where": "sleep(5000)"}`,
		"$in":               `{"$in": ["ann", null]}`,
		"$expr":             `{"$expr": {"$function": {"body": "function() { return true }", "args": [], "lang": "js"}}}`,
		"$oid":              `{"$oid": "507f1f77bcf86cd799439011"}`,
		"escaped operator":  `{"\u0024ne": null}`,
		"nested operators":  `{"a": {"b": [{"$gt": ""}]}}`,
		"an object":         `{}`,
		"a name twice":      `{"a": 1, "a": 2}`,
		"an array":          `["ann"]`,
		"an empty array":    `[]`,
		"operator in array": `[{"$ne": null}]`,
		"a number":          `42`,
		"negative zero":     `-0`,
		"a large number":    `1e308`,
		"nested deeply":     strings.Repeat(`{"a":[`, 2000) + strings.Repeat(`]}`, 2000),
		"nested to 7,000":   strings.Repeat("[", 7000) + strings.Repeat("]", 7000),
		"null":              `null`,
		"true":              `true`,
		"false":             `false`,
	} {
		for field, others := range map[string]string{
			"username": secret, "password": name, "grant_type": name + ", " + secret, "remember": name + ", " + secret,
		} {
			if (field == "remember" || value == "null") && strings.Contains("null true false", value) && others == name+", "+secret {
				continue // valid
			}
			table = append(table, attack{name: field + " is " + what, route: loginRoute,
				body: rawJSON(`{"` + field + `": ` + value + `, ` + others + `}`), at: []string{"body." + field}})
		}
		// An unused field may have any value. It reaches no store.
		table = append(table, attack{name: "scope is " + what, route: loginRoute,
			body: rawJSON(`{"$where": "sleep(5000)", "scope": ` + value + `, ` + name + `, "password": ` + quoted(wrongPassword) + `}`),
			want: badCredentials(), storeCalls: lookedUp(r.email)})
		for _, g := range r.guarded() {
			if g.field == "keep_current" && strings.Contains("null true false", value) {
				continue
			}
			table = append(table, attack{name: g.field + " is " + what, route: g.route, token: g.token,
				body: rawJSON(`{"` + g.field + `": ` + value + `}`), at: []string{"body." + g.field}})
		}
	}
	return table
}

// malformedJSON sends malformed JSON, and JSON that is not an object in UTF-8.
func (r *hostileRig) malformedJSON() (table []attack) {
	name, secret := r.right()
	for what, content := range map[string]string{
		"empty":                      ``,
		"10,001 levels":              `{"username": ` + strings.Repeat("[", 10_001),
		"operators at the top":       `{"$or": [{` + name,
		"an array of logins":         `[{` + name + `, ` + secret + `}]`,
		"only an operator":           `"$ne"`,
		"an overflowing number":      `{` + name + `, ` + secret + `, "scope": 1e999999}`,
		"a number of 10,000 digits":  `{` + name + `, ` + secret + `, "scope": ` + strings.Repeat("9", 10_000) + `}`,
		"NaN":                        `{` + name + `, ` + secret + `, "scope": NaN}`,
		"not UTF-8":                  `{` + name + `, "password": "` + "\xff" + `"}`,
		"an encoded surrogate":       `{` + name + `, "password": "` + "\xed\xa0\x80" + `"}`,
		"an overlong slash":          `{` + name + `, "password": "` + "\xc0\xaf" + `"}`,
		"a raw NUL":                  `{` + name + `, "password": "` + "\x00" + `"}`,
		"a raw line break":           `{` + name + `, "password": "` + "\n" + `"}`,
		"a byte order mark inside":   "{\ufeff" + name + `, ` + secret + `}`,
		"a NUL after it":             `{` + name + `, ` + secret + "}\x00",
		"another object after it":    `{` + name + `, ` + secret + `}{` + name + `, ` + secret + `}`,
		"an operator after it":       `{` + name + `, ` + secret + `}, {"$ne": null}`,
		"an invalid escape":          `{` + name + `, "password": "\x41"}`,
		"half an escape":             `{` + name + `, "password": "\u00"}`,
		"JavaScript":                 `{username: 'ann', password: 'x'}`,
		"UTF-16":                     inUTF16(`{` + name + `, ` + secret + `}`),
		"a form":                     asForm("username", r.email, "password", password).content,
		"unclosed objects":           strings.Repeat(`{"username":`, 1300),
		"an unclosed string":         `{` + name + `, "password": "` + strings.Repeat("a", 10_000),
		"closed too often":           `{` + name + `, ` + secret + `}}}}`,
		"compressed":                 "\x1f\x8b\x08\x00\x00\x00\x00\x00",
		"a name that is an object":   `{{"$ne": null}: "x", ` + name + `, ` + secret + `}`,
		"a comment":                  `{` + name + ` /*, "password": "a" */, ` + secret + `}`,
		"mismatched brackets":        `{"scope": ` + strings.Repeat("[", 5000) + strings.Repeat("}", 5000),
		"two values without a comma": `{"username": "ann" "bob", ` + secret + `}`,
	} {
		table = append(table, attack{name: "JSON: " + what, route: loginRoute, body: rawJSON(content), at: []string{bodyPlace}})
	}
	for _, g := range r.guarded() {
		table = append(table,
			attack{name: "an array", route: g.route, token: g.token, body: rawJSON(`[{"` + g.field + `": "x"}]`), at: []string{bodyPlace}},
			attack{name: "10,001 levels", route: g.route, token: g.token, body: rawJSON(strings.Repeat("[", 10_001)), at: []string{bodyPlace}})
	}
	return append(table,
		attack{name: "JSON: 10,000 closed levels", route: loginRoute,
			body: rawJSON(`{"scope": ` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `, ` + name + `, ` + secret + `}`),
			want: tooLarge()},
		attack{name: "JSON: half a surrogate pair", route: loginRoute, body: rawJSON(`{"username": "ann\ud800@example.com", "password": "\udfff"}`),
			want: badCredentials(), storeCalls: lookedUp("ann\ufffd@example.com")},
		attack{name: "JSON: an escaped NUL", route: loginRoute, body: rawJSON(`{"username": "ann\u0000", "password": "\u0000"}`),
			want: badCredentials(), storeCalls: lookedUp("ann\x00")})
}

// duplicateFields sends fields twice, in every encoding and in some spellings.
func (r *hostileRig) duplicateFields() (table []attack) {
	for _, enc := range encodings {
		for _, field := range []string{"username", "password", "grant_type", "remember", "scope", "$ne"} {
			for _, again := range []string{"password", ""} {
				fields := []string{"username", r.email, "password", password}
				if !slices.Contains(fields, field) {
					fields = append(fields, field, "password")
				}
				table = append(table, attack{name: fmt.Sprintf("%s: duplicate %s=%s", enc.name, field, again), route: loginRoute,
					body: enc.of(append(fields, field, again)...), at: []string{"body." + field}})
			}
		}
		for _, g := range r.guarded() {
			table = append(table, attack{name: enc.name + ": duplicate " + g.field, route: g.route, token: g.token,
				body: enc.of(g.field, "true", g.field, "false"), at: []string{"body." + g.field}})
		}
	}
	name, secret := r.right()
	for _, again := range []string{`user\u006eame`, `\u0075sername`, `\u0075\u0073\u0065\u0072\u006e\u0061\u006d\u0065`} {
		table = append(table, attack{name: "JSON: duplicate as " + again, route: loginRoute,
			body: rawJSON(`{` + name + `, ` + secret + `, "` + again + `": "bob"}`), at: []string{"body.username"}})
	}
	return append(table,
		attack{name: "JSON: duplicate with an operator", route: loginRoute,
			body: rawJSON(`{` + name + `, ` + secret + `, "username": {"$ne": null}}`), at: []string{"body.username"}},
		attack{name: "form: duplicate, percent-encoded", route: loginRoute,
			body: rawForm("username=ann&password=x&user%6eame=bob"), at: []string{"body.username"}})
}

// bracketedNames sends field names that other frameworks decode as objects and arrays.
func (r *hostileRig) bracketedNames() (table []attack) {
	for _, enc := range encodings {
		for _, more := range []string{"[$ne]", "[$regex]", "[]", "[0]", ".$ne", " ", "\u200b"} {
			table = append(table,
				attack{name: fmt.Sprintf("%s: names with %q", enc.name, more), route: loginRoute,
					body: enc.of("username"+more, "", "password"+more, ""), at: bothFields},
				attack{name: fmt.Sprintf("%s: a name with %q beside the right names", enc.name, more), route: loginRoute,
					body: enc.of("username", r.email, "username"+more, "1", "password", wrongPassword, "__proto__", "{}"),
					want: badCredentials(), storeCalls: lookedUp(r.email)})
		}
	}
	return append(table,
		attack{name: "form: names with NULs", route: loginRoute, body: asForm("username\x00", "ann", "password\x00", "x"), at: bothFields},
		attack{name: "JSON: names with NULs", route: loginRoute, body: asJSON("username\x00", "ann", "password\x00", "x"), at: bothFields})
}

// lookalikeStrings sends strings with a meaning elsewhere. They are looked up as plain strings.
func (r *hostileRig) lookalikeStrings() (table []attack) {
	for what, value := range map[string]string{
		"an operator":        HostileUsername,
		"an array":           `["ann@example.com"]`,
		"an operator's name": "$where",
		"a variable":         "$$ROOT",
		"a pattern":          "/.*/",
		"null":               "null",
		"JavaScript":         `' || '1'=='1`,
		"NUL":                "ann\x00@example.com",
		"an address and NUL": r.email + "\x00",
		"a byte order mark":  "\ufeff",
		"a header":           r.email + "\r\nSet-Cookie: a=b",
		"a mail header":      "ann@example.com\r\nBcc: bob@example.com",
		"a display name":     "Ann <" + r.email + ">",
		"two addresses":      r.email + ", bob@example.com",
		"a comment":          "ann(" + r.email + ")@example.com",
		"noncharacters":      "\U0010ffff\ufffe",
		"right to left":      "\u202emoc.elpmaxe@nna",
		"other spaces":       "\u00a0ann\u2003@\u3000example.com",
		"a terminal escape":  "\x1b[2Jann@example.com",
		"a long address":     strings.Repeat("a", 4000) + "@example.com",
		"deep JSON":          strings.Repeat(`{"a":`, 1000),
	} {
		for _, enc := range encodings {
			table = append(table, attack{name: enc.name + ": username looks like " + what, route: loginRoute,
				body: enc.of("username", value, "password", password), want: badCredentials(), storeCalls: lookedUp(value)})
			if len(value) > account.MaxPasswordBytes {
				continue
			}
			table = append(table, attack{name: enc.name + ": password looks like " + what, route: loginRoute,
				body: enc.of("username", r.email, "password", value), want: badCredentials(), storeCalls: lookedUp(r.email)})
		}
		if len(value) <= account.MaxPasswordBytes {
			table = append(table, attack{name: "password looks like " + what, route: reauthenticateRoute, token: r.token,
				body: asJSON("password", value), want: badCredentials(), storeCalls: []storeCall{{findUser, ""}}})
		}
	}
	return table
}

// longPasswords sends passwords around 1,024 bytes. Longer ones cause no store call.
func (r *hostileRig) longPasswords() (table []attack) {
	for _, enc := range encodings {
		for _, long := range []string{
			strings.Repeat("a", account.MaxPasswordBytes), strings.Repeat("ü", account.MaxPasswordBytes/2),
			strings.Repeat("a", account.MaxPasswordBytes+1), strings.Repeat("ü", account.MaxPasswordBytes/2) + "a", strings.Repeat("a", 5000),
		} {
			what := fmt.Sprintf("%s: a password of %d bytes", enc.name, len(long))
			login := attack{name: what, route: loginRoute, body: enc.of("username", r.email, "password", long), want: badCredentials()}
			reauthentication := attack{name: what, route: reauthenticateRoute, token: r.token, body: enc.of("password", long), want: badCredentials()}
			if len(long) <= account.MaxPasswordBytes {
				login.storeCalls, reauthentication.storeCalls = lookedUp(r.email), []storeCall{{findUser, ""}}
			}
			table = append(table, login, reauthentication)
		}
	}
	return table
}

// malformedForms sends malformed forms, and forms with invalid or missing fields.
func (r *hostileRig) malformedForms() (table []attack) {
	username, password := []string{"body.username"}, []string{"body.password"}
	for what, c := range map[string]struct {
		content string
		at      []string
	}{
		"an invalid escape":       {"username=%zz&password=x", []string{bodyPlace}},
		"half an escape":          {"username=ann&password=%", []string{bodyPlace}},
		"semicolons":              {"username=ann;password=x", []string{bodyPlace}},
		"a semicolon in a value":  {"username=ann&password=a;b", []string{bodyPlace}},
		"a %u escape":             {"username=%u0061nn&password=x", []string{bodyPlace}},
		"not UTF-8":               {"username=%ff&password=%ff", bothFields},
		"not UTF-8, raw":          {"username=\xff&password=\xfe", bothFields},
		"Latin-1":                 {"username=j%fcrgen&password=gr%fc%dfe", bothFields},
		"an encoded surrogate":    {"username=%ed%a0%80&password=x", username},
		"an overlong NUL":         {"username=ann&password=%c0%80", password},
		"two byte order marks":    {"\ufeff\ufeffusername=ann&password=x", username},
		"nothing":                 {"", bothFields},
		"no names":                {"=ann", bothFields},
		"10,000 ampersands":       {strings.Repeat("&", 9_999), bothFields},
		"16,384 ampersands":       {strings.Repeat("&", maxBody), []string{bodyPlace}},
		"8,000 fields":            {strings.Repeat("a&", 8000), append(bothFields[:2:2], "body.a")},
		"JSON":                    {`{"username": "ann", "password": "x"}`, bothFields},
		"encoded twice":           {"username%3Dann%26password%3Dx", bothFields},
		"other capitals":          {"USERNAME=ann&Password=x", bothFields},
		"another grant type":      {"grant_type[$ne]=x&grant_type=client_credentials&username=ann&password=x", []string{"body.grant_type"}},
		"remember is an operator": {`username=ann&password=x&remember={"$ne":null}`, []string{"body.remember"}},
	} {
		table = append(table, attack{name: "form: " + what, route: loginRoute, body: rawForm(c.content), at: c.at})
	}
	return table
}

// malformedMultipart sends malformed multipart bodies, and those with invalid or missing fields.
func (r *hostileRig) malformedMultipart() (table []attack) {
	part := func(header, content string) string { return "--x\r\n" + header + "\r\n\r\n" + content + "\r\n" }
	const disposition = `Content-Disposition: form-data; name=`
	field := func(name, content string) string { return part(disposition+`"`+name+`"`, content) }
	const end = "--x--\r\n"
	password, username := field("password", "x"), []string{"body.username"}
	ann := field("username", "ann") + password
	for what, c := range map[string]struct {
		content string
		at      []string
	}{
		"nothing":                     {"", []string{bodyPlace}},
		"cut in a value":              {ann[:len(ann)-8], []string{bodyPlace}},
		"cut in a header":             {ann + "--x\r\nContent-Disp", []string{bodyPlace}},
		"without the last boundary":   {ann, []string{bodyPlace}},
		"another boundary":            {strings.ReplaceAll(ann, "--x", "--y") + "--y--", []string{bodyPlace}},
		"a header without a colon":    {"--x\r\nContent-Disposition form-data\r\n\r\nann\r\n" + end, []string{bodyPlace}},
		"a name with a NUL":           {field("username\x00", "ann") + password + end, []string{bodyPlace}},
		"no parts":                    {end, bothFields},
		"a file":                      {part(disposition+`"username"; filename="a"`, "ann") + password + end, username},
		"a file with filename*":       {part(disposition+`"username"; filename*=utf-8''a`, "ann") + password + end, username},
		"files for both":              {part(disposition+`"username"; filename="../../a"`, "ann") + part(disposition+`"password"; filename="b"`, "x") + end, bothFields},
		"no disposition":              {part("A: b", "ann") + end, bothFields},
		"another disposition":         {part(`Content-Disposition: attachment; name="username"`, "ann") + password + end, username},
		"a huge header, and no field": {part("A: "+strings.Repeat("a", 15_000), "ann") + end, bothFields},
		"thousands of headers":        {part(strings.Repeat("A:b\r\n", 3000)+"C: d", "ann") + end, bothFields},
		"thousands of parts":          {strings.Repeat("--x\r\n\r\n\r\n", 1700) + end, append(bothFields[:2:2], "body.")},
		"not UTF-8":                   {field("username", "\xff") + field("password", "\xc0\x80") + end, bothFields},
		"a name that is not UTF-8":    {field("username\xff", "ann") + password + end, username},
		"nested multipart":            {part("Content-Type: multipart/mixed; boundary=y", "--y\r\n"+disposition+"username\r\n\r\nann\r\n--y--") + password + end, username},
		"two names in one":            {part(disposition+`"username"; name="password"`, "x") + end, bothFields},
	} {
		table = append(table, attack{name: "multipart: " + what, route: loginRoute, body: rawMultipart(c.content), at: c.at})
	}
	for what, header := range map[string]string{
		"another boundary": "Content-Type: multipart/mixed; boundary=y",
		"a content type":   "Content-Type: application/json",
		"another charset":  "Content-Type: text/plain; charset=utf-7",
		"a huge header":    "A: " + strings.Repeat("a", 15_000),
	} {
		content := field("username", r.email) + part(disposition+"password\r\n"+header, "--y\r\nx\r\n--y--") + end
		table = append(table, attack{name: "multipart: a value with " + what, route: loginRoute, body: rawMultipart(content),
			want: badCredentials(), storeCalls: lookedUp(r.email)})
	}
	many := field("username", r.email) + password
	for i := range 250 {
		many += part(fmt.Sprint(disposition, i), "")
	}
	return append(table, attack{name: "multipart: hundreds of fields", route: loginRoute, body: rawMultipart(many + end),
		want: badCredentials(), storeCalls: lookedUp(r.email)})
}

// wrongContentTypes sends valid JSON with other content types.
func (r *hostileRig) wrongContentTypes() (table []attack) {
	right := asJSON("username", r.email, "password", password)
	for _, contentType := range []string{
		"", "text/json", "application/json; a", "application/json,application/json", "application/json+x",
		"application/x-www-form-urlencoded, application/json", "multipart/form-data; boundary=x; boundary=y", "multipart/form-data; boundary=", "multipart/mixed; boundary=x",
		"text/html; application/json", "application/ json", "*/*", "application/bson", "application/x-ndjson", strings.Repeat("a", 10_000),
	} {
		right.contentType = contentType
		table = append(table, attack{name: "JSON as " + contentType[:min(len(contentType), 60)], route: loginRoute, body: right, want: unsupported()})
	}
	const form, many = "application/x-www-form-urlencoded", "multipart/form-data"
	for contentType, at := range map[string][]string{
		form:                                     bothFields,
		form + "; charset=utf-16":                bothFields,
		form + "\r\nContent-Type: " + inJSON:     bothFields, // the first header counts
		many:                                     {bodyPlace},
		many + `; boundary=""`:                   {bodyPlace},
		many + `; boundary="a b"`:                {bodyPlace},
		many + "; boundary*=utf-8''x":            {bodyPlace},
		many + "; boundary=x\r\nContent-Type: *": {bodyPlace},
	} {
		right.contentType = contentType
		table = append(table, attack{name: "JSON as " + contentType, route: loginRoute, body: right, at: at})
	}
	for _, g := range r.guarded() {
		table = append(table, attack{name: "plain text", route: g.route, token: g.token, body: body{"text/plain", g.field + "=x"}, want: unsupported()})
	}
	return table
}

// largeBodies sends bodies that the server must not read to their end.
func (r *hostileRig) largeBodies() (table []attack) {
	const large = 10 << 20
	for how, sent := range map[string]transmission{"with its length": whole, "in chunks": inChunks} {
		add := func(x attack) {
			x.name, x.sent = x.name+" "+how, sent
			table = append(table, x)
		}
		for _, enc := range encodings {
			b := enc.of("username", r.email, "password", password)
			b.content += enc.tail
			add(attack{name: enc.name + ": 16 KiB and a byte", route: loginRoute, body: b, size: maxBody + 1, want: tooLarge()})
			add(attack{name: enc.name + ": 10 MB", route: loginRoute, body: b, size: large, want: tooLarge()})
		}
		for _, g := range r.guarded() {
			add(attack{name: "10 MB", route: g.route, token: g.token, body: asJSON(g.field, "true"), size: large, want: tooLarge()})
			add(attack{name: "10 MB without a token", route: g.route, body: asJSON(g.field, "true"), size: large, want: r.unauthorized(noToken)})
		}
		add(attack{name: "10 MB of another type", route: loginRoute, body: body{"text/plain", "x"}, size: large, want: unsupported()})
		add(attack{name: "a million brackets", route: loginRoute, body: rawJSON(strings.Repeat("[", 1_000_000)), want: tooLarge()})
	}
	return table
}

// truncatedBodies sends bodies that end too early or have malformed chunks.
func (r *hostileRig) truncatedBodies() (table []attack) {
	for how, sent := range map[string]transmission{"with its length": cut, "in chunks": cutInChunks} {
		for _, enc := range encodings {
			table = append(table, attack{name: enc.name + ": too short, " + how, route: loginRoute, sent: sent,
				body: enc.of("username", r.email, "password", password), at: []string{bodyPlace}})
		}
		for _, g := range r.guarded() {
			table = append(table, attack{name: "too short, " + how, route: g.route, token: g.token, sent: sent,
				body: asForm(g.field, "x"), at: []string{bodyPlace}})
		}
	}
	for what, chunks := range map[string]string{
		"no size":             "{}\r\n\r\n",
		"a negative size":     "-1\r\n{}\r\n0\r\n\r\n",
		"an overflowing size": "fffffffffffffffff\r\n{}\r\n",
		"too small a size":    "1\r\n{}\r\n0\r\n\r\n",
		"a size with 0x":      "0x2\r\n{}\r\n0\r\n\r\n",
		"a long extension":    "2;" + strings.Repeat("a", 10_000) + "\r\n{}\r\n0\r\n\r\n",
	} {
		table = append(table, attack{name: "chunks: " + what, route: loginRoute, body: rawJSON(chunks), sent: verbatim, at: []string{bodyPlace}})
	}
	return table
}

// slowBodies sends bodies that never end.
func (r *hostileRig) slowBodies() (table []attack) {
	tooSlow := refused(http.StatusRequestTimeout, "REQUEST_TIMEOUT")
	for how, sent := range map[string]transmission{"with its length": stalled, "in chunks": stalledInChunks} {
		for _, enc := range encodings {
			whole := enc.of("username", r.email, "password", password)
			for what, n := range map[string]int{"nothing": 0, "a few bytes": 9, "every field": len(whole.content)} {
				table = append(table, attack{name: enc.name + ": " + what + " " + how + ", then it stalls", route: loginRoute, sent: sent,
					body: body{whole.contentType, whole.content[:n]}, want: tooSlow})
			}
		}
		for _, g := range r.guarded() {
			table = append(table, attack{name: "it stalls " + how, route: g.route, token: g.token, sent: sent, body: rawForm(g.field), want: tooSlow})
		}
		// The server does not wait for a body that it refuses anyway.
		table = append(table,
			attack{name: "another type stalls " + how, route: loginRoute, sent: sent, body: body{"text/plain", "x"}, want: unsupported()},
			attack{name: "too large, then it stalls " + how, route: loginRoute, sent: sent, body: rawForm(strings.Repeat("a", maxBody+1)),
				want: tooLarge()})
	}
	for _, g := range r.guarded() {
		table = append(table, attack{name: "byte by byte", route: g.route, token: g.token, sent: trickling, body: rawForm(g.field + "="), want: tooSlow})
	}
	return append(table, attack{name: "byte by byte", route: loginRoute, sent: trickling, body: rawForm("username="), want: tooSlow})
}

// malformedQueriesAndIDs sends malformed pages and malformed IDs of sessions.
func (r *hostileRig) malformedQueriesAndIDs() (table []attack) {
	id := uuid.NewString()
	for _, query := range []string{
		`limit={"$gt":0}`, "limit=-1", "limit=0", "limit=99999999999999999999999", "limit=1.5", "limit=1e3", "limit=0x10",
		"limit=1\x00", "limit=١", "limit=\xff", "limit=[1]", "limit= 1", "limit=x&limit=1", "limit=$where",
		`after={"$gt":""}`, `after=[""]`, "after=\x00", "after=\xff", "after=" + id, "after=" + strings.Repeat("A", 8000),
		"after=eyIkZ3QiOiAiIn0", "after=a\r\nb", "after=$$ROOT", "after=-1", "after=../../etc/passwd",
	} {
		name, value, _ := strings.Cut(query, "=")
		value, more, _ := strings.Cut(value, "&")
		table = append(table, attack{name: fmt.Sprintf("%.40q", query), token: r.token,
			route: "GET /auth/sessions?" + name + "=" + url.QueryEscape(value) + "&" + more, at: []string{"query." + name}})
	}
	for _, path := range []string{
		`{"$ne":null}`, "[" + id + "]", "$ne", "[$ne]", ".*", id + "\x00", "\xff", "{" + id + "}", "urn:uuid:" + id,
		strings.ReplaceAll(id, "-", ""), "507f1f77bcf86cd799439011", "0", " ", id + "\r\n", strings.Repeat("a", 8000),
	} {
		table = append(table, attack{name: fmt.Sprintf("end the session %.40q", path), token: r.token,
			route: "DELETE /auth/sessions/" + url.PathEscape(path), want: notFound()})
	}
	return append(table, attack{name: "end an unknown session", route: "DELETE /auth/sessions/" + id, token: r.token,
		want: notFound(), storeCalls: []storeCall{{deleteToken, ""}}})
}

// malformedTokens sends malformed tokens: in the header or the cookie of a guarded request, and
// in the body of an introspection. A malformed token causes no store call.
func (r *hostileRig) malformedTokens() (table []attack) {
	good := r.token
	for _, token := range []string{
		`{"$ne":null}`, `{"$gt": ""}`, `["` + good + `"]`, "$where", "lk_.*", "null", "undefined", good + "'", good + "0",
		good[:len(good)-1], good + good, "xx" + good[2:], strings.ToUpper(good), "%6c" + good[1:],
		good[:10] + "\xff" + good[11:], good[:10] + "\t" + good[10:], good + "\u3000", "lk_" + strings.Repeat("а", 49),
		"lk_" + strings.Repeat("-_", 24) + "A", strings.Repeat("$ne", 1000), "lk_" + strings.Repeat("A", 100_000),
	} {
		want := r.unauthorized("invalid_token")
		if r.transport == bearer.transport && strings.ContainsAny(token, " \t") {
			want = r.badRequest()
		}
		for _, route := range []string{
			"GET /guarded", "POST /guarded", "GET /superuser", "GET /fresh", "GET /auth/sessions",
			"DELETE /auth/sessions/" + uuid.NewString(), logoutAllRoute, reauthenticateRoute, introspectRoute,
		} {
			table = append(table, attack{name: fmt.Sprintf("the token %.60q", token), route: route, token: token, want: want})
		}
		for _, enc := range encodings {
			if utf8.ValidString(token) && len(token) < maxBody {
				table = append(table, attack{name: fmt.Sprintf("%s: introspect %.60q", enc.name, token), route: introspectRoute, token: r.superToken,
					body: enc.of("token", token), want: inactiveToken()})
			}
		}
	}
	unknown := r.unknownToken()
	return append(table, attack{name: "an unknown token", route: "GET /guarded", token: unknown,
		want: r.unauthorized("invalid_token"), storeCalls: r.lookUp(unknown)[:1]})
}

// lookUp returns the store calls of a guard that accepts a token.
func (r *hostileRig) lookUp(token string) []storeCall {
	r.t.Helper()
	digest, ok := format.Digest(token)
	if !ok {
		r.t.Fatalf("%q is not a token", token)
	}
	return []storeCall{{findToken, digest}, {findUser, ""}}
}

func rawForm(content string) body { return body{"application/x-www-form-urlencoded", content} }

func rawMultipart(content string) body { return body{"multipart/form-data; boundary=x", content} }

func inUTF16(s string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	return string(b)
}

func passwordBounds(t *testing.T, env environment) {
	r := env.rig(t)
	longest := strings.Repeat("ü", account.MaxPasswordBytes/2)
	user := r.user(active)
	if _, err := r.accounts.ChangePassword(t.Context(), user.ID, password, longest); err != nil {
		t.Fatal(err)
	}
	r.events.keepSecret(longest)
	r.clock.advance(time.Minute)
	for _, enc := range encodings {
		r.tokenIn(r.post("/auth/login", enc.of("username", user.Email, "password", longest)), lifetime)
		calls := r.db.callsDuring(func() {
			r.expect(enc.name, r.post("/auth/login", enc.of("username", user.Email, "password", longest+"u")), badCredentials())
		})
		if calls != 0 {
			t.Errorf("%s: got %d database calls for too long a password, want none", enc.name, calls)
		}
	}
}
