package main

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	mongooptions "go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/account"
)

// link waits for the next mail, which must be of this kind and to this address, and returns the
// link in it.
func (s *rig) link(kind account.MessageKind, to string) string {
	s.t.Helper()
	select {
	case m := <-s.mails:
		if m.Kind != kind && (m.Kind == account.MessagePasswordChanged || m.Kind == account.MessageEmailChanged) {
			return s.link(kind, to) // a notice of a change, without a link
		}
		if m.Kind != kind || m.To != to {
			s.t.Fatalf("got a mail of the kind %s to %s, want %s to %s", m.Kind, m.To, kind, to)
		}
		return regexp.MustCompile(`https?://\S+`).FindString(mailText(s.base, m))
	case <-time.After(10 * time.Second):
		s.t.Fatalf("got no mail of the kind %s", kind)
	}
	return ""
}

func (b *browser) wantNotice(text string) {
	b.t.Helper()
	if got := b.text(".notice"); !strings.Contains(got, text) {
		b.t.Errorf("the page says %q, want %q", got, text)
	}
}

// The life of an account, on a desktop and on a phone.
func TestBrowserAccountFromSignUpToDeletion(t *testing.T) {
	for name, viewport := range map[string]void{
		"desktop": chromedp.EmulateViewport(1280, 800),
		"phone":   chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile),
	} {
		t.Run(name, func(t *testing.T) {
			b, s := newBrowser(t, ""), newRig(t, latchkey.Config{})
			b.do(viewport)
			const address, newAddress, password, newPassword = "nina@example.com", "nora@example.com", "a good long password", "another good password"

			b.open(s.base + "/login")
			b.click(`//main//a[.="Create an account"]`)
			b.fill("name", "Nina")
			b.fill("email", address)
			b.fill("password", password)
			b.clickButton("Create account")
			b.wantNotice("check your mail")

			b.open(s.link(account.MessageVerification, address))
			b.clickButton("Confirm the address")
			b.wantNotice("confirmed")
			b.fill("email", address)
			b.fill("password", password)
			b.clickButton("Sign in")
			b.click(`//main//a[.="Your account"]`)
			if got := b.text("main"); !strings.Contains(got, "which is confirmed") {
				t.Errorf("the account's page says %q", got)
			}

			b.click(`//main//a[.="Your address"]`)
			b.fill("email", newAddress)
			b.clickButton("Send the message")
			b.wantNotice("new address")
			if s.link(account.MessageEmailChanging, address); t.Failed() {
				return
			}
			b.open(s.link(account.MessageEmailChange, newAddress))
			b.clickButton("Confirm the address")
			b.wantNotice("confirmed")
			b.open(s.base + "/account")
			if got := b.text("main"); !strings.Contains(got, newAddress) {
				t.Errorf("the account's page says %q", got)
			}

			b.click(`//main//a[.="Your API tokens"]`)
			b.fill("name", "backup script")
			b.clickButton("Make a token")
			token := b.text("#token")
			script := func() int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.base+"/api/account", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				return resp.StatusCode
			}
			if got := script(); got != http.StatusOK {
				t.Errorf("the script got %d, want 200", got)
			}
			b.clickButton("Revoke")
			b.wantNotice("revoked")
			if got := script(); got != http.StatusUnauthorized {
				t.Errorf("after the token was revoked, the script got %d, want 401", got)
			}

			b.open(s.base + "/forgot")
			b.fill("email", newAddress)
			b.clickButton("Send the message")
			b.wantNotice("check your mail")
			b.open(s.link(account.MessagePasswordReset, newAddress))
			b.fill("password", newPassword)
			b.clickButton("Set the password")
			b.wantNotice("password was changed")
			b.wantSignedOut(s) // the reset ended the session

			b.fill("email", newAddress)
			b.fill("password", newPassword)
			b.clickButton("Sign in")
			b.open(s.base + "/account/delete")
			b.do(chromedp.Click(field("sure")))
			b.clickButton("Delete the account")
			b.wantNotice("deleted")
			if got := b.cookies(); len(got) != 0 {
				t.Errorf("got the cookies %v, want none", got)
			}
			b.open(s.base + "/login")
			b.fill("email", newAddress)
			b.fill("password", newPassword)
			if got := b.clickButton("Sign in"); got != http.StatusBadRequest {
				t.Errorf("the deleted account: got %d, want 400", got)
			}
		})
	}
}

// A stranger sees the same for a new and for a taken address.
func TestSignUpTellsNobodyWhoHasAnAccount(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()
	for email, kind := range map[string]account.MessageKind{"new@example.com": account.MessageVerification, "member@example.com": account.MessageEmailTaken} {
		v.wantRedirect(v.post("/signup", "name", "Nina", "email", email, "password", "a good long password"), "/?done=signup")
		s.link(kind, email)
	}
	for _, email := range []string{"member@example.com", "nobody@example.com"} {
		v.wantRedirect(v.post("/forgot", "email", email), "/login?done=forgot")
	}
	for name, fields := range map[string][]string{
		"no name":          {"email", "a@example.com", "password", "a good long password"},
		"no address":       {"name", "A", "email", "a", "password", "a good long password"},
		"a short password": {"name", "A", "email", "member@example.com", "password", "short"},
	} {
		if got := v.post("/signup", fields...); got.status != http.StatusBadRequest || !strings.Contains(got.body, `id="error"`) {
			t.Errorf("%s: got %d, want 400 and an error", name, got.status)
		}
	}
}

// Programs follow the links in mails: that changes nothing, and a used or wrong token is
// explained.
func TestLinksInMailsChangeNothing(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()
	v.post("/forgot", "email", "member@example.com")
	link, err := url.Parse(s.link(account.MessagePasswordReset, "member@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	token := link.Query().Get("token")
	for range 3 {
		v.wantAnswer(v.get(link.RequestURI()), http.StatusOK, "Set a new password")
	}
	v.login()
	v.wantAnswer(v.post("/reset", "token", token, "password", "short"), http.StatusBadRequest, "at least 8 characters", token)
	v.wantRedirect(v.post("/reset", "token", token, "password", "another good password"), "/login?done=reset")
	for path, text := range map[string]string{"/reset": "out of date", "/verify": "out of date"} {
		v.wantAnswer(v.post(path, "token", token, "password", "a third good password"), http.StatusBadRequest, text)
		v.wantAnswer(v.post(path, "token", "x", "password", "a third good password"), http.StatusBadRequest, text)
	}
	v.wantRedirect(v.get("/members"), "/login?next=%2Fmembers") // the reset ended the session
}

func TestAccountPages(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor().login()
	v.wantRedirect(v.post("/account/name", "name", " Mia "), "/account?done=name")
	v.wantAnswer(v.get("/account"), http.StatusOK, `value="Mia"`, "not confirmed yet")
	v.wantAnswer(v.post("/account/name", "name", ""), http.StatusBadRequest, `id="error"`)
	v.wantRedirect(v.post("/account/verify"), "/account?done=sent")
	s.link(account.MessageVerification, "member@example.com")
	v.wantAnswer(v.post("/account/email", "email", "friend@example.com"), http.StatusBadRequest, "cannot be used")
	v.wantAnswer(v.post("/account/email", "email", "x"), http.StatusBadRequest, "not an email address")
	v.wantAnswer(v.post("/account/delete"), http.StatusBadRequest, "tick the box")
	v.wantAnswer(v.post("/tokens"), http.StatusBadRequest, `id="error"`)
	v.wantAnswer(v.post("/tokens/x/revoke"), http.StatusNotFound)
	v.wantRedirect(v.post("/tokens/"+uuid.NewString()+"/revoke"), "/tokens?done=revoked")
	s.ageLogins(11 * time.Minute)
	for _, path := range []string{"/account/email", "/account/delete", "/tokens"} {
		v.wantRedirect(v.post(path), "/confirm?next="+url.QueryEscape(path))
	}
	for _, path := range []string{"/account/name", "/account/delete", "/tokens"} {
		v.wantAnswer(v.do(http.MethodPost, path, url.Values{"sure": {"true"}}, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden)
	}
}

// Visitors' forms need no cookie, so the guards do not check their origin.
func TestVisitorsFormsOfOtherOriginsAreRejected(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()
	v.post("/forgot", "email", "member@example.com")
	link, err := url.Parse(s.link(account.MessagePasswordReset, "member@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	token, before := link.Query().Get("token"), s.contents()
	form := url.Values{"token": {token}, "name": {"Nina"}, "email": {"friend@example.com"}, "password": {"another good password"}}
	for _, path := range []string{"/signup", "/verify", "/forgot", "/reset"} {
		for _, site := range []string{"cross-site", "same-site"} {
			v.wantAnswer(v.do(http.MethodPost, path, form, "Sec-Fetch-Site", site), http.StatusForbidden, "another website")
		}
	}
	if s.contents() != before {
		t.Error("a form of another origin changed the database")
	}
	select {
	case m := <-s.mails:
		t.Errorf("a form of another origin sent a mail of the kind %s", m.Kind)
	default:
	}
	v.wantRedirect(v.do(http.MethodPost, "/reset", form, "Sec-Fetch-Site", "same-origin"), "/login?done=reset")
}

// Opening a link from a mail changes no document. An expired token changes none either, and the
// page says what to do.
func TestOpenedLinksAndExpiredTokensChangeNoDocument(t *testing.T) {
	s := newTLSRig(t)
	v := s.visitor()
	v.post("/forgot", "email", "member@example.com")
	reset := s.link(account.MessagePasswordReset, "member@example.com")
	v.post("/signup", "name", "Nina", "email", "nina@example.com", "password", "a good long password")
	verify := s.link(account.MessageVerification, "nina@example.com")

	before := s.contents()
	var links []*url.URL
	for _, link := range []string{reset, verify} {
		u, err := url.Parse(link)
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, u)
		got := v.get(u.RequestURI())
		token := u.Query().Get("token")
		v.wantAnswer(got, http.StatusOK, token)
		if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Referrer-Policy") != "same-origin" {
			t.Errorf("%s: the answer may be stored, or its address sent to other sites", u.Path)
		}
	}
	if s.contents() != before {
		t.Error("opening the links changed the database")
	}

	s.expireOneTimeTokens()
	before = s.contents()
	for _, u := range links {
		token := u.Query().Get("token")
		v.wantAnswer(v.post(u.Path, "token", token, "password", "another good password"), http.StatusBadRequest, "out of date")
	}
	if s.contents() != before {
		t.Error("expired tokens changed the database")
	}
}

// contents returns all accounts and one-time tokens, as text.
func (s *rig) contents() string {
	s.t.Helper()
	var text strings.Builder
	for _, name := range []string{"users", "one_time_tokens"} {
		cursor, err := s.db.Collection(name).Find(s.t.Context(), bson.D{}, mongooptions.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
		if err != nil {
			s.t.Fatal(err)
		}
		var documents []bson.Raw
		if err := cursor.All(s.t.Context(), &documents); err != nil {
			s.t.Fatal(err)
		}
		if len(documents) == 0 {
			s.t.Fatalf("the collection %s is empty", name)
		}
		for _, d := range documents {
			text.WriteString(d.String())
		}
	}
	return text.String()
}

// expireOneTimeTokens sets the expiry of all one-time tokens to a moment ago.
func (s *rig) expireOneTimeTokens() {
	s.t.Helper()
	_, err := s.db.Collection("one_time_tokens").UpdateMany(s.t.Context(), bson.D{},
		bson.D{{Key: "$set", Value: bson.D{{Key: "expires_at", Value: time.Now().Add(-time.Second)}}}})
	if err != nil {
		s.t.Fatal(err)
	}
}
