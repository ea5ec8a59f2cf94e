package openapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
)

// checker checks the answers of applications against their descriptions.
type checker struct {
	mu              sync.Mutex
	described, seen map[string]bool           // refusals: a method, a path, a status and a code
	routers         map[string]routers.Router // by the description
}

func newChecker() *checker {
	return &checker{described: make(map[string]bool), seen: make(map[string]bool), routers: make(map[string]routers.Router)}
}

// transport checks what goes through it.
type transport struct {
	*checker
	tb     testing.TB
	router routers.Router
	next   http.RoundTripper
}

// watch returns a transport that checks the answers of an application with this description.
func (c *checker) watch(tb testing.TB, description map[string]any, next http.RoundTripper) http.RoundTripper {
	tb.Helper()
	strict(description["paths"], false)
	strict(description["components"], true)
	encoded, err := json.Marshal(description)
	if err != nil {
		tb.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.routers[string(encoded)] == nil {
		if c.routers[string(encoded)], err = newRouter(tb.Context(), encoded); err != nil {
			tb.Fatalf("the description is not valid: %v", err)
		}
		for path, item := range description["paths"].(map[string]any) {
			for method, operation := range item.(map[string]any) {
				for status, response := range operation.(map[string]any)["responses"].(map[string]any) {
					for _, code := range codesIn(response) {
						c.described[refusal(method, path, status, code)] = true
					}
				}
			}
		}
	}
	return &transport{c, tb, c.routers[string(encoded)], next}
}

// newRouter returns a router that finds the operations of a description, which must be valid.
func newRouter(ctx context.Context, description []byte) (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(description)
	if err != nil {
		return nil, err
	}
	if err := doc.Validate(ctx); err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
}

// strict forbids members that are not described, in the schemas of answers.
func strict(value any, inAnswer bool) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			strict(item, inAnswer)
		}
	case map[string]any:
		_, open := value["additionalProperties"]
		if _, has := value["properties"]; has && inAnswer && !open && value["type"] == "object" {
			value["additionalProperties"] = false
		}
		for name, member := range value {
			strict(member, inAnswer || name == "responses")
		}
	}
}

// codesIn returns the codes that a part of a description lists.
func codesIn(value any) (codes []string) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			codes = append(codes, codesIn(item)...)
		}
	case map[string]any:
		for name, member := range value {
			if name != "enum" {
				codes = append(codes, codesIn(member)...)
				continue
			}
			for _, code := range member.([]any) {
				codes = append(codes, code.(string))
			}
		}
	}
	return codes
}

func refusal(method, path, status, code string) string {
	return fmt.Sprintf("%s %s: %s %s", strings.ToUpper(method), path, status, code)
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	route, params, err := t.router.FindRoute(req)
	if err != nil {
		if strings.Contains(req.URL.Path, "/auth/") && resp.StatusCode != http.StatusNotFound {
			t.tb.Errorf("%s %s: %d: it is not described", req.Method, req.URL.Path, resp.StatusCode)
		}
		return resp, nil // a route of the application
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, errors.Join(err, resp.Body.Close())
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(content))
	if err := t.check(req, route, params, resp, content); err != nil {
		t.tb.Errorf("%s %s: %d: %v", req.Method, route.Path, resp.StatusCode, err)
	}
	return resp, nil
}

func (t *transport) check(req *http.Request, route *routers.Route, params map[string]string, resp *http.Response, content []byte) error {
	sent := req.Clone(req.Context())
	if req.GetBody != nil {
		var err error
		if sent.Body, err = req.GetBody(); err != nil {
			return err
		}
	}
	options := &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}
	input := &openapi3filter.RequestValidationInput{Request: sent, PathParams: params, Route: route, Options: options}
	// In forms, kin-openapi accepts no spelling of booleans but its own, and no other fields.
	if resp.StatusCode < 300 && !strings.Contains(req.Header.Get("Content-Type"), "form") {
		if err := openapi3filter.ValidateRequest(req.Context(), input); err != nil {
			return fmt.Errorf("the request was accepted: %w", err)
		}
	}
	if err := openapi3filter.ValidateResponse(req.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(content)), Options: options,
	}); err != nil {
		return err
	}
	described := route.Operation.Responses.Status(resp.StatusCode).Value
	if len(described.Content) == 0 && len(content) > 0 {
		return fmt.Errorf("it has a body of the type %s, which is not described", resp.Header.Get("Content-Type"))
	}
	for _, name := range []string{"Retry-After", "Set-Cookie", "Www-Authenticate"} {
		if resp.Header.Get(name) != "" && !slices.ContainsFunc(headerNames(described), func(is string) bool { return strings.EqualFold(is, name) }) {
			return fmt.Errorf("it has the header %s, which is not described", name)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen[refusal(req.Method, route.Path, fmt.Sprint(resp.StatusCode), codeOf(content))] = true
	return nil
}

func headerNames(r *openapi3.Response) (names []string) {
	for name := range r.Headers {
		names = append(names, name)
	}
	return names
}

// codeOf returns the code of a refusal, or "" for another answer.
func codeOf(content []byte) string {
	var simple struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(content, &simple) == nil {
		return simple.Detail
	}
	var withReason struct {
		Detail struct {
			Code string `json:"code"`
		} `json:"detail"`
	}
	if json.Unmarshal(content, &withReason) == nil {
		return withReason.Detail.Code
	}
	return ""
}
