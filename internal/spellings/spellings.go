// Package spellings knows in which spellings other programs store an address.
package spellings

import (
	"strings"

	"golang.org/x/net/idna"
)

// Variants returns a normal address, and the same with its domain in Unicode, if that differs.
func Variants(email string) []string {
	all := []string{email}
	local, domain, _ := strings.Cut(email, "@")
	if unicode, err := idna.Lookup.ToUnicode(domain); err == nil && unicode != domain {
		all = append(all, local+"@"+unicode)
	}
	return all
}
