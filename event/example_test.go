package event_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/latchkey-go/latchkey/event"
)

// newLogger returns a logger that writes to standard output, without the time.
func newLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// Log events with a logger of your own.
func ExampleLog() {
	onEvent := event.Log(newLogger()) // the OnEvent of a Config

	// What the packages then do:
	ctx := context.Background()
	onEvent(ctx, event.Event{Kind: event.LoginSucceeded, UserID: 42, ClientIP: "192.0.2.7"})
	onEvent(ctx, event.Event{Kind: event.TokenDenied, Reason: event.ReasonExpired, UserID: 42})

	// Output:
	// level=INFO msg=login.succeeded user_id=42 client_ip=192.0.2.7
	// level=INFO msg=token.denied user_id=42 reason=expired
}

// Log events, and act on some of them.
func ExampleJoin() {
	alert := func(_ context.Context, e event.Event) {
		if e.Kind == event.PasswordChanged {
			fmt.Println("send user", e.UserID, "a mail: your password was changed")
		}
	}
	onEvent := event.Join(event.Log(newLogger()), alert)

	onEvent(context.Background(), event.Event{Kind: event.PasswordChanged, UserID: 42})

	// Output:
	// level=INFO msg=account.password_changed user_id=42
	// send user 42 a mail: your password was changed
}

// A job that logs users in on behalf of a client says where the request came from.
func ExampleContextWithClientIP() {
	ctx := event.ContextWithClientIP(context.Background(), "192.0.2.7")
	fmt.Println(event.ClientIP(ctx))

	// Output: 192.0.2.7
}
