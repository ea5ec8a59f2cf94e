package sqlstore_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/sqlstore"
	"github.com/latchkey-go/latchkey/strategy"
)

// A token is touched, renamed and rotated while it is deleted in one of four ways. Once the deletion
// is acknowledged, the token stays deleted, whatever the other calls return.
func TestDeletedTokensStayDeletedUnderConcurrentWrites(t *testing.T) {
	onEach(t, func(t *testing.T, s server) {
		rounds := 200
		if s.dialect == sqlstore.SQLite {
			rounds = 60 // one writer at a time
		}
		db := serverDB[int64](t, s, sqlstore.Tables{})
		tokens, err := sqlstore.NewTokens[int64](db, s.dialect, sqlstore.TokensConfig{Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		users, err := sqlstore.NewUsers[account.User[int64]](db, s.dialect, sqlstore.UsersConfig{Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		count := sqlstore.Bind(s.dialect, "SELECT COUNT(*) FROM access_tokens WHERE user_id = ?")
		missed := 0
		for round := range rounds {
			user := account.User[int64]{ID: newInt(), Email: fmt.Sprintf("ann%d@example.com", round), CreatedAt: time.UnixMilli(1)}
			if err := users.Insert(ctx, user); err != nil {
				t.Fatal(err)
			}
			newToken := func(digest string) strategy.AccessToken[int64] {
				return strategy.AccessToken[int64]{ID: uuid.Must(uuid.NewV7()), Digest: fmt.Sprint(digest, round), UserID: user.ID, CreatedAt: time.UnixMilli(1)}
			}
			token := newToken("first")
			if err := tokens.Insert(ctx, token); err != nil {
				t.Fatal(err)
			}
			rotated := fmt.Sprint("rotated", round)
			var won, again, deleted error
			begin := make(chan struct{})
			var wg sync.WaitGroup
			together := func(call func()) { wg.Go(func() { <-begin; call() }) }
			for i := range 3 {
				together(func() {
					if err := tokens.Touch(ctx, token.Digest, time.UnixMilli(int64(i+2))); err != nil {
						t.Errorf("Touch: %v", err)
					}
				})
			}
			together(func() {
				if err := tokens.Rename(ctx, user.ID, token.ID, "laptop"); err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
					t.Errorf("Rename: %v", err)
				}
			})
			together(func() {
				_, won = tokens.Rotate(ctx, token.Digest, strategy.Rotation{Digest: rotated, LastUsedAt: time.UnixMilli(9)})
				_, again = tokens.Rotate(ctx, rotated, strategy.Rotation{Digest: rotated + "again"})
			})
			var remove func() error
			switch round % 4 {
			case 0:
				remove = func() error { _, err := tokens.Delete(ctx, token.Digest); return err }
			case 1:
				remove = func() error { _, err := tokens.DeleteSession(ctx, user.ID, token.ID); return err }
			case 2:
				remove = func() error { _, err := tokens.DeleteByUser(ctx, user.ID); return err }
			case 3:
				remove = func() error { return users.Delete(ctx, user.ID) }
				// A login while the account is deleted.
				together(func() { _ = tokens.Insert(ctx, newToken("second")) })
			}
			together(func() {
				if deleted = remove(); deleted != nil {
					return
				}
				for _, digest := range []string{token.Digest, rotated, rotated + "again"} {
					if _, err := tokens.ByToken(ctx, digest); !errors.Is(err, strategy.ErrTokenNotFound) {
						t.Errorf("round %d: after the deletion, ByToken returned the error %v, want ErrTokenNotFound", round, err)
					}
				}
				if _, err := tokens.Rotate(ctx, token.Digest, strategy.Rotation{Digest: "third"}); !errors.Is(err, strategy.ErrTokenNotFound) {
					t.Errorf("round %d: after the deletion, Rotate returned the error %v, want ErrTokenNotFound", round, err)
				}
				if err := tokens.Rename(ctx, user.ID, token.ID, "new"); !errors.Is(err, strategy.ErrTokenNotFound) {
					t.Errorf("round %d: after the deletion, Rename returned the error %v, want ErrTokenNotFound", round, err)
				}
			})
			close(begin)
			wg.Wait()
			for _, err := range []error{won, again} {
				if err != nil && !errors.Is(err, strategy.ErrTokenNotFound) {
					t.Errorf("Rotate: %v", err)
				}
			}
			left := 0
			if err := db.QueryRowContext(ctx, count, user.ID).Scan(&left); err != nil {
				t.Fatal(err)
			}
			want := 0
			if round%4 == 0 && errors.Is(deleted, strategy.ErrTokenNotFound) && won == nil {
				missed++ // the rotation was first: the old digest is no longer the token's
				want = 1
			} else if deleted != nil {
				t.Fatalf("the deletion: %v", deleted)
			}
			if left != want {
				t.Fatalf("round %d: %d rows are left, want %d; the rotations returned %v and %v", round, left, want, won, again)
			}
		}
		t.Logf("%d deletions by a digest came after the rotation", missed)
	})
}
