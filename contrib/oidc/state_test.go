package oidc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/latchkey-go/latchkey/contrib/oidc"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestStateIsReadFromItsCookie(t *testing.T) {
	for _, redirect := range []string{"", "/", "/account?tab=1&x=%20.."} {
		s := oidc.NewState("google", redirect, noon)
		if got, ok := oidc.ParseState(s.Cookie()); !ok || got != s {
			t.Errorf("a state with the redirect %q is not read as it was written", redirect)
		}
		distinct := map[string]bool{s.Param(): true, s.Nonce(): true, s.Verifier(): true}
		if len(distinct) != 3 {
			t.Error("state, nonce and verifier are not distinct")
		}
		for value := range distinct {
			if len(value) != 43 || strings.Contains(s.Cookie(), value) { // RFC 7636 §4.1: at least 43 characters
				t.Errorf("a derived value has %d characters or is in the cookie", len(value))
			}
		}
	}
}

func TestMalformedStateIsRejected(t *testing.T) {
	good := oidc.NewState("google", "/", noon).Cookie()
	parts := strings.Split(good, ".")
	with := func(i int, value string) string {
		changed := append([]string(nil), parts...)
		changed[i] = value
		return strings.Join(changed, ".")
	}
	for name, value := range map[string]string{
		"empty": "", "dots": "......", "another version": with(0, "2"), "a short secret": with(1, parts[1][:42]), "no secret": with(1, ""),
		"a padded secret": with(1, parts[1]+"="), "a secret with other bits at the end": with(1, parts[1][:42]+"B"), "no expiry": with(2, ""), "a signed expiry": with(2, "+"+parts[2]),
		"an expiry with a zero": with(2, "0"+parts[2]), "an endless expiry": with(2, strings.Repeat("9", 30)), "no flow": with(3, ""), "another flow": with(3, "x"),
		"two flows": with(3, "la"), "a redirect that is no base64": with(6, "/"), "one part more": good + ".", "one part less": strings.Join(parts[:6], "."),
		"too long": with(6, strings.Repeat("A", 2000)), "a line break": good + "\n", "a space": " " + good,
	} {
		if s, ok := oidc.ParseState(value); ok || s != (oidc.State{}) {
			t.Errorf("%s: the state is read", name)
		}
	}
}

// Every change of a cookie changes what the callback must say.
func TestStateBindsTheWholeCookie(t *testing.T) {
	s := oidc.NewState("google", "/", noon)
	parts := strings.Split(s.Cookie(), ".")
	for i, value := range map[int]string{2: "1", 3: "a", 4: "other", 5: "someone", 6: "Ly8"} {
		changed := append([]string(nil), parts...)
		changed[i] = value
		other, ok := oidc.ParseState(strings.Join(changed, "."))
		if !ok {
			t.Fatalf("part %d: the changed cookie is not read", i)
		}
		if other.Param() == s.Param() {
			t.Errorf("part %d: the changed cookie has the same state", i)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(oidc.NewState("google", "/account", noon).Cookie())
	f.Add("1." + strings.Repeat("A", 43) + ".0.l...")
	f.Add("1." + strings.Repeat("A", 43) + ".-1.a.x.y.Lw")
	f.Add("......")
	f.Fuzz(func(t *testing.T, value string) {
		s, ok := oidc.ParseState(value)
		switch {
		case !ok && s != (oidc.State{}):
			t.Error("a rejected cookie has a state")
		case ok && s.Cookie() != value:
			t.Error("the state has another cookie than the one that was read")
		case ok && len(s.Param()) != 43:
			t.Error("the state has no parameter")
		}
	})
}
