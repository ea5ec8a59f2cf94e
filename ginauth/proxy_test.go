package ginauth_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
)

func TestMisconfiguredProxyIsReportedOnce(t *testing.T) {
	const (
		near, public = "10.0.0.7", "203.0.113.9"
		none         = ""
		unknown      = "does not trust"
		unreadable   = "cannot read"
		all          = "every client"
	)
	xff := func(value string) option { return header("X-Forwarded-For", value) }
	for _, c := range []struct {
		name    string
		proxies []string // nil: Gin's default, all
		set     func(*gin.Engine)
		peer    string
		headers []option
		want    string // part of the error; none for no event
	}{
		{"no header, Gin's default", nil, nil, near, nil, none},
		{"no header, no proxies", []string{}, nil, near, nil, none},
		{"Gin's default", nil, nil, near, []option{xff("198.51.100.1")}, all},
		{"Gin's default, a client's own entry", nil, nil, near, []option{xff("192.0.2.1, 198.51.100.1")}, all},
		{"Gin's default, two headers", nil, nil, near, []option{xff("192.0.2.1"), xff("198.51.100.1")}, all},
		{"Gin's default, without a proxy", nil, nil, public, []option{xff("198.51.100.1")}, all},
		{"everything listed", []string{"0.0.0.0/0"}, nil, near, []option{xff("198.51.100.1")}, all},
		{"everything listed, an IPv6 client", []string{"0.0.0.0/0", "::/0"}, nil, near, []option{xff("2001:db8::1")}, all},
		{"no proxies, behind one", []string{}, nil, near, []option{xff("198.51.100.1")}, unknown},
		{"no proxies, behind one on this machine", []string{}, nil, "127.0.0.1", []option{xff("198.51.100.1")}, unknown},
		{"no proxies, behind one in a cluster", []string{}, nil, "100.64.0.9", []option{xff("198.51.100.1")}, unknown},
		{"no proxies, behind one that sends Forwarded", []string{}, nil, near, []option{header("Forwarded", "for=198.51.100.1")}, unknown},
		{"another proxy listed", []string{"10.0.0.8"}, nil, near, []option{xff("198.51.100.1")}, unknown},
		{"the proxy listed, which sends ports", []string{near}, nil, near, []option{xff("198.51.100.1:5050")}, unreadable},
		{"the proxy listed, which sends Forwarded", []string{near}, nil, near, []option{header("Forwarded", "for=198.51.100.1")}, unreadable},

		// Correct set-ups.
		{"the proxy listed", []string{near}, nil, near, []option{xff("198.51.100.1")}, none},
		{"the proxy listed, a client's own entry", []string{near}, nil, near, []option{xff("192.0.2.1, 198.51.100.1")}, none},
		{"the proxies' network listed", []string{"10.0.0.0/8"}, nil, near, []option{xff("198.51.100.1, 10.0.0.9")}, none},
		{"the proxy's own request", []string{near}, nil, near, []option{xff(near)}, none},
		{"no proxy, a client that sends the header", []string{}, nil, public, []option{xff("198.51.100.1")}, none},
		{"no proxy, a client that sends nonsense", []string{}, nil, public, []option{xff("unknown, ,,")}, none},
		{"a trusted platform", nil, func(e *gin.Engine) { e.TrustedPlatform = gin.PlatformCloudflare }, near,
			[]option{xff("198.51.100.1"), header("CF-Connecting-IP", "198.51.100.1")}, none},
		{"a trusted platform and no proxies", []string{}, func(e *gin.Engine) { e.TrustedPlatform = gin.PlatformCloudflare }, near,
			[]option{xff("198.51.100.1"), header("CF-Connecting-IP", "198.51.100.1")}, none},
		{"another header", []string{near}, func(e *gin.Engine) { e.RemoteIPHeaders = []string{"X-Real-IP"} }, near,
			[]option{xff("198.51.100.1:5050"), header("X-Real-IP", "198.51.100.1")}, none},
		// Not seen: a client of the application could send the header itself.
		{"no proxies, behind a public one", []string{}, nil, public, []option{xff("198.51.100.1")}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []event.Event
			h := newRig(t)
			auth := h.auth(t, ginauth.Config{
				Transports: []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}},
				OnEvent: func(_ context.Context, e event.Event) {
					if e.Kind == event.ProxyMisconfigured {
						got = append(got, e)
					}
				},
			})
			web, err := auth.AnswerLoginsWith(ginauth.Cookie{})
			if err != nil {
				t.Fatal(err)
			}
			e := gin.New()
			if c.proxies != nil {
				if err := e.SetTrustedProxies(c.proxies); err != nil {
					t.Fatal(err)
				}
			}
			if c.set != nil {
				c.set(e)
			}
			auth.Routes(e.Group("/api"))
			web.Routes(e.Group("/web"))
			e.POST("/page", func(c *gin.Context) {
				if _, err := web.LoginWithPassword(c, "ann@example.com", password, false); err != nil {
					t.Error(err)
				}
			})
			for range 2 {
				for path, want := range map[string]int{"/page": http.StatusOK, "/api/login": http.StatusOK, "/web/login": http.StatusNoContent} {
					w := post(e, path, "username=ann@example.com&password="+password, append(c.headers, fromIP(c.peer))...)
					wantCode(t, path, w, want)
				}
			}
			switch {
			case c.want == none && len(got) != 0:
				t.Errorf("got the events %+v, want none", got)
			case c.want != none && (len(got) != 1 || !strings.Contains(got[0].Err.Error(), c.want)):
				t.Errorf("got the events %+v, want one with %q", got, c.want)
			}
		})
	}
}

// Some platforms add the port to the address.
func TestClientIPWithAPort(t *testing.T) {
	for sent, want := range map[string]string{
		"198.51.100.1": "198.51.100.1", "198.51.100.1:443": "198.51.100.1", "[2001:db8::1]:443": "2001:db8::1", "2001:db8::1": "2001:db8::1",
		"unknown": "", "198.51.100.1:": "", "198.51.100.1, 10.0.0.1": "",
	} {
		var got []string
		h := newRig(t)
		e := gin.New()
		e.TrustedPlatform = "X-Client"
		h.auth(t, ginauth.Config{RequireVerified: true, OnEvent: func(_ context.Context, e event.Event) { got = append(got, e.ClientIP) }}).Routes(e)
		wantCode(t, sent, post(e, "/login", "username=ann@example.com&password="+password, header("X-Client", sent)), http.StatusBadRequest)
		if len(got) != 1 || got[0] != want {
			t.Errorf("the header %q: got the client IPs %q, want %q", sent, got, want)
		}
	}
}
