package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// sessionOf is a session or an API token in reports.
type sessionOf struct {
	ID         uuid.UUID  `json:"id"`
	Kind       string     `json:"kind"` // "session" or "api_token"
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	ExpiresAt  *time.Time `json:"expires_at,omitempty"`
	Scopes     []string   `json:"scopes,omitempty"`
	Name       string     `json:"name,omitempty"`
	UserAgent  string     `json:"user_agent,omitempty"`
	ClientIP   string     `json:"client_ip,omitempty"`
}

type sessionsReport struct {
	User     accountOf   `json:"user"`
	Sessions []sessionOf `json:"sessions"`
}

func (r *sessionsReport) problems() bool { return false }

func (r *sessionsReport) print(w io.Writer, _ string) {
	fmt.Fprintf(w, "%v has %s.\n", r.User, plural(int64(len(r.Sessions)), "session or API token", "sessions and API tokens"))
	for _, s := range r.Sessions {
		fmt.Fprintf(w, "%s  %-9s  since %s", s.ID, s.Kind, s.CreatedAt.Format(time.DateTime))
		for _, t := range []struct {
			what string
			at   *time.Time
		}{{"used", s.LastUsedAt}, {"until", s.ExpiresAt}} {
			if t.at != nil {
				fmt.Fprintf(w, "  %s %s", t.what, t.at.Format(time.DateTime))
			}
		}
		if s.Scopes != nil {
			fmt.Fprintf(w, "  scopes %s", strings.Join(s.Scopes, ","))
		}
		for _, text := range []string{s.Name, s.ClientIP, s.UserAgent} {
			if text != "" {
				fmt.Fprintf(w, "  %q", text) // clients choose it
			}
		}
		fmt.Fprintln(w)
	}
}

func (a *app[ID]) listSessions(ctx context.Context) (report, error) {
	user, err := a.account(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := a.sessions(ctx, user)
	if err != nil {
		return nil, err
	}
	return &sessionsReport{reported(user), sessions}, nil
}

// sessions returns all valid sessions and API tokens of a user.
func (a *app[ID]) sessions(ctx context.Context, user account.User[ID]) ([]sessionOf, error) {
	all := []sessionOf{}
	for _, of := range []struct {
		kind string
		from *strategy.Database[account.User[ID], ID]
	}{{"session", a.Sessions}, {"api_token", a.APITokens}} {
		page := strategy.Page{Limit: 200}
		for {
			got, err := of.from.Sessions(ctx, user.ID, page)
			if err != nil {
				return nil, err
			}
			for _, s := range got.Sessions {
				all = append(all, sessionOf{
					ID: s.ID, Kind: of.kind, CreatedAt: s.CreatedAt, LastUsedAt: orNil(s.LastUsedAt), ExpiresAt: orNil(s.ExpiresAt),
					Scopes: s.Scopes, Name: s.Name, UserAgent: s.UserAgent, ClientIP: s.ClientIP,
				})
			}
			if got.Next == "" {
				break
			}
			page.After = got.Next
		}
	}
	return all, nil
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

type endedReport struct {
	User     accountOf   `json:"user"`
	Sessions []uuid.UUID `json:"sessions"` // those that were valid
	all      bool
}

func (r *endedReport) problems() bool { return false }

func (r *endedReport) print(w io.Writer, did string) {
	n := int64(len(r.Sessions))
	fmt.Fprintf(w, "%v: %s %sended.\n", r.User, plural(n, "session or API token", "sessions and API tokens"), orWere(did, n))
	if r.all {
		fmt.Fprintf(w, "All tokens that were issued until now %srevoked.\n", orWere(did, 2))
	}
}

func (a *app[ID]) endSessions(ctx context.Context) (report, error) {
	user, err := a.account(ctx)
	if err != nil {
		return nil, err
	}
	sessions, err := a.sessions(ctx, user)
	if err != nil {
		return nil, err
	}
	ended := &endedReport{User: reported(user), Sessions: []uuid.UUID{}, all: a.session == ""}
	if a.session != "" {
		return ended, a.endSession(ctx, user.ID, sessions, ended)
	}
	for _, s := range sessions {
		ended.Sessions = append(ended.Sessions, s.ID)
	}
	if a.apply {
		// Logins in flight end too: it raises the account's token version.
		err = a.Accounts.RevokeTokens(ctx, user.ID)
	}
	return ended, err
}

// endSession ends the session of the flag -session.
func (a *app[ID]) endSession(ctx context.Context, user ID, sessions []sessionOf, ended *endedReport) error {
	id, err := uuid.Parse(a.session)
	if err != nil {
		return usageError("-session is not the ID of a session, as sessions list shows it")
	}
	for _, s := range sessions {
		if s.ID != id {
			continue
		}
		ended.Sessions = append(ended.Sessions, id)
		if !a.apply {
			return nil
		}
		from := a.Sessions
		if s.Kind == "api_token" {
			from = a.APITokens
		}
		if err := from.DestroySession(ctx, user, id); !errors.Is(err, strategy.ErrSessionNotFound) { // it has ended by itself
			return err
		}
		return nil
	}
	return fmt.Errorf("%v has no valid session with the ID %s: %w", ended.User, id, errNotFound)
}
