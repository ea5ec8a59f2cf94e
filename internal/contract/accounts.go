package contract

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

// hooks are those of the application under test. They are careless: they decode flags and IDs,
// which must have no effect.
var hooks = ginauth.Hooks[Member]{Register: decodeMember, Patch: decodeMember, View: func(m Member) map[string]any {
	return map[string]any{"name": m.Name, "is_superuser": true, "id": "x"} // the account's own win
}}

func decodeMember(_ context.Context, m *Member, body *ginauth.Body) error {
	if body.Decode("name", &m.Name) && len(m.Name) > 20 {
		body.Invalid("name", "string_too_long", "Input should have at most 20 bytes")
	}
	body.Decode("id", &m.ID)
	body.Decode("is_superuser", &m.Superuser)
	body.Decode("is_verified", &m.Verified)
	body.Decode("token_version", &m.Version)
	return nil
}

// keepMail is the Mailer.
func (r *rig) keepMail(_ context.Context, m account.Message) error {
	if token := m.Token.Reveal(); token != "" {
		r.events.keepSecret(token)
	}
	switch m.Kind {
	case account.MessagePasswordChanged, account.MessageEmailChanged:
		r.notices <- m
	default:
		r.mails <- m
	}
	return nil
}

// mail waits for the next message, which must be of this kind and to this address, and returns
// its token.
func (r *rig) mail(kind account.MessageKind, to string) string {
	r.t.Helper()
	return r.next(r.mails, kind, to)
}

// notice waits for the next message that tells of a change.
func (r *rig) notice(kind account.MessageKind, to string) {
	r.t.Helper()
	if token := r.next(r.notices, kind, to); token != "" {
		r.t.Error("the notice has a token")
	}
}

func (r *rig) next(mails chan account.Message, kind account.MessageKind, to string) string {
	r.t.Helper()
	select {
	case m := <-mails:
		if m.Kind != kind || m.To != to {
			r.t.Fatalf("got a message of the kind %s to %s, want %s to %s", m.Kind, m.To, kind, to)
		}
		return m.Token.Reveal()
	case <-time.After(time.Minute):
		r.t.Fatalf("got no message, want one of the kind %s", kind)
	}
	return ""
}

// noMail drains the queue, and fails if it had a message. The Manager sends no more.
func (r *rig) noMail(what string) {
	r.t.Helper()
	r.accounts.Close()
	select {
	case m := <-r.mails:
		r.t.Errorf("%s: got a message of the kind %s to %s, want none", what, m.Kind, m.To)
	default:
	}
}

func (r *rig) patch(path, content string, options ...option) reply {
	r.t.Helper()
	return r.send(http.MethodPatch, path, rawJSON(content), options)
}

// newAddress returns an address that no account has.
func newAddress() string { return "new." + uuid.NewString() + "@example.com" }

// userJSON is the answer that shows a user.
func userJSON(code int, m Member, more ...string) answer {
	members := []string{
		fmt.Sprintf(`"email":%q`, m.Email), fmt.Sprintf(`"id":%q`, m.ID), fmt.Sprintf(`"is_active":%v`, m.Active),
		fmt.Sprintf(`"is_superuser":%v`, m.Superuser), fmt.Sprintf(`"is_verified":%v`, m.Verified), fmt.Sprintf(`"name":%q`, m.Name),
	}
	return answer{Code: code, ContentType: inJSON, Body: "{" + strings.Join(append(members, more...), ",") + "}"}
}

// stored returns the account as it is stored.
func (r *rig) stored(id uuid.UUID) Member {
	r.t.Helper()
	m, err := r.backend.Users.ByID(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("read the account: %v", err)
	}
	return m
}

// isOf returns the user that an answer shows.
func (r *rig) userOf(got reply) Member {
	r.t.Helper()
	var shown struct {
		ID uuid.UUID `json:"id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &shown); err != nil {
		r.t.Fatalf("got %+v, want a user", got.answer)
	}
	return r.stored(shown.ID)
}

func null(code int) answer { return answer{Code: code, ContentType: inJSON, Body: "null"} }

// rejected is the answer to a password that is too short.
func rejected(code string) answer {
	return answer{Code: http.StatusBadRequest, ContentType: inJSON,
		Body: fmt.Sprintf(`{"detail":{"code":%q,"reason":"too short: less than 8 characters","reason_code":"PASSWORD_TOO_SHORT"}}`, code)}
}

func badRequest(code string) answer { return refused(http.StatusBadRequest, code) }

// times of bodies that every route of accounts refuses.
func (r *rig) expectBadBodies(send func(b body) reply, fields ...string) {
	r.t.Helper()
	for _, b := range []string{"", "x", "[]", `"a"`, "{", "{} {}", `{"a":1e999}x`, "\xff"} {
		r.expectInvalid("the body "+b, send(rawJSON(b)), anyType, "body")
	}
	for i := range fields {
		var members, empty, number, twice []string
		for j, f := range fields {
			value := `"` + strings.Repeat("a", 10) + `@example.com"`
			if i != j {
				members, empty, number, twice = append(members, `"`+f+`":`+value), append(empty, `"`+f+`":`+value), append(number, `"`+f+`":`+value), append(twice, `"`+f+`":`+value)
				continue
			}
			empty, number, twice = append(empty, `"`+f+`":""`), append(number, `"`+f+`":{"$ne":null}`), append(twice, `"`+f+`":`+value, `"`+f+`":`+value)
		}
		object := func(members []string) body { return rawJSON("{" + strings.Join(members, ",") + "}") }
		r.expectInvalid("without "+fields[i], send(object(members)), missing, "body."+fields[i])
		r.expectInvalid("with an empty "+fields[i], send(object(empty)), missing, "body."+fields[i])
		r.expectInvalid("with an operator as "+fields[i], send(object(number)), anyType, "body."+fields[i])
		r.expectInvalid("with "+fields[i]+" twice", send(object(twice)), "duplicate", "body."+fields[i])
	}
	r.expect("a form", send(asForm("email", "a@example.com", "token", "x", "password", password)), unsupported())
	r.expect("a large body", send(filledUp(rawJSON("{}"), "", 16<<10+1)), tooLarge())
}

var registerRows = section{"register", []row{
	{"201 and the user; flags and the ID in the body are ignored", register},
	{"400 for a taken address, in any spelling", registerTaken},
	{"400 for a rejected password, with the reason", registerPassword},
	{"422 for missing and ill-formed fields, and 415 and 413", registerInvalid},
	{"503 where the database fails, and no account", registerDown},
	{"202 for new and taken addresses alike, where taken addresses are concealed", registerConcealed},
	{"429 beyond the network's limit", registerLimited},
}}

func register(t *testing.T, env environment) {
	r := env.rig(t)
	email := newAddress()
	got := r.post("/auth/register", rawJSON(fmt.Sprintf(`{"email":%q,"password":%q,"name":"Nina","is_active":false,"is_superuser":true,"is_verified":true,`+
		`"id":%q,"token_version":7,"hashed_password":"x","created_at":"2020-01-01T00:00:00Z","tier":"gold"}`, strings.ToUpper(email), password, uuid.New())))
	m := r.userOf(got)
	r.expect("register", got, userJSON(http.StatusCreated, m))
	if m.Email != email || m.Name != "Nina" || !m.Active || m.Verified || m.Superuser || m.Version != 0 || r.clock.now().Sub(m.CreatedAt).Abs() > time.Second {
		t.Errorf("stored %+v", m.User)
	}
	r.events.keepSecret(m.HashedPassword.Reveal())
	r.login(m)
}

func registerTaken(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for _, email := range []string{user.Email, strings.ToUpper(user.Email), " " + user.Email, strings.Replace(user.Email, "example.com", "EXAMPLE.com", 1)} {
		r.expect(email, r.post("/auth/register", asJSON("email", email, "password", password)), badRequest("REGISTER_USER_ALREADY_EXISTS"))
	}
}

func registerPassword(t *testing.T, env environment) {
	r := env.rig(t)
	email := newAddress()
	r.expect("a short password", r.post("/auth/register", asJSON("email", email, "password", "short")), rejected("REGISTER_INVALID_PASSWORD"))
	r.expect("the same address with a good one", r.post("/auth/register", asJSON("email", email, "password", "short")), rejected("REGISTER_INVALID_PASSWORD"))
	if _, err := r.backend.Users.ByEmail(t.Context(), email); err == nil {
		t.Error("the account was stored")
	}
}

func registerInvalid(t *testing.T, env environment) {
	r := env.rig(t)
	send := func(b body) reply { return r.post("/auth/register", b) }
	r.expectBadBodies(send, "email", "password")
	r.expectInvalid("no address", send(asJSON("email", "carl", "password", password)), "value_error", "body.email")
	r.expectInvalid("an own field of another type", send(rawJSON(`{"email":"a@example.com","password":"`+password+`","name":5}`)), "string_type", "body.name")
	r.expectInvalid("an own field that a hook refuses, and a missing one", send(rawJSON(`{"email":"a@example.com","name":"`+strings.Repeat("x", 21)+`"}`)), anyType, "body.password", "body.name")
}

func registerDown(t *testing.T, env environment) {
	r := env.rig(t)
	email := newAddress()
	r.db.fail(insertAccount, context.DeadlineExceeded)
	r.expect("register", r.post("/auth/register", asJSON("email", email, "password", password)), unavailable())
	r.db.repair()
	if _, err := r.backend.Users.ByEmail(t.Context(), email); err == nil {
		t.Error("the account was stored")
	}
}

func registerConcealed(t *testing.T, env environment) {
	r := env.rig(t, withPlugin(func(c *ginauth.Config) { c.Accounts.ConcealTaken = true }))
	user, email := r.user(active), newAddress()
	r.expect("a new address", r.post("/auth/register", asJSON("email", email, "password", password, "name", "Nina")), null(http.StatusAccepted))
	verification := r.mail(account.MessageVerification, email)
	r.expect("a taken address", r.post("/auth/register", asJSON("email", user.Email, "password", password)), null(http.StatusAccepted))
	if token := r.mail(account.MessageEmailTaken, user.Email); token != "" {
		t.Error("the notice of a taken address has a token")
	}
	r.expect("a short password", r.post("/auth/register", asJSON("email", user.Email, "password", "short")), rejected("REGISTER_INVALID_PASSWORD"))
	got := r.post("/auth/verify", asJSON("token", verification))
	m := r.userOf(got)
	r.expect("verify", got, userJSON(http.StatusOK, m))
	if m.Email != email || m.Name != "Nina" || !m.Verified {
		t.Errorf("stored %+v", m.User)
	}
}

func registerLimited(t *testing.T, env environment) {
	r := env.rig(t, func(s *settings) { s.registrations = 2 })
	for range 2 {
		if got := r.post("/auth/register", asJSON("email", newAddress(), "password", password)); got.Code != http.StatusCreated {
			t.Fatalf("register: got %+v, want 201", got.answer)
		}
	}
	limited := refused(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	limited.RetryAfter = "3600"
	r.expect("the third account", r.post("/auth/register", asJSON("email", newAddress(), "password", password)), limited)
	r.clock.advance(time.Hour + time.Millisecond)
	if got := r.post("/auth/register", asJSON("email", newAddress(), "password", password)); got.Code != http.StatusCreated {
		t.Errorf("an hour later: got %+v, want 201", got.answer)
	}
}

var verifyRows = section{"verify", []row{
	{"202 null on request-verify-token for known, unknown, inactive and verified addresses", requestVerification},
	{"202 null beyond the limits of messages, and none is sent", requestsLimited},
	{"200 and the user on verify, once", verify},
	{"400 VERIFY_USER_BAD_TOKEN: bad, expired, user gone or inactive, address changed", verifyBad},
	{"400 VERIFY_USER_ALREADY_VERIFIED", verifyAgain},
	{"422, 415 and 413", verifyInvalid},
}}

func (r *rig) verification(user Member) string {
	r.t.Helper()
	r.expect("request a verification", r.post("/auth/request-verify-token", asJSON("email", user.Email)), null(http.StatusAccepted))
	return r.mail(account.MessageVerification, user.Email)
}

func requestVerification(t *testing.T, env environment) {
	r := env.rig(t)
	ann := r.user(active)
	r.verification(ann)
	replies := map[string]reply{"known": r.post("/auth/request-verify-token", asJSON("email", strings.ToUpper(ann.Email)))}
	r.mail(account.MessageVerification, ann.Email)
	replies["unknown"] = r.post("/auth/request-verify-token", asJSON("email", newAddress()))
	replies["inactive"] = r.post("/auth/request-verify-token", asJSON("email", r.user(flags{}).Email))
	replies["verified"] = r.post("/auth/request-verify-token", asJSON("email", r.user(flags{active: true, verified: true}).Email))
	r.expectAlike(replies)
	r.expect("known", replies["known"], null(http.StatusAccepted))
	r.noMail("unknown, inactive and verified")
}

func requestsLimited(t *testing.T, env environment) {
	r := env.rig(t, func(s *settings) { s.mail.PerAddress = 2 })
	ann := r.user(active)
	r.verification(ann)
	r.expect("forgot-password", r.post("/auth/forgot-password", asJSON("email", ann.Email)), null(http.StatusAccepted))
	r.mail(account.MessagePasswordReset, ann.Email)
	r.expect("the third message", r.post("/auth/forgot-password", asJSON("email", ann.Email)), null(http.StatusAccepted))
	r.expect("the fourth message", r.post("/auth/request-verify-token", asJSON("email", ann.Email)), null(http.StatusAccepted))
	r.noMail("beyond the limit")
}

func verify(t *testing.T, env environment) {
	r := env.rig(t)
	ann := r.user(active)
	session, token := r.login(ann), r.verification(ann)
	got := r.post("/auth/verify", asJSON("token", token))
	ann.Verified = true
	r.expect("verify", got, userJSON(http.StatusOK, ann))
	r.expect("the session", r.get("/verified", r.withToken(session)), welcome(ann))
	r.expect("again", r.post("/auth/verify", asJSON("token", token)), badRequest("VERIFY_USER_BAD_TOKEN"))
}

func verifyBad(t *testing.T, env environment) {
	bad := badRequest("VERIFY_USER_BAD_TOKEN")
	for name, spoil := range map[string]func(r *rig, ann Member){
		"expired":         func(r *rig, _ Member) { r.clock.advance(24*time.Hour + time.Millisecond) },
		"user gone":       func(r *rig, ann Member) { r.deleteUser(ann) },
		"user inactive":   func(r *rig, ann Member) { r.setFlags(ann, flags{}) },
		"address changed": func(r *rig, ann Member) { r.update(ann, account.Update{Email: new(newAddress())}) },
	} {
		r := env.rig(t)
		ann := r.user(active)
		token := r.verification(ann)
		spoil(r, ann)
		r.expect(name, r.post("/auth/verify", asJSON("token", token)), bad)
	}
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.expect("forgot-password", r.post("/auth/forgot-password", asJSON("email", ann.Email)), null(http.StatusAccepted))
	for name, token := range map[string]string{
		"malformed": "x", "access token": session, "token of a reset": r.mail(account.MessagePasswordReset, ann.Email),
		"unknown": "lko_" + strings.TrimPrefix(session, "lk_"), "long": strings.Repeat("x", 8000),
	} {
		r.expect(name, r.post("/auth/verify", asJSON("token", token)), bad)
	}
}

func verifyAgain(t *testing.T, env environment) {
	r := env.rig(t)
	ann := r.user(active)
	token := r.verification(ann)
	r.setFlags(ann, flags{active: true, verified: true})
	r.expect("verify", r.post("/auth/verify", asJSON("token", token)), badRequest("VERIFY_USER_ALREADY_VERIFIED"))
}

func verifyInvalid(t *testing.T, env environment) {
	r := env.rig(t)
	r.expectBadBodies(func(b body) reply { return r.post("/auth/verify", b) }, "token")
	for _, path := range []string{"/auth/request-verify-token", "/auth/forgot-password"} {
		r.expectBadBodies(func(b body) reply { return r.post(path, b) }, "email")
		r.expectInvalid("no address", r.post(path, asJSON("email", "carl@")), "value_error", "body.email")
	}
}

// update changes an account as an administrator would.
func (r *rig) update(user Member, update account.Update) {
	r.t.Helper()
	if _, err := r.accounts.Update(r.t.Context(), user.ID, update); err != nil {
		r.t.Fatalf("change the account: %v", err)
	}
}

var resetRows = section{"forgotten password", []row{
	{"202 null on forgot-password, also for unknown and inactive addresses", forgotPassword},
	{"200 null on reset-password, which ends every session", resetPassword},
	{"400 RESET_PASSWORD_BAD_TOKEN: bad, used, expired, user gone or inactive", resetBad},
	{"400 RESET_PASSWORD_INVALID_PASSWORD; the token stays good", resetInvalidPassword},
	{"422, 415 and 413", resetInvalid},
}}

func (r *rig) reset(user Member) string {
	r.t.Helper()
	r.expect("forgot-password", r.post("/auth/forgot-password", asJSON("email", user.Email)), null(http.StatusAccepted))
	return r.mail(account.MessagePasswordReset, user.Email)
}

func forgotPassword(t *testing.T, env environment) {
	r := env.rig(t)
	ann := r.user(active)
	replies := map[string]reply{"known": r.post("/auth/forgot-password", asJSON("email", strings.ToUpper(ann.Email)))}
	r.mail(account.MessagePasswordReset, ann.Email)
	replies["unknown"] = r.post("/auth/forgot-password", asJSON("email", newAddress()))
	replies["inactive"] = r.post("/auth/forgot-password", asJSON("email", r.user(flags{}).Email))
	r.expectAlike(replies)
	r.expect("known", replies["known"], null(http.StatusAccepted))
	r.noMail("unknown and inactive")
}

func resetPassword(t *testing.T, env environment) {
	r := env.rig(t)
	ann := r.user(active)
	first, second := r.login(ann), r.login(ann)
	token := r.reset(ann)
	r.expect("reset", r.post("/auth/reset-password", asJSON("token", token, "password", newPassword)), null(http.StatusOK))
	for _, session := range []string{first, second} {
		r.expect("a session", r.get("/guarded", r.withToken(session)), r.unauthorized("invalid_token"))
	}
	r.expect("the old password", r.tryLogin(ann), badCredentials())
	r.events.keepSecret(r.stored(ann.ID).HashedPassword.Reveal())
	r.issuedToken(r.loginWith(ann.Email, newPassword))
	r.notice(account.MessagePasswordChanged, ann.Email)
}

func resetBad(t *testing.T, env environment) {
	bad := badRequest("RESET_PASSWORD_BAD_TOKEN")
	for name, spoil := range map[string]func(r *rig, ann Member, token string){
		"expired":       func(r *rig, _ Member, _ string) { r.clock.advance(time.Hour + time.Millisecond) },
		"user gone":     func(r *rig, ann Member, _ string) { r.deleteUser(ann) },
		"user inactive": func(r *rig, ann Member, _ string) { r.setFlags(ann, flags{}) },
		"used": func(r *rig, _ Member, token string) {
			r.expect("reset", r.post("/auth/reset-password", asJSON("token", token, "password", newPassword)), null(http.StatusOK))
		},
		"password changed": func(r *rig, ann Member, _ string) { r.changedPassword(ann) },
		"address changed":  func(r *rig, ann Member, _ string) { r.update(ann, account.Update{Email: new(newAddress())}) },
	} {
		r := env.rig(t)
		ann := r.user(active)
		token := r.reset(ann)
		spoil(r, ann, token)
		r.expect(name, r.post("/auth/reset-password", asJSON("token", token, "password", "a third good password")), bad)
	}
	r := env.rig(t)
	ann := r.user(active)
	for name, token := range map[string]string{"malformed": "x", "token of a verification": r.verification(ann)} {
		r.expect(name, r.post("/auth/reset-password", asJSON("token", token, "password", newPassword)), bad)
	}
}

func resetInvalidPassword(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	token := r.reset(ann)
	r.expect("a short password", r.post("/auth/reset-password", asJSON("token", token, "password", "short")), rejected("RESET_PASSWORD_INVALID_PASSWORD"))
	r.expect("the session", r.get("/guarded", r.withToken(session)), welcome(ann))
	r.expect("a good one", r.post("/auth/reset-password", asJSON("token", token, "password", newPassword)), null(http.StatusOK))
}

func resetInvalid(t *testing.T, env environment) {
	r := env.rig(t)
	r.expectBadBodies(func(b body) reply { return r.post("/auth/reset-password", b) }, "token", "password")
}

const me = "/auth/users/me"

var meRows = section{"the user's own account", []row{
	{"401 without a valid token, 403 for a scoped one", meRefused},
	{"403 where the routes require verification", meUnverified},
	{"GET: 200 and the user", getMe},
	{"PATCH: 200 and the user; flags and the ID are ignored", patchMe},
	{"PATCH with a password wants a fresh login or the current password", patchPasswordNotFresh},
	{"PATCH with a password ends the other sessions", patchPassword},
	{"PATCH with a rejected password: 400", patchPasswordRejected},
	{"PATCH with an address: it changes when it is proven", patchEmail},
	{"PATCH with an address, where it changes at once", patchEmailAtOnce},
	{"PATCH with a taken address: 400", patchEmailTaken},
	{"PATCH beside a reset: 409, and the reset wins", patchBesideReset},
	{"PATCH and DELETE of a page of another origin", crossOriginMe},
	{"422, 415 and 413", patchInvalid},
	{"DELETE wants a fresh login, and ends every session", deleteMe},
	{"503 where the database fails", meDown},
}}

func meRefused(t *testing.T, env environment) {
	r := env.rig(t)
	scoped := r.scopedToken(r.user(active), strategy.WithScopes("deploy:write"))
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		send := func(options ...option) reply { return r.send(method, me, rawJSON(`{"name":"x"}`), options) }
		r.expect(method+" without a token", send(), r.unauthorized(noToken))
		r.expect(method+" with an unknown token", send(r.withToken(r.unknownToken())), r.unauthorized("invalid_token"))
		r.expect(method+" with a scoped token", send(r.withToken(scoped)), r.insufficientScope(""))
	}
}

func meUnverified(t *testing.T, env environment) {
	r := env.rig(t, requireVerified)
	user := r.user(flags{active: true, verified: true})
	session := r.login(user)
	r.expect("verified", r.get(me, r.withToken(session)), userJSON(http.StatusOK, user))
	r.setFlags(user, active)
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		r.expect(method, r.send(method, me, rawJSON(`{}`), []option{r.withToken(session)}), forbidden())
	}
}

func getMe(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.expect("GET", r.get(me, r.withToken(session)), userJSON(http.StatusOK, ann))
}

func patchMe(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.clock.advance(maxAge + time.Millisecond) // own fields need no fresh login
	got := r.patch(me, fmt.Sprintf(`{"name":"Anna","is_active":false,"is_superuser":true,"is_verified":true,"id":%q,"token_version":9,"email":%q,"password":null}`,
		uuid.New(), strings.ToUpper(ann.Email)), r.withToken(session))
	ann.Name = "Anna"
	r.expect("PATCH", got, userJSON(http.StatusOK, ann))
	if m := r.stored(ann.ID); m.Name != "Anna" || m.Superuser || m.Verified || !m.Active || m.Version != ann.Version || m.Email != ann.Email {
		t.Errorf("stored %+v", m.User)
	}
	r.expect("PATCH of nothing", r.patch(me, `{}`, r.withToken(session)), userJSON(http.StatusOK, ann))
	r.expect("the session", r.get("/guarded", r.withToken(session)), welcome(ann))
}

func patchPasswordNotFresh(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.clock.advance(maxAge + time.Millisecond)
	for _, b := range []string{`{"password":"` + newPassword + `"}`, `{"email":"` + newAddress() + `"}`, `{"name":"x","password":"` + newPassword + `"}`} {
		r.expect("not fresh", r.patch(me, b, r.withToken(session)), r.stale(600))
	}
	if m := r.stored(ann.ID); m.Name != ann.Name || m.Version != ann.Version {
		t.Errorf("stored %+v", m.User)
	}
	r.expect("a wrong password", r.patch(me, `{"password":"`+newPassword+`","current_password":"`+wrongPassword+`"}`, r.withToken(session)), badCredentials())
	got := r.patch(me, `{"password":"`+newPassword+`","current_password":"`+password+`"}`, r.withToken(session))
	if got.Code != http.StatusOK {
		t.Errorf("the right password: got %+v, want 200", got.answer)
	}
	r.noMail("refused changes")
}

// renewed returns the new token of an answer to PATCH me.
func (r *rig) renewed(got reply) string {
	r.t.Helper()
	var content struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(got.Body), &content); err != nil || got.Code != http.StatusOK {
		r.t.Fatalf("got %d, want 200 and a user", got.Code)
	}
	token := content.AccessToken
	if r.transport == (ginauth.Cookie{}) {
		if token != "" {
			r.t.Error("the token is in JSON as well")
		}
		pair, _, _ := strings.Cut(got.SetCookie, ";")
		token = strings.TrimPrefix(pair, "__Host-latchkey=")
	} else if content.TokenType != "bearer" || content.ExpiresIn <= 0 || got.SetCookie != "" {
		r.t.Errorf("got the type %q, %d s, and the cookie %q", content.TokenType, content.ExpiresIn, got.SetCookie)
	}
	r.keepSecret(token)
	return token
}

func patchPassword(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	other := r.login(ann)
	token := r.renewed(r.patch(me, `{"password":"`+newPassword+`","name":"Anna"}`, r.withToken(session)))
	for name, old := range map[string]string{"the other session": other, "the old token": session} {
		r.expect(name, r.get("/guarded", r.withToken(old)), r.unauthorized("invalid_token"))
	}
	r.expect("the new token", r.get("/fresh", r.withToken(token)), welcome(ann))
	r.expect("the old password", r.tryLogin(ann), badCredentials())
	m := r.stored(ann.ID)
	r.events.keepSecret(m.HashedPassword.Reveal())
	if m.Name != "Anna" {
		t.Errorf("stored the name %q, want Anna", m.Name)
	}
	r.notice(account.MessagePasswordChanged, ann.Email)
}

func patchPasswordRejected(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.expect("PATCH", r.patch(me, `{"password":"short"}`, r.withToken(session)), rejected("UPDATE_USER_INVALID_PASSWORD"))
	r.expect("with an address", r.patch(me, `{"password":"short","email":"`+newAddress()+`"}`, r.withToken(session)), rejected("UPDATE_USER_INVALID_PASSWORD"))
	r.expect("the session", r.get("/guarded", r.withToken(session)), welcome(ann))
	r.noMail("a rejected password")
}

func patchEmail(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	email := newAddress()
	got := r.patch(me, `{"email":"`+strings.ToUpper(email)+`","name":"Anna"}`, r.withToken(session))
	ann.Name = "Anna"
	r.expect("PATCH", got, userJSON(http.StatusOK, ann, fmt.Sprintf(`"pending_email":%q`, email)))
	if token := r.mail(account.MessageEmailChanging, ann.Email); token != "" {
		t.Error("the notice has a token")
	}
	token := r.mail(account.MessageEmailChange, email)
	r.expect("before", r.get(me, r.withToken(session)), userJSON(http.StatusOK, ann))
	old := ann.Email
	ann.Email, ann.Verified = email, true
	r.expect("verify", r.post("/auth/verify", asJSON("token", token)), userJSON(http.StatusOK, ann))
	r.notice(account.MessageEmailChanged, old)
	r.expect("again", r.post("/auth/verify", asJSON("token", token)), badRequest("VERIFY_USER_BAD_TOKEN"))
	r.expect("the session", r.get(me, r.withToken(session)), userJSON(http.StatusOK, ann))
}

func patchEmailAtOnce(t *testing.T, env environment) {
	r := env.rig(t, withPlugin(func(c *ginauth.Config) { c.Accounts.ChangeEmailAtOnce = true }))
	ann := r.user(flags{active: true, verified: true})
	session, email := r.login(ann), newAddress()
	old := ann.Email
	ann.Email, ann.Verified = email, false
	r.expect("PATCH", r.patch(me, `{"email":"`+email+`"}`, r.withToken(session)), userJSON(http.StatusOK, ann))
	r.notice(account.MessageEmailChanged, old)
	r.expect("the session", r.get("/guarded", r.withToken(session)), welcome(ann))
	r.expect("a taken address", r.patch(me, `{"email":"`+r.user(active).Email+`"}`, r.withToken(session)), badRequest("UPDATE_USER_EMAIL_ALREADY_EXISTS"))
}

func patchEmailTaken(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	r.expect("PATCH", r.patch(me, `{"name":"x","email":"`+strings.ToUpper(r.user(active).Email)+`"}`, r.withToken(session)), badRequest("UPDATE_USER_EMAIL_ALREADY_EXISTS"))
	if m := r.stored(ann.ID); m.Name != ann.Name {
		t.Error("another field was changed")
	}
	email := newAddress()
	r.patch(me, `{"email":"`+email+`"}`, r.withToken(session))
	r.mail(account.MessageEmailChanging, ann.Email)
	token := r.mail(account.MessageEmailChange, email)
	r.update(r.user(active), account.Update{Email: &email})
	r.expect("taken meanwhile", r.post("/auth/verify", asJSON("token", token)), badRequest("UPDATE_USER_EMAIL_ALREADY_EXISTS"))
}

// An attacker has a session with a fresh login, and the owner resets the password.
func patchBesideReset(t *testing.T, env environment) {
	for name, content := range map[string]string{"password": `{"password":"an attackers password"}`, "address": `{"email":"` + newAddress() + `"}`} {
		r := env.rig(t)
		ann, session := r.loggedIn()
		reset := r.reset(ann)
		r.db.then(findUser, func() { // after the guard has read the session
			r.expect("reset", r.post("/auth/reset-password", asJSON("token", reset, "password", newPassword)), null(http.StatusOK))
		})
		got := r.patch(me, content, r.withToken(session))
		r.events.keepSecret(r.stored(ann.ID).HashedPassword.Reveal())
		switch name {
		case "password":
			r.expect("PATCH", got, refused(http.StatusConflict, "CONFLICT"))
		default: // the request went through, but its token is no good
			r.mail(account.MessageEmailChanging, ann.Email)
			m := <-r.mails
			r.expect("verify", r.post("/auth/verify", asJSON("token", m.Token.Reveal())), badRequest("VERIFY_USER_BAD_TOKEN"))
		}
		r.issuedToken(r.loginWith(ann.Email, newPassword))
	}
}

func crossOriginMe(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	from := header("Sec-Fetch-Site", "cross-site")
	patched, deleted := r.patch(me, `{"name":"x"}`, r.withToken(session), from), r.delete(me, r.withToken(session), from)
	if r.transport == (ginauth.Cookie{}) {
		r.expect("PATCH", patched, refused(http.StatusForbidden, "CROSS_ORIGIN_REQUEST"))
		r.expect("DELETE", deleted, refused(http.StatusForbidden, "CROSS_ORIGIN_REQUEST"))
		r.expect("the account", r.get(me, r.withToken(session)), userJSON(http.StatusOK, ann))
		return
	}
	ann.Name = "x" // no browser adds the header of another page
	r.expect("PATCH", patched, userJSON(http.StatusOK, ann))
}

func patchInvalid(t *testing.T, env environment) {
	r := env.rig(t)
	_, session := r.loggedIn()
	send := func(b body) reply { return r.send(http.MethodPatch, me, b, []option{r.withToken(session)}) }
	r.expectBadBodies(send)
	r.expectInvalid("no address", send(rawJSON(`{"email":"carl"}`)), "value_error", "body.email")
	r.expectInvalid("types", send(rawJSON(`{"password":7,"name":[]}`)), "string_type", "body.password", "body.name")
}

func deleteMe(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	other := r.login(ann)
	r.clock.advance(maxAge + time.Millisecond)
	r.expect("not fresh", r.delete(me, r.withToken(session)), r.stale(600))
	session = r.login(ann)
	r.expect("DELETE", r.delete(me, r.withToken(session)), r.loggedOut())
	for _, token := range []string{session, other} {
		r.expect("a session", r.get("/guarded", r.withToken(token)), r.unauthorized("invalid_token"))
	}
	r.expect("the password", r.tryLogin(ann), badCredentials())
}

func meDown(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	for _, call := range []call{findToken, findUser, editAccount, applyChange} {
		r.db.fail(call, context.DeadlineExceeded)
		r.expect(string(call), r.patch(me, `{"name":"x","password":"`+newPassword+`"}`, r.withToken(session)), unavailable())
		r.db.repair()
	}
	r.db.fail(deleteAccount, context.DeadlineExceeded)
	r.expect("DELETE", r.delete(me, r.withToken(session)), unavailable())
	r.db.repair()
	r.expect("the session", r.get("/guarded", r.withToken(session)), welcome(ann))
}

var usersRows = section{"all accounts, for superusers", []row{
	{"401 without a valid token; 403 before 404 for others", usersRefused},
	{"GET {id}: 200 and the user; 404 for unknown and unparsable IDs", getUser},
	{"PATCH {id}: flags, address, password and own fields; null leaves them", patchUser},
	{"PATCH {id}: refusals as of PATCH me, and 404", patchUserRefused},
	{"DELETE {id}: 204, and every session ends", deleteUser},
	{"the list has pages, and finds addresses", listUsers},
}}

const users = "/auth/users"

// superuser returns the token of a superuser.
func (r *rig) superuser() string {
	r.t.Helper()
	return r.login(r.user(flags{active: true, superuser: true}))
}

// badIDs are IDs of no account.
func badIDs() []string {
	id := uuid.New()
	return []string{id.String(), "x", "1", "{" + id.String() + "}", "urn:uuid:" + id.String(), uuid.Nil.String(), "%00", strings.Repeat("a", 5000)}
}

func usersRefused(t *testing.T, env environment) {
	r := env.rig(t)
	ann, session := r.loggedIn()
	for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete} {
		for _, path := range []string{users + "/" + ann.ID.String(), users + "/" + uuid.NewString(), users + "/x"} {
			send := func(options ...option) reply { return r.send(method, path, rawJSON(`{}`), options) }
			r.expect(method+" without a token", send(), r.unauthorized(noToken))
			r.expect(method+" by a user", send(r.withToken(session)), forbidden())
		}
	}
	r.expect("the list without a token", r.get(users), r.unauthorized(noToken))
	r.expect("the list by a user", r.get(users, r.withToken(session)), forbidden())
}

func getUser(t *testing.T, env environment) {
	r := env.rig(t)
	admin, ann := r.superuser(), r.user(active)
	r.expect("GET", r.get(users+"/"+ann.ID.String(), r.withToken(admin)), userJSON(http.StatusOK, ann))
	r.expect("in upper case", r.get(users+"/"+strings.ToUpper(ann.ID.String()), r.withToken(admin)), userJSON(http.StatusOK, ann))
	for _, id := range badIDs() {
		r.expect("GET", r.get(users+"/"+id, r.withToken(admin)), notFound())
		r.expect("PATCH", r.patch(users+"/"+id, `{"name":"x"}`, r.withToken(admin)), notFound())
		r.expect("DELETE", r.delete(users+"/"+id, r.withToken(admin)), notFound())
	}
}

func patchUser(t *testing.T, env environment) {
	r := env.rig(t)
	admin, email := r.superuser(), newAddress()
	ann, session := r.loggedIn()
	path := users + "/" + ann.ID.String()
	patched := func(what, content string) {
		t.Helper()
		r.expect(what, r.patch(path, content, r.withToken(admin)), userJSON(http.StatusOK, ann))
		r.expect(what+", then GET", r.get(path, r.withToken(admin)), userJSON(http.StatusOK, ann))
	}
	patched("nulls", `{"password":null,"email":null,"is_active":null,"is_verified":null,"is_superuser":null,"name":null}`)
	ann.Verified, ann.Superuser, ann.Name = true, true, "Anna"
	patched("flags", `{"is_verified":true,"is_superuser":true,"name":"Anna"}`)
	r.expect("the session has the flag", r.get("/superuser", r.withToken(session)), welcome(ann))
	ann.Email, ann.Verified = email, false
	patched("the address, which is not verified then", `{"email":"`+strings.ToUpper(email)+`"}`)
	ann.Verified = true
	patched("the address again, and the flag", `{"email":"`+email+`","is_verified":true}`)
	patched("the password", `{"password":"`+newPassword+`"}`)
	r.events.keepSecret(r.stored(ann.ID).HashedPassword.Reveal())
	r.expect("the session", r.get("/guarded", r.withToken(session)), r.unauthorized("invalid_token"))
	session = r.issuedToken(r.loginWith(email, newPassword))
	ann.Active = false
	patched("deactivated", `{"is_active":false}`)
	r.expect("the session", r.get("/guarded", r.withToken(session)), r.unauthorized("invalid_token"))
}

func patchUserRefused(t *testing.T, env environment) {
	r := env.rig(t)
	admin, ann := r.superuser(), r.user(active)
	path := users + "/" + ann.ID.String()
	r.expect("a taken address", r.patch(path, `{"name":"x","email":"`+r.user(active).Email+`"}`, r.withToken(admin)), badRequest("UPDATE_USER_EMAIL_ALREADY_EXISTS"))
	r.expect("a short password", r.patch(path, `{"name":"x","password":"short"}`, r.withToken(admin)), rejected("UPDATE_USER_INVALID_PASSWORD"))
	r.expectInvalid("types", r.patch(path, `{"is_active":"yes","is_superuser":1,"name":7}`, r.withToken(admin)), anyType, "body.is_active", "body.is_superuser", "body.name")
	r.expectInvalid("no address", r.patch(path, `{"email":"carl"}`, r.withToken(admin)), "value_error", "body.email")
	r.expect("nothing was changed", r.get(path, r.withToken(admin)), userJSON(http.StatusOK, ann))
}

func deleteUser(t *testing.T, env environment) {
	r := env.rig(t)
	admin := r.superuser()
	ann, session := r.loggedIn()
	path := users + "/" + ann.ID.String()
	r.expect("DELETE", r.delete(path, r.withToken(admin)), noContent())
	r.expect("the session", r.get("/guarded", r.withToken(session)), r.unauthorized("invalid_token"))
	r.expect("again", r.delete(path, r.withToken(admin)), notFound())
}

func listUsers(t *testing.T, env environment) {
	r := env.rig(t)
	admin := r.superuser()
	prefix := uuid.NewString()
	var want []string
	for i := range 3 {
		m, err := r.accounts.Create(t.Context(), Member{User: account.User[uuid.UUID]{Email: fmt.Sprintf("%s.%d@example.com", prefix, i), Active: true}, Name: "Ann"}, password)
		if err != nil {
			t.Fatal(err)
		}
		r.events.keepSecret(m.HashedPassword.Reveal())
		want = append(want, userJSON(0, m).Body)
	}
	list := func(query string, next string, want ...string) {
		t.Helper()
		body := `"users":[` + strings.Join(want, ",") + `]}`
		if next != "" {
			body = fmt.Sprintf(`"next":%q,`, next) + body
		}
		r.expect(query, r.get(users+query, r.withToken(admin)), answer{Code: http.StatusOK, ContentType: inJSON, Body: "{" + body})
	}
	second := prefix + ".1@example.com"
	list("?email="+prefix, "", want...)
	list("?email="+strings.ToUpper(prefix), "", want...)
	list("?limit=2&email="+prefix, second, want[:2]...)
	list("?limit=2&email="+prefix+"&after="+second, "", want[2])
	list("?email="+prefix+".1", "", want[1])
	list("?email=nobody."+prefix, "")
	for _, limit := range []string{"0", "-1", "x", "1e9", "99999999999999999999"} {
		r.expectInvalid("the limit "+limit, r.get(users+"?limit="+limit, r.withToken(admin)), anyType, "query.limit")
	}
	if got := r.get(users+"?limit=1000000", r.withToken(admin)); got.Code != http.StatusOK {
		t.Errorf("a large limit: got %d, want 200", got.Code)
	}
}
