package ginauth

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/event"
)

var (
	errProxyUnknown = errors.New("ginauth: a login came through a proxy that Gin does not trust, so that all its clients share the proxy's address: call SetTrustedProxies with that address")
	errProxyHeader  = errors.New("ginauth: Gin cannot read the client's address in the header of the proxy, so that all its clients share the proxy's address: let it send X-Forwarded-For without ports (Gin does not read Forwarded), or set RemoteIPHeaders or TrustedPlatform")
	errProxyAll     = errors.New("ginauth: Gin lets every client choose its address in X-Forwarded-For: call SetTrustedProxies with the addresses of the proxies, or with nil if there are none")
)

// checkProxy emits one event if a login has a forwarding header of which Gin makes a wrong
// client IP.
//
// That Gin trusts every peer is certain. That it does not trust a proxy is seen only if the
// proxy has a private address, as a client with a public address can send the header too:
// this must be no alarm for an application without a proxy. Not seen are other headers, and
// trusted addresses that are too many without being all.
func (a *Auth[U]) checkProxy(c *gin.Context) {
	forwarded := strings.Join(c.Request.Header.Values("X-Forwarded-For"), ",")
	if forwarded == "" && c.Request.Header.Get("Forwarded") == "" || a.cfg.proxyWarned.Load() {
		return
	}
	if err := proxyFault(c, forwarded); err != nil && a.cfg.proxyWarned.CompareAndSwap(false, true) {
		a.emit(requestContext(c), event.Event{Kind: event.ProxyMisconfigured, Err: err})
	}
}

// proxyFault returns what is wrong with Gin's trust in proxies, as far as this request
// shows it. forwarded is its X-Forwarded-For.
func proxyFault(c *gin.Context, forwarded string) error {
	first, _, _ := strings.Cut(forwarded, ",")
	last := forwarded[strings.LastIndexByte(forwarded, ',')+1:]
	peer, ip := parseIP(c.RemoteIP()), parseIP(ginClientIP(c))
	switch {
	case ip.IsValid() && ip == parseIP(first) && trusts(c, documentation) && !otherwise(c, ip):
		return errProxyAll
	case ip != peer || parseIP(last) == peer || !isNearby(peer):
		return nil // Gin found another address, or the proxy is the client, or there is none
	case trusts(c, peer):
		return errProxyHeader
	}
	return errProxyUnknown
}

// trusts reports whether Gin takes the client's address from the header of a peer.
func trusts(c *gin.Context, peer netip.Addr) bool {
	const client = "198.51.100.255"
	return ipOf(c, netip.AddrPortFrom(peer, 1).String(), http.Header{"X-Forwarded-For": {client}}) == client
}

// otherwise reports whether Gin finds the address without the headers of proxies too, in
// that of a trusted platform.
func otherwise(c *gin.Context, ip netip.Addr) bool {
	headers := c.Request.Header.Clone()
	headers.Del("X-Forwarded-For")
	headers.Del("X-Real-Ip")
	return parseIP(ipOf(c, c.Request.RemoteAddr, headers)) == ip
}

// ipOf returns the client IP of a request like c's.
func ipOf(c *gin.Context, remoteAddr string, headers http.Header) string {
	request := c.Request
	defer func() { c.Request = request }()
	c.Request = &http.Request{RemoteAddr: remoteAddr, Header: headers}
	return ginClientIP(c)
}

// isNearby reports whether an address is that of a peer in the same network or machine.
func isNearby(ip netip.Addr) bool {
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || shared.Contains(ip)
}

var (
	shared        = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598; clusters use it inside
	documentation = netip.MustParseAddr("203.0.113.255")   // RFC 5737; no proxy has it
)

// parseIP returns an IP address, or the zero Addr if s is something else.
func parseIP(s string) netip.Addr {
	ip, _ := netip.ParseAddr(strings.TrimSpace(s))
	return ip.Unmap()
}
