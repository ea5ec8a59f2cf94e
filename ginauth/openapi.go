package ginauth

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
)

// OpenAPI returns a description in OpenAPI 3.1 of the routes that this Auth, and the Auths
// that were derived from it or that it was derived from, have mounted so far. It is a new value
// with every call, of the types that json.Unmarshal makes of an object. Add it to a document of
// your own with [MergeOpenAPI], or serve it with [Auth.OpenAPIHandler].
//
// Its security schemes, latchkeyBearer and latchkeyCookie, are those of your own guarded routes
// too. A second cookie is latchkeyCookie2. A user can have further members, of Hooks.View: to
// describe them, give your document a schema of the name LatchkeyUser. With Config.OnRefusal, the
// refusals have no schema, because their bodies are yours. What else a hook refuses is not
// described.
//
// The paths have the prefixes of their groups. A gin.IRouter that has no method BasePath, as
// gin.Engine and gin.RouterGroup have, counts as the root.
func (a *Auth[U]) OpenAPI() map[string]any {
	encoded, err := json.Marshal(a.cfg.openAPI())
	if err != nil {
		panic(err) // it has only strings, numbers and bools
	}
	var description map[string]any
	if err := json.Unmarshal(encoded, &description); err != nil {
		panic(err)
	}
	return description
}

// OpenAPIHandler returns a handler that serves [Auth.OpenAPI] as JSON. It describes what is
// mounted when a request comes, so it can be added before the routes.
func (a *Auth[U]) OpenAPIHandler() gin.HandlerFunc {
	return func(c *gin.Context) { writeJSON(c.Writer, http.StatusOK, a.cfg.openAPI()) }
}

// MergeOpenAPI adds the paths and components of a description, as [Auth.OpenAPI] returns it, to
// a document. Operations and components that the document has already stay as they are. The
// document shares the rest with the description afterwards.
//
// It returns an error if the document is not of OpenAPI 3.1 or later, or if it has another type
// than map[string]any where OpenAPI wants an object. The document can have some of the
// additions then.
func MergeOpenAPI(document, description map[string]any) error {
	version, _ := document["openapi"].(string)
	if !strings.HasPrefix(version, "3.") || strings.HasPrefix(version, "3.0") {
		return fmt.Errorf(`ginauth: MergeOpenAPI: the document's "openapi" is %q: want "3.1.0" or later`, version)
	}
	for _, part := range []string{"paths", "components"} {
		added, err := member(description, part)
		if err != nil {
			return err
		}
		own, err := member(document, part)
		if err != nil {
			return err
		}
		for name := range added { // a path, or a kind of components
			from, err := member(added, name)
			if err != nil {
				return err
			}
			to, err := member(own, name)
			if err != nil {
				return err
			}
			for key, value := range from { // an operation, or a component
				if _, has := to[key]; !has {
					to[key] = value
				}
			}
		}
	}
	return nil
}

// member returns an object in an object. It adds it if it is missing.
func member(of map[string]any, name string) (map[string]any, error) {
	value, has := of[name]
	if !has {
		value = make(map[string]any)
		of[name] = value
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("ginauth: MergeOpenAPI: %q is a %T: want a map[string]any", name, value)
	}
	return m, nil
}

// object is a JSON object of the description.
type object = map[string]any

// mounted are the routes that were mounted.
type mounted struct {
	mu     sync.Mutex
	routes []route
}

type route struct {
	method, path string // the path as Gin has it
	*operation
}

func (m *mounted) add(r route) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.routes = append(m.routes, r)
}

func (m *mounted) all() []route {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.routes)
}

// fullPath returns the path of a route below a router.
func fullPath(r gin.IRouter, relative string) string {
	base := "/"
	if group, ok := r.(interface{ BasePath() string }); ok {
		base = group.BasePath()
	}
	if relative == "" {
		return base
	}
	return path.Join(base, relative)
}

// openAPI returns the document.
func (s *settings) openAPI() object {
	paths := make(map[string]object)
	used := make(object)
	for _, r := range s.mounted.all() {
		name, params := template(r.path)
		if paths[name] == nil {
			paths[name] = make(object)
		}
		paths[name][strings.ToLower(r.method)] = s.describe(r, params)
		for schema, is := range r.schemas {
			used[schema] = is
		}
	}
	components := object{"securitySchemes": s.securitySchemes()}
	if len(used) > 0 {
		components["schemas"] = used
	}
	return object{
		"openapi":    "3.1.0",
		"info":       object{"title": "Latchkey", "version": "1"},
		"paths":      paths,
		"components": components,
	}
}

// pathParameter matches a parameter in a path of Gin. A colon after a backslash is none.
var pathParameter = regexp.MustCompile(`\\?[:*][^/]+`)

// template returns a path of Gin as OpenAPI has it, and the names of its parameters.
func template(ginPath string) (path string, params []string) {
	path = pathParameter.ReplaceAllStringFunc(ginPath, func(found string) string {
		if strings.HasPrefix(found, `\`) {
			return found[1:]
		}
		params = append(params, found[1:])
		return "{" + found[1:] + "}"
	})
	return path, params
}

// securitySchemes are the transports.
func (s *settings) securitySchemes() object {
	schemes := make(object)
	for i, name := range s.schemeNames() {
		switch t := s.transports[i].(type) {
		case cookie:
			schemes[name] = object{"type": "apiKey", "in": "cookie", "name": t.attributes.Name}
		default:
			schemes[name] = object{"type": "http", "scheme": "bearer"}
		}
	}
	return schemes
}

// schemeNames returns the names of the security schemes, in the order of the transports.
func (s *settings) schemeNames() (names []string) {
	cookies := 0
	for _, t := range s.transports {
		name := "latchkeyBearer"
		if t.ambient() {
			name = "latchkeyCookie"
			if cookies++; cookies > 1 {
				name += strconv.Itoa(cookies)
			}
		}
		names = append(names, name)
	}
	return names
}

// describe returns the Operation Object of a route.
func (s *settings) describe(r route, params []string) object {
	parameters := slices.Clone(r.query)
	for _, name := range params {
		schema := object{"type": "string"}
		if name == "id" && r.id != nil {
			schema = r.id
		}
		parameters = append(parameters, object{"name": name, "in": "path", "required": true, "schema": schema})
	}
	security := []object{} // anyone
	if r.secured {
		for _, name := range s.schemeNames() {
			security = append(security, object{name: []string{}})
		}
	}
	responses := make(object)
	for status, answer := range r.responses {
		responses[strconv.Itoa(status)] = s.response(status, answer)
	}
	described := object{"tags": []string{r.tag}, "summary": r.summary, "security": security, "responses": responses}
	if len(parameters) > 0 {
		described["parameters"] = parameters
	}
	if r.body != nil {
		described["requestBody"] = r.body
	}
	return described
}

// response returns a Response Object.
func (s *settings) response(status int, of *response) object {
	described := object{"description": of.description}
	schema := of.schema
	if status >= http.StatusBadRequest {
		described["description"] = http.StatusText(status)
		schema = refusalSchema(status, of)
		if s.OnRefusal != nil {
			schema = nil
		}
	}
	if schema != nil {
		described["content"] = object{typeJSON: object{"schema": schema}}
	}
	headers := make(object)
	text := object{"type": "string"}
	if of.setsCookie {
		headers["Set-Cookie"] = object{"schema": text}
	}
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		headers["Retry-After"] = object{"description": "seconds", "required": true, "schema": object{"type": "integer", "minimum": 1}}
	case s.realm == "":
	case status == http.StatusUnauthorized:
		headers["WWW-Authenticate"] = object{"required": true, "schema": text}
	case slices.Contains(of.codes, "Bad Request"), slices.Contains(of.codes, "Forbidden"):
		headers["WWW-Authenticate"] = object{"schema": text}
	}
	if len(headers) > 0 {
		described["headers"] = headers
	}
	return described
}

// refusalSchema returns the schema of a refusal.
func refusalSchema(status int, of *response) any {
	if status == http.StatusUnprocessableEntity {
		return ref("LatchkeyInvalid")
	}
	var forms []any
	if len(of.codes) > 0 {
		forms = append(forms, narrowed("LatchkeyError", object{"detail": object{"enum": of.codes}}))
	}
	if len(of.passwordCodes) > 0 {
		forms = append(forms, narrowed("LatchkeyPasswordError", object{
			"detail": object{"properties": object{"code": object{"enum": of.passwordCodes}}},
		}))
	}
	if len(forms) == 1 {
		return forms[0]
	}
	return object{"anyOf": forms}
}

// ref refers to one of the schemas.
func ref(name string) object { return object{"$ref": "#/components/schemas/" + name} }

// narrowed is a schema with further conditions for its members.
func narrowed(name string, properties object) object {
	return object{"allOf": []any{ref(name), object{"properties": properties}}}
}

// record is the schema of an object that must have the members required.
func record(properties object, required ...string) object {
	schema := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		schema["required"] = required
	}
	return schema
}

// list is the schema of an array.
func list(items any) object { return object{"type": "array", "items": items} }

// typed is the schema of a value of a JSON type, and optionally a format.
func typed(of any, format ...string) object {
	schema := object{"type": of}
	if len(format) > 0 {
		schema["format"] = format[0]
	}
	return schema
}

// orNil is typed for a value that can be null.
func orNil(of string, format ...string) object { return typed([]string{of, "null"}, format...) }

// The schemas of the routes. LatchkeyUser depends on the type of IDs; see Auth.userSchema.
var schemas = func() object {
	apiToken := object{
		"id": typed("string", "uuid"), "name": typed("string"), "scopes": list(typed("string")),
		"created_at": typed("string", "date-time"), "expires_at": orNil("string", "date-time"), "last_used_at": orNil("string", "date-time"),
	}
	required := slices.Sorted(maps.Keys(apiToken))
	created := maps.Clone(apiToken)
	created["token"] = typed("string")
	return object{
		"LatchkeyError": record(object{"detail": typed("string")}, "detail"),
		"LatchkeyPasswordError": record(object{"detail": record(object{
			"code": typed("string"), "reason": typed("string"),
			"reason_code": object{"enum": []string{"PASSWORD_TOO_SHORT", "PASSWORD_TOO_LONG", "PASSWORD_REJECTED"}},
		}, "code", "reason", "reason_code")}, "detail"),
		"LatchkeyInvalid": record(object{"detail": list(record(object{
			"loc": list(typed("string")), "msg": typed("string"), "type": typed("string"),
		}, "loc", "msg", "type"))}, "detail"),
		"LatchkeyToken": record(tokenMembers(object{"device_token": typed("string")}), "access_token", "token_type"),
		"LatchkeySession": record(object{
			"id": typed("string", "uuid"), "current": typed("boolean"),
			"created_at": typed("string", "date-time"), "last_used_at": orNil("string", "date-time"),
			"authenticated_at": orNil("string", "date-time"), "expires_at": orNil("string", "date-time"),
			"name": typed("string"), "user_agent": typed("string"), "client_ip": typed("string"), "scopes": list(typed("string")),
		}, "id", "current", "created_at", "last_used_at", "authenticated_at", "expires_at"),
		"LatchkeyAPIToken":    record(apiToken, required...),
		"LatchkeyNewAPIToken": record(created, append(required, "token")...),
	}
}()

// tokenMembers adds the members of tokenJSON.
func tokenMembers(to object) object {
	to["access_token"], to["token_type"], to["expires_in"] = typed("string"), object{"const": "bearer"}, typed("integer")
	return to
}

// userSchema is the schema of what writeUser writes.
func (a *Auth[U]) userSchema() object {
	schema := record(object{
		"id": a.idSchema(), "email": typed("string"),
		"is_active": typed("boolean"), "is_superuser": typed("boolean"), "is_verified": typed("boolean"),
	}, "id", "email", "is_active", "is_superuser", "is_verified")
	schema["additionalProperties"] = true // of Hooks.View
	return schema
}

// idSchema is the schema of a user's ID.
func (a *Auth[U]) idSchema() object {
	if a.accounts == nil {
		return object{}
	}
	return a.accounts.idSchema()
}
