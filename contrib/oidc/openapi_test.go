package oidc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/latchkey-go/latchkey/ginauth"
)

// copied keeps a copy of what a handler writes.
type copied struct {
	gin.ResponseWriter
	body bytes.Buffer
}

func (w *copied) Write(b []byte) (int, error) {
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}

func (w *copied) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// described returns a middleware that fails the test if an answer of one of the routes is not
// described: its status, the code of a refusal, and the members of a success.
func (r *rig) described(t testing.TB) gin.HandlerFunc {
	parameter := regexp.MustCompile(`:(\w+)`)
	return func(c *gin.Context) {
		w := &copied{ResponseWriter: c.Writer}
		c.Writer = w
		c.Next()
		paths, _ := r.OpenAPI()["paths"].(map[string]any)
		operation := at(paths, parameter.ReplaceAllString(c.FullPath(), "{$1}"), strings.ToLower(c.Request.Method))
		if operation == nil {
			return // not one of these routes
		}
		status := w.Status()
		is := at(operation, "responses", fmt.Sprint(status))
		var body map[string]any
		_ = json.Unmarshal(w.body.Bytes(), &body)
		switch code := fmt.Sprint(body["detail"]); {
		case is == nil:
			t.Errorf("%s %s: the status %d is not described", c.Request.Method, c.FullPath(), status)
		case status >= http.StatusBadRequest:
			_, codes, _ := strings.Cut(fmt.Sprint(is["description"]), ": ")
			if !slices.Contains(strings.Split(codes, ", "), code) {
				t.Errorf("%s %s: the code %s of the status %d is not described", c.Request.Method, c.FullPath(), code, status)
			}
		default:
			schema := at(is, "content", "application/json", "schema")
			if (schema == nil) != (w.body.Len() == 0 || status == http.StatusSeeOther) {
				t.Errorf("%s %s: the status %d has %d bytes, described as %v", c.Request.Method, c.FullPath(), status, w.body.Len(), schema)
			}
			required, _ := schema["required"].([]string)
			for _, name := range required {
				if body[name] == nil {
					t.Errorf("%s %s: the answer lacks %q, which is described", c.Request.Method, c.FullPath(), name)
				}
			}
		}
	}
}

// at returns an object in an object, or nil.
func at(of map[string]any, names ...string) map[string]any {
	for _, name := range names {
		of, _ = of[name].(map[string]any)
	}
	return of
}

func TestEveryMountedRouteIsDescribed(t *testing.T) {
	r := newRig(t, setup{})
	document := map[string]any{"openapi": "3.1.0"}
	for _, description := range []map[string]any{r.auth.OpenAPI(), r.OpenAPI()} {
		if err := ginauth.MergeOpenAPI(document, description); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := json.Marshal(document); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`:(\w+)`)
	for _, route := range r.engine.Routes() {
		path := parameter.ReplaceAllString(route.Path, "{$1}")
		if at(document, "paths", path, strings.ToLower(route.Method)) == nil {
			t.Errorf("%s %s is not described", route.Method, path)
		}
	}
	paths, _ := r.OpenAPI()["paths"].(map[string]any)
	if len(paths) != 6 {
		t.Errorf("got %d paths, want 6", len(paths))
	}
	bare := newRig(t, setup{})
	if got := at(bare.OpenAPI(), "paths", "/auth/idp/callback", "get", "responses", "204"); got == nil {
		t.Error("the callback of a login with a cookie is not described with 204")
	}
}
