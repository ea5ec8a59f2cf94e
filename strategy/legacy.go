package strategy

import (
	"context"

	"github.com/latchkey-go/latchkey/internal/token"
)

// LegacyStore is an optional interface of a [Store] that also holds tokens which a former system
// issued, in a format of its own, and may still issue and revoke. It is optional because only an
// application that moves from such a system needs it. The other methods of the Store include the
// legacy tokens: ByUser returns them, with Legacy set, and the deletes remove them.
//
// A legacy token is accepted until it expires or its row is gone. It has no token version, so
// whatever invalidates all tokens of a user must delete its row: [Database.UserChanged] returns
// an error if it cannot. An IdleTimeout applies to it from its first stored use. It is never
// cached. [Database.RotateToken] replaces it with a token of Latchkey's.
//
// The errors are those of the Store. Package storetest checks each line of this contract.
type LegacyStore[ID comparable] interface {
	Store[ID]

	// Legacy reports, without I/O, whether a string has the format of the legacy tokens.
	Legacy(token string) bool

	// ByLegacyToken returns the row of a legacy token, whatever its age. Its Digest is the
	// SHA-256 of the token in base64url.
	ByLegacyToken(ctx context.Context, token string) (AccessToken[ID], error)

	// RotateLegacyToken applies a [Rotation] to a legacy token as [Store.Rotate] does. The session
	// keeps its ID and its times, its TokenVersion is that of the Rotation, and it is no longer
	// Legacy.
	RotateLegacyToken(ctx context.Context, token string, to Rotation) (AccessToken[ID], error)

	// DeleteLegacyToken removes a legacy token as [Store.Delete] does.
	DeleteLegacyToken(ctx context.Context, token string) (AccessToken[ID], error)
}

// presented is a token that a client has presented.
type presented struct {
	digest string
	legacy string // the token itself if it is a legacy token, "" otherwise
}

// parse reads a token without I/O. ok is false if it is malformed.
func (d *Database[U, ID]) parse(secret string) (p presented, ok bool) {
	if d.isLegacy(secret) {
		return presented{token.DigestOf(secret), secret}, true
	}
	digest, ok := d.format.Digest(secret)
	return presented{digest: digest}, ok
}

func (d *Database[U, ID]) isLegacy(secret string) bool {
	return d.legacy != nil && d.legacy.Legacy(secret)
}

// byToken returns the row of a token.
func (d *Database[U, ID]) byToken(ctx context.Context, p presented) (AccessToken[ID], error) {
	if p.legacy != "" {
		return d.legacy.ByLegacyToken(ctx, p.legacy)
	}
	return d.tokens.ByToken(ctx, p.digest)
}

// delete removes the row of a token.
func (d *Database[U, ID]) delete(ctx context.Context, p presented) (AccessToken[ID], error) {
	if p.legacy != "" {
		return d.legacy.DeleteLegacyToken(ctx, p.legacy)
	}
	return d.tokens.Delete(ctx, p.digest)
}

// useUnknown reports whether no use of the token was ever stored, because the former system
// stores none.
func (t *AccessToken[ID]) useUnknown() bool { return t.Legacy && t.LastUsedAt.IsZero() }
