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

var sessionRows = section{"sessions", []row{
	{"the list is newest first and marks the current session", sessionsAreListed},
	{"the list contains no token and no digest", sessionsShowNoSecret},
	{"a session has these fields", sessionFields},
	{"OmitUserAgent and OmitClientIP leave both out", sessionFieldsOmitted},
	{"the user agent is cut", userAgentIsCut},
	{"the client IP follows Gin's trusted proxies", clientIPFollowsTrustedProxies},
	{"the list has pages", sessionPages},
	{"a malformed limit or after gets 422", malformedPages},
	{"the list has only the user's own sessions", onlyOwnSessions},
	{"invalid sessions are not listed", invalidSessionsAreNotListed},
	{"the session routes require a login", sessionRoutesRequireLogin},
	{"the session routes answer 503 while the database fails", sessionRoutesWithoutDatabase},
	{"the list answers 503 if it cannot be read", listFails},
}}

// sessionList is the answer of GET sessions.
type sessionList struct {
	Sessions []listedSession `json:"sessions"`
	Next     string          `json:"next"`
}

type listedSession struct {
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

// listSessions lists the sessions of a token's user.
func (r *rig) listSessions(token, query string) sessionList {
	r.t.Helper()
	return r.decodeSessions(r.get("/auth/sessions"+query, r.withToken(token)))
}

// decodeSessions returns the sessions of an answer.
func (r *rig) decodeSessions(got reply) sessionList {
	r.t.Helper()
	if got.Code != http.StatusOK || got.ContentType != inJSON {
		r.t.Fatalf("list the sessions: got %+v", got.answer)
	}
	dec := json.NewDecoder(strings.NewReader(got.Body))
	dec.DisallowUnknownFields()
	var content sessionList
	if err := dec.Decode(&content); err != nil {
		r.t.Fatalf("list the sessions: got %s: %v", got.Body, err)
	}
	return content
}

func (l sessionList) ids() (ids []uuid.UUID) {
	for _, s := range l.Sessions {
		ids = append(ids, s.ID)
	}
	return ids
}

// currentSession returns the session that is marked as current.
func (r *rig) currentSession(token string) listedSession {
	r.t.Helper()
	var found []listedSession
	for _, s := range r.listSessions(token, "?limit=200").Sessions {
		if s.Current {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		r.t.Fatalf("got %d current sessions, want 1", len(found))
	}
	return found[0]
}

// rows returns the rows of a user's sessions in the store, valid or not.
func (r *rig) rows(user Member) []accessToken {
	r.t.Helper()
	rows, err := r.backend.Tokens.ByUser(r.t.Context(), user.ID, strategy.Position{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return rows
}

// expectRows checks how many sessions of a user the store holds.
func (r *rig) expectRows(user Member, want int) {
	r.t.Helper()
	if got := len(r.rows(user)); got != want {
		r.t.Errorf("got %d rows of sessions in the store, want %d", got, want)
	}
}

// loginNTimes logs a user in n times, a second apart, and returns the tokens, oldest first.
func (r *rig) loginNTimes(user Member, n int) (tokens []string) {
	r.t.Helper()
	for range n {
		r.clock.advance(time.Second)
		tokens = append(tokens, r.login(user))
	}
	return tokens
}

// expectValid checks which tokens of a user guards accept: those with an index in want.
func (r *rig) expectValid(what string, user Member, tokens []string, want ...int) {
	r.t.Helper()
	for i, token := range tokens {
		answer := r.unauthorized("invalid_token")
		if slices.Contains(want, i) {
			answer = welcome(user)
		}
		r.expect(fmt.Sprintf("%s: use token %d", what, i), r.get("/guarded", r.withToken(token)), answer)
	}
}

func sessionsAreListed(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 3)
	for i, token := range tokens {
		got := r.listSessions(token, "")
		if len(got.Sessions) != 3 || got.Next != "" {
			t.Fatalf("got %+v, want 3 sessions and no next page", got)
		}
		for j, s := range got.Sessions {
			if want := r.clock.now().Add(time.Duration(-j) * time.Second); !s.CreatedAt.Equal(want) {
				t.Errorf("position %d: got a session created at %v, want %v", j, s.CreatedAt, want)
			}
			if want := j == 2-i; s.Current != want {
				t.Errorf("position %d: got current %v, want %v", j, s.Current, want)
			}
		}
	}
}

func sessionsShowNoSecret(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 3)
	got := r.get("/auth/sessions", r.withToken(tokens[0]))
	secrets := append(tokens, password, user.HashedPassword.Reveal(), "lk_")
	for _, row := range r.rows(user) {
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

// fields returns the JSON fields of the only session in a list.
func (r *rig) fields(got reply) map[string]string {
	r.t.Helper()
	var content struct {
		Sessions []map[string]json.RawMessage `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(got.Body), &content); err != nil || len(content.Sessions) != 1 {
		r.t.Fatalf("got %s, want one session (error %v)", got.Body, err)
	}
	fields := make(map[string]string)
	for name, value := range content.Sessions[0] {
		fields[name] = string(value)
	}
	return fields
}

func inQuotes(t time.Time) string { return quoted(t.UTC().Format(time.RFC3339Nano)) }

func sessionFields(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user := r.user(active)
	got := r.tryLogin(user, header("User-Agent", "Browser/1.0 <Ünï>"))
	token := r.issuedToken(got)
	begin := r.clock.now()
	r.clock.advance(5 * time.Minute)
	fields := r.fields(r.get("/auth/sessions", r.withToken(token), header("User-Agent", "Another/2.0")))
	want := map[string]string{
		"id":               quoted(r.rows(user)[0].ID.String()),
		"current":          "true",
		"created_at":       inQuotes(begin),
		"last_used_at":     inQuotes(r.clock.now()),
		"authenticated_at": inQuotes(begin),
		"expires_at":       inQuotes(begin.Add(lifetime)),
		"user_agent":       quoted("Browser/1.0 <Ünï>"),
		"client_ip":        `"127.0.0.1"`,
	}
	if !maps.Equal(fields, want) {
		t.Errorf("got %v\nwant %v", fields, want)
	}

	r = env.rig(t, neverExpires)
	_, token = r.loggedIn()
	fields = r.fields(r.get("/auth/sessions", r.withToken(token)))
	if fields["expires_at"] != "null" || fields["last_used_at"] != "null" {
		t.Errorf("without expiry and last use: got %v, want null for both", fields)
	}
}

func sessionFieldsOmitted(t *testing.T, env environment) {
	r := env.rig(t, withPlugin(func(cfg *ginauth.Config) { cfg.OmitUserAgent, cfg.OmitClientIP = true, true }))
	user, token := r.loggedIn()
	fields := r.fields(r.get("/auth/sessions", r.withToken(token)))
	for _, name := range []string{"user_agent", "client_ip", "name", "scopes"} {
		if value, ok := fields[name]; ok {
			t.Errorf("got %s = %s, want none", name, value)
		}
	}
	if row := r.rows(user)[0]; row.UserAgent != "" || row.ClientIP != "" {
		t.Errorf("got %+v in the store, want neither user agent nor client IP", row)
	}
}

func userAgentIsCut(t *testing.T, env environment) {
	r := env.rig(t)
	for what, agent := range map[string]string{
		"long":                 strings.Repeat("x", 8000),
		"long, two bytes each": strings.Repeat("ü", 4000),
		"not UTF-8":            strings.Repeat("\xff", 400),
	} {
		user := r.user(active)
		got := r.tryLogin(user, header("User-Agent", agent))
		s := r.currentSession(r.issuedToken(got))
		if n := len(s.UserAgent); n == 0 || n > 256 {
			t.Errorf("%s: got a user agent of %d bytes, want 1 to 256", what, n)
		}
	}
}

func clientIPFollowsTrustedProxies(t *testing.T, env environment) {
	for _, c := range []struct {
		what    string
		proxies []string
		want    string
	}{
		{"no proxy is trusted", nil, "127.0.0.1"},
		{"the proxy is trusted", []string{"127.0.0.1"}, "203.0.113.7"},
	} {
		r := env.rig(t, func(s *settings) { s.trustedProxies = c.proxies })
		user := r.user(active)
		got := r.tryLogin(user, header("X-Forwarded-For", "203.0.113.7"))
		if s := r.currentSession(r.issuedToken(got)); s.ClientIP != c.want {
			t.Errorf("%s: got the client IP %q, want %q", c.what, s.ClientIP, c.want)
		}
	}
}

func sessionPages(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	// Two sessions of one millisecond, at the end of a page.
	tokens := append(r.loginNTimes(user, 3), r.login(user))
	tokens = append(tokens, r.loginNTimes(user, 1)...)
	whole := r.listSessions(tokens[0], "").ids()
	for _, limit := range []int{1, 2, 3, 4, 5, 6, 200, 100000} {
		var found []uuid.UUID
		pages, query := 0, fmt.Sprintf("?limit=%d", limit)
		for next := ""; pages == 0 || next != ""; pages++ {
			page := r.listSessions(tokens[0], query+"&after="+next)
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

	// The end of a session between two pages does not shift the second page, even if it is the
	// last session of the first.
	first := r.listSessions(tokens[0], "?limit=2")
	r.expect("end the second", r.delete("/auth/sessions/"+whole[1].String(), r.withToken(tokens[0])), noContent())
	second := r.listSessions(tokens[0], "?limit=2&after="+first.Next)
	if !slices.Equal(second.ids(), whole[2:4]) {
		t.Errorf("after the end of the second: got %v, want %v", second.ids(), whole[2:4])
	}
}

func malformedPages(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, limit := range []string{"0", "-1", "x", "1.5", "1e3", "%20", "0x10", "99999999999999999999"} {
		r.expectInvalid("limit "+limit, r.get("/auth/sessions?limit="+limit, r.withToken(token)), "int_parsing", "query.limit")
	}
	for _, after := range []string{"x", "lk_malformed", "%00", uuid.NewString(), "AAAA", strings.Repeat("A", 33), strings.Repeat("A", 10000), "%24ne"} {
		r.expectInvalid("after "+after, r.get("/auth/sessions?after="+after, r.withToken(token)), anyType, "query.after")
	}
	// Well-formed positions that no answer has returned.
	for _, b := range []byte{0, 0x7f, 0x80, 0xff} {
		after := base64.RawURLEncoding.EncodeToString(slices.Repeat([]byte{b}, 24))
		if got := r.get("/auth/sessions?after="+after, r.withToken(token)); got.Code != http.StatusOK {
			t.Errorf("after %s: got %+v, want 200", after, got.answer)
		}
	}
}

func onlyOwnSessions(t *testing.T, env environment) {
	r := env.rig(t)
	_, annToken, _, bobToken := r.twoUsers()
	for _, token := range []string{annToken, bobToken} {
		if got := r.listSessions(token, "").Sessions; len(got) != 1 || !got[0].Current {
			t.Errorf("got %+v, want only the current session", got)
		}
	}
	if r.currentSession(annToken).ID == r.currentSession(bobToken).ID {
		t.Error("got the same session for two users")
	}
}

func invalidSessionsAreNotListed(t *testing.T, env environment) {
	r := env.rig(t, withIdleTimeout)
	user := r.user(active)
	old := r.login(user)
	r.clock.advance(idleTimeout + time.Millisecond)
	r.expect("the idle session", r.get("/guarded", r.withToken(old)), r.unauthorized("invalid_token"))
	if got := r.listSessions(r.login(user), ""); len(got.Sessions) != 1 {
		t.Errorf("idle: got %+v, want one session", got)
	}

	r = env.rig(t)
	user = r.user(active)
	r.login(user)
	r.clock.advance(lifetime)
	token := r.login(user)
	if got := r.listSessions(token, ""); len(got.Sessions) != 2 {
		t.Errorf("at the end of its lifetime: got %+v, want two sessions", got)
	}
	r.clock.advance(time.Millisecond)
	if got := r.listSessions(token, ""); len(got.Sessions) != 1 {
		t.Errorf("a millisecond later: got %+v, want one session", got)
	}

	if err := r.accounts.RevokeTokens(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	if got := r.listSessions(r.login(user), ""); len(got.Sessions) != 1 {
		t.Errorf("revoked: got %+v, want one session", got)
	}
}

// managementRoutes are requests to the routes that manage a login.
var managementRoutes = map[string]func(*rig, ...option) reply{
	"GET sessions":    func(r *rig, o ...option) reply { return r.get("/auth/sessions", o...) },
	"DELETE sessions": func(r *rig, o ...option) reply { return r.delete("/auth/sessions/"+uuid.NewString(), o...) },
	"logout-all":      func(r *rig, o ...option) reply { return r.post("/auth/logout-all", nothing, o...) },
	"reauthenticate": func(r *rig, o ...option) reply {
		return r.tryReauthenticate(password, o...)
	},
	"introspect": func(r *rig, o ...option) reply { return r.post("/auth/introspect", asForm("token", "x"), o...) },
}

func sessionRoutesRequireLogin(t *testing.T, env environment) {
	r := env.rig(t)
	for what, request := range managementRoutes {
		r.expect(what, request(r), r.unauthorized(noToken))
		r.expect(what+", another scheme", request(r, authorization("Basic x")), r.unauthorized(noToken))
	}
	for _, bad := range badTokens {
		token := bad.make(r)
		for what, request := range managementRoutes {
			r.expect(what+", "+bad.name, request(r, r.withToken(token)), r.unauthorized("invalid_token"))
		}
	}
}

func sessionRoutesWithoutDatabase(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(flags{active: true, superuser: true})
	token := r.login(user)
	for _, failure := range failures {
		for _, what := range []call{findToken, findUser} {
			r.db.fail(what, failure.err)
			for name, request := range managementRoutes {
				r.expect(name+": "+string(what), request(r, r.withToken(token)), unavailable())
			}
			r.db.repair()
		}
	}
	r.expect("use the token afterwards", r.get("/guarded", r.withToken(token)), welcome(user))
}

func listFails(t *testing.T, env environment) {
	r := env.rig(t)
	_, token := r.loggedIn()
	for _, failure := range failures {
		r.db.fail(listTokens, failure.err)
		r.expect(failure.name, r.get("/auth/sessions", r.withToken(token)), unavailable())
		r.db.repair()
	}
}

var endSessionRows = section{"end a session", []row{
	{"the session and no other is invalid at once", endSession},
	{"ending the current session clears the cookie", endCurrentSession},
	{"sessions of other users, unknown and malformed IDs get the same 404", noSuchSession},
	{"the delete was not acknowledged", endSessionNotAcknowledged},
	{"a scoped token can be ended", endScopedToken},
}}

func endSession(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 3)
	id := r.currentSession(tokens[1]).ID.String()
	r.expect("end it", r.delete("/auth/sessions/"+id, r.withToken(tokens[0])), noContent())
	r.expectValid("afterwards", user, tokens, 0, 2)
	r.expect("end it again", r.delete("/auth/sessions/"+id, r.withToken(tokens[0])), notFound())
	id = r.currentSession(tokens[2]).ID.String()
	r.expect("in capitals", r.delete("/auth/sessions/"+strings.ToUpper(id), r.withToken(tokens[0])), noContent())
	r.expectValid("afterwards", user, tokens, 0)
}

func endCurrentSession(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	id := r.currentSession(tokens[0]).ID.String()
	r.expect("end it", r.delete("/auth/sessions/"+id, r.withToken(tokens[0])), r.loggedOut())
	r.expectValid("afterwards", user, tokens, 1)
}

func noSuchSession(t *testing.T, env environment) {
	r := env.rig(t)
	ann, annToken, bob, bobToken := r.twoUsers()
	own, others := r.currentSession(annToken).ID.String(), r.currentSession(bobToken).ID.String()
	replies := make(map[string]reply)
	for what, id := range map[string]string{
		"another user's":         others,
		"unknown":                uuid.NewString(),
		"zero":                   uuid.Nil.String(),
		"malformed":              "x",
		"without hyphens":        strings.ReplaceAll(own, "-", ""),
		"in braces":              "%7B" + own + "%7D",
		"as a URN":               "urn:uuid:" + own,
		"with a space":           own + "%20",
		"with a NUL":             own + "%00",
		"the digest":             r.rows(ann)[0].Digest,
		"the token":              annToken,
		"an operator":            "%7B%22%24ne%22%3A1%7D",
		"own with another digit": own[:35] + string(own[35]^1),
	} {
		replies[what] = r.delete("/auth/sessions/"+id, r.withToken(annToken))
		r.expect(what, replies[what], notFound())
	}
	r.expectAlike(replies)
	r.expectValid("Ann", ann, []string{annToken}, 0)
	r.expectValid("Bob", bob, []string{bobToken}, 0)
}

func endSessionNotAcknowledged(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	for _, i := range []int{1, 0} { // the current session last
		path := "/auth/sessions/" + r.currentSession(tokens[i]).ID.String()
		for _, failure := range failures {
			r.db.fail(deleteToken, failure.err)
			r.expect(failure.name, r.delete(path, r.withToken(tokens[0])), unavailable())
			r.db.repair()
			r.expectValid(failure.name, user, tokens[:i+1], 0, i)
		}
		r.db.loseAnswer(deleteToken, failures[0].err)
		r.expect("the answer is lost", r.delete(path, r.withToken(tokens[0])), unavailable())
		r.db.repair()
		r.expect("the session is invalid", r.get("/guarded", r.withToken(tokens[i])), r.unauthorized("invalid_token"))
	}
}

func endScopedToken(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	ci := r.scoped(user, strategy.WithScopes("deploy:write", "tag:write"), strategy.WithName("ci"))
	r.clock.advance(time.Second)
	found := r.listSessions(ci.login, "").Sessions
	i := slices.IndexFunc(found, func(s listedSession) bool { return s.ID == ci.id })
	if i < 0 || found[i].Name != "ci" || !slices.Equal(found[i].Scopes, []string{"deploy:write", "tag:write"}) ||
		found[i].AuthenticatedAt != nil || found[i].Current {
		t.Errorf("got %+v, want the token with its name and scopes and without authenticated_at", found)
	}
	r.expect("before", r.get("/deploy", r.withToken(ci.token)), welcome(user))
	r.expect("end it", r.delete("/auth/sessions/"+ci.id.String(), r.withToken(ci.login)), noContent())
	r.expect("after", r.get("/deploy", r.withToken(ci.token)), r.unauthorized("invalid_token"))
}

var logoutAllRows = section{"logout-all", []row{
	{"all sessions of the user and of no other user end", logoutAll},
	{"keep_current keeps the current session", logoutAllKeepsCurrent},
	{"a malformed body ends no session", logoutAllBadBody},
	{"the delete was not acknowledged", logoutAllNotAcknowledged},
}}

func logoutAll(t *testing.T, env environment) {
	r := env.rig(t)
	bob, bobToken := r.loggedIn()
	for what, b := range map[string]body{
		"no body":               {},
		"no body, but a type":   {contentType: "application/json"},
		"an empty form":         asForm(),
		"an empty object":       asJSON(),
		"an empty multipart":    asMultipart("unused", ""),
		"keep_current=false":    asForm("keep_current", "false"),
		"keep_current: false":   rawJSON(`{"keep_current": false}`),
		"keep_current: null":    rawJSON(`{"keep_current": null}`),
		"keep_current is empty": asForm("keep_current", ""),
		"another field":         asForm("keep", "true"),
		"false, in a multipart": asMultipart("keep_current", "0"),
		"in capitals, ignored":  asForm("Keep_Current", "true"),
	} {
		user := r.user(active)
		tokens := r.loginNTimes(user, 2)
		r.expect(what, r.post("/auth/logout-all", b, r.withToken(tokens[1])), r.loggedOut())
		r.expectValid(what, user, tokens)
		r.expectRows(user, 0)
	}
	r.expect("another user", r.get("/guarded", r.withToken(bobToken)), welcome(bob))
	// A field in the URL is ignored.
	r.expect("in the URL", r.post("/auth/logout-all?keep_current=true", nothing, r.withToken(bobToken)), r.loggedOut())
}

func logoutAllKeepsCurrent(t *testing.T, env environment) {
	r := env.rig(t)
	for what, b := range map[string]body{
		"form":      asForm("keep_current", "true"),
		"form, on":  asForm("keep_current", "on"),
		"form, 1":   asForm("keep_current", "1"),
		"multipart": asMultipart("keep_current", "true"),
		"JSON":      rawJSON(`{"keep_current": true}`),
	} {
		user := r.user(active)
		tokens := r.loginNTimes(user, 3)
		r.expect(what, r.post("/auth/logout-all", b, r.withToken(tokens[1])), noContent())
		r.expectValid(what, user, tokens, 1)
		r.expectRows(user, 1)
	}
}

func logoutAllBadBody(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	for what, b := range map[string]body{
		"form":      asForm("keep_current", "maybe"),
		"multipart": asMultipart("keep_current", "2"),
		"number":    rawJSON(`{"keep_current": 1}`),
		"string":    rawJSON(`{"keep_current": "maybe"}`),
		"object":    rawJSON(`{"keep_current": {}}`),
	} {
		r.expectInvalid(what, r.post("/auth/logout-all", b, r.withToken(tokens[0])), "bool_parsing", "body.keep_current")
	}
	for _, enc := range encodings {
		b := enc.of("keep_current", "true", "keep_current", "true")
		r.expectInvalid(enc.name+" twice", r.post("/auth/logout-all", b, r.withToken(tokens[0])), anyType, "body.keep_current")
	}
	r.expectInvalid("broken", r.post("/auth/logout-all", rawJSON(`{`), r.withToken(tokens[0])), anyType, "body")
	large := filledUp(asJSON(), "", maxBody+1)
	r.expect("large", r.post("/auth/logout-all", large, r.withToken(tokens[0])), tooLarge())
	r.expect("another content type", r.post("/auth/logout-all", body{"text/plain", "all"}, r.withToken(tokens[0])),
		unsupported())
	r.expectValid("afterwards", user, tokens, 0, 1)
}

func logoutAllNotAcknowledged(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	tokens := r.loginNTimes(user, 2)
	for _, failure := range failures {
		for what, b := range map[string]body{"all": {}, "all but this": asForm("keep_current", "true")} {
			r.db.fail(deleteTokens, failure.err)
			r.expect(what, r.post("/auth/logout-all", b, r.withToken(tokens[0])), unavailable())
			r.db.repair()
			r.expectValid(what, user, tokens, 0, 1)
		}
	}
	r.expect("try again", r.post("/auth/logout-all", nothing, r.withToken(tokens[0])), r.loggedOut())
	r.expectValid("afterwards", user, tokens)
}
