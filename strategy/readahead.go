package strategy

import (
	"context"
	"fmt"

	"github.com/maypok86/otter/v2"
)

// userRead is what became of reading a user.
type userRead[U any] struct {
	user U
	err  error
}

// newOwners returns the memory of which user a token belongs to, which never
// changes, by the tokens' digests.
func newOwners[ID comparable](most int) (*otter.Cache[string, ID], error) {
	owners, err := otter.New(&otter.Options[string, ID]{MaximumSize: most})
	if err != nil {
		return nil, fmt.Errorf("strategy: make the memory of ReadAhead: %w", err)
	}
	return owners, nil
}

// readAhead begins to read the user of a token beside the token itself, where it
// is known whose that is. It returns nil where it is not.
func (d *Database[U, ID]) readAhead(ctx context.Context, digest string, withUser bool) <-chan userRead[U] {
	if d.owners == nil || !withUser {
		return nil
	}
	id, ok := d.owners.GetIfPresent(digest)
	if !ok {
		return nil
	}
	read := make(chan userRead[U], 1) // whoever asked may not wait
	go func() {
		user, err := d.users.ByID(ctx, id)
		read <- userRead[U]{user, err}
	}()
	return read
}

// remember keeps whose a token is.
func (d *Database[U, ID]) remember(digest string, id ID) {
	if d.owners != nil {
		d.owners.Set(digest, id)
	}
}
