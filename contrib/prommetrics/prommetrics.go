// Package prommetrics counts Latchkey's events for Prometheus:
//
//	latchkey_events_total{kind="login.denied",reason="wrong_password"} 12
//
// The labels kind and reason are those of the package event; reason is "" where an
// event has none. No label holds a user, a session or an address, so there are only a
// few dozen series. All of them begin at 0: otherwise increase() would miss the first
// event of each.
//
// Useful alerts, with thresholds to adjust to the application's usual traffic:
//
//	# the database, or the network to it, fails
//	sum(increase(latchkey_events_total{kind=~"store.failed|login.limiter_failed"}[5m])) > 0
//	# passwords are being guessed
//	sum(rate(latchkey_events_total{kind="login.denied",reason=~"unknown_user|wrong_password|too_many"}[5m])) > 1
//	# logins are rejected because too many passwords wait to be hashed
//	sum(increase(latchkey_events_total{kind="login.overloaded"}[5m])) > 10
//	# tokens are being guessed
//	sum(rate(latchkey_events_total{kind="token.denied",reason=~"malformed|unknown"}[5m])) > 10
//
// It is a module of its own, so that other applications do not inherit the Prometheus
// client.
package prommetrics

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/latchkey-go/latchkey/event"
)

// New registers latchkey_events_total and returns a function for the OnEvent field of
// a Config, which counts every event. The function is safe for concurrent use; one
// serves all OnEvent fields. To log events too, use [event.Join].
//
// New returns an error where reg is nil, and one that wraps a
// prometheus.AlreadyRegisteredError where reg already has the metric. To tell two
// applications in one process apart, give each a registerer with a label of its own
// (prometheus.WrapRegistererWith).
func New(reg prometheus.Registerer) (func(context.Context, event.Event), error) {
	if reg == nil {
		return nil, errors.New("prommetrics: the registerer is nil")
	}
	events := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "latchkey_events_total",
		Help: "Events of Latchkey, such as logins, issued and revoked tokens, denials and failures, by kind and reason.",
	}, []string{"kind", "reason"})
	for kind, reasons := range known {
		for _, reason := range reasons {
			events.WithLabelValues(string(kind), string(reason))
		}
	}
	if err := reg.Register(events); err != nil {
		return nil, fmt.Errorf("prommetrics: register latchkey_events_total: %w", err)
	}
	return func(_ context.Context, e event.Event) {
		events.WithLabelValues(string(e.Kind), string(e.Reason)).Inc()
	}, nil
}

// known holds the reasons of each kind; "" means none.
var known = map[event.Kind][]event.Reason{
	event.TokenIssued:   {""},
	event.TokenRevoked:  {"", event.ReasonOverLimit, event.ReasonReplaced},
	event.TokensRevoked: {""},
	event.TokenRotated:  {""},
	event.TouchFailed:   {""},
	event.TokenDenied: {
		event.ReasonMalformed, event.ReasonUnknown, event.ReasonExpired, event.ReasonIdle,
		event.ReasonSuperseded, event.ReasonUserGone, event.ReasonUserInactive,
	},
	event.StoreFailed:     {""},
	event.InvalidDocument: {""},
	event.CacheSuspended:  {""},
	event.CacheResumed:    {""},
	event.AuditDropped:    {""},
	event.Purged:          {""},

	event.LoginSucceeded:  {""},
	event.Reauthenticated: {""},
	event.LoginDenied: {
		event.ReasonUnknownUser, event.ReasonWrongPassword, event.ReasonUserInactive, event.ReasonUserUnverified,
		event.ReasonNoPassword, event.ReasonUnusableHash, event.ReasonTooMany, event.ReasonOverLimit, event.ReasonCrossOrigin,
		event.ReasonOAuthState, event.ReasonOAuthProvider, event.ReasonOAuthToken, event.ReasonNoEmail, event.ReasonEmailTaken,
	},
	event.OAuthLinked: {""},
	event.OAuthLinkDenied: {
		event.ReasonOAuthState, event.ReasonOAuthProvider, event.ReasonOAuthToken, event.ReasonOAuthTaken, event.ReasonCrossOrigin,
	},
	event.OAuthUnlinked:      {""},
	event.Overloaded:         {""},
	event.LimiterFailed:      {""},
	event.ProxyMisconfigured: {""},
	event.AccountRegistered:  {""},
	event.RegistrationDenied: {event.ReasonEmailTaken, event.ReasonTooMany},
	event.AccountChanged:     {"", event.ReasonUserInactive},
	event.AccountDeleted:     {""},
	event.PasswordChanged:    {""},
	event.PasswordRehashed:   {""},
	event.AccountVerified:    {""},
	event.EmailChanged:       {""},
	event.PasswordReset:      {""},
	event.VerificationRequested: {
		"", event.ReasonUnknownUser, event.ReasonUserInactive, event.ReasonUserVerified, event.ReasonTooMany,
	},
	event.PasswordResetRequested: {"", event.ReasonUnknownUser, event.ReasonUserInactive, event.ReasonTooMany},
	event.EmailChangeRequested:   {"", event.ReasonTooMany},
	event.OneTimeTokenDenied: {
		event.ReasonMalformed, event.ReasonUnknown, event.ReasonExpired,
		event.ReasonSuperseded, event.ReasonUserGone, event.ReasonUserInactive,
	},
	event.MailSent:   {""},
	event.MailFailed: {""},

	event.AccessDenied: {
		event.ReasonNoCredentials, event.ReasonBadRequest, event.ReasonCrossOrigin,
		event.ReasonForbidden, event.ReasonScope, event.ReasonNotFresh,
	},
}
