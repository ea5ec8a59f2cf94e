package ginauth

import (
	"context"
	"errors"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/reported"
	"github.com/latchkey-go/latchkey/strategy"
)

// denied reports a request that was rejected although its token was valid, or without
// asking the strategy. The strategy reports the other rejections.
func (a *Auth[U]) denied(ctx context.Context, session strategy.SessionInfo, err error) {
	if a.cfg.OnEvent == nil {
		return
	}
	if why := reason(err); why != "" {
		a.emit(ctx, event.Event{Kind: event.AccessDenied, UserID: session.UserID, SessionID: session.ID, Reason: why})
	}
}

// reason returns why a guard or a check rejected a request; "" for other errors.
func reason(err error) event.Reason {
	var stale *staleError
	var scope *scopeError
	switch {
	case errors.As(err, &stale):
		return event.ReasonNotFresh
	case errors.As(err, &scope):
		return event.ReasonScope
	case errors.Is(err, errForbidden):
		return event.ReasonForbidden
	case errors.Is(err, ErrCrossOrigin):
		return event.ReasonCrossOrigin
	case errors.Is(err, ErrNoCredentials):
		return event.ReasonNoCredentials
	case errors.Is(err, errBadRequest), errors.Is(err, errSeveralUsers):
		return event.ReasonBadRequest
	}
	return ""
}

// failed reports a failure, unless an event has reported it already. A client that has gone
// is no failure.
func (a *Auth[U]) failed(ctx context.Context, session strategy.SessionInfo, err error) {
	if errors.Is(ctx.Err(), context.Canceled) || reported.Is(err) {
		return
	}
	a.emit(ctx, event.Event{Kind: event.StoreFailed, UserID: session.UserID, SessionID: session.ID, Err: err})
}

func (a *Auth[U]) emit(ctx context.Context, e event.Event) {
	if a.cfg.OnEvent == nil {
		return
	}
	e.Time, e.ClientIP = a.cfg.Now().UTC(), event.ClientIP(ctx)
	a.cfg.OnEvent(ctx, e)
}

// userID returns the ID of a user, for events.
func (a *Auth[U]) userID(user U) any { return a.strategy.Of(user).UserID() }
