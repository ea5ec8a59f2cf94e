package ginauth

import (
	"net/http"
	"slices"
	"strings"
)

// looked are the headers of a request that a guard has looked at.
type looked uint8

const (
	lookedAtAuthorization looked = 1 << iota
	lookedAtCookie
	lookedAtOrigin // and at Sec-Fetch-Site
)

// varyNames are the names of these headers.
var varyNames = []struct {
	at    looked
	names []string
}{
	{lookedAtAuthorization, []string{"Authorization"}},
	{lookedAtCookie, []string{"Cookie"}},
	{lookedAtOrigin, []string{"Origin", "Sec-Fetch-Site"}},
}

// varyValues are ready values of Vary. Answers share them, so they have no capacity to append.
var varyValues = func() (values [8][]string) {
	for at := range values {
		var names []string
		for _, v := range varyNames {
			if looked(at)&v.at != 0 {
				names = append(names, v.names...)
			}
		}
		values[at] = []string{strings.Join(names, ", ")}
	}
	return values
}()

var privateNoStore = []string{"private, no-store"}

// keepPrivate sets the headers by which caches neither store the answer nor give it to another
// user. Cache-Control stays if it is already set; handlers set their own afterwards.
func (a *Auth[U]) keepPrivate(w http.ResponseWriter, r *http.Request, id *identity[U]) {
	h := w.Header()
	vary(h, a.cfg.looked(r, id.by))
	if len(h["Cache-Control"]) == 0 {
		h["Cache-Control"] = privateNoStore
	}
}

// looked returns the headers that a guard looks at for a request whose valid token came by a
// transport, or by none (nil).
func (s *settings) looked(r *http.Request, by transport) (at looked) {
	for _, t := range s.transports {
		at |= t.header()
		if by != nil && t.header() == by.header() {
			break
		}
	}
	if by != nil && by.ambient() && checksOrigin(r) {
		at |= lookedAtOrigin
	}
	return at
}

// vary adds the missing names to the Vary header.
func vary(h http.Header, at looked) {
	present := h["Vary"]
	if len(present) == 0 {
		if at != 0 {
			h["Vary"] = varyValues[at]
		}
		return
	}
	var missing []string
	for _, v := range varyNames {
		if at&v.at == 0 {
			continue
		}
		for _, name := range v.names {
			if !varies(present, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) > 0 {
		// Clip: middleware can share its slice among requests.
		h["Vary"] = append(slices.Clip(present), strings.Join(missing, ", "))
	}
}

// varies reports whether the values of a Vary header have a name, or the * that stands for all.
func varies(values []string, name string) bool {
	for _, value := range values {
		for member := range strings.SplitSeq(value, ",") {
			if member = strings.TrimSpace(member); member == "*" || strings.EqualFold(member, name) {
				return true
			}
		}
	}
	return false
}
