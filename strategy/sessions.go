package strategy

import (
	"context"
	"encoding"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// Page asks for a part of a list.
type Page struct {
	// Limit is how many to list at most. Default 50, at most 200.
	Limit int
	// After is the Next of the page before. "" means the first page.
	After string
}

// SessionPage is a part of a user's sessions, newest first.
type SessionPage struct {
	// Sessions are those of the page.
	Sessions []SessionInfo
	// Next is the After of the next page; "" where there is none.
	Next string
}

// Sessions returns a page of a user's live sessions, newest first. It returns an
// error wrapping [ErrInvalidCursor] for a page that does not exist.
func (d *Database[U, ID]) Sessions(ctx context.Context, userID ID, page Page) (SessionPage, error) {
	after, err := parseCursor(page.After)
	if err != nil {
		return SessionPage{}, fmt.Errorf("strategy: %w", err)
	}
	limit := page.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	user, err := d.users.ByID(ctx, userID)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return SessionPage{}, nil
	case err != nil:
		return SessionPage{}, d.failed(ctx, "look up the user", err)
	}
	// One more than asked for tells whether there is a next page.
	rows, err := d.live(ctx, user, after, limit+1)
	if err != nil {
		return SessionPage{}, err
	}
	var out SessionPage
	if len(rows) > limit {
		rows = rows[:limit]
		out.Next = cursor(rows[limit-1])
	}
	for _, row := range rows {
		out.Sessions = append(out.Sessions, d.info(row))
	}
	return out, nil
}

// live returns the live rows of a user behind a position, at most limit; 0 means
// all.
func (d *Database[U, ID]) live(ctx context.Context, user U, after Position, limit int) ([]AccessToken[ID], error) {
	var live []AccessToken[ID]
	now, oldest := d.now(), notBefore(user)
	for {
		rows, err := d.tokens.ByUser(ctx, user.UserID(), after, maxPage)
		if err != nil {
			return nil, d.failed(ctx, "list the sessions", err)
		}
		for _, row := range rows {
			if d.dead(&row, row.usedAt(), now) == nil && !supersededByUser(&row, oldest) {
				if live = append(live, row); len(live) == limit {
					return live, nil
				}
			}
		}
		if len(rows) < maxPage {
			return live, nil
		}
		last := rows[len(rows)-1]
		after = Position{last.CreatedAt, last.ID}
	}
}

// DestroySession ends a session of a user. It returns an error wrapping
// [ErrSessionNotFound] where they have none with this ID.
func (d *Database[U, ID]) DestroySession(ctx context.Context, userID ID, id uuid.UUID) error {
	return d.destroy(ctx, userID, id, "")
}

func (d *Database[U, ID]) destroy(ctx context.Context, userID ID, id uuid.UUID, why Reason) error {
	row, err := d.tokens.DeleteSession(ctx, userID, id)
	err = d.revoked(ctx, Revocation[ID]{SessionID: id}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return fmt.Errorf("strategy: %w", ErrSessionNotFound)
	case err != nil:
		return d.failed(ctx, "delete the session", err)
	}
	d.emit(ctx, Event{Kind: EventTokenRevoked, UserID: row.UserID, SessionID: row.ID, Reason: why})
	return nil
}

// DestroyAll ends all sessions of a user but those with these IDs. A login that
// is under way can outlive it; TokensNotBefore of the user (see [NotBefore]) is
// the guarantee that none does, and this cleans up then.
func (d *Database[U, ID]) DestroyAll(ctx context.Context, userID ID, except ...uuid.UUID) error {
	n, err := d.tokens.DeleteByUser(ctx, userID, except...)
	if err = d.revoked(ctx, Revocation[ID]{UserID: userID}, err); err != nil {
		return d.failed(ctx, "delete the sessions", err)
	}
	if n > 0 {
		d.emit(ctx, Event{Kind: EventTokensRevoked, UserID: userID})
	}
	return nil
}

// UserID returns the ID of a user, for those who do not know its type.
func (d *Database[U, ID]) UserID(user U) any { return user.UserID() }

// Of implements [SessionManager].
func (d *Database[U, ID]) Of(user U) UserSessions { return userSessions[U, ID]{d, user.UserID()} }

// userSessions is a Database with a user's ID, for those who do not know its type.
type userSessions[U User[ID], ID comparable] struct {
	d      *Database[U, ID]
	userID ID
}

func (s userSessions[U, ID]) Subject() string {
	if t, ok := any(s.userID).(encoding.TextMarshaler); ok {
		if text, err := t.MarshalText(); err == nil {
			return string(text)
		}
	}
	return fmt.Sprint(s.userID)
}

func (s userSessions[U, ID]) List(ctx context.Context, page Page) (SessionPage, error) {
	return s.d.Sessions(ctx, s.userID, page)
}

func (s userSessions[U, ID]) Destroy(ctx context.Context, id uuid.UUID) error {
	return s.d.DestroySession(ctx, s.userID, id)
}

func (s userSessions[U, ID]) DestroyAll(ctx context.Context, except ...uuid.UUID) error {
	return s.d.DestroyAll(ctx, s.userID, except...)
}

// limit keeps a user to MaxSessions after the row of a new login was inserted.
// Counting first would race. The sessions that are leaving do not count.
func (d *Database[U, ID]) limit(ctx context.Context, user U, row AccessToken[ID], leaving []AccessToken[ID]) error {
	if d.cfg.WhenFull == EvictOldest {
		return d.evict(ctx, user, leaving)
	}
	return d.refuse(ctx, user, row, leaving)
}

// maxSkew is how far apart the clocks of instances may be.
const maxSkew = 10 * time.Second

// newest returns a time of creation for a new row that is later than those of the
// user's other rows: on an instance whose clock is behind, a new login would be
// the oldest otherwise, and the first to go. What lies further ahead than clocks
// may be apart is not followed: the session would live longer for it.
func (d *Database[U, ID]) newest(ctx context.Context, row AccessToken[ID]) (time.Time, error) {
	others, err := d.tokens.ByUser(ctx, row.UserID, Position{}, 1)
	if err != nil {
		return time.Time{}, d.failed(ctx, "list the sessions", err)
	}
	if len(others) == 0 {
		return row.CreatedAt, nil
	}
	if after := others[0].CreatedAt.Add(time.Millisecond); after.Sub(row.CreatedAt) <= maxSkew {
		return latest(row.CreatedAt, after), nil
	}
	return row.CreatedAt, nil
}

// evict ends the oldest sessions beyond the limit. All logins order the sessions
// alike, and the last of several at once sees them all: so what remains is exact.
func (d *Database[U, ID]) evict(ctx context.Context, user U, leaving []AccessToken[ID]) error {
	logins, err := d.logins(ctx, user, leaving)
	if err != nil || len(logins) <= d.cfg.MaxSessions {
		return err
	}
	// Those of a clock that was further ahead than clocks may be apart go first: the
	// new login would go in their place, until that time has come.
	var ahead, rest []AccessToken[ID]
	limit := d.now().Add(maxSkew)
	for _, login := range logins {
		if login.CreatedAt.After(limit) {
			ahead = append(ahead, login)
		} else {
			rest = append(rest, login)
		}
	}
	for _, old := range append(rest, ahead...)[d.cfg.MaxSessions:] {
		// By its ID: a rotation can give it another token meanwhile.
		if err := d.destroy(ctx, old.UserID, old.ID, ReasonOverLimit); err != nil && !errors.Is(err, ErrSessionNotFound) {
			return err
		}
	}
	return nil
}

// refuse takes a login back that is one too many. A login stands only after a
// look, from when its row was there, at no more rows than are allowed: so of any
// number at once never too many stand. Those that are newest by the common order
// give way first; the others wait for that, for a moment.
func (d *Database[U, ID]) refuse(ctx context.Context, user U, row AccessToken[ID], leaving []AccessToken[ID]) error {
	const looks = 8
	for look := 1; ; look++ {
		logins, err := d.logins(ctx, user, leaving)
		if err != nil || len(logins) <= d.cfg.MaxSessions {
			return err
		}
		slices.Reverse(logins) // oldest first
		first := slices.IndexFunc(logins, func(l AccessToken[ID]) bool { return l.ID == row.ID })
		if first < 0 || first >= d.cfg.MaxSessions || look == looks {
			return fmt.Errorf("strategy: %w", ErrTooManySessions)
		}
		select {
		case <-time.After(time.Duration(look) * 10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// logins returns a user's live sessions that count, newest first: no tokens with
// scopes, and none that are about to be replaced.
func (d *Database[U, ID]) logins(ctx context.Context, user U, leaving []AccessToken[ID]) ([]AccessToken[ID], error) {
	rows, err := d.live(ctx, user, Position{}, 0)
	return slices.DeleteFunc(rows, func(row AccessToken[ID]) bool {
		return row.Scopes != nil || slices.ContainsFunc(leaving, func(l AccessToken[ID]) bool { return l.ID == row.ID })
	}), err
}

// cursor names the place behind a row, for the next page.
func cursor[ID comparable](row AccessToken[ID]) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(row.CreatedAt.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(b, row.ID[:]...))
}

func parseCursor(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	const length = 8 + len(uuid.UUID{})
	// The length of s too: the decoder skips line breaks.
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != length || len(s) != base64.RawURLEncoding.EncodedLen(length) {
		return Position{}, ErrInvalidCursor
	}
	return Position{time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), uuid.UUID(b[8:])}, nil
}
