package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/latchkey-go/latchkey"
	"github.com/latchkey-go/latchkey/contrib/oidc"
	"github.com/latchkey-go/latchkey/internal/oidctest"
	"github.com/latchkey-go/latchkey/strategy"
)

// newProviderRig returns a website at which users can sign in through a provider in the test process.
func newProviderRig(t *testing.T, user oidctest.User) (*rig, *oidctest.Provider) {
	t.Helper()
	idp := oidctest.New(t, user)
	idp.AskUser = true
	return startRig(t, latchkey.Config{}, (*httptest.Server).Start, func(s *rig) {
		err := s.app.addProviders(t.Context(), s.db, oidc.Provider{
			Name: "example", Issuer: idp.Issuer, ClientID: oidctest.ClientID, ClientSecret: strategy.NewSecret(oidctest.ClientSecret),
			RedirectURL: s.base + "/auth/example/callback", AssociateURL: s.base + "/auth/associate/example/callback",
		})
		if err != nil {
			t.Fatal(err)
		}
	}), idp
}

var nora = oidctest.User{Subject: "248289761001", Email: "nora@example.com", EmailVerified: true}

func TestSignInThroughAProvider(t *testing.T) {
	s, _ := newProviderRig(t, nora)
	b := newBrowser(t, "")
	b.open(s.base + "/login")
	b.click(`//a[.="Sign in with example"]`)
	if got := b.text("h1"); !strings.Contains(got, nora.Email) {
		t.Fatalf("the provider asks %q, want the user's address", got)
	}
	if status := b.click(`//button[@id="allow"]`); status != 200 {
		t.Errorf("got the status %d, want 200", status)
	}
	b.wantURL(s.base + "/members")
	member, err := s.app.Accounts.ByEmail(t.Context(), nora.Email)
	if err != nil || !member.Verified || !member.HashedPassword.IsZero() {
		t.Errorf("got the account %+v, %v, want a verified one without a password", member, err)
	}

	// It is the only way in.
	b.open(s.base + "/account/providers")
	if status := b.clickButton("Remove"); status != 400 {
		t.Errorf("got the status %d, want 400", status)
	}
	if got := b.text("main"); !strings.Contains(got, "the only way") {
		t.Errorf("got the page %q, want why the link stays", got)
	}

	// Sign in elsewhere, as the same member.
	other := newBrowser(t, "")
	other.open(s.base + "/login")
	other.click(`//a[.="Sign in with example"]`)
	other.click(`//button[@id="allow"]`)
	other.wantURL(s.base + "/members")
	if n, err := s.db.Collection("oauth_accounts").EstimatedDocumentCount(t.Context()); n != 1 || err != nil {
		t.Errorf("there are %d links, %v, want one", n, err)
	}
}

func TestLinkAProviderToAnAccount(t *testing.T) {
	taken := nora
	taken.Email = demoAccounts[0].Email
	s, _ := newProviderRig(t, taken)
	b := newBrowser(t, "")
	b.open(s.base + "/login")
	b.click(`//a[.="Sign in with example"]`)
	b.click(`//button[@id="allow"]`)
	b.wantURL(s.base + "/login?done=exists") // nobody gets in by an address alone
	b.fill("email", demoAccounts[0].Email)
	b.fill("password", demoPassword)
	b.clickButton("Sign in")
	b.open(s.base + "/account/providers")
	b.clickButton("Link example")
	b.click(`//button[@id="allow"]`)
	b.wantURL(s.base + "/account/providers")
	if got := b.text("main"); !strings.Contains(got, taken.Email+", since") {
		t.Errorf("got the page %q, want the link", got)
	}
	if status := b.clickButton("Remove"); status != 200 { // there is a password
		t.Errorf("got the status %d, want 200", status)
	}
	b.wantURL(s.base + "/account/providers?done=unlinked")
}
