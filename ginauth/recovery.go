package ginauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"syscall"

	"github.com/gin-gonic/gin"
)

// Recovery returns middleware that recovers from panics in the handlers after it. It logs
// each panic with its stack, the method and the route, and answers 500 with the detail
// INTERNAL_SERVER_ERROR unless the answer has begun. Use it in place of gin.Recovery, which
// logs the headers of requests, in debug mode and for broken connections: their cookies hold
// valid tokens.
//
// Recovery never logs headers, cookies, the query or path values. Of a panic value that is
// not an error, a string or another basic value it logs only the type: a panic may carry the
// request itself. A connection that the client broke is logged as a warning without a
// stack. http.ErrAbortHandler panics again, for net/http. A nil logger means
// [slog.Default].
func Recovery(logger *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		w, method, route := c.Writer, c.Request.Method, routeOf(c)
		ctx := c.Request.Context()
		defer func() {
			value := recover()
			if value == nil {
				return
			}
			if err, ok := value.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(http.ErrAbortHandler)
			}
			logPanic(ctx, logger, value, method, route)
			abort(c)
			if !w.Written() {
				internalError(w)
			}
		}()
		next(c)
	}
}

func logPanic(ctx context.Context, logger *slog.Logger, value any, method, route string) {
	if logger == nil {
		logger = slog.Default()
	}
	attrs := []slog.Attr{slog.String("panic", panicText(value)), slog.String("method", method), slog.String("route", route)}
	if err, ok := value.(error); ok && (errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		logger.LogAttrs(ctx, slog.LevelWarn, "connection broken", attrs...)
		return
	}
	attrs = append(attrs, slog.String("stack", string(debug.Stack())))
	logger.LogAttrs(ctx, slog.LevelError, "handler panicked", attrs...)
}

// panicText returns the text of a panic value, if its type limits what it can hold.
func panicText(value any) string {
	if err, ok := value.(error); ok {
		return fmt.Sprint(err)
	}
	switch kind := reflect.TypeOf(value).Kind(); {
	case kind <= reflect.Complex128, kind == reflect.String:
		return fmt.Sprint(value)
	}
	return fmt.Sprintf("a value of type %T", value)
}

// internalError answers in place of a handler that panicked. The headers that describe the
// handler's answer do not describe this one.
func internalError(w http.ResponseWriter) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Etag", "Last-Modified"} {
		w.Header().Del(name)
	}
	noStore(w)
	writeEncoded(w, http.StatusInternalServerError, `{"detail":"INTERNAL_SERVER_ERROR"}`)
}
