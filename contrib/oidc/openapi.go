package oidc

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
)

// OpenAPI returns a description in OpenAPI 3.1 of the routes that Routes and AssociateRoutes have
// mounted so far, to add to a document with ginauth.MergeOpenAPI. It is a new value with every call.
// The codes of a refusal are in its description. What a hook of the application refuses is not
// described.
func (o *Logins[U, ID]) OpenAPI() map[string]any {
	var security []any
	schemes, _ := member(o.auth.OpenAPI(), "components")["securitySchemes"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(schemes)) {
		security = append(security, object{name: []any{}})
	}
	paths := make(object)
	for _, r := range o.mounted.all() {
		name, params := r.path, r.query
		if parent, ok := strings.CutSuffix(r.path, "/:id"); ok {
			name = parent + "/{id}"
			params = []any{object{"name": "id", "in": "path", "required": true, "schema": text}}
		}
		responses := make(object)
		for status, is := range r.answers {
			responses[strconv.Itoa(status)] = is
		}
		for status, codes := range r.refuses {
			responses[strconv.Itoa(status)] = object{"description": http.StatusText(status) + ": " + strings.Join(codes, ", ")}
		}
		operation := object{"tags": []any{"Identity providers"}, "summary": r.summary, "responses": responses, "security": []any{}}
		if r.secured {
			operation["security"] = security
		}
		if len(params) > 0 {
			operation["parameters"] = params
		}
		member(paths, name)[strings.ToLower(r.method)] = operation
	}
	return object{
		"openapi": "3.1.0", "info": object{"title": "Latchkey: identity providers", "version": "1"},
		"paths": paths, "components": object{"securitySchemes": schemes},
	}
}

// object is a JSON object.
type object = map[string]any

// member returns an object in an object. It adds it if it is missing.
func member(of object, name string) object {
	m, ok := of[name].(object)
	if !ok {
		m = make(object)
		of[name] = m
	}
	return m
}

// route describes a route that was mounted.
type route struct {
	method, path, summary string
	secured               bool // it wants a token
	query                 []any
	answers               map[int]object
	refuses               map[int][]string
}

// mounted are the routes that were mounted.
type mounted struct {
	mu     sync.Mutex
	routes []route
}

func (m *mounted) all() []route {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.routes)
}

// mount adds a route below a router, and its description.
func (m *mounted) mount(r gin.IRouter, relative string, is route, handlers ...gin.HandlerFunc) {
	base := "/"
	if group, ok := r.(interface{ BasePath() string }); ok {
		base = group.BasePath()
	}
	is.path = path.Join(base, relative)
	r.Handle(is.method, relative, handlers...)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = append(m.routes, is)
}

var text = object{"type": "string"}

// answer describes a success with JSON, or without a body.
func answer(description string, schema object) object {
	is := object{"description": description}
	if schema != nil {
		is["content"] = object{"application/json": object{"schema": schema}}
	}
	return is
}

// record is the schema of an object with these members, which are required.
func record(members object) object {
	return object{"type": "object", "properties": members, "required": slices.Sorted(maps.Keys(members))}
}

const (
	unavailable = "SERVICE_UNAVAILABLE"
	crossOrigin = "CROSS_ORIGIN_REQUEST"
)

// refusals of a request that wants a token.
func withUser(refuses map[int][]string) map[int][]string {
	refuses[http.StatusUnauthorized] = append(refuses[http.StatusUnauthorized], "Unauthorized", "INSUFFICIENT_USER_AUTHENTICATION")
	refuses[http.StatusForbidden] = append(refuses[http.StatusForbidden], "Forbidden", crossOrigin)
	refuses[http.StatusBadRequest] = append(refuses[http.StatusBadRequest], "Bad Request")
	refuses[http.StatusServiceUnavailable] = []string{unavailable}
	return refuses
}

// authorize describes the route that begins a flow.
func (o *Logins[U, ID]) authorize(f flow) route {
	boolean := object{"type": "boolean"}
	is := route{
		method: http.MethodGet, summary: "Begin a login through the provider",
		query: []any{
			object{"name": "scopes", "in": "query", "schema": object{"type": "array", "items": text}},
			object{"name": "fresh", "in": "query", "schema": boolean},
			object{"name": "redirect_to", "in": "query", "schema": text},
		},
		answers: map[int]object{http.StatusOK: answer("Where the browser has to go; the answer sets the state cookie.", record(object{"authorization_url": text}))},
		refuses: map[int][]string{
			http.StatusBadRequest: {CodeInvalidRedirect, CodeInvalidScope}, http.StatusForbidden: {crossOrigin}, http.StatusServiceUnavailable: {unavailable},
		},
	}
	if f == link {
		is.summary, is.secured = "Begin to link the account of the user to the provider", true
		is.refuses = withUser(is.refuses)
		return is
	}
	is.answers[http.StatusSeeOther] = answer("The browser goes to the provider, with redirect_to.", nil)
	return is
}

// callback describes the route to which the provider sends the browser.
func (o *Logins[U, ID]) callback(f flow) route {
	is := route{
		method: http.MethodGet, summary: "End a login through the provider",
		query: []any{
			object{"name": "state", "in": "query", "schema": text},
			object{"name": "code", "in": "query", "schema": text},
			object{"name": "error", "in": "query", "schema": text},
		},
		answers: map[int]object{http.StatusSeeOther: answer("As authorize was asked by redirect_to.", nil)},
		refuses: map[int][]string{
			http.StatusBadRequest: {
				CodeInvalidState, CodeBadToken, CodeExpired, CodeNoEmail, CodeUserExists, CodeLinkedElsewhere, CodeProvider,
				"LOGIN_BAD_CREDENTIALS", "LOGIN_USER_NOT_VERIFIED",
				"invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type", "invalid_scope", "server_error",
				"temporarily_unavailable", "interaction_required", "login_required", "account_selection_required", "consent_required",
			},
			http.StatusServiceUnavailable: {unavailable},
		},
	}
	switch {
	case f == link:
		is.summary, is.secured = "End the linking of the account of the user", true
		is.answers[http.StatusOK] = answer("The user.", object{"type": "object"})
		is.refuses = withUser(is.refuses)
	case o.auth.AnswersWithCookie():
		is.answers[http.StatusNoContent] = answer("The answer sets the cookie.", nil)
	default:
		is.answers[http.StatusOK] = answer("A token.", record(object{"access_token": text, "token_type": text}))
	}
	return is
}

// listing and unlinking describe the routes of links.
func listing() route {
	one := record(object{"id": text, "provider": text, "email": text, "created_at": text})
	return route{
		method: http.MethodGet, summary: "List the links of the user to providers", secured: true,
		answers: map[int]object{http.StatusOK: answer("The links.", record(object{"links": object{"type": "array", "items": one}}))},
		refuses: withUser(map[int][]string{}),
	}
}

func unlinking() route {
	return route{
		method: http.MethodDelete, summary: "Remove a link", secured: true,
		answers: map[int]object{http.StatusNoContent: answer("The link is removed.", nil)},
		refuses: withUser(map[int][]string{http.StatusBadRequest: {CodeLastLogin}, http.StatusNotFound: {"NOT_FOUND"}}),
	}
}
