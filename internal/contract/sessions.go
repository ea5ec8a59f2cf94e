package contract

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

var sessionRows = rows{"sessions", []row{
	{"newest first, and this one is marked", sessionsAreListed},
	{"no token and no digest", sessionsShowNoSecret},
	{"what a session tells", sessionFields},
	{"what it does not tell where that is switched off", sessionFieldsOmitted},
	{"a user agent is bounded", userAgentIsBounded},
	{"the address is by Gin's trusted proxies", addressByTrustedProxies},
	{"page by page", sessionPages},
	{"a limit or a page that is none", badPages},
	{"only one's own", onlyOwnSessions},
	{"dead ones are not listed", deadSessionsAreNotListed},
	{"the session routes want a login", sessionRoutesWantLogin},
	{"the session routes while the database fails", sessionRoutesWithoutDatabase},
	{"the list fails", listFails},
}}

// listing is what GET sessions answers.
type listing struct {
	Sessions []listed `json:"sessions"`
	Next     string   `json:"next"`
}

type listed struct {
	ID              uuid.UUID  `json:"id"`
	Current         bool       `json:"current"`
	CreatedAt       time.Time  `json:"created_at"`
	LastUsedAt      *time.Time `json:"last_used_at"`
	AuthenticatedAt *time.Time `json:"authenticated_at"`
	ExpiresAt       *time.Time `json:"expires_at"`
	Name            string     `json:"name"`
	UserAgent       string     `json:"user_agent"`
	ClientIP        string     `json:"client_ip"`
	Scopes          []string   `json:"scopes"`
}

// sessions lists the sessions of a token's user.
func (a *app) sessions(token, query string) listing {
	a.t.Helper()
	got := a.get("/auth/sessions"+query, a.carry(token))
	if got.Code != http.StatusOK || got.ContentType != inJSON {
		a.t.Fatalf("list the sessions: got %+v", got.answer)
	}
	dec := json.NewDecoder(strings.NewReader(got.Body))
	dec.DisallowUnknownFields()
	var content listing
	if err := dec.Decode(&content); err != nil {
		a.t.Fatalf("list the sessions: got %s: %v", got.Body, err)
	}
	return content
}

func (l listing) ids() (ids []uuid.UUID) {
	for _, s := range l.Sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

// current returns the session that is marked as this one.
func (a *app) current(token string) listed {
	a.t.Helper()
	var found []listed
	for _, s := range a.sessions(token, "?limit=200").Sessions {
		if s.Current {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		a.t.Fatalf("got %d sessions that are this one, want 1", len(found))
	}
	return found[0]
}

// rows returns what the store holds of a user's sessions, live or not.
func (a *app) rows(user Member) []accessToken {
	a.t.Helper()
	rows, err := a.backend.Tokens.ByUser(a.t.Context(), user.ID, strategy.Position{}, 1000)
	if err != nil {
		a.t.Fatal(err)
	}
	return rows
}

// expectSessions checks how many sessions of a user the store holds.
func (a *app) expectSessions(user Member, want int) {
	a.t.Helper()
	if got := len(a.rows(user)); got != want {
		a.t.Errorf("got %d sessions in the store, want %d", got, want)
	}
}

// loginNTimes logs a user in again and again, a second apart; oldest first.
func (a *app) loginNTimes(user Member, n int) (tokens []string) {
	a.t.Helper()
	for range n {
		a.clock.advance(time.Second)
		tokens = append(tokens, a.login(user))
	}
	return tokens
}

// expectAlive checks which tokens of a user are still accepted.
func (a *app) expectAlive(what string, user Member, tokens []string, want ...int) {
	a.t.Helper()
	for i, token := range tokens {
		answer := a.unauthorized("invalid_token")
		if slices.Contains(want, i) {
			answer = welcome(user)
		}
		a.expect(fmt.Sprintf("%s: use token %d", what, i), a.get("/guarded", a.carry(token)), answer)
	}
}

func sessionsAreListed(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 3)
	for i, token := range tokens {
		got := a.sessions(token, "")
		if len(got.Sessions) != 3 || got.Next != "" {
			t.Fatalf("got %+v, want 3 sessions and no next page", got)
		}
		for j, s := range got.Sessions {
			if want := a.clock.now().Add(time.Duration(-j) * time.Second); !s.CreatedAt.Equal(want) {
				t.Errorf("place %d: got a session of %v, want the one of %v", j, s.CreatedAt, want)
			}
			if want := j == 2-i; s.Current != want {
				t.Errorf("place %d: got current %v, want %v", j, s.Current, want)
			}
		}
	}
}

func sessionsShowNoSecret(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 3)
	got := a.get("/auth/sessions", a.carry(tokens[0]))
	secrets := append(tokens, password, string(user.HashedPassword), "lk_")
	for _, row := range a.rows(user) {
		secrets = append(secrets, row.Digest)
	}
	if len(secrets) != 9 {
		t.Errorf("got %d secrets to look for, want 9", len(secrets))
	}
	for _, secret := range secrets {
		if strings.Contains(got.Body, secret) {
			t.Errorf("got the secret %q in %s", secret, got.Body)
		}
	}
}

// fields returns the members of the only session in a listing, as they are
// written.
func (a *app) fields(got reply) map[string]string {
	a.t.Helper()
	var content struct {
		Sessions []map[string]json.RawMessage `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(got.Body), &content); err != nil || len(content.Sessions) != 1 {
		a.t.Fatalf("got %s, want one session (error %v)", got.Body, err)
	}
	fields := make(map[string]string)
	for name, value := range content.Sessions[0] {
		fields[name] = string(value)
	}
	return fields
}

func inQuotes(t time.Time) string { return quoted(t.UTC().Format(time.RFC3339Nano)) }

func sessionFields(t *testing.T, w world) {
	a := w.app(t, idle)
	user := a.user(active)
	got := a.post("/auth/login", asForm("username", user.Email, "password", password), header("User-Agent", "Browser/1.0 <Ünï>"))
	token := a.deliveredToken(got)
	begin := a.clock.now()
	a.clock.advance(5 * time.Minute)
	fields := a.fields(a.get("/auth/sessions", a.carry(token), header("User-Agent", "Another/2.0")))
	want := map[string]string{
		"id":               quoted(a.rows(user)[0].ID.String()),
		"current":          "true",
		"created_at":       inQuotes(begin),
		"last_used_at":     inQuotes(a.clock.now()),
		"authenticated_at": inQuotes(begin),
		"expires_at":       inQuotes(begin.Add(lifetime)),
		"user_agent":       quoted("Browser/1.0 <Ünï>"),
		"client_ip":        `"127.0.0.1"`,
	}
	if !maps.Equal(fields, want) {
		t.Errorf("got %v\nwant %v", fields, want)
	}

	a = w.app(t, neverExpires)
	_, token = a.loggedIn()
	fields = a.fields(a.get("/auth/sessions", a.carry(token)))
	if fields["expires_at"] != "null" || fields["last_used_at"] != "null" {
		t.Errorf("without expiry and last use: got %v, want null for both", fields)
	}
}

func sessionFieldsOmitted(t *testing.T, w world) {
	a := w.app(t, plugin(func(cfg *ginauth.Config) { cfg.OmitUserAgent, cfg.OmitClientIP = true, true }))
	user, token := a.loggedIn()
	fields := a.fields(a.get("/auth/sessions", a.carry(token)))
	for _, name := range []string{"user_agent", "client_ip", "name", "scopes"} {
		if value, there := fields[name]; there {
			t.Errorf("got %s = %s, want none", name, value)
		}
	}
	if row := a.rows(user)[0]; row.UserAgent != "" || row.ClientIP != "" {
		t.Errorf("got %+v in the store, want neither user agent nor address", row)
	}
}

func userAgentIsBounded(t *testing.T, w world) {
	a := w.app(t)
	for what, agent := range map[string]string{
		"long":          strings.Repeat("x", 8000),
		"long, not cut": strings.Repeat("ü", 4000),
		"not UTF-8":     strings.Repeat("\xff", 400),
	} {
		user := a.user(active)
		got := a.post("/auth/login", asForm("username", user.Email, "password", password), header("User-Agent", agent))
		s := a.current(a.deliveredToken(got))
		if n := len(s.UserAgent); n == 0 || n > 256 {
			t.Errorf("%s: got a user agent of %d bytes, want 1 to 256", what, n)
		}
	}
}

func addressByTrustedProxies(t *testing.T, w world) {
	for _, c := range []struct {
		what    string
		proxies []string
		want    string
	}{
		{"no proxy is trusted", nil, "127.0.0.1"},
		{"this one is", []string{"127.0.0.1"}, "203.0.113.7"},
	} {
		a := w.app(t, func(s *settings) { s.trustedProxies = c.proxies })
		user := a.user(active)
		got := a.post("/auth/login", asForm("username", user.Email, "password", password), header("X-Forwarded-For", "203.0.113.7"))
		if s := a.current(a.deliveredToken(got)); s.ClientIP != c.want {
			t.Errorf("%s: got the address %q, want %q", c.what, s.ClientIP, c.want)
		}
	}
}

func sessionPages(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	// Two of one millisecond, at the end of a page.
	tokens := append(a.loginNTimes(user, 3), a.login(user))
	tokens = append(tokens, a.loginNTimes(user, 1)...)
	whole := a.sessions(tokens[0], "").ids()
	for _, limit := range []int{1, 2, 3, 4, 5, 6, 200, 100000} {
		var found []uuid.UUID
		pages, query := 0, fmt.Sprintf("?limit=%d", limit)
		for next := ""; pages == 0 || next != ""; pages++ {
			page := a.sessions(tokens[0], query+"&after="+next)
			if len(page.Sessions) == 0 || len(page.Sessions) > limit {
				t.Fatalf("limit %d: got a page of %d", limit, len(page.Sessions))
			}
			found = append(found, page.ids()...)
			next = page.Next
		}
		if !slices.Equal(found, whole) || len(whole) != 5 {
			t.Errorf("limit %d: got %v, want %v", limit, found, whole)
		}
		if want := (5 + limit - 1) / limit; pages != want {
			t.Errorf("limit %d: got %d pages, want %d", limit, pages, want)
		}
	}

	// What ends between two pages, even the last session of the first, moves nothing.
	first := a.sessions(tokens[0], "?limit=2")
	a.expect("end the second", a.delete("/auth/sessions/"+whole[1].String(), a.carry(tokens[0])), noContent())
	second := a.sessions(tokens[0], "?limit=2&after="+first.Next)
	if !slices.Equal(second.ids(), whole[2:4]) {
		t.Errorf("after the end of the second: got %v, want %v", second.ids(), whole[2:4])
	}
}

func badPages(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	for _, limit := range []string{"0", "-1", "x", "1.5", "1e3", "%20", "0x10", "99999999999999999999"} {
		a.expectInvalid("limit "+limit, a.get("/auth/sessions?limit="+limit, a.carry(token)), "int_parsing", "query.limit")
	}
	for _, after := range []string{"x", "lk_malformed", "%00", uuid.NewString(), "AAAA", strings.Repeat("A", 33), strings.Repeat("A", 10000), "%24ne"} {
		a.expectInvalid("after "+after, a.get("/auth/sessions?after="+after, a.carry(token)), anyType, "query.after")
	}
	// Places that exist, though nobody was sent there.
	for _, b := range []byte{0, 0x7f, 0x80, 0xff} {
		after := base64.RawURLEncoding.EncodeToString(slices.Repeat([]byte{b}, 24))
		if got := a.get("/auth/sessions?after="+after, a.carry(token)); got.Code != http.StatusOK {
			t.Errorf("after %s: got %+v, want 200", after, got.answer)
		}
	}
}

func onlyOwnSessions(t *testing.T, w world) {
	a := w.app(t)
	_, anns, _, bobs := a.twoUsers()
	for _, token := range []string{anns, bobs} {
		if got := a.sessions(token, "").Sessions; len(got) != 1 || !got[0].Current {
			t.Errorf("got %+v, want this session alone", got)
		}
	}
	if a.current(anns).ID == a.current(bobs).ID {
		t.Error("got one session for two users")
	}
}

func deadSessionsAreNotListed(t *testing.T, w world) {
	a := w.app(t, idle)
	user := a.user(active)
	old := a.login(user)
	a.clock.advance(idleTimeout + time.Millisecond)
	a.expect("the old one is idle", a.get("/guarded", a.carry(old)), a.unauthorized("invalid_token"))
	if got := a.sessions(a.login(user), ""); len(got.Sessions) != 1 {
		t.Errorf("idle: got %+v, want one session", got)
	}

	a = w.app(t)
	user = a.user(active)
	a.login(user)
	a.clock.advance(lifetime)
	token := a.login(user)
	if got := a.sessions(token, ""); len(got.Sessions) != 2 {
		t.Errorf("at the end of its lifetime: got %+v, want two sessions", got)
	}
	a.clock.advance(time.Millisecond)
	if got := a.sessions(token, ""); len(got.Sessions) != 1 {
		t.Errorf("a millisecond later: got %+v, want one session", got)
	}

	if err := a.users.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	if got := a.sessions(a.login(user), ""); len(got.Sessions) != 1 {
		t.Errorf("revoked by the user's time: got %+v, want one session", got)
	}
}

// managed are the routes by which a login is managed, each as a request.
var managed = map[string]func(*app, ...option) reply{
	"GET sessions":    func(a *app, o ...option) reply { return a.get("/auth/sessions", o...) },
	"DELETE sessions": func(a *app, o ...option) reply { return a.delete("/auth/sessions/"+uuid.NewString(), o...) },
	"logout-all":      func(a *app, o ...option) reply { return a.post("/auth/logout-all", nothing, o...) },
	"reauthenticate": func(a *app, o ...option) reply {
		return a.post("/auth/reauthenticate", asForm("password", password), o...)
	},
	"introspect": func(a *app, o ...option) reply { return a.post("/auth/introspect", asForm("token", "x"), o...) },
}

func sessionRoutesWantLogin(t *testing.T, w world) {
	a := w.app(t)
	for what, request := range managed {
		a.expect(what, request(a), a.unauthorized(noToken))
		a.expect(what+", another scheme", request(a, authorization("Basic x")), a.unauthorized(noToken))
	}
	for _, bad := range badTokens {
		token := bad.make(a)
		for what, request := range managed {
			a.expect(what+", "+bad.name, request(a, a.carry(token)), a.unauthorized("invalid_token"))
		}
	}
}

func sessionRoutesWithoutDatabase(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(flags{active: true, superuser: true})
	token := a.login(user)
	for _, failure := range failures {
		for _, what := range []call{findToken, findUser} {
			a.db.fail(what, failure.err)
			for name, request := range managed {
				a.expect(name+": "+string(what), request(a, a.carry(token)), unavailable())
			}
			a.db.mend()
		}
	}
	a.expect("use the token afterwards", a.get("/guarded", a.carry(token)), welcome(user))
}

func listFails(t *testing.T, w world) {
	a := w.app(t)
	_, token := a.loggedIn()
	for _, failure := range failures {
		a.db.fail(listTokens, failure.err)
		a.expect(failure.name, a.get("/auth/sessions", a.carry(token)), unavailable())
		a.db.mend()
	}
}

var endSessionRows = rows{"end a session", []row{
	{"it is dead at once, and no other", endSession},
	{"the current one", endCurrentSession},
	{"another's, unknown and malformed ones look the same", noSuchSession},
	{"the delete was not acknowledged", endSessionNotAcknowledged},
	{"a token with scopes", endScopedToken},
}}

func endSession(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 3)
	id := a.current(tokens[1]).ID.String()
	a.expect("end it", a.delete("/auth/sessions/"+id, a.carry(tokens[0])), noContent())
	a.expectAlive("afterwards", user, tokens, 0, 2)
	a.expect("end it again", a.delete("/auth/sessions/"+id, a.carry(tokens[0])), refused(http.StatusNotFound, "NOT_FOUND"))
	id = a.current(tokens[2]).ID.String()
	a.expect("in capitals", a.delete("/auth/sessions/"+strings.ToUpper(id), a.carry(tokens[0])), noContent())
	a.expectAlive("afterwards", user, tokens, 0)
}

func endCurrentSession(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	id := a.current(tokens[0]).ID.String()
	a.expect("end it", a.delete("/auth/sessions/"+id, a.carry(tokens[0])), a.loggedOut())
	a.expectAlive("afterwards", user, tokens, 1)
}

func noSuchSession(t *testing.T, w world) {
	a := w.app(t)
	ann, anns, bob, bobs := a.twoUsers()
	own, others := a.current(anns).ID.String(), a.current(bobs).ID.String()
	replies := make(map[string]reply)
	for what, id := range map[string]string{
		"another's":            others,
		"unknown":              uuid.NewString(),
		"zero":                 uuid.Nil.String(),
		"malformed":            "x",
		"without hyphens":      strings.ReplaceAll(own, "-", ""),
		"in braces":            "%7B" + own + "%7D",
		"as a URN":             "urn:uuid:" + own,
		"with a blank":         own + "%20",
		"with a NUL":           own + "%00",
		"its digest":           a.rows(ann)[0].Digest,
		"the token":            anns,
		"an operator":          "%7B%22%24ne%22%3A1%7D",
		"own, but for a digit": own[:35] + string(own[35]^1),
	} {
		replies[what] = a.delete("/auth/sessions/"+id, a.carry(anns))
		a.expect(what, replies[what], refused(http.StatusNotFound, "NOT_FOUND"))
	}
	a.expectAlike(replies)
	a.expectAlive("Ann", ann, []string{anns}, 0)
	a.expectAlive("Bob", bob, []string{bobs}, 0)
}

func endSessionNotAcknowledged(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	for _, i := range []int{1, 0} { // the current one last
		path := "/auth/sessions/" + a.current(tokens[i]).ID.String()
		for _, failure := range failures {
			a.db.fail(deleteToken, failure.err)
			a.expect(failure.name, a.delete(path, a.carry(tokens[0])), unavailable())
			a.db.mend()
			a.expectAlive(failure.name, user, tokens[:i+1], 0, i)
		}
		a.db.loseAnswer(deleteToken, failures[0].err)
		a.expect("the answer is lost", a.delete(path, a.carry(tokens[0])), unavailable())
		a.db.mend()
		a.expect("it is over", a.get("/guarded", a.carry(tokens[i])), a.unauthorized("invalid_token"))
	}
}

func endScopedToken(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	ci := a.scoped(user, strategy.WithScopes("deploy:write", "tag:write"), strategy.WithName("ci"))
	a.clock.advance(time.Second)
	found := a.sessions(ci.login, "").Sessions
	i := slices.IndexFunc(found, func(s listed) bool { return s.ID == ci.id })
	if i < 0 || found[i].Name != "ci" || !slices.Equal(found[i].Scopes, []string{"deploy:write", "tag:write"}) ||
		found[i].AuthenticatedAt != nil || found[i].Current {
		t.Errorf("got %+v, want the token with its name and scopes, and no time of a login", found)
	}
	a.expect("before", a.get("/deploy", a.carry(ci.token)), welcome(user))
	a.expect("end it", a.delete("/auth/sessions/"+ci.id.String(), a.carry(ci.login)), noContent())
	a.expect("after", a.get("/deploy", a.carry(ci.token)), a.unauthorized("invalid_token"))
}

var logoutAllRows = rows{"logout-all", []row{
	{"all are dead, and nobody else's", logoutAll},
	{"without this one", logoutAllButThis},
	{"a body that is no answer", logoutAllBadBody},
	{"the delete was not acknowledged", logoutAllNotAcknowledged},
}}

func logoutAll(t *testing.T, w world) {
	a := w.app(t)
	bob, bobs := a.loggedIn()
	for what, b := range map[string]body{
		"no body":                {},
		"no body, but a type":    {contentType: "application/json"},
		"an empty form":          asForm(),
		"an empty object":        asJSON(),
		"an empty multipart":     asMultipart("unused", ""),
		"keep_current=false":     asForm("keep_current", "false"),
		"keep_current: false":    rawJSON(`{"keep_current": false}`),
		"keep_current: null":     rawJSON(`{"keep_current": null}`),
		"keep_current is empty":  asForm("keep_current", ""),
		"another field":          asForm("keep", "true"),
		"false, in a multipart":  asMultipart("keep_current", "0"),
		"in capitals, so unused": asForm("Keep_Current", "true"),
	} {
		user := a.user(active)
		tokens := a.loginNTimes(user, 2)
		a.expect(what, a.post("/auth/logout-all", b, a.carry(tokens[1])), a.loggedOut())
		a.expectAlive(what, user, tokens)
		a.expectSessions(user, 0)
	}
	a.expect("another user", a.get("/guarded", a.carry(bobs)), welcome(bob))
	// In the URL it counts for nothing.
	a.expect("in the URL", a.post("/auth/logout-all?keep_current=true", nothing, a.carry(bobs)), a.loggedOut())
}

func logoutAllButThis(t *testing.T, w world) {
	a := w.app(t)
	for what, b := range map[string]body{
		"form":      asForm("keep_current", "true"),
		"form, on":  asForm("keep_current", "on"),
		"form, 1":   asForm("keep_current", "1"),
		"multipart": asMultipart("keep_current", "true"),
		"JSON":      rawJSON(`{"keep_current": true}`),
	} {
		user := a.user(active)
		tokens := a.loginNTimes(user, 3)
		a.expect(what, a.post("/auth/logout-all", b, a.carry(tokens[1])), noContent())
		a.expectAlive(what, user, tokens, 1)
		a.expectSessions(user, 1)
	}
}

func logoutAllBadBody(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	for what, b := range map[string]body{
		"form":      asForm("keep_current", "maybe"),
		"multipart": asMultipart("keep_current", "2"),
		"number":    rawJSON(`{"keep_current": 1}`),
		"string":    rawJSON(`{"keep_current": "maybe"}`),
		"object":    rawJSON(`{"keep_current": {}}`),
	} {
		a.expectInvalid(what, a.post("/auth/logout-all", b, a.carry(tokens[0])), "bool_parsing", "body.keep_current")
	}
	for _, enc := range encodings {
		b := enc.of("keep_current", "true", "keep_current", "true")
		a.expectInvalid(enc.name+" twice", a.post("/auth/logout-all", b, a.carry(tokens[0])), anyType, "body.keep_current")
	}
	a.expectInvalid("broken", a.post("/auth/logout-all", rawJSON(`{`), a.carry(tokens[0])), anyType, "body")
	large := filledUp(asJSON(), "", maxBody+1)
	a.expect("large", a.post("/auth/logout-all", large, a.carry(tokens[0])), refused(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE"))
	a.expect("a type that is none of them", a.post("/auth/logout-all", body{"text/plain", "all"}, a.carry(tokens[0])),
		refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))
	a.expectAlive("afterwards", user, tokens, 0, 1)
}

func logoutAllNotAcknowledged(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	tokens := a.loginNTimes(user, 2)
	for _, failure := range failures {
		for what, b := range map[string]body{"all": {}, "all but this": asForm("keep_current", "true")} {
			a.db.fail(deleteTokens, failure.err)
			a.expect(what, a.post("/auth/logout-all", b, a.carry(tokens[0])), unavailable())
			a.db.mend()
			a.expectAlive(what, user, tokens, 0, 1)
		}
	}
	a.expect("try again", a.post("/auth/logout-all", nothing, a.carry(tokens[0])), a.loggedOut())
	a.expectAlive("afterwards", user, tokens)
}
