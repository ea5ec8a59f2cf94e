package ginauth

import (
	"context"
	"net/http"

	"github.com/gin-gonic/gin"
)

// This file is all that the package needs of Gin. Everything else works on
// http.ResponseWriter and *http.Request, and passes *gin.Context on at most.

// handle adapts one of the package's handlers to Gin. The request that the handler sees
// knows the client IP and the path values; its context is bounded by Config.Timeout, and its
// body by Config.BodyTimeout, also if the handler does not read it. handle answers the
// handler's error.
func (a *Auth[U]) handle(handler func(http.ResponseWriter, *http.Request) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		for _, p := range c.Params {
			c.Request.SetPathValue(p.Key, p.Value)
		}
		ctx := requestContext(c)
		bounded := a.bounded(ctx)
		if id := a.identity(c.Request); id != nil {
			bounded.timeout -= id.reading.spent // the guard is part of the operation
		}
		defer func() {
			setContext(c.Request, ctx) // for middleware that goes on after the handler
			bounded.end()
		}()
		setContext(c.Request, bounded)
		a.boundBody(c.Writer, c.Request)
		if err := handler(c.Writer, c.Request); err != nil {
			a.Refuse(c, err)
		}
	}
}

// noCache is noStore as middleware.
func noCache(c *gin.Context) { noStore(c.Writer) }

// abort keeps the handlers that follow from running.
func abort(c *gin.Context) { c.Abort() }

// next runs the handlers that follow.
func next(c *gin.Context) { c.Next() }

// routeOf returns the pattern of the route, which has no values of the request; "" without
// a route.
func routeOf(c *gin.Context) string { return c.FullPath() }

// ginClientIP returns the client IP by Gin's rules for trusted proxies. With a trusted
// platform, Gin does not check that it is an IP.
func ginClientIP(c *gin.Context) string { return c.ClientIP() }

// requestContext returns the request's context with the client IP.
func requestContext(c *gin.Context) context.Context {
	client := newClientContext(c.Request.Context(), c)
	client.resolve()
	return &client
}

// setContext changes a request in place. A copy would hide from net/http what handlers
// store in the request, such as the temporary files of uploads, which net/http removes.
func setContext(r *http.Request, ctx context.Context) { *r = *r.WithContext(ctx) }
