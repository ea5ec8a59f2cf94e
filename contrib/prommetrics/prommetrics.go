// Package prommetrics counts Latchkey's events for Prometheus:
//
//	latchkey_events_total{kind="login.denied",reason="wrong_password"} 12
//
// kind and reason are those of the package strategy; reason is "" where an event has
// none. No label holds a user, a session or an address, so there are a few dozen
// series. All of them are there from the beginning, at 0: otherwise increase() would
// miss the first event of each.
//
// Alerts that are worth having, with thresholds to be set to what is usual:
//
//	# the database, or what stands before it, fails
//	sum(increase(latchkey_events_total{kind=~"store.failed|login.limiter_failed"}[5m])) > 0
//	# somebody guesses passwords
//	sum(rate(latchkey_events_total{kind="login.denied",reason=~"unknown_user|wrong_password|too_many"}[5m])) > 1
//	# logins are turned away because too many passwords wait to be hashed
//	sum(increase(latchkey_events_total{kind="login.overloaded"}[5m])) > 10
//	# tokens are guessed or made up
//	sum(rate(latchkey_events_total{kind="token.denied",reason=~"malformed|unknown"}[5m])) > 10
//
// It is a module of its own, so that nobody else inherits Prometheus' client.
package prommetrics

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/latchkey-go/latchkey/strategy"
)

// Counter is a strategy.EventCounter. Make one with [New], and give
// strategy.CountEvents of it to all OnEvent fields. It is safe for concurrent use.
type Counter struct {
	events *prometheus.CounterVec
}

var _ strategy.EventCounter = (*Counter)(nil)

// New registers latchkey_events_total and returns the Counter that counts in it.
// It returns an error where reg is nil, and one that wraps a
// prometheus.AlreadyRegisteredError where the registerer has the metric: one
// Counter serves all OnEvent fields of a process. To tell two applications in it
// apart, give each a registerer with a label of its own
// (prometheus.WrapRegistererWith).
func New(reg prometheus.Registerer) (*Counter, error) {
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
	return &Counter{events}, nil
}

// CountEvent implements strategy.EventCounter.
func (c *Counter) CountEvent(kind strategy.EventKind, reason strategy.Reason) {
	c.events.WithLabelValues(string(kind), string(reason)).Inc()
}

// known are the kinds with their reasons; "" is none.
var known = map[strategy.EventKind][]strategy.Reason{
	strategy.EventTokenIssued:   {""},
	strategy.EventTokenRevoked:  {"", strategy.ReasonOverLimit, strategy.ReasonReplaced},
	strategy.EventTokensRevoked: {""},
	strategy.EventTokenRotated:  {""},
	strategy.EventTouchFailed:   {""},
	strategy.EventTokenDenied: {
		strategy.ReasonMalformed, strategy.ReasonUnknown, strategy.ReasonExpired, strategy.ReasonIdle,
		strategy.ReasonSuperseded, strategy.ReasonUserGone, strategy.ReasonUserInactive,
	},
	strategy.EventStoreFailed:    {""},
	strategy.EventCacheSuspended: {""},
	strategy.EventCacheResumed:   {""},

	strategy.EventLoginSucceeded:  {""},
	strategy.EventReauthenticated: {""},
	strategy.EventLoginDenied: {
		strategy.ReasonUnknownUser, strategy.ReasonWrongPassword, strategy.ReasonUserInactive, strategy.ReasonUserUnverified,
		strategy.ReasonUnusableHash, strategy.ReasonTooMany, strategy.ReasonOverLimit, strategy.ReasonCrossOrigin,
	},
	strategy.EventOverloaded:        {""},
	strategy.EventLimiterFailed:     {""},
	strategy.EventAccountRegistered: {""},
	strategy.EventAccountChanged:    {"", strategy.ReasonUserInactive},
	strategy.EventPasswordChanged:   {""},
	strategy.EventPasswordRehashed:  {""},

	strategy.EventAccessDenied: {
		strategy.ReasonNoCredentials, strategy.ReasonBadRequest, strategy.ReasonCrossOrigin,
		strategy.ReasonForbidden, strategy.ReasonScope, strategy.ReasonNotFresh,
	},
}
