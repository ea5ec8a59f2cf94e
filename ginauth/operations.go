package ginauth

import (
	"net/http"
	"slices"
)

// operation describes a route, for OpenAPI.
type operation struct {
	tag, summary string
	secured      bool    // it wants a token
	guarded      bool    // mount adds a guard with checks
	checks       []Check // of the guard
	query        []object
	id           object // the schema of the parameter id of the path
	body         object // the Request Body Object; nil without a body
	responses    map[int]*response
	schemas      object // the schemas that it refers to, by their names
}

// response describes the answers of a route that have the same status.
type response struct {
	description   string
	schema        any      // nil without a body
	setsCookie    bool     // it can set a cookie
	codes         []string // of a refusal
	passwordCodes []string // of the refusals that say why a password was rejected
}

// newOperation returns the description of a route that anyone can call.
func newOperation(tag, summary string) *operation {
	o := &operation{tag: tag, summary: summary, responses: make(map[int]*response), schemas: make(object)}
	return o.refuses(http.StatusServiceUnavailable, "SERVICE_UNAVAILABLE")
}

// behind puts the route behind a guard with these checks.
func (o *operation) behind(checks ...Check) *operation {
	o.secured, o.guarded, o.checks = true, true, checks
	return o
}

// answers adds a success. The schema is nil if it has no body.
func (o *operation) answers(status int, description string, schema any) *operation {
	o.responses[status] = &response{description: description, schema: schema}
	return o
}

// setsCookie says that the answers of a status can set a cookie.
func (o *operation) setsCookie(status int) *operation {
	o.responses[status].setsCookie = true
	return o
}

// refuses adds codes to the refusals of a status.
func (o *operation) refuses(status int, codes ...string) *operation {
	r := o.refusal(status)
	r.codes = append(r.codes, codes...)
	return o.uses("LatchkeyError")
}

// rejects adds the code of a rejected password.
func (o *operation) rejects(code string) *operation {
	r := o.refusal(http.StatusBadRequest)
	r.passwordCodes = append(r.passwordCodes, code)
	return o.uses("LatchkeyPasswordError")
}

func (o *operation) refusal(status int) *response {
	if o.responses[status] == nil {
		o.responses[status] = &response{}
	}
	return o.responses[status]
}

// invalid adds the refusal of invalid fields.
func (o *operation) invalid() *operation {
	o.refusal(http.StatusUnprocessableEntity)
	return o.uses("LatchkeyInvalid")
}

// uses adds schemas to those that the operation refers to.
func (o *operation) uses(names ...string) *operation {
	for _, name := range names {
		o.schemas[name] = schemas[name]
	}
	return o
}

// json adds a body of JSON.
func (o *operation) json(schema object) *operation {
	o.body = object{"required": true, "content": object{typeJSON: object{"schema": schema}}}
	return o.readsBody()
}

// form adds a body that can be a form or JSON.
func (o *operation) form(schema object) *operation {
	media := object{"schema": schema}
	o.body = object{"required": true, "content": object{typeJSON: media, typeForm: media, typeMultipart: media}}
	return o.readsBody()
}

// readsBody adds the refusals of a body.
func (o *operation) readsBody() *operation {
	return o.invalid().
		refuses(http.StatusRequestTimeout, "REQUEST_TIMEOUT").
		refuses(http.StatusRequestEntityTooLarge, "BODY_TOO_LARGE").
		refuses(http.StatusUnsupportedMediaType, "UNSUPPORTED_MEDIA_TYPE")
}

// pages adds the query parameters of a list.
func (o *operation) pages() *operation {
	return o.invalid().asks("after", typed("string")).asks("limit", object{"type": "integer", "minimum": 1, "default": 50})
}

// asks adds a query parameter.
func (o *operation) asks(name string, schema object) *operation {
	o.query = append(o.query, object{"name": name, "in": "query", "schema": schema})
	return o
}

// withID adds the parameter id of the path.
func (o *operation) withID(schema object) *operation {
	o.id = schema
	return o.refuses(http.StatusNotFound, "NOT_FOUND")
}

// refusesTokens adds what a guard refuses with this method and these transports.
func (o *operation) refusesTokens(s *settings, method string) {
	if s.realm != "" {
		o.refuses(http.StatusBadRequest, "Bad Request")
	}
	if method != http.MethodGet && slices.ContainsFunc(s.transports, transport.ambient) {
		o.refuses(http.StatusForbidden, "CROSS_ORIGIN_REQUEST")
	}
	if !o.guarded {
		return
	}
	o.refuses(http.StatusUnauthorized, "Unauthorized").refuses(http.StatusForbidden, "Forbidden")
	if slices.ContainsFunc(o.checks, func(check Check) bool { return check.fresh }) {
		o.refuses(http.StatusUnauthorized, "INSUFFICIENT_USER_AUTHENTICATION")
	}
}

// issues adds the answers that have a new token, by any of these transports.
func (o *operation) issues(by ...transport) *operation {
	for _, t := range by {
		if t.ambient() {
			o.answers(http.StatusNoContent, "The cookie has the new token.", nil).setsCookie(http.StatusNoContent)
		} else {
			o.answers(http.StatusOK, "The new token.", ref("LatchkeyToken")).uses("LatchkeyToken")
		}
	}
	return o
}

// clears adds the answer without a body that can clear the cookie.
func (a *Auth[U]) clears(o *operation, description string) *operation {
	o.answers(http.StatusNoContent, description, nil)
	if slices.ContainsFunc(a.cfg.transports, transport.ambient) {
		o.setsCookie(http.StatusNoContent)
	}
	return o
}

// null is the schema of the body null.
var null = typed("null")

const tagAuth, tagAccounts, tagUsers, tagAPITokens = "auth", "accounts", "users", "API tokens"

func (a *Auth[U]) loginOperation() *operation {
	o := newOperation(tagAuth, "Log in with a password").issues(a.answers).
		form(record(object{
			"username": typed("string"), "password": typed("string", "password"),
			"remember": orNil("boolean"), "device_token": typed("string"),
			"grant_type": object{"const": "password"},
			"scope":      typed("string"), "client_id": typed("string"), "client_secret": typed("string"),
		}, "username", "password")).
		refuses(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS").
		refuses(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	if a.cfg.RequireVerified {
		o.refuses(http.StatusBadRequest, "LOGIN_USER_NOT_VERIFIED")
	}
	if a.answers.ambient() {
		o.refuses(http.StatusForbidden, "CROSS_ORIGIN_REQUEST")
	}
	return o
}

func (a *Auth[U]) reauthenticateOperation() *operation {
	return newOperation(tagAuth, "Enter the password again, for a fresh login").behind().issues(a.cfg.transports...).
		form(record(object{"password": typed("string", "password")}, "password")).
		refuses(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS").
		refuses(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
}

func (a *Auth[U]) logoutOperation() *operation {
	o := newOperation(tagAuth, "Log out")
	o.secured = true // it is not behind a guard
	a.clears(o, "The session has ended.").refuses(http.StatusUnauthorized, "Unauthorized")
	o.responses[http.StatusUnauthorized].setsCookie = o.responses[http.StatusNoContent].setsCookie
	return o
}

func (a *Auth[U]) sessionsOperation() *operation {
	return newOperation(tagAuth, "List the sessions of the user").behind().pages().uses("LatchkeySession").
		answers(http.StatusOK, "A page of sessions, newest first.", record(object{"sessions": list(ref("LatchkeySession")), "next": typed("string")}, "sessions"))
}

func (a *Auth[U]) endSessionOperation() *operation {
	return a.clears(newOperation(tagAuth, "End a session").behind().withID(typed("string", "uuid")), "The session has ended.")
}

func (a *Auth[U]) logoutAllOperation() *operation {
	o := newOperation(tagAuth, "End all sessions of the user").behind().form(record(object{"keep_current": orNil("boolean")}))
	o.body["required"] = false
	return a.clears(o, "The sessions have ended.")
}

func (a *Auth[U]) introspectOperation(checks []Check) *operation {
	return newOperation(tagAuth, "Ask whether a token is valid (RFC 7662)").behind(checks...).
		form(record(object{"token": typed("string")}, "token")).
		answers(http.StatusOK, "What the token is.", record(object{
			"active": typed("boolean"), "sub": typed("string"), "iat": typed("integer"), "exp": typed("integer"), "scope": typed("string"),
		}, "active"))
}

// answersUser is answers with a user, who can have further members in this answer.
func (a *Auth[U]) answersUser(o *operation, status int, description string, more object) *operation {
	schema := ref("LatchkeyUser")
	if more != nil {
		schema = narrowed("LatchkeyUser", more)
	}
	o.schemas["LatchkeyUser"] = a.userSchema()
	return o.answers(status, description, schema)
}

func (a *Auth[U]) registerOperation() *operation {
	o := newOperation(tagAccounts, "Sign up").
		json(record(object{"email": typed("string", "idn-email"), "password": typed("string", "password")}, "email", "password")).
		rejects("REGISTER_INVALID_PASSWORD").
		refuses(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	if a.cfg.Accounts.ConcealTaken {
		return o.answers(http.StatusAccepted, "A message goes to the address.", null)
	}
	return a.answersUser(o, http.StatusCreated, "The new user.", nil).
		refuses(http.StatusBadRequest, "REGISTER_USER_ALREADY_EXISTS").
		refuses(http.StatusConflict, "CONFLICT")
}

// requestOperation is that of the routes that send a message.
func requestOperation(summary string) *operation {
	return newOperation(tagAccounts, summary).
		json(record(object{"email": typed("string", "idn-email")}, "email")).
		answers(http.StatusAccepted, "A message goes to the address, if it has an account that needs one.", null)
}

func (a *Auth[U]) verifyOperation() *operation {
	o := newOperation(tagAccounts, "Prove an e-mail address by the token of a message").
		json(record(object{"token": typed("string")}, "token")).
		refuses(http.StatusBadRequest, "VERIFY_USER_BAD_TOKEN", "VERIFY_USER_ALREADY_VERIFIED", "UPDATE_USER_EMAIL_ALREADY_EXISTS")
	return a.answersUser(o, http.StatusOK, "The user.", nil)
}

func resetPasswordOperation() *operation {
	return newOperation(tagAccounts, "Set a new password by the token of a message").
		json(record(object{"token": typed("string"), "password": typed("string", "password")}, "token", "password")).
		answers(http.StatusOK, "The password is set, and all sessions have ended.", null).
		refuses(http.StatusBadRequest, "RESET_PASSWORD_BAD_TOKEN").
		rejects("RESET_PASSWORD_INVALID_PASSWORD")
}

func (a *Auth[U]) meOperation(checks []Check) *operation {
	return a.answersUser(newOperation(tagUsers, "Show the user").behind(checks...), http.StatusOK, "The user.", nil)
}

// patchedFields are the fields that both PATCH routes read.
func patchedFields(more object) object {
	more["email"], more["password"] = orNil("string", "idn-email"), orNil("string", "password")
	return record(more)
}

// refusesUpdate adds what an update of an account refuses.
func (o *operation) refusesUpdate() *operation {
	return o.refuses(http.StatusBadRequest, "UPDATE_USER_EMAIL_ALREADY_EXISTS").
		rejects("UPDATE_USER_INVALID_PASSWORD").
		refuses(http.StatusConflict, "CONFLICT")
}

func (a *Auth[U]) patchMeOperation(checks []Check) *operation {
	o := newOperation(tagUsers, "Change the user").behind(checks...).
		json(patchedFields(object{"current_password": orNil("string", "password")})).
		refusesUpdate().
		refuses(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS").
		refuses(http.StatusUnauthorized, "INSUFFICIENT_USER_AUTHENTICATION").
		refuses(http.StatusNotFound, "NOT_FOUND").
		refuses(http.StatusTooManyRequests, "TOO_MANY_ATTEMPTS")
	more := object{"pending_email": typed("string")}
	if a.cfg.realm != "" {
		tokenMembers(more)
	}
	a.answersUser(o, http.StatusOK, "The user, and after a change of the password the new token.", more)
	if slices.ContainsFunc(a.cfg.transports, transport.ambient) {
		o.setsCookie(http.StatusOK)
	}
	return o
}

func (a *Auth[U]) deleteMeOperation(checks []Check) *operation {
	return a.clears(newOperation(tagUsers, "Delete the account of the user").behind(checks...).refuses(http.StatusNotFound, "NOT_FOUND"), "The account is deleted.")
}

func (a *Auth[U]) usersOperation(checks []Check) *operation {
	o := newOperation(tagUsers, "List the users").behind(checks...).pages().asks("email", typed("string"))
	o.schemas["LatchkeyUser"] = a.userSchema()
	return o.answers(http.StatusOK, "A page of users, ordered by address.", record(object{"users": list(ref("LatchkeyUser")), "next": typed("string")}, "users"))
}

func (a *Auth[U]) userOperation(checks []Check) *operation {
	return a.answersUser(newOperation(tagUsers, "Show a user").behind(checks...).withID(a.idSchema()), http.StatusOK, "The user.", nil)
}

func (a *Auth[U]) patchUserOperation(checks []Check) *operation {
	o := newOperation(tagUsers, "Change a user").behind(checks...).withID(a.idSchema()).
		json(patchedFields(object{"is_active": orNil("boolean"), "is_superuser": orNil("boolean"), "is_verified": orNil("boolean")})).
		refusesUpdate()
	return a.answersUser(o, http.StatusOK, "The user.", nil)
}

func (a *Auth[U]) deleteUserOperation(checks []Check) *operation {
	return newOperation(tagUsers, "Delete a user").behind(checks...).withID(a.idSchema()).answers(http.StatusNoContent, "The account is deleted.", nil)
}

func (a *Auth[U]) createAPITokenOperation() *operation {
	return newOperation(tagAPITokens, "Make an API token").behind(Fresh(a.cfg.Accounts.MaxAge)).uses("LatchkeyNewAPIToken").
		json(record(object{
			"name":       object{"type": "string", "maxLength": maxTokenName},
			"scopes":     object{"type": "array", "minItems": 1, "items": object{"enum": a.api.Scopes}},
			"expires_in": object{"type": []string{"integer", "null"}, "minimum": 1, "description": "seconds"},
		}, "name", "scopes")).
		answers(http.StatusCreated, "The token, which is shown once.", ref("LatchkeyNewAPIToken")).
		refuses(http.StatusBadRequest, "LOGIN_BAD_CREDENTIALS").
		refuses(http.StatusConflict, "TOO_MANY_API_TOKENS")
}

func apiTokensOperation() *operation {
	return newOperation(tagAPITokens, "List the API tokens of the user").behind().pages().uses("LatchkeyAPIToken").
		answers(http.StatusOK, "A page of tokens, newest first.", record(object{"tokens": list(ref("LatchkeyAPIToken")), "next": typed("string")}, "tokens"))
}

func renameAPITokenOperation() *operation {
	return newOperation(tagAPITokens, "Name an API token").behind().withID(typed("string", "uuid")).
		json(record(object{"name": object{"type": "string", "maxLength": maxTokenName}}, "name")).
		answers(http.StatusNoContent, "The token has the name.", nil)
}

func revokeAPITokenOperation() *operation {
	return newOperation(tagAPITokens, "Revoke an API token").behind().withID(typed("string", "uuid")).
		answers(http.StatusNoContent, "The token is revoked.", nil)
}
