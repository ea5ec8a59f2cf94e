package strategy

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// EventKind says what happened. New kinds may be added.
type EventKind string

// What the packages of Latchkey report. Comments name the fields that are set
// beside Kind, Time and ClientAddr.
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

	// EventCacheSuspended: Err. The revocations of other processes could not be
	// followed for longer than Cache.MaxStaleness: every request reads the database
	// until they can.
	EventCacheSuspended EventKind = "cache.suspended"
	// EventCacheResumed: the cache is used again.
	EventCacheResumed EventKind = "cache.resumed"

	// EventLoginSucceeded: UserID. The password was right.
	EventLoginSucceeded EventKind = "login.succeeded"
	// EventReauthenticated: UserID. The password was right, asked for again.
	EventReauthenticated EventKind = "login.reauthenticated"
	// EventLoginDenied: Reason, and UserID where account knows it. Also where a
	// password is asked for again.
	EventLoginDenied EventKind = "login.denied"
	// EventOverloaded: Err. A password was not looked at: too many were.
	EventOverloaded EventKind = "login.overloaded"
	// EventLimiterFailed: Err. The login limiter's store could not answer; the
	// login went on, or failed, as account.LimiterConfig.FailClosed says.
	EventLimiterFailed EventKind = "login.limiter_failed"
	// EventAccountRegistered: UserID.
	EventAccountRegistered EventKind = "account.registered"
	// EventAccountChanged: UserID, and Reason where the account was deactivated.
	EventAccountChanged EventKind = "account.changed"
	// EventPasswordChanged: UserID.
	EventPasswordChanged EventKind = "account.password_changed"
	// EventPasswordRehashed: UserID, and Err where the new hash was not stored;
	// the login went on either way.
	EventPasswordRehashed EventKind = "account.password_rehashed"

	// EventAccessDenied: Reason, and UserID and SessionID where they are known.
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
	ReasonSuperseded     Reason = "superseded"      // from before what the user, or the configuration, accepts
	ReasonOverLimit      Reason = "over_limit"      // the user has too many sessions
	ReasonReplaced       Reason = "replaced"        // its token came with another login
	ReasonUserGone       Reason = "user_gone"       // the user no longer exists
	ReasonUserInactive   Reason = "user_inactive"   // the user is not active
	ReasonUserUnverified Reason = "user_unverified" // the user is not verified, and must be
	ReasonUnknownUser    Reason = "unknown_user"    // no account with this name
	ReasonWrongPassword  Reason = "wrong_password"  // the password does not match
	ReasonUnusableHash   Reason = "unusable_hash"   // the stored password hash cannot be read
	ReasonTooMany        Reason = "too_many"        // too many attempts failed before; the password was not looked at
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
	// ClientAddr is the client's address, where the event belongs to a request; see
	// [ContextWithClientAddr].
	ClientAddr string
	Reason     Reason // "" where nothing was denied
	Err        error  // nil where nothing failed
}

// JoinEvents returns a function for the OnEvent fields that calls all the given
// ones in turn; nil ones are left out.
func JoinEvents(listeners ...func(context.Context, Event)) func(context.Context, Event) {
	listeners = slices.DeleteFunc(slices.Clone(listeners), func(f func(context.Context, Event)) bool { return f == nil })
	return func(ctx context.Context, e Event) {
		for _, listen := range listeners {
			listen(ctx, e)
		}
	}
}

// EventCounter counts events. Kinds and reasons are of small fixed sets: fit to be
// the labels of a metric. It must be safe for concurrent use. Ready ones are in
// the package expvarmetrics and in the module contrib/prommetrics.
type EventCounter interface {
	// CountEvent counts one event. reason is "" for an event that has none.
	CountEvent(kind EventKind, reason Reason)
}

// CountEvents returns a function for the OnEvent fields that counts every event.
// To log them too, see [JoinEvents].
func CountEvents(counter EventCounter) func(context.Context, Event) {
	return func(_ context.Context, e Event) { counter.CountEvent(e.Kind, e.Reason) }
}
