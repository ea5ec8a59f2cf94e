package ginauth

import (
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/strategy"
)

// sessionJSON is a session in the list of a user's sessions. It has no token and no
// digest.
type sessionJSON struct {
	ID              uuid.UUID  `json:"id"`
	Current         bool       `json:"current"`
	CreatedAt       time.Time  `json:"created_at"`
	LastUsedAt      *time.Time `json:"last_used_at"`
	AuthenticatedAt *time.Time `json:"authenticated_at"`
	ExpiresAt       *time.Time `json:"expires_at"`
	Name            string     `json:"name,omitempty"`
	UserAgent       string     `json:"user_agent,omitempty"`
	ClientIP        string     `json:"client_ip,omitempty"`
	Scopes          []string   `json:"scopes,omitempty"`
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (a *Auth[U]) handleSessions(w http.ResponseWriter, r *http.Request) error {
	page, err := pageOf(r)
	if err != nil {
		return err
	}
	current := a.identity(r).session
	found, err := a.strategy.Of(current.User).List(r.Context(), page)
	if err != nil {
		return listRefused(err)
	}
	sessions := make([]sessionJSON, len(found.Sessions))
	for i, s := range found.Sessions {
		sessions[i] = sessionJSON{
			ID: s.ID, Current: s.ID == current.ID, CreatedAt: s.CreatedAt, LastUsedAt: orNull(s.LastUsedAt),
			AuthenticatedAt: orNull(s.AuthenticatedAt), ExpiresAt: orNull(s.ExpiresAt),
			Name: s.Name, UserAgent: s.UserAgent, ClientIP: s.ClientIP, Scopes: s.Scopes,
		}
	}
	body := map[string]any{"sessions": sessions}
	if found.Next != "" {
		body["next"] = found.Next
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

func (a *Auth[U]) handleEndSession(w http.ResponseWriter, r *http.Request) error {
	current := a.identity(r)
	id, ok := parseSessionID(r.PathValue("id"))
	if !ok {
		return strategy.ErrSessionNotFound
	}
	ctx, cancel := deadline.Uncancelled(r.Context())
	defer cancel()
	if err := a.strategy.Of(current.session.User).Destroy(ctx, id); err != nil {
		return expected(err, strategy.ErrSessionNotFound)
	}
	if id == current.session.ID {
		current.by.clear(w)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// parseSessionID accepts the one spelling that the list of sessions has, in either case.
// uuid.Parse accepts more.
func parseSessionID(s string) (uuid.UUID, bool) {
	id, err := uuid.Parse(s)
	return id, err == nil && strings.EqualFold(id.String(), s)
}

// handleLogoutAll ends all sessions of the user; with keep_current, all but this one.
func (a *Auth[U]) handleLogoutAll(w http.ResponseWriter, r *http.Request) error {
	f, err := readOptionalForm(w, r)
	if err != nil {
		return err
	}
	keep := f.flag("keep_current")
	if err := f.done(); err != nil {
		return err
	}
	current := a.identity(r)
	var except []uuid.UUID
	if keep {
		except = append(except, current.session.ID)
	}
	ctx, cancel := deadline.Uncancelled(r.Context())
	defer cancel()
	if err := a.strategy.Of(current.session.User).DestroyAll(ctx, except...); err != nil {
		return expected(err)
	}
	if !keep {
		current.by.clear(w)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
