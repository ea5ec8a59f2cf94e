package strategy

import "github.com/google/uuid"

// ParseCursor and Cursor are what is behind [Page.After] and [SessionPage.Next].
var ParseCursor = parseCursor

func Cursor(at Position) string {
	return cursor(AccessToken[uuid.UUID]{CreatedAt: at.CreatedAt, ID: at.ID})
}

// Touched returns how many sessions are remembered for their touch.
func (d *Database[U, ID]) Touched() int {
	d.touches.mu.Lock()
	defer d.touches.mu.Unlock()
	return len(d.touches.last)
}

// Cached returns how many entries the cache has when it is settled, and how many it
// may have.
func (d *Database[U, ID]) Cached() (n int, most uint64) {
	d.cache.entries.CleanUp()
	return d.cache.entries.EstimatedSize(), d.cache.entries.GetMaximum()
}
