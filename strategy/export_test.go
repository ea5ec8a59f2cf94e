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
