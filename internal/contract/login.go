package contract

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
)

var loginRows = section{"login", []row{
	{"success", loginSucceeds},
	{"success where tokens never expire", loginWithoutExpiry},
	{"every login issues a new token", loginsIssueDifferentTokens},
	{"the body is urlencoded, multipart or JSON", loginEncodings},
	{"the content type may have parameters and capital letters", contentTypeSpelling},
	{"grant_type, if sent, must be password", grantType},
	{"scope, client_id and client_secret are accepted and unused", unusedOAuthFields},
	{"unknown user, wrong password, account without a password and inactive user get the same answer", badCredentialsLookTheSame},
	{"an unverified user is refused where RequireVerified is set", notVerified},
	{"a field is missing or empty", missingFields},
	{"malformed JSON", brokenJSON},
	{"malformed form", brokenForms},
	{"duplicate field", duplicateField},
	{"another content type", unsupportedContentType},
	{"body over 16 KiB", bodyTooLarge},
	{"body of exactly 16 KiB is accepted", bodyOfMaximumSize},
	{"the database fails or times out", loginWithoutDatabase},
	{"credentials in the URL are never read", credentialsInURL},
	{"an invalid token beside the password is ignored", loginWithInvalidToken},
	{"every answer has Cache-Control: no-store", answersAreNotStored},
}}

func loginSucceeds(t *testing.T, env environment) {
	r := env.rig(t)
	user, token := r.loggedIn()
	r.expect("use the token", r.get("/guarded", r.withToken(token)), welcome(user))
}

func loginWithoutExpiry(t *testing.T, env environment) {
	r := env.rig(t, neverExpires)
	user, token := r.loggedIn()
	r.clock.advance(100 * 365 * 24 * time.Hour)
	r.expect("use the token after a century", r.get("/guarded", r.withToken(token)), welcome(user))
}

func loginsIssueDifferentTokens(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	first, second := r.login(user), r.login(user)
	if first == second {
		t.Errorf("got the token %q twice, want two tokens", first)
	}
	for _, token := range []string{first, second} {
		r.expect("use one of two tokens", r.get("/guarded", r.withToken(token)), welcome(user))
	}
}

func loginEncodings(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			got := r.post("/auth/login", enc.of("username", user.Email, "password", password))
			r.tokenIn(got, lifetime)
		})
	}
}

func contentTypeSpelling(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for contentType, of := range map[string]func(...string) body{
		"application/json; charset=utf-8":                  asJSON,
		"Application/JSON":                                 asJSON,
		"application/x-www-form-urlencoded; charset=UTF-8": asForm,
	} {
		b := of("username", user.Email, "password", password)
		b.contentType = contentType
		r.tokenIn(r.post("/auth/login", b), lifetime)
	}
}

func grantType(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			got := r.post("/auth/login", enc.of("grant_type", "password", "username", user.Email, "password", password))
			r.tokenIn(got, lifetime)
			for _, other := range []string{"client_credentials", "Password", "refresh_token"} {
				got := r.post("/auth/login", enc.of("grant_type", other, "username", user.Email, "password", password))
				r.expectInvalid("grant_type "+other, got, anyType, "body.grant_type")
			}
		})
	}
}

func unusedOAuthFields(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			got := r.post("/auth/login", enc.of("username", user.Email, "password", password,
				"scope", "everything", "client_id", "app", "client_secret", "hush"))
			r.tokenIn(got, lifetime)
		})
	}
}

func badCredentialsLookTheSame(t *testing.T, env environment) {
	r := env.rig(t)
	user, inactiveUser := r.user(active), r.user(flags{active: false, verified: true})
	withoutPassword := r.user(active)
	withoutPassword.ID, withoutPassword.Email, withoutPassword.HashedPassword = uuid.New(), "bob."+withoutPassword.Email, account.PasswordHash{}
	if err := r.backend.Users.Insert(t.Context(), withoutPassword); err != nil {
		t.Fatal(err)
	}
	replies := map[string]reply{
		"account without a password":    r.loginWith(withoutPassword.Email, password),
		"unknown user":                  r.loginWith("nobody@example.com", password),
		"malformed address":             r.loginWith("nobody", password),
		"wrong password":                r.loginWith(user.Email, wrongPassword),
		"password of 2 KiB":             r.loginWith(user.Email, strings.Repeat(wrongPassword, 100)),
		"inactive user":                 r.loginWith(inactiveUser.Email, password),
		"inactive user, wrong password": r.loginWith(inactiveUser.Email, wrongPassword),
		"right password and a space":    r.loginWith(user.Email, password+" "),
	}
	for what, got := range replies {
		r.expect(what, got, badCredentials())
	}
	r.expectAlike(replies)
}

func notVerified(t *testing.T, env environment) {
	r := env.rig(t, requireVerified)
	user, inactiveUser, verified := r.user(active), r.user(flags{}), r.user(flags{active: true, verified: true})
	r.expect("right password", r.tryLogin(user), refused(http.StatusBadRequest, "LOGIN_USER_NOT_VERIFIED"))
	r.expect("wrong password", r.loginWith(user.Email, wrongPassword), badCredentials())
	r.expect("inactive user", r.tryLogin(inactiveUser), badCredentials())
	r.login(verified)
	r.setFlags(user, flags{active: true, verified: true})
	r.login(user)
}

func missingFields(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			for what, c := range map[string]struct {
				fields []string
				places []string
			}{
				"no username":                   {[]string{"password", password}, []string{"body.username"}},
				"empty username":                {[]string{"username", "", "password", password}, []string{"body.username"}},
				"no password":                   {[]string{"username", user.Email}, []string{"body.password"}},
				"empty password":                {[]string{"username", user.Email, "password", ""}, []string{"body.password"}},
				"neither":                       {nil, []string{"body.username", "body.password"}},
				"both empty":                    {[]string{"username", "", "password", ""}, []string{"body.username", "body.password"}},
				"names with other capitals":     {[]string{"Username", user.Email, "PASSWORD", password}, []string{"body.username", "body.password"}},
				"no username, and empty others": {[]string{"scope", "", "password", ""}, []string{"body.username", "body.password"}},
			} {
				r.expectInvalid(what, r.post("/auth/login", enc.of(c.fields...)), missing, c.places...)
			}
		})
	}
}

func brokenJSON(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	name, secret := `"username": `+quoted(user.Email), `"password": `+quoted(password)
	for what, content := range map[string]string{
		"empty":                   ``,
		"truncated":               `{` + name + `, ` + secret,
		"truncated in a string":   `{` + name + `, "password": "corr`,
		"array":                   `[{` + name + `, ` + secret + `}]`,
		"string":                  `"username"`,
		"null":                    `null`,
		"number":                  `42`,
		"an object, then data":    `{` + name + `, ` + secret + `} {}`,
		"an object, then a brace": `{` + name + `, ` + secret + `}}`,
		"closed by a bracket":     `{` + name + `, ` + secret + `]`,
		"no comma":                `{` + name + ` ` + secret + `}`,
		"comma at the end":        `{` + name + `, ` + secret + `,}`,
		"comma at the beginning":  `{,` + name + `, ` + secret + `}`,
		"no colon":                `{"username" ` + quoted(user.Email) + `, ` + secret + `}`,
		"single quotes":           `{'username': 'ann', 'password': 'secret'}`,
		"comment":                 `{/* me */` + name + `, ` + secret + `}`,
		"number as a name":        `{1: 2, ` + name + `, ` + secret + `}`,
		"not UTF-8":               `{` + name + `, ` + secret + `, "scope": "` + "\xff" + `"}`,
		"two byte order marks":    "\ufeff\ufeff{" + name + `, ` + secret + `}`,
		"byte order mark inside":  "{\ufeff" + name + `, ` + secret + `}`,
		"nested and unclosed":     `{"scope": ` + strings.Repeat("[", 15000),
		"nested too deeply":       `{"scope": ` + strings.Repeat("[", 8000) + strings.Repeat("]", 8000) + `,` + name,
		"NUL after the object":    `{` + name + `, ` + secret + "}\x00",
		"urlencoded form":         asForm("username", user.Email, "password", password).content,
	} {
		r.expectInvalid(what, r.post("/auth/login", rawJSON(content)), anyType, "body")
	}
	for _, value := range []string{`{"$ne": null}`, `{"$gt": ""}`, `["ann"]`, `42`, `true`, `null`} {
		got := r.post("/auth/login", rawJSON(`{"username": `+value+`, `+secret+`}`))
		r.expectInvalid("username "+value, got, anyType, "body.username")
		got = r.post("/auth/login", rawJSON(`{`+name+`, "password": `+value+`}`))
		r.expectInvalid("password "+value, got, anyType, "body.password")
	}
	got := r.post("/auth/login", rawJSON(`{`+name+`, `+secret+`, "grant_type": {"$ne": null}}`))
	r.expectInvalid("grant_type is an object", got, anyType, "body.grant_type")
}

func brokenForms(t *testing.T, env environment) {
	r := env.rig(t)
	const form = "application/x-www-form-urlencoded"
	whole := asMultipart("username", "ann", "password", password)
	for what, b := range map[string]body{
		"invalid escape":             {form, "username=%zz&password=x"},
		"semicolons":                 {form, "username=ann;password=x"},
		"multipart without boundary": {"multipart/form-data", whole.content},
		"multipart, other boundary":  {"multipart/form-data; boundary=other", whole.content},
		"multipart, truncated":       {whole.contentType, whole.content[:len(whole.content)-10]},
		"multipart, truncated value": {whole.contentType, whole.content[:len(whole.content)/2]},
		"multipart, empty":           {whole.contentType, ""},
	} {
		r.expectInvalid(what, r.post("/auth/login", b), anyType, "body")
	}
	got := r.post("/auth/login", body{form, "username=%ff&password=%ff"})
	r.expectInvalid("values that are not UTF-8", got, anyType, "body.username", "body.password")
}

func duplicateField(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			login := []string{"username", user.Email, "password", password}
			for _, again := range [][]string{
				{"username", user.Email}, {"username", "bob@example.com"}, {"username", ""},
				{"password", password}, {"password", wrongPassword}, {"password", ""},
			} {
				got := r.post("/auth/login", enc.of(append(login[:4:4], again...)...))
				r.expectInvalid("second "+strings.Join(again, "="), got, anyType, "body."+again[0])
				got = r.post("/auth/login", enc.of(append(again[:2:2], login...)...))
				r.expectInvalid("first "+strings.Join(again, "="), got, anyType, "body."+again[0])
			}
			for _, name := range []string{"grant_type", "scope", "anything"} {
				got := r.post("/auth/login", enc.of(append(login[:4:4], name, "password", name, "password")...))
				r.expectInvalid("duplicate "+name, got, anyType, "body."+name)
			}
		})
	}
	r := env.rig(t)
	got := r.post("/auth/login", rawJSON(`{"username": "ann", "user\u006eame": "bob", "password": "x"}`))
	r.expectInvalid("duplicate with an escape in its name", got, anyType, "body.username")
}

func unsupportedContentType(t *testing.T, env environment) {
	r := env.rig(t)
	user := r.user(active)
	for _, b := range []body{
		asForm("username", user.Email, "password", password),
		asJSON("username", user.Email, "password", password),
	} {
		for _, contentType := range []string{
			"", "text/plain", "application/xml", "application/jsonp", "application/json, text/plain",
			"application", "/", "*/*", "; charset=utf-8", "application/json; charset", "multipart/mixed; boundary=x",
		} {
			b.contentType = contentType
			r.expect("type "+contentType, r.post("/auth/login", b), unsupported())
		}
	}
}

const maxBody = 16 << 10

func bodyTooLarge(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			login := enc.of("username", user.Email, "password", password)
			for _, size := range []int{maxBody + 1, 2 * maxBody, 10 * maxBody} {
				large, want := filledUp(login, enc.tail, size), tooLarge()
				r.expect("with Content-Length", r.post("/auth/login", large), want)
				r.expect("in chunks", r.post("/auth/login", large, chunked), want)
			}
		})
	}
}

func bodyOfMaximumSize(t *testing.T, env environment) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			login := filledUp(enc.of("username", user.Email, "password", password), enc.tail, maxBody)
			r.tokenIn(r.post("/auth/login", login), lifetime)
			r.tokenIn(r.post("/auth/login", login, chunked), lifetime)
		})
	}
}

func loginWithoutDatabase(t *testing.T, env environment) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			r := env.rig(t)
			user := r.user(active)
			for _, what := range []call{findAccount, insertToken} {
				r.db.fail(what, failure.err)
				got := r.tryLogin(user)
				r.expect(string(what), got, unavailable())
				r.db.repair()
			}
			r.db.fail(findAccount, failure.err)
			got := r.loginWith("nobody@example.com", password)
			r.expect("unknown user", got, unavailable())
			r.db.repair()
			r.login(user)
		})
	}
}

func credentialsInURL(t *testing.T, env environment) {
	r := env.rig(t)
	user, other := r.user(active), r.user(active)
	inURL := "/auth/login?" + url.Values{"username": {user.Email}, "password": {password}}.Encode()
	for _, empty := range []body{asForm(), asJSON()} {
		r.expectInvalid("empty body", r.post(inURL, empty), missing, "body.username", "body.password")
	}
	r.expect("no body", r.post(inURL, nothing), unsupported())

	got := r.post(inURL, asForm("username", other.Email, "password", password))
	r.expect("another user in the body", r.get("/guarded", r.withToken(r.tokenIn(got, lifetime))), welcome(other))

	got = r.post("/auth/login?grant_type=refresh_token", asForm("username", user.Email, "password", password))
	r.tokenIn(got, lifetime)
}

func loginWithInvalidToken(t *testing.T, env environment) {
	for _, bad := range badTokens {
		t.Run(bad.name, func(t *testing.T) {
			r := env.rig(t)
			token := bad.make(r)
			user := r.user(active)
			r.issuedToken(r.tryLogin(user, r.withToken(token)))
		})
	}
}

// answersAreNotStored makes the auth routes give each of their answers. send checks the headers.
func answersAreNotStored(t *testing.T, env environment) {
	r := env.rig(t, requireVerified)
	user, unverified := r.user(flags{active: true, verified: true}), r.user(active)
	token := r.login(user)
	codes := map[int]bool{}
	login := func(b body) { codes[r.post("/auth/login", b).Code] = true }
	logout := func(o ...option) { codes[r.post("/auth/logout", nothing, o...).Code] = true }

	login(asForm("username", user.Email, "password", password))
	login(asForm("username", user.Email, "password", wrongPassword))
	login(asForm("username", unverified.Email, "password", password))
	login(asForm())
	login(nothing)
	login(filledUp(asJSON(), "", maxBody+1))
	logout()
	logout(r.withToken("malformed"))
	for _, failure := range failures {
		r.db.fail(findAccount, failure.err)
		r.db.fail(deleteToken, failure.err)
		login(asForm("username", user.Email, "password", password))
		logout(r.withToken(token))
		r.db.repair()
	}
	logout(r.withToken(token))

	for _, code := range []int{204, 400, 401, 413, 415, 422, 503} {
		if !codes[code] {
			t.Errorf("got no answer with status %d, want one", code)
		}
	}
}
