package strategy_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/strategy"
)

func TestRotateTokenGivesASessionANewSecret(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		used bool // the rotation sets LastUsedAt
	}{
		{"without touches", strategy.Config{Lifetime: 24 * time.Hour}, false},
		{"with touches", strategy.Config{Lifetime: 24 * time.Hour, IdleTimeout: time.Hour}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.cfg)
			old, issued := r.issue(t, strategy.WithName("laptop"), strategy.WithUserAgent("Firefox"), strategy.WithLifetime(2*time.Hour))
			neighbour, _ := r.issue(t)
			r.now = r.now.Add(10 * ms)
			secret, session, err := r.RotateToken(t.Context(), old)
			if err != nil {
				t.Fatalf("RotateToken: %v", err)
			}
			token := secret.Reveal()
			if token == old || !strings.HasPrefix(token, "lk_") {
				t.Errorf("got the token %q for %q, want another", token, old)
			}
			want := issued
			want.Digest = sha256Of(token)
			if c.used {
				want.LastUsedAt = issuedAt.Add(10 * ms)
			}
			if got := r.row(t, token); !reflect.DeepEqual(got, want) {
				t.Errorf("row: got %+v\nwant %+v", got, want)
			}
			wantInfo := strategy.SessionInfo{
				ID: issued.ID, UserID: r.ann.ID, CreatedAt: issuedAt, LastUsedAt: want.LastUsedAt, AuthenticatedAt: issuedAt,
				ExpiresAt: issuedAt.Add(2 * time.Hour), Name: "laptop", UserAgent: "Firefox",
			}
			if !reflect.DeepEqual(session, strategy.Session[user]{SessionInfo: wantInfo, User: r.ann}) {
				t.Errorf("session: got %+v\nwant %+v", session, wantInfo)
			}
			r.reads(t, "of the old token", old, strategy.ErrInvalidToken)
			r.reads(t, "of the new token", token, nil)
			r.reads(t, "of the user's other token", neighbour, nil)
			if _, _, err := r.RotateToken(t.Context(), old); !errors.Is(err, strategy.ErrInvalidToken) {
				t.Errorf("RotateToken of the old token: got %v, want ErrInvalidToken", err)
			}
			if err := r.DestroyToken(t.Context(), old); err != nil {
				t.Errorf("DestroyToken of the old token: got %v, want nil", err)
			}
			r.reads(t, "after DestroyToken of the old token", token, nil)
		})
	}
}

func TestRotateTokenRefusesWhatReadTokenRefuses(t *testing.T) {
	unknown := newSecret()
	for _, c := range []struct {
		name   string
		spoil  func(t *testing.T, r *rig, token string) string
		reason event.Reason
	}{
		{"a malformed token", func(_ *testing.T, _ *rig, token string) string { return token + "x" }, event.ReasonMalformed},
		{"an unknown token", func(*testing.T, *rig, string) string { return unknown.Reveal() }, event.ReasonUnknown},
		{"a revoked token", func(t *testing.T, r *rig, token string) string {
			if err := r.DestroyToken(t.Context(), token); err != nil {
				t.Fatal(err)
			}
			return token
		}, event.ReasonUnknown},
		{"a token that a concurrent request rotates or revokes", func(_ *testing.T, r *rig, token string) string {
			r.tokens.rotate = func(context.Context, string, strategy.Rotation) (row, error) {
				return row{}, fmt.Errorf("tokens: %w", strategy.ErrTokenNotFound)
			}
			return token
		}, event.ReasonUnknown},
		{"an inactive user's token", func(t *testing.T, r *rig, token string) string {
			if err := r.users.Update(t.Context(), r.ann.ID, func(u *user) { u.Active = false }); err != nil {
				t.Fatal(err)
			}
			return token
		}, event.ReasonUserInactive},
		{"a deleted user's token", func(t *testing.T, r *rig, token string) string {
			if err := r.users.Delete(t.Context(), r.ann.ID); err != nil {
				t.Fatal(err)
			}
			return token
		}, event.ReasonUserGone},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: lifetime})
			token, _ := r.issue(t)
			token = c.spoil(t, r, token)
			r.events.take()
			secret, session, err := r.RotateToken(t.Context(), token)
			if !errors.Is(err, strategy.ErrInvalidToken) || secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
				t.Errorf("got %q, %+v, %v, want ErrInvalidToken alone", secret.Reveal(), session, err)
			}
			if got := r.events.take(); len(got) != 1 || got[0].Kind != event.TokenDenied || got[0].Reason != c.reason {
				t.Errorf("got the events %+v, want one token.denied with the reason %s", got, c.reason)
			}
		})
	}
}

func TestOneOfManyConcurrentRotationsSucceeds(t *testing.T) {
	for range 50 {
		r := newRig(t, strategy.Config{Lifetime: lifetime, IdleTimeout: lifetime / 2})
		token, issued := r.issue(t)
		const n = 16
		won := make([]string, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				secret, session, err := r.RotateToken(t.Context(), token)
				switch {
				case err == nil && session.ID == issued.ID:
					won[i] = secret.Reveal()
				case !errors.Is(err, strategy.ErrInvalidToken) || secret.Reveal() != "":
					t.Errorf("RotateToken: got %q, %v, want ErrInvalidToken alone", secret.Reveal(), err)
				}
			})
		}
		wg.Wait()
		won = slices.DeleteFunc(won, func(s string) bool { return s == "" })
		if len(won) != 1 {
			t.Fatalf("%d of %d rotations succeeded, want 1", len(won), n)
		}
		r.reads(t, "of the winner's token", won[0], nil)
		r.reads(t, "of the old token", token, strategy.ErrInvalidToken)
		if page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{}); len(page.Sessions) != 1 || err != nil {
			t.Errorf("Sessions: got %d, %v, want 1", len(page.Sessions), err)
		}
	}
}

// An ended session does not come back, whatever requests were in flight.
func TestDestroyedSessionIsNotRevivedByARotationOrTouch(t *testing.T) {
	for round := range 60 {
		r := newRig(t, strategy.Config{IdleTimeout: time.Hour, TouchInterval: ms})
		token, issued := r.issue(t)
		r.now = r.now.Add(time.Minute)
		end := []func() error{
			func() error { return r.DestroySession(t.Context(), r.ann.ID, issued.ID) },
			func() error { return r.DestroyAll(t.Context(), r.ann.ID) },
		}[round%2]
		var clients sync.WaitGroup
		begin := make(chan struct{})
		last := make([]string, 8)
		for i := range last {
			clients.Go(func() {
				<-begin
				last[i] = token
				for range 20 {
					if _, err := r.ReadToken(t.Context(), last[i]); err != nil {
						return
					}
					if secret, _, err := r.RotateToken(t.Context(), last[i]); err == nil {
						last[i] = secret.Reveal()
					}
				}
			})
		}
		close(begin)
		if err := end(); err != nil {
			t.Fatalf("end the session: %v", err)
		}
		if page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{}); len(page.Sessions) != 0 || err != nil {
			t.Errorf("Sessions after the end was acknowledged: got %d, %v, want none", len(page.Sessions), err)
		}
		clients.Wait()
		for _, token := range last {
			r.reads(t, "after the end", token, strategy.ErrInvalidToken)
		}
		if rows, err := r.tokens.store.ByUser(t.Context(), r.ann.ID, strategy.Position{}, 10); len(rows) != 0 || err != nil {
			t.Fatalf("the store has %d rows, %v, want none", len(rows), err)
		}
	}
}

// history issues n tokens, a second apart, and returns their session IDs, newest first.
func (r *rig) history(t testing.TB, n int, opts ...strategy.TokenOption) (ids []uuid.UUID) {
	t.Helper()
	for range n {
		_, issued := r.issue(t, opts...)
		ids = append([]uuid.UUID{issued.ID}, ids...)
		r.now = r.now.Add(time.Second)
	}
	return ids
}

// list reads all pages of Ann's sessions.
func (r *rig) list(t testing.TB, limit int) (ids []uuid.UUID, pages []int) {
	t.Helper()
	page := strategy.Page{Limit: limit}
	for {
		got, err := r.Sessions(t.Context(), r.ann.ID, page)
		if err != nil {
			t.Fatalf("Sessions: %v", err)
		}
		for _, s := range got.Sessions {
			ids = append(ids, s.ID)
		}
		pages = append(pages, len(got.Sessions))
		if got.Next == "" {
			return ids, pages
		}
		page.After = got.Next
	}
}

func TestSessionsAreListedNewestFirst(t *testing.T) {
	r := newRig(t, strategy.Config{})
	want := r.history(t, 7)
	for i := range 3 { // in one millisecond, so the IDs decide
		_, issued := r.issue(t)
		want = slices.Insert(want, 0, issued.ID)
		slices.SortFunc(want[:i+1], func(a, b uuid.UUID) int { return bytes.Compare(b[:], a[:]) })
	}
	// Another user's sessions are not listed.
	bob := user{ID: uuid.New(), Email: "bob@example.com", Active: true}
	if err := r.users.Insert(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.WriteToken(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limit int
		pages []int
	}{
		{1, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
		{3, []int{3, 3, 3, 1}},
		{5, []int{5, 5}},
		{9, []int{9, 1}},
		{10, []int{10}},
		{11, []int{10}},
	} {
		if ids, pages := r.list(t, c.limit); !slices.Equal(ids, want) || !slices.Equal(pages, c.pages) {
			t.Errorf("limit %d: got pages of %v with %v\nwant %v with %v", c.limit, pages, ids, c.pages, want)
		}
	}

	// A page begins where the previous one ended, even if sessions were added or removed since.
	first, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{Limit: 4})
	if err != nil {
		t.Fatalf("Sessions: %v", err)
	}
	r.now = r.now.Add(time.Minute)
	r.history(t, 1)
	if err := r.DestroySession(t.Context(), r.ann.ID, want[3]); err != nil {
		t.Fatalf("DestroySession: %v", err)
	}
	second, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{Limit: 4, After: first.Next})
	if err != nil || len(second.Sessions) != 4 || second.Sessions[0].ID != want[4] || second.Sessions[3].ID != want[7] {
		t.Errorf("the second page after a change: got %+v, %v, want %v", second, err, want[4:8])
	}
}

func TestPageLimits(t *testing.T) {
	r := newRig(t, strategy.Config{})
	r.history(t, 201)
	for limit, want := range map[int]int{0: 50, -1: 50, 1: 1, 50: 50, 200: 200, 201: 200, 1 << 40: 200} {
		page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{Limit: limit})
		if len(page.Sessions) != want || page.Next == "" || err != nil {
			t.Errorf("limit %d: got %d sessions, next %q, %v, want %d and more", limit, len(page.Sessions), page.Next, err, want)
		}
	}
}

// Invalid rows that the store has not removed yet are skipped, and do not shorten a page.
func TestSessionsListsValidSessionsOnly(t *testing.T) {
	r := newRig(t, strategy.Config{Lifetime: 30 * 24 * time.Hour, IdleTimeout: time.Hour})
	live := r.history(t, 2, strategy.WithScopes("a"))
	dead := r.history(t, 430, strategy.WithLifetime(time.Minute))
	r.now = r.now.Add(-10 * time.Minute)
	live = append(r.history(t, 2), live...)
	r.now = issuedAt.Add(430*time.Second + 4*time.Second)
	r.history(t, 430, strategy.WithLifetime(time.Millisecond))
	live = append(r.history(t, 1), live...)
	r.now = r.now.Add(10 * time.Minute)
	got, pages := r.list(t, 2)
	if !slices.Equal(pages, []int{2, 2, 1}) || len(dead) != 430 {
		t.Errorf("got pages of %v, want 2, 2 and 1", pages)
	}
	for _, id := range live {
		if !slices.Contains(got, id) {
			t.Errorf("the session %v is not listed", id)
		}
	}

	// After RevokeTokens no row has changed, and no session is listed.
	r.revoke(t)
	if ids, _ := r.list(t, 2); len(ids) != 0 {
		t.Errorf("after RevokeTokens: got %v, want none", ids)
	}
}

func TestUnknownUserHasNoSessions(t *testing.T) {
	r := newRig(t, strategy.Config{})
	page, err := r.Sessions(t.Context(), uuid.New(), strategy.Page{})
	if len(page.Sessions) != 0 || page.Next != "" || err != nil {
		t.Errorf("Sessions: got %+v, %v, want none", page, err)
	}
	if err := r.DestroyAll(t.Context(), uuid.New()); err != nil {
		t.Errorf("DestroyAll: got %v, want nil", err)
	}
}

func TestInvalidCursorsAreRejected(t *testing.T) {
	r := newRig(t, strategy.Config{})
	r.history(t, 3)
	page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{Limit: 1})
	if err != nil {
		t.Fatalf("Sessions: %v", err)
	}
	good := page.Next
	if len(good) != 32 || strings.Trim(good, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("Next: got %q, want characters that need no escaping in a URL", good)
	}
	before := r.tokens.calls.Load()
	for name, cursor := range map[string]string{
		"too short":       good[:31],
		"too long":        good + "A",
		"much too long":   good + "AAAA",
		"a line break":    good + "\n",
		"line breaks":     good[:8] + "\r\n" + good[8:],
		"padding":         good + "=",
		"standard base64": "+/" + good[2:],
		"a space":         " ",
		"a number":        "2",
		"an operator":     `{"$gt":""}`,
		"a NUL":           "\x00" + good[1:],
		"a session's ID":  page.Sessions[0].ID.String(),
		"ten megabytes":   strings.Repeat("A", 10<<20),
		"many cursors":    strings.Repeat(good, 1000),
		"a quoted cursor": `"` + good + `"`,
	} {
		got, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{After: cursor})
		if !errors.Is(err, strategy.ErrInvalidCursor) || len(got.Sessions) != 0 {
			t.Errorf("%s: got %d sessions, %v, want ErrInvalidCursor", name, len(got.Sessions), err)
		}
	}
	if got := r.tokens.calls.Load() - before; got != 0 {
		t.Errorf("the store was called %d times, want 0", got)
	}
}

func FuzzCursor(f *testing.F) {
	at := strategy.Position{CreatedAt: issuedAt, ID: uuid.Max}
	for _, s := range []string{
		"", strategy.Cursor(at), strategy.Cursor(strategy.Position{CreatedAt: time.UnixMilli(-1).UTC()}), "A", strings.Repeat("A", 32),
		strings.Repeat("_", 32), strategy.Cursor(at) + "\n", "=", "\xff",
		base64.RawURLEncoding.EncodeToString(append([]byte{0x80}, make([]byte, 23)...)),
	} {
		f.Add(s)
	}
	db, err := strategy.NewDatabase(memstore.NewTokens[uuid.UUID](), memstore.NewUsers[user](), strategy.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := strategy.ParseCursor(s)
		_, listErr := db.Sessions(t.Context(), uuid.New(), strategy.Page{After: s})
		if (listErr == nil) != (err == nil) {
			t.Errorf("Sessions after %q: got %v, want as ParseCursor, %v", s, listErr, err)
		}
		switch {
		case err != nil:
			if !errors.Is(err, strategy.ErrInvalidCursor) || got != (strategy.Position{}) {
				t.Errorf("ParseCursor(%q): got %v, %v, want ErrInvalidCursor alone", s, got, err)
			}
		case s == "":
			if got != (strategy.Position{}) {
				t.Errorf("ParseCursor of nothing: got %v, want the beginning", got)
			}
		default:
			if again := strategy.Cursor(got); again != s {
				t.Errorf("ParseCursor(%q): got %v, whose cursor is %q, want one form only", s, got, again)
			}
			if got.CreatedAt.Location() != time.UTC || !got.CreatedAt.Equal(got.CreatedAt.Truncate(ms)) {
				t.Errorf("ParseCursor(%q): got %v, want UTC and whole milliseconds", s, got.CreatedAt)
			}
		}
	})
}

func TestDestroySessionEndsOnlySessionsOfTheUser(t *testing.T) {
	r := newRig(t, strategy.Config{})
	bob := user{ID: uuid.New(), Email: "bob@example.com", Active: true}
	if err := r.users.Insert(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	token, issued := r.issue(t)
	other, _ := r.issue(t)
	r.events.take()
	for name, err := range map[string]error{
		"another user's session":        r.DestroySession(t.Context(), bob.ID, issued.ID),
		"an unknown session":            r.DestroySession(t.Context(), r.ann.ID, uuid.New()),
		"the zero ID":                   r.DestroySession(t.Context(), r.ann.ID, uuid.Nil),
		"another user's session, by Of": r.Of(bob).Destroy(t.Context(), issued.ID),
		"an unknown session, by Of":     r.Of(r.ann).Destroy(t.Context(), uuid.New()),
		"an unknown user":               r.DestroySession(t.Context(), uuid.New(), issued.ID),
	} {
		// All errors are equal, so that nobody learns which sessions exist.
		if !errors.Is(err, strategy.ErrSessionNotFound) || err.Error() != "strategy: session not found" {
			t.Errorf("%s: got %v, want ErrSessionNotFound", name, err)
		}
	}
	if got := r.events.take(); len(got) != 0 {
		t.Errorf("got the events %+v, want none", got)
	}
	if err := r.DestroyAll(t.Context(), bob.ID); err != nil {
		t.Errorf("DestroyAll of another user: %v", err)
	}
	r.reads(t, "after the attempts", token, nil)

	token = r.rotates(t, token)
	if err := r.DestroySession(t.Context(), r.ann.ID, issued.ID); err != nil {
		t.Errorf("DestroySession after a rotation: got %v, want nil", err)
	}
	r.reads(t, "after DestroySession", token, strategy.ErrInvalidToken)
	r.reads(t, "of the user's other token", other, nil)
	if err := r.DestroySession(t.Context(), r.ann.ID, issued.ID); !errors.Is(err, strategy.ErrSessionNotFound) {
		t.Errorf("DestroySession again: got %v, want ErrSessionNotFound", err)
	}
}

func TestDestroyAllKeepsTheExceptions(t *testing.T) {
	r := newRig(t, strategy.Config{})
	var tokens []string
	var ids []uuid.UUID
	for range 5 {
		token, issued := r.issue(t)
		tokens, ids = append(tokens, token), append(ids, issued.ID)
	}
	alive := func(when string, want ...int) {
		t.Helper()
		for i, token := range tokens {
			err := strategy.ErrInvalidToken
			if slices.Contains(want, i) {
				err = nil
			}
			r.reads(t, fmt.Sprintf("of token %d, %s", i, when), token, err)
		}
	}
	if err := r.DestroyAll(t.Context(), r.ann.ID, ids[1], uuid.New(), ids[3]); err != nil {
		t.Fatalf("DestroyAll: %v", err)
	}
	alive("after all but two", 1, 3)
	if err := r.Of(r.ann).DestroyAll(t.Context(), ids[3]); err != nil {
		t.Fatalf("DestroyAll: %v", err)
	}
	alive("after all but one", 3)
	page, err := r.Of(r.ann).List(t.Context(), strategy.Page{})
	if err != nil || len(page.Sessions) != 1 || page.Sessions[0].ID != ids[3] {
		t.Errorf("List: got %+v, %v, want %v", page, err, ids[3])
	}
	if err := r.DestroyAll(t.Context(), r.ann.ID); err != nil {
		t.Fatalf("DestroyAll: %v", err)
	}
	alive("after all")
}

func subject[ID comparable](t *testing.T, id ID) string {
	t.Helper()
	db, err := strategy.NewDatabase(memstore.NewTokens[ID](), memstore.NewUsers[account.User[ID]](), strategy.Config{})
	if err != nil {
		t.Fatalf("NewDatabase: %v", err)
	}
	return db.Of(account.User[ID]{ID: id}).Subject()
}

func TestSubjectIsTheIDAsAString(t *testing.T) {
	id, object := uuid.New(), bson.NewObjectID()
	type name string
	for _, c := range []struct{ name, got, want string }{
		{"a UUID", subject(t, id), id.String()},
		{"an ObjectID", subject(t, object), object.Hex()},
		{"a string", subject(t, "ann"), "ann"},
		{"a string type of the application", subject(t, name("ann")), "ann"},
		{"an int64", subject(t, int64(-7)), "-7"},
		{"an array", subject(t, [2]int{1, 2}), "[1 2]"},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, c.got, c.want)
		}
	}
}

// rows returns Ann's rows, newest first.
func (r *rig) rows(t testing.TB) []row {
	t.Helper()
	rows, err := r.tokens.store.ByUser(t.Context(), r.ann.ID, strategy.Position{}, 1000)
	if err != nil {
		t.Fatalf("ByUser: %v", err)
	}
	return rows
}

func TestLoginBeyondMaxSessionsEndsTheOldestSession(t *testing.T) {
	r := newRig(t, strategy.Config{MaxSessions: 3})
	var tokens []string
	for i := range 6 {
		token, _ := r.issue(t)
		tokens = append(tokens, token)
		r.now = r.now.Add(time.Second)
		for j, token := range tokens {
			want := strategy.ErrInvalidToken
			if j > i-3 {
				want = nil
			}
			r.reads(t, fmt.Sprintf("of token %d of %d", j+1, i+1), token, want)
		}
	}
}

// A new login on an instance whose clock is behind is not the oldest session.
func TestLoginByASlowClockIsNotEvicted(t *testing.T) {
	r := newRig(t, strategy.Config{MaxSessions: 2})
	first, _ := r.issue(t)
	r.now = r.now.Add(5 * time.Second)
	second, _ := r.issue(t)
	r.now = r.now.Add(-8 * time.Second)
	third, _ := r.issue(t)
	r.reads(t, "of the new login", third, nil)
	r.reads(t, "of the previous login", second, nil)
	r.reads(t, "of the oldest", first, strategy.ErrInvalidToken)
}

func TestWithReplacedEndsTheReplacedSession(t *testing.T) {
	for name, cfg := range map[string]strategy.Config{
		"without a limit": {},
		"with a limit":    {MaxSessions: 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, cfg)
			kept, _ := r.issue(t)
			r.now = r.now.Add(ms)
			gone, _ := r.issue(t)
			r.now = r.now.Add(ms)
			next, _ := r.issue(t, strategy.WithReplaced(gone, "nonsense", ""))
			r.reads(t, "of the new one", next, nil)
			r.reads(t, "of another session", kept, nil)
			r.reads(t, "of the replaced session", gone, strategy.ErrInvalidToken)
		})
	}
}

func TestFailedReplacementIssuesNoToken(t *testing.T) {
	r := newRig(t, strategy.Config{})
	old, was := r.issue(t)
	down := errors.New("down")
	r.tokens.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (row, error) {
		if id != was.ID {
			t.Errorf("deletes the session %v, want %v", id, was.ID)
		}
		return row{}, down
	}
	if secret, _, err := r.WriteToken(t.Context(), r.ann, strategy.WithReplaced(old)); !errors.Is(err, down) || secret.Reveal() != "" {
		t.Errorf("got %q, %v, want the failure alone", secret.Reveal(), err)
	}
	r.reads(t, "of the old one", old, nil)
	if got := r.rows(t); len(got) != 1 {
		t.Errorf("got %d rows, want the old one alone", len(got))
	}
}

func TestReauthenticationByAnotherUserIsRejected(t *testing.T) {
	r := newRig(t, strategy.Config{})
	token, _ := r.issue(t)
	bob := r.ann
	bob.ID = uuid.New()
	bob.Version = r.ann.Version + 1
	for _, other := range []any{bob, nil, "ann", account.User[int64]{ID: 1}} {
		if _, _, err := r.RotateToken(t.Context(), token, strategy.WithReauthentication(other, r.now)); !errors.Is(err, strategy.ErrInvalidOption) {
			t.Errorf("%T: got %v, want ErrInvalidOption", other, err)
		}
	}
	r.reads(t, "afterwards", token, nil)
}

// A session that is rotated while a login ends it must end too.
func TestConcurrentRotationDoesNotSaveAnEndedSession(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  strategy.Config
		opts func(old string) []strategy.TokenOption
	}{
		"beyond MaxSessions": {strategy.Config{MaxSessions: 1}, func(string) []strategy.TokenOption { return nil }},
		"replaced":           {strategy.Config{}, func(old string) []strategy.TokenOption { return []strategy.TokenOption{strategy.WithReplaced(old)} }},
		"replaced, at MaxSessions": {strategy.Config{MaxSessions: 1}, func(old string) []strategy.TokenOption {
			return []strategy.TokenOption{strategy.WithReplaced(old), nil}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.cfg)
			old, _ := r.issue(t)
			r.now = r.now.Add(ms)
			r.tokens.deleteSession = func(ctx context.Context, userID, id uuid.UUID) (row, error) {
				r.tokens.deleteSession = nil
				old = r.rotates(t, old)
				return r.tokens.store.DeleteSession(ctx, userID, id)
			}
			next, _ := r.issue(t, c.opts(old)...)
			r.reads(t, "of the new one", next, nil)
			r.reads(t, "of the old one, by its new token", old, strategy.ErrInvalidToken)
		})
	}
}

// A failed insert may have stored the row.
func TestInsertWithoutAnAnswerLeavesNoSession(t *testing.T) {
	r := newRig(t, strategy.Config{MaxSessions: 1})
	down := errors.New("no answer")
	r.tokens.insert = func(ctx context.Context, stored row) error {
		r.tokens.insert = nil
		return errors.Join(down, r.tokens.store.Insert(ctx, stored))
	}
	if secret, _, err := r.WriteToken(t.Context(), r.ann); !errors.Is(err, down) || secret.Reveal() != "" {
		t.Errorf("got %q, %v, want the failure alone", secret.Reveal(), err)
	}
	if got := r.rows(t); len(got) != 0 {
		t.Errorf("got %d rows, want none", len(got))
	}
	token, _ := r.issue(t)
	r.reads(t, "of the next login", token, nil)
}

func TestSessionsThatDoNotCountAgainstMaxSessions(t *testing.T) {
	r := newRig(t, strategy.Config{MaxSessions: 2, Lifetime: 30 * 24 * time.Hour, IdleTimeout: time.Hour})
	// Any number of tokens with scopes.
	scoped := r.history(t, 5, strategy.WithScopes("deploy:write"))
	// Invalid rows: expired, idle, superseded.
	r.history(t, 1, strategy.WithLifetime(time.Minute))
	r.now = r.now.Add(2 * time.Minute)
	r.history(t, 2)
	r.now = r.now.Add(2 * time.Hour)
	r.history(t, 2)
	r.now = r.now.Add(time.Minute)
	r.revoke(t)
	// Another user's sessions.
	bob := user{ID: uuid.New(), Email: "bob@example.com", Active: true}
	if err := r.users.Insert(t.Context(), bob); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := r.WriteToken(t.Context(), bob); err != nil {
			t.Fatal(err)
		}
	}
	before := len(r.rows(t))
	live := r.history(t, 2)
	if got, _ := r.list(t, 10); !slices.Equal(got, live) {
		t.Errorf("got %v, want the two logins %v", got, live)
	}
	if got := len(r.rows(t)); got != before+2 {
		t.Errorf("the store has %d rows, want %d", got, before+2)
	}
	// At the limit, tokens with scopes can still be issued.
	r.history(t, 3, strategy.WithScopes("deploy:write"))
	if got, _ := r.list(t, 10); len(got) != 5 || len(scoped) != 5 {
		t.Errorf("got %d sessions, want 2 logins and 3 tokens with scopes", len(got))
	}
	// A token with scopes does not end a login if the limit was lowered.
	r = r.another(t, strategy.Config{MaxSessions: 1})
	r.history(t, 1, strategy.WithScopes("deploy:write"))
	for _, id := range live {
		if got, _ := r.list(t, 20); !slices.Contains(got, id) {
			t.Errorf("a token with scopes ended the login %v", id)
		}
	}
}

func TestMaxSessionsIsExactAfterConcurrentLogins(t *testing.T) {
	const logins, limit = 64, 5
	for name, before := range map[string]int{"from no sessions": 0, "from MaxSessions": limit} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, strategy.Config{MaxSessions: limit})
			r.history(t, before)
			tokens := make([]string, logins)
			var wg sync.WaitGroup
			for i := range logins {
				wg.Go(func() {
					secret, _, err := r.WriteToken(t.Context(), r.ann)
					if err != nil {
						t.Errorf("WriteToken: %v", err)
					}
					tokens[i] = secret.Reveal()
				})
			}
			wg.Wait()
			live := 0
			for _, token := range tokens {
				if _, err := r.ReadToken(t.Context(), token); err == nil {
					live++
				}
			}
			rows := r.rows(t)
			for i, stored := range rows {
				if i+1 < len(rows) && stored.CreatedAt.Before(rows[i+1].CreatedAt) {
					t.Errorf("rows: %v is before %v", stored.CreatedAt, rows[i+1].CreatedAt)
				}
			}
			if len(rows) != limit || live != limit {
				t.Errorf("there are %d rows and %d valid tokens, want %d of each", len(rows), live, limit)
			}
		})
	}
}

func TestFailedLoginAtMaxSessionsLeavesNoRow(t *testing.T) {
	down := errors.New("down")
	r := newRig(t, strategy.Config{MaxSessions: 2})
	ids := r.history(t, 2)
	r.tokens.byUser = func(context.Context, uuid.UUID, strategy.Position, int) ([]row, error) { return nil, down }
	r.events.take()
	if secret, _, err := r.WriteToken(t.Context(), r.ann); !errors.Is(err, down) || secret.Reveal() != "" {
		t.Errorf("got %q, %v, want the failure alone", secret.Reveal(), err)
	}
	if got := r.events.take(); len(got) != 1 || got[0].Kind != event.StoreFailed {
		t.Errorf("got the events %+v, want one store.failed", got)
	}
	r.tokens.byUser = nil
	if got, _ := r.list(t, 10); !slices.Equal(got, ids) {
		t.Errorf("got the sessions %v, want %v", got, ids)
	}

	// No token is issued if an eviction is not acknowledged.
	r.tokens.deleteSession = func(context.Context, uuid.UUID, uuid.UUID) (row, error) { return row{}, down }
	secret, _, err := r.WriteToken(t.Context(), r.ann)
	r.tokens.deleteSession = nil
	if !errors.Is(err, down) || secret.Reveal() != "" {
		t.Errorf("with a failing eviction: got %q, %v, want the failure alone", secret.Reveal(), err)
	}
	if got, _ := r.list(t, 10); !slices.Equal(got, ids) {
		t.Errorf("after an eviction that failed: got the sessions %v, want %v", got, ids)
	}

	// The client disconnects after its row was inserted.
	ctx, cancel := context.WithCancel(t.Context())
	r.tokens.insert = func(ctx context.Context, stored row) error {
		defer cancel()
		return r.tokens.store.Insert(ctx, stored)
	}
	if secret, _, err := r.WriteToken(ctx, r.ann); !errors.Is(err, context.Canceled) || secret.Reveal() != "" {
		t.Errorf("a cancelled login: got %q, %v, want context.Canceled alone", secret.Reveal(), err)
	}
	if got, _ := r.list(t, 10); !slices.Equal(got, ids) {
		t.Errorf("after a cancelled login: got the sessions %v, want %v", got, ids)
	}
}

func TestFailuresOfSessionManagement(t *testing.T) {
	for _, cause := range []error{errors.New("down"), context.Canceled, context.DeadlineExceeded} {
		r := newRig(t, strategy.Config{Lifetime: lifetime})
		token, issued := r.issue(t)
		r.events.take()
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, cause) || errors.Is(err, strategy.ErrInvalidToken) || errors.Is(err, strategy.ErrSessionNotFound) {
				t.Errorf("%s with the failure %q: got %v, want it wrapped, and no sentinel error", op, cause, err)
			}
			events := r.events.take()
			if len(events) != 1 || events[0].Kind != event.StoreFailed || !errors.Is(events[0].Err, cause) {
				t.Errorf("%s with the failure %q: got the events %+v, want one store.failed with it", op, cause, events)
			}
		}
		r.tokens.rotate = func(context.Context, string, strategy.Rotation) (row, error) { return issued, cause }
		secret, session, err := r.RotateToken(t.Context(), token)
		check("RotateToken", err)
		if secret.Reveal() != "" || !reflect.DeepEqual(session, strategy.Session[user]{}) {
			t.Errorf("RotateToken: got %q and %+v beside an error, want none", secret.Reveal(), session)
		}
		r.tokens.byUser = func(context.Context, uuid.UUID, strategy.Position, int) ([]row, error) { return []row{issued}, cause }
		page, err := r.Sessions(t.Context(), r.ann.ID, strategy.Page{})
		check("Sessions", err)
		if len(page.Sessions) != 0 {
			t.Errorf("Sessions: got %+v beside an error, want none", page)
		}
		r.users.byID = func(context.Context, uuid.UUID) (user, error) { return r.ann, cause }
		_, err = r.Sessions(t.Context(), r.ann.ID, strategy.Page{})
		check("Sessions without its users", err)
		_, _, err = r.RotateToken(t.Context(), token)
		check("RotateToken without its users", err)
		r.users.byID = nil
		r.tokens.deleteSession = func(context.Context, uuid.UUID, uuid.UUID) (row, error) { return issued, cause }
		check("DestroySession", r.DestroySession(t.Context(), r.ann.ID, issued.ID))
		r.tokens.deleteByUser = func(context.Context, uuid.UUID, ...uuid.UUID) (int64, error) { return 1, cause }
		check("DestroyAll", r.DestroyAll(t.Context(), r.ann.ID))
		r.reads(t, "after the failures", token, nil)
	}
}

// Every outcome is an event, and no event contains a token or its digest.
func TestEventsOfSessions(t *testing.T) {
	everyMinute := strategy.Config{Lifetime: lifetime, TouchInterval: time.Minute}
	for _, c := range []struct {
		name string
		cfg  strategy.Config
		do   func(t *testing.T, r *rig, token string, issued row)
		want []string // kind, reason, "ann", and "session" or "other" for the session's ID, if set
	}{
		{"a touch", everyMinute, func(t *testing.T, r *rig, token string, _ row) {
			r.now = r.now.Add(2 * time.Minute)
			r.reads(t, "", token, nil)
		}, nil},
		{"a touch that fails", everyMinute, func(t *testing.T, r *rig, token string, _ row) {
			r.now = r.now.Add(2 * time.Minute)
			r.tokens.touch = func(context.Context, string, time.Time) error { return errors.New("down") }
			r.reads(t, "", token, nil)
		}, []string{"token.touch_failed ann session failed"}},
		{"an idle session", strategy.Config{IdleTimeout: time.Minute}, func(t *testing.T, r *rig, token string, _ row) {
			r.now = r.now.Add(2 * time.Minute)
			r.reads(t, "", token, strategy.ErrInvalidToken)
		}, []string{"token.denied idle ann session"}},
		{"a session from before RevokeTokens", strategy.Config{}, func(t *testing.T, r *rig, token string, _ row) {
			r.revoke(t)
			r.reads(t, "", token, strategy.ErrInvalidToken)
		}, []string{"token.denied superseded ann session"}},
		{"a rotation, then the old token", strategy.Config{}, func(t *testing.T, r *rig, token string, _ row) {
			r.rotates(t, token)
			r.reads(t, "", token, strategy.ErrInvalidToken)
			_, _, _ = r.RotateToken(t.Context(), token)
		}, []string{"token.rotated ann session", "token.denied unknown", "token.denied unknown"}},
		{"a session destroyed, twice", strategy.Config{}, func(t *testing.T, r *rig, _ string, issued row) {
			_ = r.DestroySession(t.Context(), r.ann.ID, issued.ID)
			_ = r.DestroySession(t.Context(), r.ann.ID, issued.ID)
		}, []string{"token.revoked ann session"}},
		{"all sessions destroyed, twice", strategy.Config{}, func(t *testing.T, r *rig, _ string, _ row) {
			_ = r.DestroyAll(t.Context(), r.ann.ID)
			_ = r.DestroyAll(t.Context(), r.ann.ID)
		}, []string{"tokens.revoked ann"}},
		{"a list", strategy.Config{}, func(t *testing.T, r *rig, _ string, _ row) { r.list(t, 1) }, nil},
		{"a bad cursor", strategy.Config{}, func(t *testing.T, r *rig, _ string, _ row) {
			_, _ = r.Sessions(t.Context(), r.ann.ID, strategy.Page{After: "x"})
		}, nil},
		{"an invalid option", strategy.Config{}, func(t *testing.T, r *rig, _ string, _ row) {
			_, _, _ = r.WriteToken(t.Context(), r.ann, strategy.WithScopes())
		}, nil},
		{"a login that evicts", strategy.Config{MaxSessions: 1}, func(t *testing.T, r *rig, _ string, _ row) {
			r.now = r.now.Add(time.Second)
			r.issue(t)
		}, []string{"token.revoked over_limit ann session", "token.issued ann other"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.cfg)
			token, issued := r.issue(t)
			r.events.take()
			c.do(t, r, token, issued)
			var got []string
			var shown strings.Builder
			log := event.Log(slog.New(slog.NewJSONHandler(&shown, nil)))
			for _, e := range r.events.take() {
				fmt.Fprintf(&shown, "%+v\n", e)
				log(t.Context(), e)
				line := []string{string(e.Kind)}
				if e.Reason != "" {
					line = append(line, string(e.Reason))
				}
				if e.UserID != nil {
					line = append(line, map[bool]string{true: "ann", false: "unknown user"}[e.UserID == r.ann.ID])
				}
				if e.SessionID != uuid.Nil {
					line = append(line, map[bool]string{true: "session", false: "other"}[e.SessionID == issued.ID])
				}
				if e.Err != nil {
					line = append(line, "failed")
				}
				got = append(got, strings.Join(line, " "))
				if want := r.now.UTC().Truncate(ms); !e.Time.Equal(want) {
					t.Errorf("%s: got the time %v, want the clock's %v", e.Kind, e.Time, want)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q\nwant %q", got, c.want)
			}
			for _, secret := range r.secrets {
				if strings.Contains(shown.String(), cmp.Or(strings.TrimPrefix(secret, "lk_"), secret)) {
					t.Errorf("the events show %q:\n%s", secret, shown.String())
				}
			}
		})
	}
}

// The rows of revoked tokens are deleted, except that of the session that made the change.
func TestUserChangedDeletesTheRowsOfRevokedTokens(t *testing.T) {
	down := errors.New("down")
	for _, c := range []struct {
		name    string
		revoked strategy.Revoked
		in      func(own, other strategy.Session[user]) *strategy.Session[user] // the session in the context
		failure error                                                           // of the delete
		left    int                                                             // of Ann's three rows
		event   event.Kind
	}{
		{"nothing was revoked", strategy.RevokedNone, nil, nil, 3, ""},
		{"without a session", strategy.RevokedAll, nil, nil, 0, event.TokensRevoked},
		{"with a session of the user", strategy.RevokedByPassword, func(own, _ strategy.Session[user]) *strategy.Session[user] { return &own }, nil, 1, event.TokensRevoked},
		{"with a session of another user", strategy.RevokedByPassword, func(_, other strategy.Session[user]) *strategy.Session[user] { return &other }, nil, 0, event.TokensRevoked},
		{"a failed delete is an event, not an error", strategy.RevokedAll, nil, down, 3, event.StoreFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, strategy.Config{Lifetime: lifetime})
			bob := user{ID: uuid.New(), Email: "bob@example.com", Active: true}
			_, other, err := r.WriteToken(t.Context(), bob)
			if err != nil {
				t.Fatal(err)
			}
			_, own, err := r.WriteToken(t.Context(), r.ann)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				r.issue(t)
			}
			ctx := t.Context()
			if c.in != nil {
				ctx = strategy.ContextWithSession(ctx, *c.in(own, other))
			}
			if c.failure != nil {
				r.tokens.deleteByUser = func(context.Context, uuid.UUID, ...uuid.UUID) (int64, error) { return 0, c.failure }
			}
			r.events.take()
			if err := r.UserChanged(ctx, r.ann.ID, c.revoked); err != nil {
				t.Errorf("got %v, want nil", err)
			}
			rows, err := r.tokens.store.ByUser(t.Context(), r.ann.ID, strategy.Position{}, 10)
			if len(rows) != c.left || err != nil || c.left == 1 && rows[0].ID != own.ID {
				t.Errorf("left the rows %v, %v, want %d", rows, err, c.left)
			}
			if rows, err := r.tokens.store.ByUser(t.Context(), bob.ID, strategy.Position{}, 10); len(rows) != 1 || err != nil {
				t.Errorf("left %d rows of another user, %v, want 1", len(rows), err)
			}
			switch events := r.events.take(); {
			case c.event == "" && len(events) == 0:
			case len(events) == 1 && events[0].Kind == c.event && errors.Is(events[0].Err, c.failure) && (c.failure != nil || events[0].UserID == r.ann.ID):
			default:
				t.Errorf("got the events %+v, want one %q", events, c.event)
			}
		})
	}
}

// A row can come from a clock that is far ahead, or from another program.
func TestExpiryIsATimeThatJSONCanRepresent(t *testing.T) {
	last := time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC)
	r := newRig(t, strategy.Config{Lifetime: time.Hour})
	token, _ := r.issue(t)
	r.tokens.byToken = func(ctx context.Context, digest string) (row, error) {
		got, err := r.tokens.store.ByToken(ctx, digest)
		got.CreatedAt = last
		return got, err
	}
	s, err := r.ReadToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(s.SessionInfo); err != nil || !s.ExpiresAt.Equal(last) {
		t.Errorf("the session expires at %v (error %v), want %v", s.ExpiresAt, err, last)
	}
}
