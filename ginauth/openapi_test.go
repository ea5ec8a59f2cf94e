package ginauth_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/ginauth"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// described returns an Auth with accounts and API tokens.
func described(t *testing.T, cfg ginauth.Config) *ginauth.Auth[member] {
	t.Helper()
	h := newRig(t)
	if cfg.Transports == nil {
		cfg.Transports = []ginauth.Transport{ginauth.Bearer{}, ginauth.Cookie{}}
	}
	auth, err := ginauth.WithAccounts(h.auth(t, cfg), h.accounts)
	if err != nil {
		t.Fatal(err)
	}
	api, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), h.users, strategy.Config{TokenPrefix: "lkp_"})
	if err != nil {
		t.Fatal(err)
	}
	if auth, err = auth.WithAPITokens(api, ginauth.APITokensConfig{Scopes: []string{"read"}}); err != nil {
		t.Fatal(err)
	}
	return auth
}

// mountAll mounts every route as docs/http.md does.
func mountAll(t *testing.T, auth *ginauth.Auth[member]) {
	t.Helper()
	r := gin.New()
	group := r.Group("/auth")
	auth.Routes(group)
	auth.RegisterRoutes(group)
	auth.VerifyRoutes(group)
	auth.ResetPasswordRoutes(group)
	auth.UserRoutes(r.Group("/users"))
	auth.APITokenRoutes(r.Group("/auth/tokens"))
	if err := auth.Introspection(group, ginauth.Superuser); err != nil {
		t.Fatal(err)
	}
}

// operations returns the operations of a description, by method and path.
func operations(description map[string]any) map[string]map[string]any {
	found := make(map[string]map[string]any)
	for path, item := range description["paths"].(map[string]any) {
		for method, operation := range item.(map[string]any) {
			found[strings.ToUpper(method)+" "+path] = operation.(map[string]any)
		}
	}
	return found
}

// at returns what is in nested objects at a path.
func at(value any, path ...string) any {
	for _, name := range path {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}

func TestOpenAPIDescribesWhatIsMounted(t *testing.T) {
	auth := described(t, ginauth.Config{})
	expect := func(what string, want ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(operations(auth.OpenAPI()))); !slices.Equal(got, want) {
			t.Errorf("%s:\n got %q\nwant %q", what, got, want)
		}
	}
	expect("nothing")
	auth.OpenAPI()["paths"].(map[string]any)["/x"] = map[string]any{"get": nil}
	expect("nothing, after a change of what was returned")

	r := gin.New()
	auth.WithHooks(ginauth.Hooks[member]{}).RegisterRoutes(r)
	auth.VerifyRoutes(r.Group("/v1").Group("tenants/:tenant"))
	cookies, err := auth.AnswerLoginsWith(ginauth.Cookie{})
	if err != nil {
		t.Fatal(err)
	}
	cookies.Routes(r.Group("/web/"))
	auth.APITokenRoutes(r.Group(`/api\:v1`))
	expect("some groups",
		"DELETE /api:v1/{id}", "DELETE /web/sessions/{id}", "GET /api:v1", "GET /web/sessions", "PATCH /api:v1/{id}", "POST /api:v1", "POST /register",
		"POST /v1/tenants/{tenant}/request-verify-token", "POST /v1/tenants/{tenant}/verify",
		"POST /web/login", "POST /web/logout", "POST /web/logout-all", "POST /web/reauthenticate",
	)

	found := operations(auth.OpenAPI())
	if got, want := found["POST /v1/tenants/{tenant}/verify"]["parameters"], []any{map[string]any{
		"name": "tenant", "in": "path", "required": true, "schema": map[string]any{"type": "string"},
	}}; !reflect.DeepEqual(got, want) {
		t.Errorf("the parameters of verify: got %v, want %v", got, want)
	}
	if got := at(found["DELETE /web/sessions/{id}"]["parameters"].([]any)[0], "schema", "format"); got != "uuid" {
		t.Errorf("the ID of a session: got the format %v, want uuid", got)
	}
	login := found["POST /web/login"]["responses"]
	if at(login, "204") == nil || at(login, "200") != nil {
		t.Errorf("the login with a cookie: got the answers %v, want 204 and not 200", login)
	}
}

func TestOpenAPIFollowsTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		what string
		cfg  ginauth.Config
		at   []string // in the description
		want any
	}{
		{"two cookies", ginauth.Config{Transports: []ginauth.Transport{ginauth.Cookie{Name: "shop"}, ginauth.Bearer{}, ginauth.Cookie{Name: "office"}}},
			[]string{"components", "securitySchemes"}, map[string]any{
				"latchkeyBearer":  map[string]any{"type": "http", "scheme": "bearer"},
				"latchkeyCookie":  map[string]any{"type": "apiKey", "in": "cookie", "name": "shop"},
				"latchkeyCookie2": map[string]any{"type": "apiKey", "in": "cookie", "name": "office"},
			}},
		{"the header only", ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}}},
			[]string{"components", "securitySchemes"},
			map[string]any{"latchkeyBearer": map[string]any{"type": "http", "scheme": "bearer"}}},
		{"no cookie, no other origin", ginauth.Config{Transports: []ginauth.Transport{ginauth.Bearer{}}},
			[]string{"paths", "/auth/logout", "post", "responses", "403"}, nil},
		{"taken addresses that are concealed", ginauth.Config{Accounts: ginauth.AccountsConfig{ConcealTaken: true}},
			[]string{"paths", "/auth/register", "post", "responses", "202", "content", "application/json", "schema"}, map[string]any{"type": "null"}},
		{"refusals of the application", ginauth.Config{OnRefusal: func(*gin.Context, *ginauth.Refusal) {}},
			[]string{"paths", "/auth/login", "post", "responses", "422"}, map[string]any{"description": "Unprocessable Entity"}},
		{"verified users only", ginauth.Config{RequireVerified: true},
			[]string{"paths", "/auth/login", "post", "responses", "400", "content", "application/json", "schema", "allOf"},
			[]any{map[string]any{"$ref": "#/components/schemas/LatchkeyError"}, map[string]any{"properties": map[string]any{
				"detail": map[string]any{"enum": []any{"LOGIN_BAD_CREDENTIALS", "LOGIN_USER_NOT_VERIFIED"}}}}}},
	} {
		auth := described(t, c.cfg)
		mountAll(t, auth)
		if got := at(auth.OpenAPI(), c.at...); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %v\nwant %v", c.what, got, c.want)
		}
	}
}

func TestOpenAPIHandlerDescribesRoutesThatAreMountedLater(t *testing.T) {
	auth := described(t, ginauth.Config{})
	r := gin.New()
	r.GET("/openapi.json", auth.OpenAPIHandler())
	auth.Routes(r.Group("/auth"))
	w := request(r, "GET", "/openapi.json")
	wantCode(t, "the description", w, http.StatusOK)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, auth.OpenAPI()) || at(got, "paths", "/auth/login") == nil {
		t.Errorf("got %v, want what OpenAPI returns, with the login", got)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("got the type %q", got)
	}
}

func TestMergeOpenAPI(t *testing.T) {
	auth := described(t, ginauth.Config{})
	mountAll(t, auth)
	own := map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "Shop", "version": "2"},
		"paths":   map[string]any{"/users/{id}": map[string]any{"put": "of the shop", "get": "of the shop"}, "/orders": map[string]any{}},
		"components": map[string]any{
			"schemas": map[string]any{"Order": "of the shop", "LatchkeyUser": "of the shop"},
		},
	}
	if err := ginauth.MergeOpenAPI(own, auth.OpenAPI()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		at      []string
		ofShop  bool
		missing bool
	}{
		{[]string{"paths", "/users/{id}", "put"}, true, false},
		{[]string{"paths", "/users/{id}", "get"}, true, false},
		{[]string{"paths", "/users/{id}", "patch"}, false, false},
		{[]string{"paths", "/auth/login", "post"}, false, false},
		{[]string{"components", "schemas", "Order"}, true, false},
		{[]string{"components", "schemas", "LatchkeyUser"}, true, false},
		{[]string{"components", "schemas", "LatchkeyError"}, false, false},
		{[]string{"components", "securitySchemes", "latchkeyBearer"}, false, false},
		{[]string{"components", "responses"}, false, true},
	} {
		got := at(own, c.at...)
		if (got == "of the shop") != c.ofShop || (got == nil) != c.missing {
			t.Errorf("%q: got %v", c.at, got)
		}
	}
	if got := at(own, "info", "title"); got != "Shop" {
		t.Errorf("got the title %v, want Shop", got)
	}
}

func TestMergeOpenAPINamesWhatIsWrong(t *testing.T) {
	auth := described(t, ginauth.Config{})
	mountAll(t, auth)
	for _, c := range []struct {
		document map[string]any
		want     string
	}{
		{map[string]any{}, `"openapi"`},
		{map[string]any{"openapi": 3.1}, `"openapi"`},
		{map[string]any{"swagger": "2.0"}, `"openapi"`},
		{map[string]any{"openapi": "3.0.3"}, `"3.0.3"`},
		{map[string]any{"openapi": "3.1.0", "paths": []any{}}, `"paths"`},
		{map[string]any{"openapi": "3.1.0", "paths": map[string]any{"/auth/login": "x"}}, `"/auth/login"`},
		{map[string]any{"openapi": "3.2.0", "components": map[string]any{"schemas": map[string]string{}}}, `"schemas"`},
	} {
		if err := ginauth.MergeOpenAPI(c.document, auth.OpenAPI()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got the error %v, want one that names %s", c.document, err, c.want)
		}
	}
}

// IDs have the type that they have in JSON.
func TestOpenAPIDescribesIDs(t *testing.T) {
	auth := described(t, ginauth.Config{})
	mountAll(t, auth)
	want := map[string]any{"type": "string", "format": "uuid"}
	if got := at(auth.OpenAPI(), "components", "schemas", "LatchkeyUser", "properties", "id"); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, c := range []struct {
		what string
		got  map[string]any
		want map[string]any
	}{
		{"int64", ginauth.IDSchema[int64](), map[string]any{"type": "integer"}},
		{"string", ginauth.IDSchema[string](), map[string]any{"type": "string"}},
		{"an array of bytes", ginauth.IDSchema[[2]byte](), map[string]any{}},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
}

// docs/http.md lists the statuses of every route, and names every code.
func TestDocsMatchTheDescription(t *testing.T) {
	content, err := os.ReadFile("../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(content)
	statuses, codes := make(map[string]bool), make(map[string]bool)
	for _, change := range []func(*ginauth.Config) ginauth.Transport{
		func(*ginauth.Config) ginauth.Transport { return ginauth.Bearer{} },
		func(cfg *ginauth.Config) ginauth.Transport {
			cfg.RequireVerified, cfg.Accounts.ConcealTaken = true, true
			return ginauth.Cookie{}
		},
	} {
		var cfg ginauth.Config
		answers := change(&cfg)
		auth, err := described(t, cfg).AnswerLoginsWith(answers)
		if err != nil {
			t.Fatal(err)
		}
		mountAll(t, auth)
		description := auth.OpenAPI()
		for operation, is := range operations(description) {
			for status := range is["responses"].(map[string]any) {
				statuses[operation+": "+status] = true
			}
		}
		enums(description, codes)
	}

	_, table, _ := strings.Cut(page, "\n## Routes\n")
	table, _, _ = strings.Cut(table, "\n## ")
	listed := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /\\S*)` \\| (.*) \\|$").FindAllStringSubmatch(table, -1) {
		for _, status := range regexp.MustCompile(`\b[2-5]\d\d\b`).FindAllString(row[2], -1) {
			listed[row[1]+": "+status] = true
		}
	}
	expectSame(t, "statuses", statuses, listed)

	named := make(map[string]bool)
	for _, code := range regexp.MustCompile("[A-Z]+(_[A-Z]+)+").FindAllString(page, -1) {
		named[code] = true
	}
	for _, code := range []string{"Bad Request", "Unauthorized", "Forbidden", "CONFLICT"} {
		named[code] = strings.Contains(page, "`"+code+"`")
	}
	expectSame(t, "codes", codes, named)
}

func expectSame(t *testing.T, what string, described, documented map[string]bool) {
	t.Helper()
	for _, is := range slices.Sorted(maps.Keys(described)) {
		if !documented[is] {
			t.Errorf("%s: docs/http.md has no %s", what, is)
		}
	}
	for _, is := range slices.Sorted(maps.Keys(documented)) {
		if documented[is] && !described[is] {
			t.Errorf("%s: the description has no %s", what, is)
		}
	}
}

// enums adds the values that the enums of a description list, except scopes.
func enums(value any, to map[string]bool) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			enums(item, to)
		}
	case map[string]any:
		for name, member := range value {
			if name == "requestBody" {
				continue
			}
			if listed, ok := member.([]any); ok && name == "enum" {
				for _, code := range listed {
					to[fmt.Sprint(code)] = true
				}
				continue
			}
			enums(member, to)
		}
	}
}
