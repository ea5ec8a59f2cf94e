package account_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/latchkey-go/latchkey/account"
)

// NetworksOf returns the canonical /24 of every IPv4 address, the /64 and the /48 of every
// IPv6 address, and nothing for anything else.
func FuzzNetworksOf(f *testing.F) {
	for _, addr := range []string{
		"", "unknown", "192.0.2.1", "192.0.2.255", "192.0.2.1:8080", "192.0.2", "192.0.2.1/24", "192.0.02.1", "256.0.0.1",
		"2001:db8::1", "2001:DB8:0:0:0:0:0:1", "2001:db8::1%eth0", "[2001:db8::1]", "[2001:db8::1]:443", "::", "::1", "fe80::1%",
		"::ffff:192.0.2.1", "::ffff:c000:201", "::ffff:192.0.2.1%eth0", "::192.0.2.1", "64:ff9b::192.0.2.1", "2002:c000:201::",
		"2001::3fff:fdfe", "[::ffff:192.0.2.1]:80", "192.0.2.1, 198.51.100.1", "192.0.2.1\x00", "１９２.0.2.1",
	} {
		f.Add(addr)
	}
	f.Fuzz(func(t *testing.T, addr string) {
		got := account.NetworksOf(addr)
		var networks []netip.Prefix
		for _, s := range got {
			network, err := netip.ParsePrefix(s)
			if err != nil || network.Masked().String() != s {
				t.Fatalf("NetworksOf(%q): got %q, %v, want canonical prefixes", addr, s, err)
			}
			networks = append(networks, network)
		}
		switch len(networks) {
		case 0:
			if _, err := netip.ParseAddr(addr); err == nil {
				t.Errorf("NetworksOf(%q): got none, want the networks of an address", addr)
			}
			return
		case 1:
			if networks[0].Bits() != 24 || !networks[0].Addr().Is4() {
				t.Errorf("NetworksOf(%q): got %v, want a /24", addr, networks)
			}
		case 2:
			if networks[0].Bits() != 64 || networks[1].Bits() != 48 || !networks[1].Contains(networks[0].Addr()) || networks[0].Addr().Is4In6() {
				t.Errorf("NetworksOf(%q): got %v, want a /64 and the /48 around it", addr, networks)
			}
		}
		ip, err := netip.ParseAddr(addr)
		if err != nil {
			return
		}
		plain := ip.Unmap().WithZone("")
		if plain.Is4() && !networks[0].Contains(plain) || len(networks) == 2 && !networks[0].Contains(plain) {
			t.Errorf("NetworksOf(%q): got %v, want networks that contain the address", addr, networks)
		}
		for _, spelling := range []string{
			ip.String(), ip.StringExpanded(), plain.String(), netip.AddrFrom16(plain.As16()).String(),
			netip.AddrPortFrom(plain, 443).String(), "[" + plain.String() + "]",
		} {
			if other := account.NetworksOf(spelling); !slices.Equal(other, got) {
				t.Errorf("NetworksOf(%q): got %q, but %q for the same address, written %q", addr, got, other, spelling)
			}
		}
	})
}
