package ginauth

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// canonicalOrigin returns an origin as browsers write it in the Origin header (RFC 6454
// §6.2), because net/http compares the texts. It returns an error for a text that no
// browser sends.
func canonicalOrigin(origin string) (string, error) {
	u, err := url.Parse(origin)
	switch {
	case err != nil:
		return "", err
	case u.Scheme == "" || u.Host == "":
		return "", errors.New("want scheme://host")
	case slices.Contains([]string{"ws", "wss", "ftp", "file"}, u.Scheme):
		return "", fmt.Errorf("pages have no origin of the scheme %s", u.Scheme)
	case u.User != nil:
		return "", errors.New("an origin has no user")
	case u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(origin, "#"):
		return "", errors.New("an origin has no path, query or fragment")
	}
	host, err := canonicalHost(u.Hostname(), strings.HasPrefix(u.Host, "["))
	if err != nil {
		return "", err
	}
	port, err := canonicalPort(u.Scheme, u.Port())
	if err != nil {
		return "", err
	}
	return u.Scheme + "://" + host + port, nil
}

func canonicalHost(host string, brackets bool) (string, error) {
	if brackets {
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			return "", errors.New("want an IPv6 address in the brackets, without a zone and not mapped from IPv4")
		}
		return "[" + ip.String() + "]", nil
	}
	ascii := func(r rune) bool { return r < 0x80 }
	if strings.TrimFunc(host, ascii) != "" {
		var err error
		if host, err = idna.Lookup.ToASCII(host); err != nil {
			return "", fmt.Errorf("the host has no ASCII form: %w", err)
		}
	}
	host = strings.ToLower(host)
	labels := strings.Split(host, ".")
	for _, label := range labels {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", errors.New("want a host name of letters, digits and hyphens; wildcards are not supported")
		}
	}
	// Browsers read a host whose last label is a number as an IPv4 address.
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is4() {
			return "", errors.New("want an IPv4 address as four decimal numbers")
		}
	}
	return host, nil
}

// canonicalPort returns ":" and the port, or "" for the scheme's default.
func canonicalPort(scheme, port string) (string, error) {
	if port == "" {
		return "", nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil:
		return "", errors.New("the port is not a number up to 65535")
	case scheme == "https" && n == 443, scheme == "http" && n == 80:
		return "", nil
	}
	return ":" + strconv.FormatUint(n, 10), nil
}
