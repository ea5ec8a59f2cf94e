package ginauth

import (
	"net/http"
)

// For the fuzz tests.
var (
	ParseAuthorization = parseAuthorization
	ParseSessionID     = parseSessionID
	CanonicalOrigin    = canonicalOrigin
	ErrBadRequest      = errBadRequest
)

// ReadLogin returns the name and the password of a login request.
func ReadLogin(w http.ResponseWriter, r *http.Request) (username, password string, err error) {
	f, err := readForm(w, r)
	if err != nil {
		return "", "", err
	}
	login, err := f.login()
	return login.username, login.password, err
}

// Carried returns what a request carries by a transport.
func Carried(t Transport, r *http.Request, wellFormed func(string) bool) ([]string, error) {
	ready, err := t.prepare()
	if err != nil {
		return nil, err
	}
	sent, err := ready.carried(r, wellFormed)
	return sent.list(), err
}

// StatusOf returns the status of the answer to an error.
func StatusOf(err error) int { return status(err).code }

// IDSchema returns the JSON Schema of an ID.
func IDSchema[ID comparable]() map[string]any { return idSchema[ID]() }
