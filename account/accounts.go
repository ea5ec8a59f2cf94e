package account

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/strategy"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// Query selects accounts for [Manager.List]. The zero value is the first page of all accounts.
type Query struct {
	// Email is the beginning of an address, in any spelling of it; a domain that is not ASCII
	// must be complete. "" means any address.
	Email string
	// After is the Next of the previous page. "" means the first page.
	After string
	// Limit is the most accounts that the page has. Default 50, at most 200.
	Limit int
}

// Page is a page of accounts.
type Page[U any] struct {
	// Users are the accounts on the page, ordered by address.
	Users []U
	// Next is the After of the next page; "" on the last page.
	Next string
}

// ByID returns the account with an ID, active or not. It returns an error wrapping
// [ErrUserNotFound] if there is none.
func (m *Manager[U, ID]) ByID(ctx context.Context, id ID) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	user, err := m.store.ByID(ctx, id)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return none, fmt.Errorf("account: %w", err)
	case err != nil:
		return none, m.failed(ctx, "look up the account", err)
	}
	return user, nil
}

// ByEmail returns the account with an address, in any spelling of it, active or not. It returns
// an error wrapping [ErrUserNotFound] if there is none, or [ErrInvalidEmail]. Do not let clients
// see which: that reveals who has an account.
func (m *Manager[U, ID]) ByEmail(ctx context.Context, email string) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	email, err := NormalizeEmail(email)
	if err != nil {
		return none, fmt.Errorf("account: %w", err)
	}
	user, err := m.store.ByEmail(ctx, email)
	switch {
	case errors.Is(err, ErrUserNotFound):
		return none, fmt.Errorf("account: %w", err)
	case err != nil:
		return none, m.failed(ctx, "look up the account", err)
	}
	return user, nil
}

// List returns a page of accounts, for administrators.
func (m *Manager[U, ID]) List(ctx context.Context, query Query) (Page[U], error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	limit := query.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	prefix, err := NormalizeEmail(query.Email)
	if err != nil { // the beginning of an address
		prefix = norm.NFC.String(foldCase(norm.NFC.String(strings.TrimSpace(query.Email))))
	}
	users, err := m.store.List(ctx, prefix, query.After, limit+1) // one more shows that there is a next page
	if err != nil {
		return Page[U]{}, m.failed(ctx, "list the accounts", err)
	}
	page := Page[U]{Users: users}
	if len(users) > limit {
		page.Users = users[:limit]
		page.Next = m.of(&users[limit-1]).Email
	}
	return page, nil
}

// Edit changes the application's own fields of an account, and returns the account as it is
// then. It calls edit with the account as stored, maybe more than once, and stores what edit
// changed; changes to the fields of [User] are not stored. edit must not call the Manager or its
// store. If edit returns an error, Edit returns it and changes nothing. It returns an error
// wrapping [ErrUserNotFound] if there is no such account.
func (m *Manager[U, ID]) Edit(ctx context.Context, id ID, edit func(*U) error) (U, error) {
	ctx, cancel := m.bounded(ctx)
	defer cancel()
	var none U
	var rejected error
	user, err := m.store.Edit(ctx, id, func(u *U) error {
		rejected = edit(u)
		return rejected
	})
	if rejected != nil {
		return none, rejected
	}
	if err := m.changed(ctx, id, strategy.RevokedNone, "edit the account", err, event.Event{Kind: event.AccountChanged, UserID: id}); err != nil {
		return none, err
	}
	return user, nil
}
