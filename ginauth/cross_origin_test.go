package ginauth_test

import (
	"context"
	"net/http"
	"slices"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestCrossOriginLogoutChangesNothing(t *testing.T) {
	h := newRig(t)
	var heard []event.Reason
	r := engine(h.auth(t, ginauth.Config{
		Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}},
		OnEvent:    func(_ context.Context, e event.Event) { heard = append(heard, e.Reason) },
	}))
	anns, bobs := h.token(t), h.tokenOfBob(t)
	for what, sent := range map[string][]option{
		"cookie":                       {inCookie(anns)},
		"two users":                    {inCookies(anns, bobs)},
		"two users in separate fields": {inCookie(bobs), inCookie(anns)},
		"unknown token":                {inCookie(unknownToken(t))},
		"junk":                         {inCookies("x", "y")},
		"empty cookie":                 {inCookie("")},
		"cookie and unknown bearer":    {inCookie(anns), inHeader(unknownToken(t))},
		"unknown cookie and bearer":    {inCookie(unknownToken(t)), inHeader(unknownToken(t))},
	} {
		heard = nil
		w := request(r, "POST", "/logout", append(sent, fromAnotherSite)...)
		wantCode(t, what, w, http.StatusForbidden)
		wantSetCookie(t, what, w, false)
		if !slices.Equal(heard, []event.Reason{event.ReasonCrossOrigin}) {
			t.Errorf("%s: got the reasons %q, want one %q", what, heard, event.ReasonCrossOrigin)
		}
	}
	h.wantLive(t, "afterwards", true, anns, bobs)
	wantCode(t, "no token", request(r, "POST", "/logout", fromAnotherSite), http.StatusUnauthorized)
	wantCode(t, "bearer token", request(r, "POST", "/logout", fromAnotherSite, inHeader(anns)), http.StatusNoContent)
	h.wantLive(t, "after the log-out by bearer token", false, anns)
}

func TestLoginChecksTheOrigin(t *testing.T) {
	for name, transport := range transportsByName {
		t.Run(name, func(t *testing.T) {
			h := newRig(t)
			var heard []event.Event
			auth := h.auth(t, ginauth.Config{
				Transports: []ginauth.Transport{transport},
				OnEvent:    func(_ context.Context, e event.Event) { heard = append(heard, e) },
			})
			old := h.token(t)
			var refusal error // what the cookie transport refuses; a bearer token needs no check
			if name == "cookie" {
				refusal = ginauth.ErrCrossOrigin
			}
			for _, c := range []struct {
				what, method string
				logIn        func(*gin.Context, member, ...strategy.TokenOption) (ginauth.Issued[member], error)
				from         []option
				want         error
			}{
				{"another site posts", "POST", auth.Login, []option{fromAnotherSite}, refusal},
				{"another site posts, without Sec-Fetch-Site", "POST", auth.Login, []option{header("Origin", "https://evil.example")}, refusal},
				{"another site posts, the check is off", "POST", auth.LoginCrossOrigin, []option{fromAnotherSite}, nil},
				{"another site redirects", "GET", auth.Login, []option{fromAnotherSite}, nil},
				{"own site posts", "POST", auth.Login, []option{header("Sec-Fetch-Site", "same-origin")}, nil},
				{"no browser", "POST", auth.Login, nil, nil},
			} {
				heard = nil
				r := gin.New()
				r.Handle(c.method, "/callback", func(gc *gin.Context) {
					issued, err := c.logIn(gc, h.ann)
					wantVerdict(t, c.what, err, c.want)
					if (issued.Token.Reveal() == "") != (c.want != nil) {
						t.Errorf("%s: got the session %v, want the error %v", c.what, issued.Session.ID, c.want)
					}
				})
				w := request(r, c.method, "/callback", append(c.from, by(transport, unknownToken(t)))...)
				wantSetCookie(t, c.what, w, name == "cookie" && c.want == nil)
				if got := w.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("%s: got Cache-Control %q, want no-store", c.what, got)
				}
				if c.want != nil && (len(heard) != 1 || heard[0].Kind != event.LoginDenied || heard[0].Reason != event.ReasonCrossOrigin) {
					t.Errorf("%s: got the events %v, want one %q", c.what, heard, event.LoginDenied)
				}
			}

			// A forged request must not end the session of the browser's cookie.
			r := gin.New()
			r.POST("/callback", func(c *gin.Context) { _, _ = auth.Login(c, h.ann) })
			request(r, "POST", "/callback", by(transport, old), fromAnotherSite)
			h.wantLive(t, "the old session", true, old)
		})
	}
}
