package event

import (
	"context"
	"slices"
	"time"

	"github.com/google/uuid"
)

// Event is something that an application may want to log, count or act on. It never contains
// a token, a digest or a password.
type Event struct {
	Kind      Kind      // what happened
	Time      time.Time // by the clock of the package that reports the event
	UserID    any       // of the application's ID type; nil if no user is known
	SessionID uuid.UUID // uuid.Nil if no session is known
	ClientIP  string    // of the request; "" if it is unknown. See ContextWithClientIP
	Reason    Reason    // why a request was denied or a session ended; "" otherwise
	Err       error     // why something failed; nil otherwise
	Count     int64     // of Purged: how many rows were deleted; 0 otherwise
}

// Kind says what happened. Later versions may add kinds.
type Kind string

// Tokens and sessions. Each comment names the fields that are set, besides Kind, Time and
// ClientIP.
const (
	// TokenIssued: a user logged in, or got a token with scopes. UserID, SessionID.
	TokenIssued Kind = "token.issued"
	// TokenRevoked: a session ended. UserID, SessionID, and Reason if it was not ended on
	// request.
	TokenRevoked Kind = "token.revoked"
	// TokensRevoked: all sessions of a user ended, possibly except some. UserID.
	TokensRevoked Kind = "tokens.revoked"
	// TokenRotated: a session got a new secret. UserID, SessionID.
	TokenRotated Kind = "token.rotated"
	// TouchFailed: the last use of a session was not stored; the request was served. UserID,
	// SessionID, Err.
	TouchFailed Kind = "token.touch_failed"
	// TokenDenied: a token was refused. Reason, and UserID and SessionID if the token was
	// found.
	TokenDenied Kind = "token.denied"
)

// Stores and caches.
const (
	// StoreFailed: a store, a user source or a guard's check failed, a handler called a
	// method of ginauth where it cannot work, or ginauth's Refuse got an error that it does
	// not know and no event has reported. Nothing was granted, and nobody was logged out.
	// Err, and UserID and SessionID if they are known.
	StoreFailed Kind = "store.failed"
	// InvalidDocument: the database holds a document that the store cannot read, because
	// another program wrote it or changed it. A token's counts as missing; a user's is a
	// failure. Err names the collection, the document's _id, the field and its type.
	InvalidDocument Kind = "store.invalid_document"
	// CacheSuspended: the revocations of other processes could not be read for longer than
	// Cache.MaxStaleness, so every request reads the database until they can. Err.
	CacheSuspended Kind = "cache.suspended"
	// CacheResumed: the cache is used again.
	CacheResumed Kind = "cache.resumed"
	// AuditDropped: events are missing from the audit trail, because they came faster than they
	// could be written. Err says how many, and why.
	AuditDropped Kind = "audit.dropped"
	// Purged: a purge of sqlstore deleted expired rows. Count. Rows of revocations do not count.
	Purged Kind = "store.purged"
)

// Logins.
const (
	// LoginSucceeded: the password of a login was right. UserID.
	LoginSucceeded Kind = "login.succeeded"
	// Reauthenticated: a logged-in user gave the password again, and it was right. UserID.
	Reauthenticated Kind = "login.reauthenticated"
	// LoginDenied: a login or a reauthentication was denied. Reason, UserID if it is known,
	// and with ReasonUnusableHash and ReasonOAuthToken Err.
	LoginDenied Kind = "login.denied"
	// Overloaded: a password was not checked, because too many checks were in flight. Err.
	Overloaded Kind = "login.overloaded"
	// LimiterFailed: the store of the login limiter failed. The login went on or failed, as
	// account.LimiterConfig.FailClosed says. Err.
	LimiterFailed Kind = "login.limiter_failed"
	// ProxyMisconfigured: a login came through a proxy that Gin does not know, or Gin trusts
	// every client to name its address, so that the client IP is wrong. It is emitted once.
	// Err says what to do.
	ProxyMisconfigured Kind = "proxy.misconfigured"
)

// Accounts.
const (
	// AccountRegistered: an account was created. UserID.
	AccountRegistered Kind = "account.registered"
	// RegistrationDenied: a client could not register an account. Reason: the address is taken,
	// or its network registers too many accounts.
	RegistrationDenied Kind = "account.registration_denied"
	// AccountChanged: the flags or the application's own fields of an account were set, or its
	// tokens revoked. UserID, and Reason if it was deactivated.
	AccountChanged Kind = "account.changed"
	// AccountDeleted: an account was deleted. UserID.
	AccountDeleted Kind = "account.deleted"
	// PasswordChanged: a user changed the password of an account, or the application set it.
	// UserID.
	PasswordChanged Kind = "account.password_changed"
	// AccountVerified: a user proved to own the e-mail address. UserID.
	AccountVerified Kind = "account.verified"
	// EmailChanged: an account got a new e-mail address: its user proved to own it, or the
	// application set it. UserID.
	EmailChanged Kind = "account.email_changed"
	// PasswordReset: a user set a new password with a one-time token. UserID.
	PasswordReset Kind = "account.password_reset"
	// VerificationRequested: a client asked for a message that verifies an address. UserID if
	// it is known, and Reason if no message is sent.
	VerificationRequested Kind = "verification.requested"
	// PasswordResetRequested: a client asked for a message that resets a password. UserID if
	// it is known, and Reason if no message is sent.
	PasswordResetRequested Kind = "password.reset_requested"
	// EmailChangeRequested: a user asked for a change of address. UserID, and Reason if no
	// message is sent.
	EmailChangeRequested Kind = "email.change_requested"
	// OneTimeTokenDenied: a one-time token was refused. Reason, and UserID if it is known.
	OneTimeTokenDenied Kind = "one_time_token.denied"
	// MailSent: the Mailer sent a message. UserID.
	MailSent Kind = "mail.sent"
	// MailFailed: a message was not sent. UserID if it is known, Err.
	MailFailed Kind = "mail.failed"
	// PasswordRehashed: a password was hashed with new parameters at a login, which
	// succeeded. UserID, and Err if the new hash was not stored.
	PasswordRehashed Kind = "account.password_rehashed"
)

// Logins through identity providers; see contrib/oidc.
const (
	// OAuthLinked: an account was linked to a user of an identity provider. UserID.
	OAuthLinked Kind = "oauth.linked"
	// OAuthLinkDenied: a logged-in user could not link the account. Reason, UserID, and Err if
	// the provider's answer is not valid.
	OAuthLinkDenied Kind = "oauth.link_denied"
	// OAuthUnlinked: a user removed a link, or a reset of the password did, of an account that is
	// not verified. UserID.
	OAuthUnlinked Kind = "oauth.unlinked"
)

// Requests.
const (
	// AccessDenied: a guard rejected a request although its token was valid, or because it
	// carried no usable token. Reason, and UserID and SessionID if they are known.
	AccessDenied Kind = "access.denied"
)

// Reason says why a token, a login or a request was denied, or why a session ended. It is for
// the application; clients are told less. Later versions may add reasons.
type Reason string

// Reasons for which a token is refused, or a session ended.
const (
	ReasonMalformed    Reason = "malformed"     // the string is not a token
	ReasonUnknown      Reason = "unknown"       // never issued, revoked, or expired and removed
	ReasonExpired      Reason = "expired"       // older than its lifetime
	ReasonIdle         Reason = "idle"          // not used for longer than the idle timeout
	ReasonSuperseded   Reason = "superseded"    // issued before the user's token version was raised, or before Config.NotBefore
	ReasonUserGone     Reason = "user_gone"     // the user no longer exists
	ReasonUserInactive Reason = "user_inactive" // the user is not active
	ReasonOverLimit    Reason = "over_limit"    // the user had too many sessions
	ReasonReplaced     Reason = "replaced"      // another login replaced the session
)

// Reasons for which a login is denied. ReasonUserInactive is another.
const (
	ReasonUnknownUser   Reason = "unknown_user"   // no account has this name
	ReasonWrongPassword Reason = "wrong_password" // the password does not match
	ReasonNoPassword    Reason = "no_password"    // the account has no password
	ReasonEmailTaken    Reason = "email_taken"    // another account has the address
	ReasonUnusableHash  Reason = "unusable_hash"  // the stored password hash cannot be read, or costs too much
	ReasonTooMany       Reason = "too_many"       // too many attempts failed; the password was not checked
)

// Reasons for which a login through an identity provider, or a link to one, is denied.
// ReasonUserInactive, ReasonUserUnverified, ReasonEmailTaken and ReasonCrossOrigin are others.
const (
	ReasonOAuthState    Reason = "oauth_state"    // the answer is not for what this browser began, or came too late
	ReasonOAuthProvider Reason = "oauth_provider" // the provider refused, or the user did
	ReasonOAuthToken    Reason = "oauth_token"    // the code or the ID token is not valid
	ReasonOAuthTaken    Reason = "oauth_taken"    // the user of the provider is linked to another account
	ReasonNoEmail       Reason = "no_email"       // the provider named no e-mail address
)

// Reasons for which a guard rejects a request.
const (
	ReasonNoCredentials  Reason = "no_credentials"  // the request carried no token
	ReasonBadRequest     Reason = "bad_request"     // the request carried contradictory credentials
	ReasonCrossOrigin    Reason = "cross_origin"    // a page of another origin sent the cookie
	ReasonUserVerified   Reason = "user_verified"   // the user is verified already
	ReasonUserUnverified Reason = "user_unverified" // the user is not verified, and the route requires it
	ReasonScope          Reason = "scope"           // the token's scopes do not cover the route
	ReasonNotFresh       Reason = "not_fresh"       // the route requires a more recent login
	ReasonForbidden      Reason = "forbidden"       // a check of the route denied access
)

// Join returns a function for the OnEvent fields that calls the given functions in order. It
// ignores nil ones.
func Join(listeners ...func(context.Context, Event)) func(context.Context, Event) {
	listeners = slices.DeleteFunc(slices.Clone(listeners), func(f func(context.Context, Event)) bool { return f == nil })
	return func(ctx context.Context, e Event) {
		for _, listen := range listeners {
			listen(ctx, e)
		}
	}
}
