package main

import "testing"

func TestBrowserName(t *testing.T) {
	for name, c := range map[string]struct{ userAgent, want string }{
		"Chrome":  {"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36", "Chrome on Linux"},
		"Safari":  {"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1", "Safari on iOS"},
		"curl":    {"curl/8.5.0", "curl"},
		"missing": {"", "Unknown browser"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := browserName(c.userAgent); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
