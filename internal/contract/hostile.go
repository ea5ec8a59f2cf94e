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
	{"requests that mean no good", hostileRequests},
	{"a password of 1,024 bytes is one, and of 1,025 none", passwordBounds},
}}

// What the hostile requests make a store keep and look up, beside others.
const (
	HostileUserAgent = `{"$set": {"is_superuser": true}}`
	HostileUsername  = `{"$ne": null}`
)

// attack is a request that means no good, and what becomes of it.
type attack struct {
	name  string
	route string // method and path
	token string // what it carries; "" for none
	body  body
	size  int // blanks follow the body's content up to it
	sent  transmission

	// want is the answer, or at are the places of the errors in a 422.
	want answer
	at   []string
	// asks are the calls of the stores beside those of a guard that lets the token
	// pass: all that it makes the database do.
	storeCalls []storeCall
}

// transmission is how a body is sent.
type transmission int

const (
	whole           transmission = iota // with its length
	inChunks                            // without
	verbatim                            // in chunks, says the header, and then what there is
	cut                                 // with a length that is longer, and then nothing more can come
	cutInChunks                         // without the last chunk, and then nothing more can come
	stalled                             // with a length that is longer, and then nothing more comes
	stalledInChunks                     // without the last chunk, and then nothing more comes
	trickling                           // byte by byte, and there is no end of it
)

// slow reports whether the server has to give up waiting for the body.
func (s transmission) slow() bool { return s >= stalled }

// prey is the application that is attacked.
type hostileRig struct {
	*rig
	email, token, superToken string
	// sent are the names of the attacks by the addresses that they came from.
	sent map[string]string
}

// hostileRequests is the table of hostile requests. Nothing of them may reach a
// store but plain strings, and those only where the table says so.
func hostileRequests(t *testing.T, env environment) {
	at := func(timeout time.Duration) *hostileRig {
		r := env.rig(t, neverExpires, withPlugin(func(cfg *ginauth.Config) { cfg.BodyTimeout = timeout }))
		user := r.user(active)
		// What is stored of a request that succeeds.
		agent := header("User-Agent", HostileUserAgent)
		token := r.issuedToken(r.tryLogin(user, agent, forwardedFor(HostileUserAgent)))
		return &hostileRig{r, user.Email, token, r.login(r.user(flags{active: true, superuser: true})), make(map[string]string)}
	}
	patient, impatient := at(time.Minute), at(50*time.Millisecond)
	n := 0
	for _, p := range []*hostileRig{patient, impatient} {
		for _, x := range p.attacks() {
			if x.sent.slow() != (p == impatient) {
				continue
			}
			n++
			p.checkAttack(x)
			p.clock.advance(25 * time.Hour) // the limiter forgets
		}
		for _, token := range []string{p.token, p.superToken} {
			if got := p.get("/guarded", p.withToken(token)); got.Code != http.StatusOK {
				t.Errorf("the sessions afterwards: got %+v, want them alive", got.answer)
			}
		}
		p.expectBoundedReads()
	}
	t.Logf("%d requests", n)
}

// endure sends a request and compares what becomes of it with what should.
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
	if asked := r.db.since(before); !slices.Equal(asked, want) {
		r.t.Errorf("%s: got the calls of the stores %q, want %q", x.name, asked, want)
	}
}

// readLittle checks what was read of each request. The server looks for the end of a
// body that nobody reads, also when it has answered, and gives up soon.
func (r *hostileRig) expectBoundedReads() {
	r.t.Helper()
	const most = 1 << 20
	for by, name := range r.sent {
		if n, ok := r.bytesRead.Load(by); ok && n.(*atomic.Int64).Load() > most {
			r.t.Errorf("%s: got %d bytes read, want at most %d", name, n.(*atomic.Int64).Load(), most)
		}
	}
}

// attack sends a request over a connection of its own, byte by byte as it is
// meant, and returns the answer, and its own address.
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
		carrier := &http.Request{Header: make(http.Header)}
		r.withToken(x.token)(carrier)
		for name, values := range carrier.Header {
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
		// No errors: the server may have heard enough and closed the connection.
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
		// Whoever serves the connection is free again: it is closed, or reset.
		if _, err := in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			r.t.Errorf("%s: got the connection open after the answer (%v), want it closed", x.name, err)
		}
	}
	if strings.HasPrefix(path, "/auth/") {
		expectNotStored(r.t, x.name, resp)
	}
	return replyOf(resp, string(answered)), conn.LocalAddr().String()
}

// blanks has no end.
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

// attacks is the table. What is in a body does not depend on how the token comes.
func (r *hostileRig) attacks() []attack {
	if r.transport == cookie.transport {
		return r.malformedTokens()
	}
	return slices.Concat(r.valuesOfOtherTypes(), r.malformedJSON(), r.duplicateFields(), r.bracketedNames(), r.lookalikeStrings(), r.longPasswords(),
		r.malformedForms(), r.malformedMultipart(), r.wrongContentTypes(), r.largeBodies(), r.truncatedBodies(), r.slowBodies(), r.malformedQueriesAndIDs(), r.malformedTokens())
}

// guarded are the routes behind a guard that read a body, each with a token that
// passes it and the field that it wants.
func (r *hostileRig) guarded() []struct{ route, token, field string } {
	return []struct{ route, token, field string }{
		{reauthenticateRoute, r.token, "password"},
		{introspectRoute, r.superToken, "token"},
		{logoutAllRoute, r.token, "keep_current"},
	}
}

// lookedUp is the call of the store for a name: what is no address stays as it is.
func lookedUp(name string) []storeCall {
	if normal, err := account.NormalizeEmail(name); err == nil {
		name = normal
	}
	return []storeCall{{findAccount, name}}
}

// right are a login's two members in JSON.
func (r *hostileRig) right() (name, secret string) {
	return `"username": ` + quoted(r.email), `"password": ` + quoted(password)
}

const bodyPlace = "body"

var bothFields = []string{"body.username", "body.password"}

// noStrings gives every field of every body as everything that is no string.
func (r *hostileRig) valuesOfOtherTypes() (table []attack) {
	name, secret := r.right()
	for what, value := range map[string]string{
		"$ne":              `{"$ne": null}`,
		"$gt":              `{"$gt": ""}`,
		"$regex":           `{"$regex": ".*", "$options": "s"}`,
		"$where":           `{"$where": "sleep(5000)"}`,
		"$in":              `{"$in": ["ann", null]}`,
		"$expr":            `{"$expr": {"$function": {"body": "function() { return true }", "args": [], "lang": "js"}}}`,
		"$oid":             `{"$oid": "507f1f77bcf86cd799439011"}`,
		"spelt otherwise":  `{"\u0024ne": null}`,
		"operators in it":  `{"a": {"b": [{"$gt": ""}]}}`,
		"an object":        `{}`,
		"a name twice":     `{"a": 1, "a": 2}`,
		"an array":         `["ann"]`,
		"an empty array":   `[]`,
		"operators inside": `[{"$ne": null}]`,
		"a number":         `42`,
		"minus nothing":    `-0`,
		"a great number":   `1e308`,
		"nested deeply":    strings.Repeat(`{"a":[`, 2000) + strings.Repeat(`]}`, 2000),
		"nested to 7,000":  strings.Repeat("[", 7000) + strings.Repeat("]", 7000),
		"null":             `null`,
		"true":             `true`,
		"false":            `false`,
	} {
		for field, others := range map[string]string{
			"username": secret, "password": name, "grant_type": name + ", " + secret, "remember": name + ", " + secret,
		} {
			if (field == "remember" || value == "null") && strings.Contains("null true false", value) && others == name+", "+secret {
				continue // as it should be
			}
			table = append(table, attack{name: field + " is " + what, route: loginRoute,
				body: rawJSON(`{"` + field + `": ` + value + `, ` + others + `}`), at: []string{"body." + field}})
		}
		// What is not used may be anything, and goes nowhere.
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

// noJSON is JSON that is none, or not an object in UTF-8.
func (r *hostileRig) malformedJSON() (table []attack) {
	name, secret := r.right()
	for what, content := range map[string]string{
		"empty":                          ``,
		"10,001 levels":                  `{"username": ` + strings.Repeat("[", 10_001),
		"operators at the top":           `{"$or": [{` + name,
		"an array of logins":             `[{` + name + `, ` + secret + `}]`,
		"just an operator":               `"$ne"`,
		"a number beyond all":            `{` + name + `, ` + secret + `, "scope": 1e999999}`,
		"a number of 10,000 digits":      `{` + name + `, ` + secret + `, "scope": ` + strings.Repeat("9", 10_000) + `}`,
		"no number":                      `{` + name + `, ` + secret + `, "scope": NaN}`,
		"not UTF-8":                      `{` + name + `, "password": "` + "\xff" + `"}`,
		"an encoded surrogate":           `{` + name + `, "password": "` + "\xed\xa0\x80" + `"}`,
		"an overlong slash":              `{` + name + `, "password": "` + "\xc0\xaf" + `"}`,
		"a raw NUL":                      `{` + name + `, "password": "` + "\x00" + `"}`,
		"a raw line break":               `{` + name + `, "password": "` + "\n" + `"}`,
		"a byte order mark inside":       "{\ufeff" + name + `, ` + secret + `}`,
		"a NUL behind":                   `{` + name + `, ` + secret + "}\x00",
		"another object behind":          `{` + name + `, ` + secret + `}{` + name + `, ` + secret + `}`,
		"an operator behind":             `{` + name + `, ` + secret + `}, {"$ne": null}`,
		"a bad escape":                   `{` + name + `, "password": "\x41"}`,
		"half an escape":                 `{` + name + `, "password": "\u00"}`,
		"JavaScript":                     `{username: 'ann', password: 'x'}`,
		"UTF-16":                         inUTF16(`{` + name + `, ` + secret + `}`),
		"a form":                         asForm("username", r.email, "password", password).content,
		"members without end":            strings.Repeat(`{"username":`, 1300),
		"a string without end":           `{` + name + `, "password": "` + strings.Repeat("a", 10_000),
		"closed too often":               `{` + name + `, ` + secret + `}}}}`,
		"compressed":                     "\x1f\x8b\x08\x00\x00\x00\x00\x00",
		"a name that is an object":       `{{"$ne": null}: "x", ` + name + `, ` + secret + `}`,
		"a comment":                      `{` + name + ` /*, "password": "a" */, ` + secret + `}`,
		"deep, and closed wrongly":       `{"scope": ` + strings.Repeat("[", 5000) + strings.Repeat("}", 5000),
		"two values and nothing between": `{"username": "ann" "bob", ` + secret + `}`,
	} {
		table = append(table, attack{name: "JSON: " + what, route: loginRoute, body: rawJSON(content), at: []string{bodyPlace}})
	}
	for _, g := range r.guarded() {
		table = append(table,
			attack{name: "an array", route: g.route, token: g.token, body: rawJSON(`[{"` + g.field + `": "x"}]`), at: []string{bodyPlace}},
			attack{name: "10,001 levels", route: g.route, token: g.token, body: rawJSON(strings.Repeat("[", 10_001)), at: []string{bodyPlace}})
	}
	return append(table,
		attack{name: "JSON: 10,000 levels and their ends", route: loginRoute,
			body: rawJSON(`{"scope": ` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `, ` + name + `, ` + secret + `}`),
			want: tooLarge()},
		attack{name: "JSON: half a surrogate pair", route: loginRoute, body: rawJSON(`{"username": "ann\ud800@example.com", "password": "\udfff"}`),
			want: badCredentials(), storeCalls: lookedUp("ann\ufffd@example.com")},
		attack{name: "JSON: an escaped NUL", route: loginRoute, body: rawJSON(`{"username": "ann\u0000", "password": "\u0000"}`),
			want: badCredentials(), storeCalls: lookedUp("ann\x00")})
}

// namesTwice gives fields twice, in every encoding and some spellings.
func (r *hostileRig) duplicateFields() (table []attack) {
	for _, enc := range encodings {
		for _, field := range []string{"username", "password", "grant_type", "remember", "scope", "$ne"} {
			for _, again := range []string{"password", ""} {
				fields := []string{"username", r.email, "password", password}
				if !slices.Contains(fields, field) {
					fields = append(fields, field, "password")
				}
				table = append(table, attack{name: fmt.Sprintf("%s: again %s=%s", enc.name, field, again), route: loginRoute,
					body: enc.of(append(fields, field, again)...), at: []string{"body." + field}})
			}
		}
		for _, g := range r.guarded() {
			table = append(table, attack{name: enc.name + ": " + g.field + " again", route: g.route, token: g.token,
				body: enc.of(g.field, "true", g.field, "false"), at: []string{"body." + g.field}})
		}
	}
	name, secret := r.right()
	for _, again := range []string{`user\u006eame`, `\u0075sername`, `\u0075\u0073\u0065\u0072\u006e\u0061\u006d\u0065`} {
		table = append(table, attack{name: "JSON: again as " + again, route: loginRoute,
			body: rawJSON(`{` + name + `, ` + secret + `, "` + again + `": "bob"}`), at: []string{"body.username"}})
	}
	return append(table,
		attack{name: "JSON: again, as an operator", route: loginRoute,
			body: rawJSON(`{` + name + `, ` + secret + `, "username": {"$ne": null}}`), at: []string{"body.username"}},
		attack{name: "form: again, percent-encoded", route: loginRoute,
			body: rawForm("username=ann&password=x&user%6eame=bob"), at: []string{"body.username"}})
}

// namesWithMore gives names of which other frameworks make objects and arrays.
func (r *hostileRig) bracketedNames() (table []attack) {
	for _, enc := range encodings {
		for _, more := range []string{"[$ne]", "[$regex]", "[]", "[0]", ".$ne", " ", "\u200b"} {
			table = append(table,
				attack{name: fmt.Sprintf("%s: names with %q", enc.name, more), route: loginRoute,
					body: enc.of("username"+more, "", "password"+more, ""), at: bothFields},
				attack{name: fmt.Sprintf("%s: a name with %q beside the right ones", enc.name, more), route: loginRoute,
					body: enc.of("username", r.email, "username"+more, "1", "password", wrongPassword, "__proto__", "{}"),
					want: badCredentials(), storeCalls: lookedUp(r.email)})
		}
	}
	return append(table,
		attack{name: "form: names with NULs", route: loginRoute, body: asForm("username\x00", "ann", "password\x00", "x"), at: bothFields},
		attack{name: "JSON: names with NULs", route: loginRoute, body: asJSON("username\x00", "ann", "password\x00", "x"), at: bothFields})
}

// lookalikes are strings that look like something else. They are looked up as the
// strings that they are.
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
		"a header of mail":   "ann@example.com\r\nBcc: bob@example.com",
		"a display name":     "Ann <" + r.email + ">",
		"two addresses":      r.email + ", bob@example.com",
		"a comment":          "ann(" + r.email + ")@example.com",
		"the end of Unicode": "\U0010ffff\ufffe",
		"right to left":      "\u202emoc.elpmaxe@nna",
		"other blanks":       "\u00a0ann\u2003@\u3000example.com",
		"a terminal's":       "\x1b[2Jann@example.com",
		"something long":     strings.Repeat("a", 4000) + "@example.com",
		"something deep":     strings.Repeat(`{"a":`, 1000),
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

// longPasswords are looked at up to 1,024 bytes, and cost nothing beyond.
func (r *hostileRig) longPasswords() (table []attack) {
	for _, enc := range encodings {
		for _, long := range []string{
			strings.Repeat("a", account.MaxPasswordBytes), strings.Repeat("ü", account.MaxPasswordBytes/2),
			strings.Repeat("a", account.MaxPasswordBytes+1), strings.Repeat("ü", account.MaxPasswordBytes/2) + "a", strings.Repeat("a", 5000),
		} {
			what := fmt.Sprintf("%s: a password of %d bytes", enc.name, len(long))
			login := attack{name: what, route: loginRoute, body: enc.of("username", r.email, "password", long), want: badCredentials()}
			again := attack{name: what, route: reauthenticateRoute, token: r.token, body: enc.of("password", long), want: badCredentials()}
			if len(long) <= account.MaxPasswordBytes {
				login.storeCalls, again.storeCalls = lookedUp(r.email), []storeCall{{findUser, ""}}
			}
			table = append(table, login, again)
		}
	}
	return table
}

// noForms are forms that are none, or do not say what they should.
func (r *hostileRig) malformedForms() (table []attack) {
	username, password := []string{"body.username"}, []string{"body.password"}
	for what, c := range map[string]struct {
		content string
		at      []string
	}{
		"a bad escape":            {"username=%zz&password=x", []string{bodyPlace}},
		"half an escape":          {"username=ann&password=%", []string{bodyPlace}},
		"semicolons":              {"username=ann;password=x", []string{bodyPlace}},
		"a semicolon in a value":  {"username=ann&password=a;b", []string{bodyPlace}},
		"another kind of escape":  {"username=%u0061nn&password=x", []string{bodyPlace}},
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
		"another grant":           {"grant_type[$ne]=x&grant_type=client_credentials&username=ann&password=x", []string{"body.grant_type"}},
		"remember is an operator": {`username=ann&password=x&remember={"$ne":null}`, []string{"body.remember"}},
	} {
		table = append(table, attack{name: "form: " + what, route: loginRoute, body: rawForm(c.content), at: c.at})
	}
	return table
}

// noParts are multipart bodies that are none, or do not say what they should.
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
		"without its end":             {ann, []string{bodyPlace}},
		"another boundary":            {strings.ReplaceAll(ann, "--x", "--y") + "--y--", []string{bodyPlace}},
		"a header that is none":       {"--x\r\nContent-Disposition form-data\r\n\r\nann\r\n" + end, []string{bodyPlace}},
		"a name with a NUL":           {field("username\x00", "ann") + password + end, []string{bodyPlace}},
		"no parts":                    {end, bothFields},
		"a file":                      {part(disposition+`"username"; filename="a"`, "ann") + password + end, username},
		"a file by another spelling":  {part(disposition+`"username"; filename*=utf-8''a`, "ann") + password + end, username},
		"files for both":              {part(disposition+`"username"; filename="../../a"`, "ann") + part(disposition+`"password"; filename="b"`, "x") + end, bothFields},
		"no disposition":              {part("A: b", "ann") + end, bothFields},
		"another disposition":         {part(`Content-Disposition: attachment; name="username"`, "ann") + password + end, username},
		"a huge header, and no field": {part("A: "+strings.Repeat("a", 15_000), "ann") + end, bothFields},
		"thousands of headers":        {part(strings.Repeat("A:b\r\n", 3000)+"C: d", "ann") + end, bothFields},
		"thousands of parts":          {strings.Repeat("--x\r\n\r\n\r\n", 1700) + end, append(bothFields[:2:2], "body.")},
		"not UTF-8":                   {field("username", "\xff") + field("password", "\xc0\x80") + end, bothFields},
		"a name that is not UTF-8":    {field("username\xff", "ann") + password + end, username},
		"a nested one":                {part("Content-Type: multipart/mixed; boundary=y", "--y\r\n"+disposition+"username\r\n\r\nann\r\n--y--") + password + end, username},
		"two names in one":            {part(disposition+`"username"; name="password"`, "x") + end, bothFields},
	} {
		table = append(table, attack{name: "multipart: " + what, route: loginRoute, body: rawMultipart(c.content), at: c.at})
	}
	for what, header := range map[string]string{
		"a boundary of its own": "Content-Type: multipart/mixed; boundary=y",
		"a type of its own":     "Content-Type: application/json",
		"another charset":       "Content-Type: text/plain; charset=utf-7",
		"a huge header":         "A: " + strings.Repeat("a", 15_000),
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

// contentTypes are those of a body that is good JSON.
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
		form + "\r\nContent-Type: " + inJSON:     bothFields, // the first one counts
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

// largeBodies are not read to their end.
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

// brokenOff are bodies that end before their time, or whose chunks are none.
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
		"a size beyond all":   "fffffffffffffffff\r\n{}\r\n",
		"a size that is less": "1\r\n{}\r\n0\r\n\r\n",
		"a size with 0x":      "0x2\r\n{}\r\n0\r\n\r\n",
		"a long extension":    "2;" + strings.Repeat("a", 10_000) + "\r\n{}\r\n0\r\n\r\n",
	} {
		table = append(table, attack{name: "chunks: " + what, route: loginRoute, body: rawJSON(chunks), sent: verbatim, at: []string{bodyPlace}})
	}
	return table
}

// slowBodies come to no end.
func (r *hostileRig) slowBodies() (table []attack) {
	tooSlow := refused(http.StatusRequestTimeout, "REQUEST_TIMEOUT")
	for how, sent := range map[string]transmission{"with its length": stalled, "in chunks": stalledInChunks} {
		for _, enc := range encodings {
			whole := enc.of("username", r.email, "password", password)
			for what, n := range map[string]int{"nothing": 0, "a few bytes": 9, "all that matters": len(whole.content)} {
				table = append(table, attack{name: enc.name + ": " + what + " " + how + ", then it stalls", route: loginRoute, sent: sent,
					body: body{whole.contentType, whole.content[:n]}, want: tooSlow})
			}
		}
		for _, g := range r.guarded() {
			table = append(table, attack{name: "it stalls " + how, route: g.route, token: g.token, sent: sent, body: rawForm(g.field), want: tooSlow})
		}
		// What is refused anyway is not waited for either.
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

// noSessions are pages and IDs of sessions that are none.
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
	return append(table, attack{name: "end nobody's session", route: "DELETE /auth/sessions/" + id, token: r.token,
		want: notFound(), storeCalls: []storeCall{{deleteToken, ""}}})
}

// noTokens stand where a token should: in the header or the cookie of a guarded
// request, and in the body of an introspection. No store is asked about what is
// no token by its look.
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
	return append(table, attack{name: "a token that nobody was given", route: "GET /guarded", token: unknown,
		want: r.unauthorized("invalid_token"), storeCalls: r.lookUp(unknown)[:1]})
}

// lookUp are the calls of a guard that lets a token pass.
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
			t.Errorf("%s: got %d calls of the database for a password that is too long, want none", enc.name, calls)
		}
	}
}
