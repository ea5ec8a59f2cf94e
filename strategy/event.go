package strategy

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"
)

// EventKind says what happened. New kinds may be added.
type EventKind string

// What the packages of Latchkey report. Comments name the fields that are set
// beside Kind and Time.
const (
	// EventTokenIssued: UserID, SessionID.
	EventTokenIssued EventKind = "token.issued"
	// EventTokenRevoked: UserID, SessionID, and Reason where nobody asked for it.
	EventTokenRevoked EventKind = "token.revoked"
	// EventTokensRevoked: UserID. All sessions of a user ended, but perhaps one.
	EventTokensRevoked EventKind = "tokens.revoked"
	// EventTokenRotated: UserID, SessionID. The session has a new secret.
	EventTokenRotated EventKind = "token.rotated"
	// EventTouchFailed: UserID, SessionID, Err. The session's last use was not
	// written down; the request went on.
	EventTouchFailed EventKind = "token.touch_failed"
	// EventTokenDenied: Reason, and UserID and SessionID where the token was found.
	EventTokenDenied EventKind = "token.denied"
	// EventStoreFailed: Err; a store, a user source or a guard's check could not
	// answer. Nothing was granted and nobody was logged out.
	EventStoreFailed EventKind = "store.failed"

	// EventLoginSucceeded: UserID. The password was right.
	EventLoginSucceeded EventKind = "login.succeeded"
	// EventReauthenticated: UserID. The password was right, asked for again.
	EventReauthenticated EventKind = "login.reauthenticated"
	// EventLoginDenied: Reason, and UserID where account knows it. Also where a
	// password is asked for again.
	EventLoginDenied EventKind = "login.denied"
	// EventOverloaded: Err. A password was not looked at: too many were.
	EventOverloaded EventKind = "login.overloaded"
	// EventAccountRegistered: UserID.
	EventAccountRegistered EventKind = "account.registered"
	// EventAccountChanged: UserID, and Reason where the account was deactivated.
	EventAccountChanged EventKind = "account.changed"
	// EventPasswordChanged: UserID.
	EventPasswordChanged EventKind = "account.password_changed"
	// EventPasswordRehashed: UserID, and Err where the new hash was not stored;
	// the login went on either way.
	EventPasswordRehashed EventKind = "account.password_rehashed"

	// EventAccessDenied: Reason, and SessionID where it is known.
	// A guard turned a request away although its token was good, or because it
	// carried none that could be read.
	EventAccessDenied EventKind = "access.denied"
)

// Reason says why a token, a login or a request was denied. It is for the
// application; clients are told less. New reasons may be added.
type Reason string

// The reasons.
const (
	ReasonMalformed      Reason = "malformed"       // not of the token format
	ReasonUnknown        Reason = "unknown"         // never issued, revoked, or expired
	ReasonExpired        Reason = "expired"         // expired, and the store did not say so
	ReasonIdle           Reason = "idle"            // not used for longer than the idle timeout
	ReasonSuperseded     Reason = "superseded"      // older than the user, or the configuration, accepts
	ReasonOverLimit      Reason = "over_limit"      // the user has too many sessions
	ReasonReplaced       Reason = "replaced"        // its token came with another login
	ReasonUserGone       Reason = "user_gone"       // the user no longer exists
	ReasonUserInactive   Reason = "user_inactive"   // the user is not active
	ReasonUserUnverified Reason = "user_unverified" // the user is not verified, and must be
	ReasonUnknownUser    Reason = "unknown_user"    // no account with this name
	ReasonWrongPassword  Reason = "wrong_password"  // the password does not match
	ReasonUnusableHash   Reason = "unusable_hash"   // the stored password hash cannot be read
	ReasonScope          Reason = "scope"           // the token's scopes do not cover the route
	ReasonNotFresh       Reason = "not_fresh"       // the route asks for a more recent login
	ReasonCrossOrigin    Reason = "cross_origin"    // a page of another origin sent the cookie
	ReasonForbidden      Reason = "forbidden"       // a check of the route said no
	ReasonNoCredentials  Reason = "no_credentials"  // the request carried no token
	ReasonBadRequest     Reason = "bad_request"     // the request's credentials were contradictory
)

// Event is something that an application may want to log, count or act on. It
// never holds a token, a digest or a password.
type Event struct {
	Kind      EventKind // what happened
	Time      time.Time // by the clock of the package that reports it
	UserID    any       // the application's ID type; nil where no user is known
	SessionID uuid.UUID // uuid.Nil where no session is known
	Reason    Reason    // "" where nothing was denied
	Err       error     // nil where nothing failed
}

// LogEvents returns a function for the OnEvent fields that writes events to a
// logger: failures as errors, all else as information (also what failed because
// the client had gone). A nil logger means [slog.Default] at the time of the
// event. It is safe for concurrent use.
func LogEvents(logger *slog.Logger) func(context.Context, Event) {
	return func(ctx context.Context, e Event) {
		l := logger
		if l == nil {
			l = slog.Default()
		}
		level := slog.LevelInfo
		attrs := make([]slog.Attr, 0, 4)
		if e.UserID != nil {
			attrs = append(attrs, slog.Any("user_id", e.UserID))
		}
		if e.SessionID != uuid.Nil {
			attrs = append(attrs, slog.String("session_id", e.SessionID.String()))
		}
		if e.Reason != "" {
			attrs = append(attrs, slog.String("reason", string(e.Reason)))
		}
		if e.Err != nil {
			if !errors.Is(e.Err, context.Canceled) {
				level = slog.LevelError
			}
			attrs = append(attrs, slog.String("error", e.Err.Error()))
		}
		l.LogAttrs(ctx, level, string(e.Kind), attrs...)
	}
}
