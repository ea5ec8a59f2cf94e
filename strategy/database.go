package strategy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Config configures a [Database]. The zero value is usable: tokens that live
// until they are revoked.
type Config struct {
	// Lifetime is how long a token is accepted after it was issued, to the
	// millisecond: at the age of Lifetime it still is, one millisecond later it
	// is not. 0 means that tokens do not expire. NIST SP 800-63B-4 §2.2.3
	// recommends at most 24 hours at AAL2.
	Lifetime time.Duration

	// TokenPrefix begins every token; see [NewTokenFormat]. Default
	// [DefaultTokenPrefix]. Tokens with another prefix are refused: changing it
	// logs everybody out.
	TokenPrefix string

	// Now is the clock. Default [time.Now].
	Now func() time.Time

	// OnEvent is called synchronously with everything that happens, by whatever
	// goroutine it happens in; it must be quick and safe for concurrent use. nil
	// means that nobody listens. [LogEvents] is a ready one.
	OnEvent func(context.Context, Event)
}

// Database is the [Strategy] that keeps tokens in a [Store] and looks every one
// of them up there. Make one with [NewDatabase]. It is safe for concurrent use.
type Database[U User[ID], ID comparable] struct {
	tokens Store[ID]
	users  UserSource[U, ID]
	format TokenFormat
	cfg    Config
}

// NewDatabase returns a Database over a store of tokens and a source of users.
// It returns an error that names the field where the configuration is wrong, or
// where the store would remove tokens sooner than Lifetime (see [Retainer]).
func NewDatabase[U User[ID], ID comparable](tokens Store[ID], users UserSource[U, ID], cfg Config) (*Database[U, ID], error) {
	if tokens == nil {
		return nil, errors.New("strategy: tokens is nil")
	}
	if users == nil {
		return nil, errors.New("strategy: users is nil")
	}
	if cfg.Lifetime < 0 {
		return nil, fmt.Errorf("strategy: Config.Lifetime is negative: %v", cfg.Lifetime)
	}
	if r, ok := tokens.(Retainer); ok {
		if kept := r.Retention(); kept > 0 && (cfg.Lifetime == 0 || cfg.Lifetime > kept) {
			return nil, fmt.Errorf("strategy: Config.Lifetime is %v (0 means no expiry), but the store keeps tokens for %v only", cfg.Lifetime, kept)
		}
	}
	format, err := NewTokenFormat(cfg.TokenPrefix)
	if err != nil {
		return nil, fmt.Errorf("strategy: Config.TokenPrefix: %w", err)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Database[U, ID]{tokens, users, format, cfg}, nil
}

// now is in whole milliseconds, as stores keep times, so that ages are exact.
func (d *Database[U, ID]) now() time.Time { return d.cfg.Now().UTC().Truncate(time.Millisecond) }

// WriteToken implements [Strategy].
func (d *Database[U, ID]) WriteToken(ctx context.Context, user U, _ ...TokenOption) (Secret, Session[U], error) {
	var none ID
	if user.UserID() == none {
		return Secret{}, Session[U]{}, errors.New("strategy: the user has no ID")
	}
	if !user.IsActive() {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: %w", ErrUserInactive)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Secret{}, Session[U]{}, fmt.Errorf("strategy: make a session ID: %w", err)
	}
	secret, digest := d.format.New()
	row := AccessToken[ID]{ID: id, Digest: digest, UserID: user.UserID(), CreatedAt: d.now()}
	if err := d.tokens.Insert(ctx, row); err != nil {
		return Secret{}, Session[U]{}, d.failed(ctx, "insert the token", err)
	}
	d.emit(ctx, Event{Kind: EventTokenIssued, UserID: row.UserID, SessionID: row.ID})
	return secret, d.session(row, user), nil
}

// ReadToken implements [Strategy]. A malformed token causes no I/O.
func (d *Database[U, ID]) ReadToken(ctx context.Context, token string) (Session[U], error) {
	digest, err := d.format.Digest(token)
	if err != nil {
		return d.denied(ctx, denyMalformed, AccessToken[ID]{})
	}
	now := d.now()
	var createdAfter time.Time
	if d.cfg.Lifetime > 0 {
		createdAfter = now.Add(-d.cfg.Lifetime)
	}
	row, err := d.tokens.ByToken(ctx, digest, createdAfter)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return d.denied(ctx, denyUnknown, row)
	case err != nil:
		return Session[U]{}, d.failed(ctx, "look up the token", err)
	case row.CreatedAt.Before(createdAfter):
		// Not left to the store: this check is the authority on expiry.
		return d.denied(ctx, denyExpired, row)
	}
	user, err := d.users.ByID(ctx, row.UserID)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return d.denied(ctx, denyUserGone, row)
	case err != nil:
		return Session[U]{}, d.failed(ctx, "look up the user", err)
	case !user.IsActive():
		return d.denied(ctx, denyUserInactive, row)
	}
	return d.session(row, user), nil
}

// DestroyToken implements [Strategy]. A malformed token causes no I/O.
func (d *Database[U, ID]) DestroyToken(ctx context.Context, token string) error {
	digest, err := d.format.Digest(token)
	if err != nil {
		return nil
	}
	row, err := d.tokens.Delete(ctx, digest)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return nil
	case err != nil:
		return d.failed(ctx, "delete the token", err)
	}
	d.emit(ctx, Event{Kind: EventTokenRevoked, UserID: row.UserID, SessionID: row.ID})
	return nil
}

func (d *Database[U, ID]) session(row AccessToken[ID], user U) Session[U] {
	s := Session[U]{ID: row.ID, User: user, CreatedAt: row.CreatedAt}
	if d.cfg.Lifetime > 0 {
		s.ExpiresAt = row.CreatedAt.Add(d.cfg.Lifetime)
	}
	return s
}

func (d *Database[U, ID]) denied(ctx context.Context, why *denial, row AccessToken[ID]) (Session[U], error) {
	e := Event{Kind: EventTokenDenied, Reason: why.reason, SessionID: row.ID}
	if row.ID != uuid.Nil {
		e.UserID = row.UserID
	}
	d.emit(ctx, e)
	return Session[U]{}, why
}

func (d *Database[U, ID]) failed(ctx context.Context, doing string, err error) error {
	err = fmt.Errorf("strategy: %s: %w", doing, err)
	d.emit(ctx, Event{Kind: EventStoreFailed, Err: err})
	return err
}

func (d *Database[U, ID]) emit(ctx context.Context, e Event) {
	if d.cfg.OnEvent == nil {
		return
	}
	e.Time = d.now()
	d.cfg.OnEvent(ctx, e)
}
