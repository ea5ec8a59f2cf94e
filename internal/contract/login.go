package contract

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

var loginRows = rows{"login", []row{
	{"success", loginSucceeds},
	{"success where tokens never expire", loginWithoutExpiry},
	{"every login yields another token", loginsYieldDifferentTokens},
	{"the body is urlencoded, multipart or JSON", loginEncodings},
	{"the media type may have parameters and capitals", mediaTypeSpelling},
	{"grant_type, if sent, must be password", grantType},
	{"scope, client_id and client_secret are accepted and unused", oauthExtras},
	{"unknown user, wrong password and inactive user look the same", badCredentialsLookTheSame},
	{"user not verified, and the routes require verification", notVerified},
	{"missing or empty field", missingFields},
	{"broken JSON", brokenJSON},
	{"broken form", brokenForms},
	{"a field twice", fieldTwice},
	{"another content type", unsupportedMediaType},
	{"body over 16 KiB", bodyTooLarge},
	{"body of exactly 16 KiB", bodyJustSmallEnough},
	{"the database fails or times out", loginWithoutDatabase},
	{"credentials in the URL are never read", credentialsInURL},
	{"credentials of an earlier login do not matter", loginWithOldToken},
	{"every answer says no-store", nothingIsStored},
}}

func loginSucceeds(t *testing.T, w world) {
	a := w.app(t)
	user, token := a.loggedIn()
	a.expect("use the token", a.get("/guarded", a.carry(token)), welcome(user))
}

func loginWithoutExpiry(t *testing.T, w world) {
	a := w.app(t, neverExpires)
	user, token := a.loggedIn()
	a.clock.advance(100 * 365 * 24 * time.Hour)
	a.expect("use the token after a century", a.get("/guarded", a.carry(token)), welcome(user))
}

func loginsYieldDifferentTokens(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	first, second := a.login(user), a.login(user)
	if first == second {
		t.Errorf("got the token %q twice, want another one", first)
	}
	for _, token := range []string{first, second} {
		a.expect("use one of two tokens", a.get("/guarded", a.carry(token)), welcome(user))
	}
}

func loginEncodings(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			got := a.post("/auth/login", enc.of("username", user.Email, "password", password))
			a.hide(a.delivered(t, got, lifetime))
		})
	}
}

func mediaTypeSpelling(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for contentType, of := range map[string]func(...string) body{
		"application/json; charset=utf-8":                  asJSON,
		"Application/JSON":                                 asJSON,
		"application/x-www-form-urlencoded; charset=UTF-8": asForm,
	} {
		b := of("username", user.Email, "password", password)
		b.contentType = contentType
		a.hide(a.delivered(t, a.post("/auth/login", b), lifetime))
	}
}

func grantType(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			got := a.post("/auth/login", enc.of("grant_type", "password", "username", user.Email, "password", password))
			a.hide(a.delivered(t, got, lifetime))
			for _, other := range []string{"client_credentials", "Password", "refresh_token"} {
				got := a.post("/auth/login", enc.of("grant_type", other, "username", user.Email, "password", password))
				a.expectInvalid("grant_type "+other, got, anyType, "body.grant_type")
			}
		})
	}
}

func oauthExtras(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			got := a.post("/auth/login", enc.of("username", user.Email, "password", password,
				"scope", "everything", "client_id", "app", "client_secret", "hush"))
			a.hide(a.delivered(t, got, lifetime))
		})
	}
}

func badCredentialsLookTheSame(t *testing.T, w world) {
	a := w.app(t)
	user, inactive := a.user(active), a.user(flags{active: false, verified: true})
	login := func(username, password string) reply {
		return a.post("/auth/login", asForm("username", username, "password", password))
	}
	replies := map[string]reply{
		"unknown user":                    login("nobody@example.com", password),
		"a name that is no address":       login("nobody", password),
		"wrong password":                  login(user.Email, wrongPassword),
		"a password of 2 KiB":             login(user.Email, strings.Repeat(wrongPassword, 100)),
		"inactive user":                   login(inactive.Email, password),
		"inactive user, wrong password":   login(inactive.Email, wrongPassword),
		"the password with a blank after": login(user.Email, password+" "),
	}
	for what, got := range replies {
		a.expect(what, got, badCredentials())
	}
	a.expectAlike(replies)
}

func notVerified(t *testing.T, w world) {
	a := w.app(t, requireVerified)
	user, inactive, verified := a.user(active), a.user(flags{}), a.user(flags{active: true, verified: true})
	right := func(u Member) body { return asForm("username", u.Email, "password", password) }
	wrong := asForm("username", user.Email, "password", wrongPassword)
	a.expect("right password", a.post("/auth/login", right(user)), refused(http.StatusBadRequest, "LOGIN_USER_NOT_VERIFIED"))
	a.expect("wrong password", a.post("/auth/login", wrong), badCredentials())
	a.expect("inactive user", a.post("/auth/login", right(inactive)), badCredentials())
	a.login(verified)
	a.setFlags(user, flags{active: true, verified: true})
	a.login(user)
}

func missingFields(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
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
				a.expectInvalid(what, a.post("/auth/login", enc.of(c.fields...)), missing, c.places...)
			}
		})
	}
}

func brokenJSON(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	name, secret := `"username": `+quoted(user.Email), `"password": `+quoted(password)
	for what, content := range map[string]string{
		"empty":                    ``,
		"truncated":                `{` + name + `, ` + secret,
		"truncated in a string":    `{` + name + `, "password": "corr`,
		"array":                    `[{` + name + `, ` + secret + `}]`,
		"string":                   `"username"`,
		"null":                     `null`,
		"number":                   `42`,
		"an object, then data":     `{` + name + `, ` + secret + `} {}`,
		"an object, then a brace":  `{` + name + `, ` + secret + `}}`,
		"closed by a bracket":      `{` + name + `, ` + secret + `]`,
		"no comma":                 `{` + name + ` ` + secret + `}`,
		"comma at the end":         `{` + name + `, ` + secret + `,}`,
		"comma at the beginning":   `{,` + name + `, ` + secret + `}`,
		"no colon":                 `{"username" ` + quoted(user.Email) + `, ` + secret + `}`,
		"single quotes":            `{'username': 'ann', 'password': 'secret'}`,
		"comment":                  `{/* me */` + name + `, ` + secret + `}`,
		"name is no string":        `{1: 2, ` + name + `, ` + secret + `}`,
		"not UTF-8":                `{` + name + `, ` + secret + `, "scope": "` + "\xff" + `"}`,
		"byte order mark":          "\ufeff{" + name + `, ` + secret + `}`,
		"nested without end":       `{"scope": ` + strings.Repeat("[", 15000),
		"nested too deeply":        `{"scope": ` + strings.Repeat("[", 8000) + strings.Repeat("]", 8000) + `,` + name,
		"a NUL behind the object":  `{` + name + `, ` + secret + "}\x00",
		"a form in JSON's clothes": asForm("username", user.Email, "password", password).content,
	} {
		a.expectInvalid(what, a.post("/auth/login", rawJSON(content)), anyType, "body")
	}
	for _, value := range []string{`{"$ne": null}`, `{"$gt": ""}`, `["ann"]`, `42`, `true`, `null`} {
		got := a.post("/auth/login", rawJSON(`{"username": `+value+`, `+secret+`}`))
		a.expectInvalid("username "+value, got, anyType, "body.username")
		got = a.post("/auth/login", rawJSON(`{`+name+`, "password": `+value+`}`))
		a.expectInvalid("password "+value, got, anyType, "body.password")
	}
	got := a.post("/auth/login", rawJSON(`{`+name+`, `+secret+`, "grant_type": {"$ne": null}}`))
	a.expectInvalid("grant_type that is an object", got, anyType, "body.grant_type")
}

func brokenForms(t *testing.T, w world) {
	a := w.app(t)
	const form = "application/x-www-form-urlencoded"
	whole := asMultipart("username", "ann", "password", password)
	for what, b := range map[string]body{
		"bad escape":                  {form, "username=%zz&password=x"},
		"semicolons":                  {form, "username=ann;password=x"},
		"multipart without boundary":  {"multipart/form-data", whole.content},
		"multipart, other boundary":   {"multipart/form-data; boundary=other", whole.content},
		"multipart, truncated":        {whole.contentType, whole.content[:len(whole.content)-10]},
		"multipart, cut in a value":   {whole.contentType, whole.content[:len(whole.content)/2]},
		"multipart with an empty end": {whole.contentType, ""},
	} {
		a.expectInvalid(what, a.post("/auth/login", b), anyType, "body")
	}
	got := a.post("/auth/login", body{form, "username=%ff&password=%ff"})
	a.expectInvalid("values that are not UTF-8", got, anyType, "body.username", "body.password")
}

func fieldTwice(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			login := []string{"username", user.Email, "password", password}
			for _, again := range [][]string{
				{"username", user.Email}, {"username", "bob@example.com"}, {"username", ""},
				{"password", password}, {"password", wrongPassword}, {"password", ""},
			} {
				got := a.post("/auth/login", enc.of(append(login[:4:4], again...)...))
				a.expectInvalid("once more "+strings.Join(again, "="), got, anyType, "body."+again[0])
				got = a.post("/auth/login", enc.of(append(again[:2:2], login...)...))
				a.expectInvalid("before it "+strings.Join(again, "="), got, anyType, "body."+again[0])
			}
			for _, name := range []string{"grant_type", "scope", "anything"} {
				got := a.post("/auth/login", enc.of(append(login[:4:4], name, "password", name, "password")...))
				a.expectInvalid(name+" twice", got, anyType, "body."+name)
			}
		})
	}
	a := w.app(t)
	got := a.post("/auth/login", rawJSON(`{"username": "ann", "user\u006eame": "bob", "password": "x"}`))
	a.expectInvalid("once more in another spelling", got, anyType, "body.username")
}

func unsupportedMediaType(t *testing.T, w world) {
	a := w.app(t)
	user := a.user(active)
	for _, b := range []body{
		asForm("username", user.Email, "password", password),
		asJSON("username", user.Email, "password", password),
	} {
		for _, contentType := range []string{
			"", "text/plain", "application/xml", "application/jsonp", "application/json, text/plain",
			"application", "/", "*/*", "; charset=utf-8", "application/json; charset", "multipart/mixed; boundary=x",
		} {
			b.contentType = contentType
			a.expect("type "+contentType, a.post("/auth/login", b), refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))
		}
	}
}

const maxBody = 16 << 10

func bodyTooLarge(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			login := enc.of("username", user.Email, "password", password)
			for _, size := range []int{maxBody + 1, 2 * maxBody, 10 * maxBody} {
				large, want := filledUp(login, enc.tail, size), refused(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE")
				a.expect("with Content-Length", a.post("/auth/login", large), want)
				a.expect("in chunks", a.post("/auth/login", large, chunked), want)
			}
		})
	}
}

func bodyJustSmallEnough(t *testing.T, w world) {
	for _, enc := range encodings {
		t.Run(enc.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			login := filledUp(enc.of("username", user.Email, "password", password), enc.tail, maxBody)
			a.hide(a.delivered(t, a.post("/auth/login", login), lifetime))
			a.hide(a.delivered(t, a.post("/auth/login", login, chunked), lifetime))
		})
	}
}

func loginWithoutDatabase(t *testing.T, w world) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			a := w.app(t)
			user := a.user(active)
			for _, what := range []call{findAccount, insertToken} {
				a.db.fail(what, failure.err)
				got := a.post("/auth/login", asForm("username", user.Email, "password", password))
				a.expect(string(what), got, unavailable())
				a.db.mend()
			}
			a.db.fail(findAccount, failure.err)
			got := a.post("/auth/login", asForm("username", "nobody@example.com", "password", password))
			a.expect("an unknown user", got, unavailable())
			a.db.mend()
			a.login(user)
		})
	}
}

func credentialsInURL(t *testing.T, w world) {
	a := w.app(t)
	user, other := a.user(active), a.user(active)
	inURL := "/auth/login?" + url.Values{"username": {user.Email}, "password": {password}}.Encode()
	for _, empty := range []body{asForm(), asJSON()} {
		a.expectInvalid("an empty body", a.post(inURL, empty), missing, "body.username", "body.password")
	}
	a.expect("no body", a.post(inURL, nothing), refused(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE"))

	got := a.post(inURL, asForm("username", other.Email, "password", password))
	token := a.delivered(t, got, lifetime)
	a.hide(token)
	a.expect("a body of another user", a.get("/guarded", a.carry(token)), welcome(other))

	got = a.post("/auth/login?grant_type=refresh_token", asForm("username", user.Email, "password", password))
	a.hide(a.delivered(t, got, lifetime))
}

func loginWithOldToken(t *testing.T, w world) {
	for _, old := range badTokens {
		t.Run(old.name, func(t *testing.T) {
			a := w.app(t)
			token := old.make(a)
			user := a.user(active)
			got := a.post("/auth/login", asForm("username", user.Email, "password", password), a.carry(token))
			a.hide(a.delivered(t, got, lifetime))
		})
	}
}

// nothingIsStored makes the auth routes give each of their answers; send checks
// the headers, here as for every other check.
func nothingIsStored(t *testing.T, w world) {
	a := w.app(t, requireVerified)
	user, unverified := a.user(flags{active: true, verified: true}), a.user(active)
	token := a.login(user)
	codes := map[int]bool{}
	login := func(b body) { codes[a.post("/auth/login", b).Code] = true }
	logout := func(o ...option) { codes[a.post("/auth/logout", nothing, o...).Code] = true }

	login(asForm("username", user.Email, "password", password))
	login(asForm("username", user.Email, "password", wrongPassword))
	login(asForm("username", unverified.Email, "password", password))
	login(asForm())
	login(nothing)
	login(filledUp(asJSON(), "", maxBody+1))
	logout()
	logout(a.carry("malformed"))
	for _, failure := range failures {
		a.db.fail(findAccount, failure.err)
		a.db.fail(deleteToken, failure.err)
		login(asForm("username", user.Email, "password", password))
		logout(a.carry(token))
		a.db.mend()
	}
	logout(a.carry(token))

	for _, code := range []int{204, 400, 401, 413, 415, 422, 503} {
		if !codes[code] {
			t.Errorf("got no answer with status %d, want one to look at", code)
		}
	}
}
