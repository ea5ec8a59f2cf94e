package oidc

import "time"

// State is the state of a flow, for tests.
type State = state

// NewState returns the state of a login.
func NewState(provider, redirect string, now time.Time) State {
	return newState(login, provider, redirect, now)
}

// ParseState reads a cookie.
var ParseState = parseState

// Cookie, Param, Nonce and Verifier are what is derived from a state.
func (s state) Cookie() string   { return s.cookie() }
func (s state) Param() string    { return s.param() }
func (s state) Nonce() string    { return s.nonce() }
func (s state) Verifier() string { return s.verifier() }
