package account_test

import (
	"net/netip"
	"testing"

	"github.com/latchkey-go/latchkey/account"
)

// NetworkOf returns the canonical /24 or /64 of every IP address, and "" for anything else.
func FuzzNetworkOf(f *testing.F) {
	for _, addr := range []string{
		"", "unknown", "192.0.2.1", "192.0.2.255", "192.0.2.1:8080", "192.0.2", "192.0.2.1/24", "192.0.02.1", "256.0.0.1",
		"2001:db8::1", "2001:DB8:0:0:0:0:0:1", "2001:db8::1%eth0", "[2001:db8::1]", "[2001:db8::1]:443", "::", "::1", "fe80::1%",
		"::ffff:192.0.2.1", "::ffff:c000:201", "::ffff:192.0.2.1%eth0", "::192.0.2.1", "64:ff9b::192.0.2.1",
		"192.0.2.1, 198.51.100.1", "192.0.2.1\x00", "１９２.0.2.1",
	} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		got := account.NetworkOf(addr)
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			if got != "" {
				t.Fatalf("NetworkOf(%q): got %q, want \"\"", addr, got)
			}
			return
		}
		network, err := netip.ParsePrefix(got)
		if err != nil || network.Masked().String() != got {
			t.Fatalf("NetworkOf(%q): got %q, %v, want a canonical prefix", addr, got, err)
		}
		plain, bits := ip.Unmap().WithZone(""), 64
		if plain.Is4() {
			bits = 24
		}
		if network.Bits() != bits || !network.Contains(plain) {
			t.Errorf("NetworkOf(%q): got %q, want a /%d that contains the address", addr, got, bits)
		}
		for _, spelling := range []string{ip.String(), ip.StringExpanded(), plain.String(), netip.AddrFrom16(plain.As16()).String()} {
			if other := account.NetworkOf(spelling); other != got {
				t.Errorf("NetworkOf(%q): got %q, but %q for the same address, written %q", addr, got, other, spelling)
			}
		}
	})
}
