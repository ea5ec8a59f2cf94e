package strategy

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/cursor"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// Page selects a page of a list. The zero value is the first page.
type Page struct {
	// Limit is the maximum number of sessions on the page. Default 50, at most 200.
	Limit int
	// After is the Next of the previous page. "" means the first page.
	After string
}

// SessionPage is a page of a user's sessions.
type SessionPage struct {
	// Sessions are the sessions on the page, newest first.
	Sessions []SessionInfo
	// Next is the After of the next page; "" on the last page.
	Next string
}

// Sessions returns a page of a user's valid sessions, newest first. An unknown user has none.
// It returns an error wrapping [ErrInvalidCursor] if page.After is not the Next of a page.
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
	// One row more than the limit shows that there is a next page.
	rows, err := d.valid(ctx, user, after, limit+1)
	if err != nil {
		return SessionPage{}, err
	}
	var out SessionPage
	if len(rows) > limit {
		rows = rows[:limit]
		out.Next = cursorOf(rows[limit-1])
	}
	for _, row := range rows {
		out.Sessions = append(out.Sessions, d.info(row))
	}
	return out, nil
}

// valid returns at most limit valid rows of a user after a position; 0 means all.
func (d *Database[U, ID]) valid(ctx context.Context, user U, after Position, limit int) ([]AccessToken[ID], error) {
	var valid []AccessToken[ID]
	now := d.now()
	for {
		rows, err := d.tokens.ByUser(ctx, user.UserID(), after, maxPage)
		if err != nil {
			return nil, d.failed(ctx, "list the sessions", err)
		}
		for _, row := range rows {
			if d.invalid(&row, now) == nil && d.current(&row, user) {
				if valid = append(valid, row); len(valid) == limit {
					return valid, nil
				}
			}
		}
		if len(rows) < maxPage {
			return valid, nil
		}
		last := rows[len(rows)-1]
		after = Position{last.CreatedAt, last.ID}
	}
}

// current reports whether a row has its user's token version, if that matters.
func (d *Database[U, ID]) current(row *AccessToken[ID], user U) bool {
	switch {
	case d.cfg.SurvivePasswordChange || row.Legacy:
		return true
	case d.legacy != nil:
		// The former system can have dropped the user's version, which begins at 0 again.
		return row.TokenVersion >= user.TokenVersion()
	}
	return row.TokenVersion == user.TokenVersion()
}

// RenameSession names a session of a user. Names are cut to 100 bytes, as by [WithName]. It
// returns an error wrapping [ErrSessionNotFound] if the user has no session with this ID.
func (d *Database[U, ID]) RenameSession(ctx context.Context, userID ID, id uuid.UUID, name string) error {
	err := d.tokens.Rename(ctx, userID, id, bound(name, maxName))
	// Caches have the name too.
	err = d.announceBy(ctx, userID, Revocation[ID]{SessionID: id}, err)
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return fmt.Errorf("strategy: %w", ErrSessionNotFound)
	case err != nil:
		return d.failed(ctx, "rename the session", err)
	}
	return nil
}

// DestroySession ends a session of a user. It returns an error wrapping [ErrSessionNotFound]
// if the user has no session with this ID.
func (d *Database[U, ID]) DestroySession(ctx context.Context, userID ID, id uuid.UUID) error {
	return d.destroy(ctx, userID, id, "")
}

func (d *Database[U, ID]) destroy(ctx context.Context, userID ID, id uuid.UUID, why event.Reason) error {
	return d.sessionDestroyed(ctx, userID, id, why, d.deleteSession(ctx, userID, id))
}

// deleteSession deletes a session and announces it.
func (d *Database[U, ID]) deleteSession(ctx context.Context, userID ID, id uuid.UUID) error {
	_, err := d.tokens.DeleteSession(ctx, userID, id)
	return d.announceBy(ctx, userID, Revocation[ID]{SessionID: id}, err)
}

// sessionDestroyed reports the result of deleteSession.
func (d *Database[U, ID]) sessionDestroyed(ctx context.Context, userID ID, id uuid.UUID, why event.Reason, err error) error {
	switch {
	case errors.Is(err, ErrTokenNotFound):
		return fmt.Errorf("strategy: %w", ErrSessionNotFound)
	case err != nil:
		return d.failed(ctx, "delete the session", err)
	}
	d.emit(ctx, event.Event{Kind: event.TokenRevoked, UserID: userID, SessionID: id, Reason: why})
	return nil
}

// DestroyAll ends all sessions of a user except those with the given IDs. A login in flight
// can survive it. To end logins in flight too, raise the user's token version, as
// account.Manager does; DestroyAll then only deletes rows.
func (d *Database[U, ID]) DestroyAll(ctx context.Context, userID ID, except ...uuid.UUID) error {
	n, err := d.tokens.DeleteByUser(ctx, userID, except...)
	return d.destroyedAll(ctx, userID, n, d.announce(ctx, Revocation[ID]{UserID: userID}, err))
}

// destroyedAll reports the end of n sessions of a user, or why it failed.
func (d *Database[U, ID]) destroyedAll(ctx context.Context, userID ID, n int64, err error) error {
	if err != nil {
		return d.failed(ctx, "delete the sessions", err)
	}
	if n > 0 {
		d.emit(ctx, event.Event{Kind: event.TokensRevoked, UserID: userID})
	}
	return nil
}

// Of returns the sessions of a user, for callers that do not know the type of IDs.
func (d *Database[U, ID]) Of(user U) UserSessions { return userSessions[U, ID]{d, user.UserID()} }

// userSessions binds a Database to a user's ID.
type userSessions[U User[ID], ID comparable] struct {
	d      *Database[U, ID]
	userID ID
}

func (s userSessions[U, ID]) UserID() any { return s.userID }

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

func (s userSessions[U, ID]) Rename(ctx context.Context, id uuid.UUID, name string) error {
	return s.d.RenameSession(ctx, s.userID, id, name)
}

func (s userSessions[U, ID]) Destroy(ctx context.Context, id uuid.UUID) error {
	return s.d.DestroySession(ctx, s.userID, id)
}

func (s userSessions[U, ID]) DestroyAll(ctx context.Context, except ...uuid.UUID) error {
	return s.d.DestroyAll(ctx, s.userID, except...)
}

// counts reports whether a row counts against MaxSessions.
func (d *Database[U, ID]) counts(row *AccessToken[ID]) bool {
	return d.cfg.MaxSessions > 0 && row.Scopes == nil
}

// maxSkew is the largest difference expected between the clocks of instances.
const maxSkew = 10 * time.Second

// creationTime returns a creation time for a new row that is later than those of the user's
// other rows. Without it, a login on an instance whose clock is behind would be the oldest
// session, and the first to be evicted. Rows further ahead than maxSkew are ignored: the new
// session would otherwise live longer by as much.
func (d *Database[U, ID]) creationTime(ctx context.Context, row AccessToken[ID]) (time.Time, error) {
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

// evict ends the oldest sessions beyond MaxSessions. It runs after the row of a new login was
// inserted, because counting before would race. Sessions that the login replaces do not
// count. All logins order the sessions alike, and the last of several concurrent logins sees
// all of them, so the limit is exact.
func (d *Database[U, ID]) evict(ctx context.Context, user U, replaced []AccessToken[ID]) error {
	logins, err := d.logins(ctx, user, replaced)
	if err != nil || len(logins) <= d.cfg.MaxSessions {
		return err
	}
	// Evict sessions that were created further ahead than maxSkew first. They would look
	// newer than the new login, which would be evicted instead until that time has come.
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
		if err := d.end(ctx, old, event.ReasonOverLimit); err != nil {
			return err
		}
	}
	return nil
}

// logins returns the sessions of a user that count against MaxSessions, newest first. Tokens
// with scopes and sessions that are being replaced do not count.
func (d *Database[U, ID]) logins(ctx context.Context, user U, replaced []AccessToken[ID]) ([]AccessToken[ID], error) {
	rows, err := d.valid(ctx, user, Position{}, 0)
	return slices.DeleteFunc(rows, func(row AccessToken[ID]) bool {
		return row.Scopes != nil || slices.ContainsFunc(replaced, func(old AccessToken[ID]) bool { return old.ID == row.ID })
	}), err
}

// cursorOf encodes the position of a row: the next page begins after it.
func cursorOf[ID comparable](row AccessToken[ID]) string { return cursor.Format(row.CreatedAt, row.ID) }

func parseCursor(s string) (Position, error) {
	if s == "" {
		return Position{}, nil
	}
	at, id, ok := cursor.Parse(s)
	if !ok {
		return Position{}, ErrInvalidCursor
	}
	return Position{at, id}, nil
}
