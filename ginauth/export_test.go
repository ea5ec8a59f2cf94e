package ginauth

import (
	"net/http"
	"time"
)

// For the fuzz tests.
var (
	ParseAuthorization = parseAuthorization
	ParseSessionID     = parseSessionID
	ErrBadRequest      = errBadRequest
)

// ReadLogin returns the name and the password of a login request.
func ReadLogin(w http.ResponseWriter, r *http.Request) (username, password string, err error) {
	f, err := readForm(w, r, time.Minute)
	if err != nil {
		return "", "", err
	}
	login, err := f.login()
	return login.username, login.password, err
}

// TokenOf returns the token that a request carries by a transport.
func TokenOf(t Transport, r *http.Request) (string, error) {
	ready, err := t.prepare()
	if err != nil {
		return "", err
	}
	return ready.token(r)
}

// StatusOf returns the status of the answer to an error.
func StatusOf(err error) int { return status(err).code }
