package strategy

import "github.com/google/uuid"

// ParseCursor and Cursor decode and encode [Page.After] and [SessionPage.Next].
var ParseCursor = parseCursor

func Cursor(at Position) string {
	return cursorOf(AccessToken[uuid.UUID]{CreatedAt: at.CreatedAt, ID: at.ID})
}

// Touched returns the number of remembered touches.
func (d *Database[U, ID]) Touched() int {
	d.touches.mu.Lock()
	defer d.touches.mu.Unlock()
	return len(d.touches.last)
}

// Cached returns the number of cache entries, after pending evictions, and its maximum.
func (d *Database[U, ID]) Cached() (n int, most uint64) {
	d.cache.entries.CleanUp()
	return d.cache.entries.EstimatedSize(), d.cache.entries.GetMaximum()
}

// Watched returns the number of watched tokens.
func (d *Database[U, ID]) Watched() int {
	d.watches.mu.Lock()
	defer d.watches.mu.Unlock()
	watched := map[*watched[ID]]bool{}
	for _, some := range d.watches.by {
		for w := range some {
			watched[w] = true
		}
	}
	return len(watched)
}
