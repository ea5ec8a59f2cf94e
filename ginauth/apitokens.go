package ginauth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/internal/deadline"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/strategy"
)

// APITokensConfig configures the tokens that users make for their scripts; see
// [Auth.WithAPITokens].
type APITokensConfig struct {
	// Scopes are the scopes that a user can give to a token. At least one.
	Scopes []string

	// MaxPerUser is how many valid tokens a user can have. Default 50, at most 200.
	MaxPerUser int
}

// apiTokens are the tokens of scripts.
type apiTokens[U any] struct {
	Strategy[U]
	APITokensConfig
}

// WithAPITokens returns an Auth whose guards also accept the tokens of a second strategy, for
// scripts, and that has the routes by which users manage them: [Auth.APITokenRoutes]. Both
// Auths are otherwise the same. The strategy is a strategy.Database over a store of its own,
// with a lifetime and a prefix of its own, such as "lkp_": guards tell the tokens apart by the
// prefix, without I/O. Clients send them in the Authorization header, never as a cookie.
//
// A token of a script has scopes, so only guards with [Scopes] accept it. WithAPITokens returns
// an error that names the field where cfg is wrong, or if both strategies have the same prefix.
func (a *Auth[U]) WithAPITokens(s Strategy[U], cfg APITokensConfig) (*Auth[U], error) {
	if s == nil {
		return nil, errors.New("ginauth: WithAPITokens: the strategy is nil")
	}
	if a.cfg.transport(bearer{}.String()) == nil {
		return nil, errors.New("ginauth: WithAPITokens: Config.Transports has no Bearer, by which scripts send their tokens")
	}
	if s.Prefix() == a.strategy.Prefix() {
		return nil, fmt.Errorf("ginauth: WithAPITokens: both strategies have the TokenPrefix %q: give one of them another", s.Prefix())
	}
	if len(cfg.Scopes) == 0 {
		return nil, errors.New("ginauth: APITokensConfig.Scopes is empty: name the scopes that a token can have")
	}
	for _, scope := range cfg.Scopes {
		if !token.ValidScope(scope) {
			return nil, fmt.Errorf("ginauth: APITokensConfig.Scopes: %q is not a scope", scope)
		}
	}
	if cfg.MaxPerUser == 0 {
		cfg.MaxPerUser = 50
	}
	if cfg.MaxPerUser < 1 || cfg.MaxPerUser > 200 {
		return nil, fmt.Errorf("ginauth: APITokensConfig.MaxPerUser is %d, want 0 (for 50) to 200", cfg.MaxPerUser)
	}
	cfg.Scopes = slices.Clone(cfg.Scopes)
	other := *a
	other.api = &apiTokens[U]{s, cfg}
	return &other, nil
}

// strategyOf returns the strategy of a token that came by a transport, or by none (nil).
func (a *Auth[U]) strategyOf(by transport, token string) Strategy[U] {
	if a.api != nil && (by == nil || !by.ambient()) && a.api.WellFormed(token) {
		return a.api
	}
	return a.strategy
}

// apiTokenJSON is a token of a script in an answer. Token is there only when it is new.
type apiTokenJSON struct {
	ID         uuid.UUID  `json:"id"`
	Token      string     `json:"token,omitempty"`
	Name       string     `json:"name"`
	Scopes     []string   `json:"scopes"`
	CreatedAt  time.Time  `json:"created_at"`
	ExpiresAt  *time.Time `json:"expires_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

func newAPITokenJSON(s strategy.SessionInfo) apiTokenJSON {
	return apiTokenJSON{ID: s.ID, Name: s.Name, Scopes: s.Scopes, CreatedAt: s.CreatedAt, ExpiresAt: orNull(s.ExpiresAt), LastUsedAt: orNull(s.LastUsedAt)}
}

func (a *Auth[U]) handleCreateAPIToken(w http.ResponseWriter, r *http.Request) error {
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	name, scopes, seconds := body.tokenName(), optional[[]string](body, "scopes"), optional[int64](body, "expires_in")
	switch {
	case scopes == nil || len(*scopes) == 0:
		body.missing("scopes")
	default:
		for _, scope := range *scopes {
			if !slices.Contains(a.api.Scopes, scope) {
				body.Invalid("scopes", "value_error", "Input has a scope that is not offered")
				break
			}
		}
	}
	opts := []strategy.TokenOption{strategy.WithName(name)}
	if seconds != nil {
		longest := a.api.Lifetime()
		if *seconds < 1 || *seconds > int64(maxExpiry/time.Second) || longest > 0 && time.Duration(*seconds)*time.Second > longest {
			body.Invalid("expires_in", "value_error", "Input should be a number of seconds up to the longest lifetime")
		} else {
			opts = append(opts, strategy.WithLifetime(time.Duration(*seconds)*time.Second))
		}
	}
	if err := body.done(); err != nil {
		return err
	}
	user := a.identity(r).session.User
	page, err := a.api.Of(user).List(r.Context(), strategy.Page{Limit: a.api.MaxPerUser})
	switch {
	case err != nil:
		return expected(err)
	case len(page.Sessions) >= a.api.MaxPerUser:
		return &routeError{errTooMany, "TOO_MANY_API_TOKENS"}
	}
	secret, session, err := a.api.WriteToken(r.Context(), user, append(opts, strategy.WithScopes(*scopes...))...)
	if err != nil {
		return expected(err, strategy.ErrUserInactive)
	}
	created := newAPITokenJSON(session.SessionInfo)
	created.Token = secret.Reveal()
	writeJSON(w, http.StatusCreated, created)
	return nil
}

// maxExpiry is the longest lifetime that a client can ask for, 100 years.
const maxExpiry = 100 * 365 * 24 * time.Hour

// maxTokenName is the most characters that a name has.
const maxTokenName = 100

// tokenName returns the field name.
func (b *Body) tokenName() string {
	name := b.text("name")
	if utf8.RuneCountInString(name) > maxTokenName || len(name) > 400 {
		b.Invalid("name", "string_too_long", "Input should have at most 100 characters")
	}
	return name
}

func (a *Auth[U]) handleAPITokens(w http.ResponseWriter, r *http.Request) error {
	page, err := pageOf(r)
	if err != nil {
		return err
	}
	found, err := a.api.Of(a.identity(r).session.User).List(r.Context(), page)
	if err != nil {
		return listRefused(err)
	}
	tokens := make([]apiTokenJSON, len(found.Sessions))
	for i, s := range found.Sessions {
		tokens[i] = newAPITokenJSON(s)
	}
	body := map[string]any{"tokens": tokens}
	if found.Next != "" {
		body["next"] = found.Next
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// pageOf reads the page that a request asks for.
func pageOf(r *http.Request) (page strategy.Page, err error) {
	query := r.URL.Query()
	page.After = query.Get("after")
	if limit := query.Get("limit"); limit != "" {
		if page.Limit, err = strconv.Atoi(limit); err != nil || page.Limit < 1 {
			return page, fieldErrors{{Loc: []string{"query", "limit"}, Msg: "Input should be a positive integer", Type: "int_parsing"}}
		}
	}
	return page, nil
}

// listRefused is expected for the errors of a list.
func listRefused(err error) error {
	if errors.Is(err, strategy.ErrInvalidCursor) {
		return fieldErrors{{Loc: []string{"query", "after"}, Msg: "Input should be the next of a page", Type: "value_error"}}
	}
	return expected(err)
}

func (a *Auth[U]) handleRenameAPIToken(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseSessionID(r.PathValue("id"))
	if !ok {
		return strategy.ErrSessionNotFound
	}
	body, err := readBodyObject(w, r)
	if err != nil {
		return err
	}
	name := body.tokenName()
	if err := body.done(); err != nil {
		return err
	}
	if err := a.api.Of(a.identity(r).session.User).Rename(r.Context(), id, name); err != nil {
		return expected(err, strategy.ErrSessionNotFound)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Auth[U]) handleRevokeAPIToken(w http.ResponseWriter, r *http.Request) error {
	id, ok := parseSessionID(r.PathValue("id"))
	if !ok {
		return strategy.ErrSessionNotFound
	}
	ctx, cancel := deadline.Uncancelled(r.Context())
	defer cancel()
	if err := a.api.Of(a.identity(r).session.User).Destroy(ctx, id); err != nil {
		return expected(err, strategy.ErrSessionNotFound)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
