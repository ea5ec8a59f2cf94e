package storetest_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/memstore"
	"github.com/latchkey-go/latchkey/storetest"
)

type oauthAccount = account.OAuthAccount[uuid.UUID]

// oauthAccounts is a store without a fault, until a test replaces one of its methods.
type oauthAccounts struct {
	*memstore.OAuthAccounts[uuid.UUID]
	insert       func(context.Context, oauthAccount) error
	find         func(ctx context.Context, issuer, subject string) (oauthAccount, error)
	listByUser   func(context.Context, uuid.UUID) ([]oauthAccount, error)
	remove       func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error
	deleteByUser func(context.Context, uuid.UUID) error
}

func newOAuthAccounts(testing.TB) *oauthAccounts {
	good := memstore.NewOAuthAccounts[uuid.UUID]()
	return &oauthAccounts{good, good.Insert, good.Find, good.ListByUser, good.Delete, good.DeleteByUser}
}

func (s *oauthAccounts) Insert(ctx context.Context, link oauthAccount) error {
	return s.insert(ctx, link)
}
func (s *oauthAccounts) Find(ctx context.Context, issuer, subject string) (oauthAccount, error) {
	return s.find(ctx, issuer, subject)
}
func (s *oauthAccounts) ListByUser(ctx context.Context, userID uuid.UUID) ([]oauthAccount, error) {
	return s.listByUser(ctx, userID)
}
func (s *oauthAccounts) Delete(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
	return s.remove(ctx, userID, issuer, subject, keep)
}
func (s *oauthAccounts) DeleteByUser(ctx context.Context, userID uuid.UUID) error {
	return s.deleteByUser(ctx, userID)
}

// storingLinks makes Insert change the link that it stores.
func storingLinks(change func(*oauthAccount)) func(*oauthAccounts) {
	return func(s *oauthAccounts) {
		s.insert = func(ctx context.Context, link oauthAccount) error {
			change(&link)
			return s.OAuthAccounts.Insert(ctx, link)
		}
	}
}

// keyed makes every method change issuers and subjects, as a store with a wrong comparison does.
func keyed(change func(string) string) func(*oauthAccounts) {
	return func(s *oauthAccounts) {
		s.insert = func(ctx context.Context, link oauthAccount) error {
			link.Issuer, link.Subject = change(link.Issuer), change(link.Subject)
			return s.OAuthAccounts.Insert(ctx, link)
		}
		s.find = func(ctx context.Context, issuer, subject string) (oauthAccount, error) {
			link, err := s.OAuthAccounts.Find(ctx, change(issuer), change(subject))
			link.Issuer, link.Subject = issuer, subject
			return link, err
		}
	}
}

func listingLinks(change func([]oauthAccount) []oauthAccount) func(*oauthAccounts) {
	return func(s *oauthAccounts) {
		s.listByUser = func(ctx context.Context, userID uuid.UUID) ([]oauthAccount, error) {
			links, err := s.OAuthAccounts.ListByUser(ctx, userID)
			return change(links), err
		}
	}
}

// removing makes Delete look first, wait, and then do what decide says.
func removing(decide func(s *oauthAccounts, ctx context.Context, link oauthAccount, keep []string, others []oauthAccount) error) func(*oauthAccounts) {
	return func(s *oauthAccounts) {
		s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
			all, err := s.OAuthAccounts.ListByUser(ctx, userID)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(all, func(l oauthAccount) bool { return l.Issuer == issuer && l.Subject == subject })
			if i < 0 {
				return account.ErrOAuthAccountNotFound
			}
			return decide(s, ctx, all[i], keep, slices.Delete(slices.Clone(all), i, i+1))
		}
	}
}

func (s *oauthAccounts) drop(ctx context.Context, link oauthAccount) error {
	return s.OAuthAccounts.Delete(ctx, link.UserID, link.Issuer, link.Subject, nil)
}

func TestSuiteFindsEveryFaultOfOAuthAccounts(t *testing.T) {
	faults := []broken[*oauthAccounts]{
		{"drops the address", "every field is returned as it was stored", storingLinks(func(l *oauthAccount) { l.Email = "" })},
		{"makes up an address", "every field is returned as it was stored", storingLinks(func(l *oauthAccount) { l.Email += " " })},
		{"rounds the time to seconds", "every field is returned as it was stored", storingLinks(func(l *oauthAccount) { l.CreatedAt = l.CreatedAt.Truncate(time.Second) })},
		{"escapes the subject", "every field is returned as it was stored", storingLinks(func(l *oauthAccount) { l.Subject = strings.ReplaceAll(l.Subject, "$", "\\$") })},
		{"has no error for a missing link", "a missing link is ErrOAuthAccountNotFound", func(s *oauthAccounts) {
			s.find = func(ctx context.Context, issuer, subject string) (oauthAccount, error) {
				link, err := s.OAuthAccounts.Find(ctx, issuer, subject)
				return link, unless(err, account.ErrOAuthAccountNotFound)
			}
		}},
		{"has an error of its own for a missing link", "a missing link is ErrOAuthAccountNotFound", func(s *oauthAccounts) {
			s.find = func(ctx context.Context, issuer, subject string) (oauthAccount, error) {
				link, err := s.OAuthAccounts.Find(ctx, issuer, subject)
				if errors.Is(err, account.ErrOAuthAccountNotFound) {
					err = errors.New("no such document")
				}
				return link, err
			}
		}},
		{"ignores case", "issuer and subject are compared byte by byte", keyed(strings.ToLower)},
		{"ignores spaces at the end", "issuer and subject are compared byte by byte", keyed(strings.TrimSpace)},
		{"replaces a link", "a linked issuer and subject are taken for every account", func(s *oauthAccounts) {
			s.insert = func(ctx context.Context, link oauthAccount) error {
				if old, err := s.OAuthAccounts.Find(ctx, link.Issuer, link.Subject); err == nil {
					_ = s.drop(ctx, old)
				}
				return s.OAuthAccounts.Insert(ctx, link)
			}
		}},
		{"lets the same account link twice", "a linked issuer and subject are taken for every account", func(s *oauthAccounts) {
			s.insert = func(ctx context.Context, link oauthAccount) error {
				if old, err := s.OAuthAccounts.Find(ctx, link.Issuer, link.Subject); err == nil && old.UserID == link.UserID {
					return nil
				}
				return s.OAuthAccounts.Insert(ctx, link)
			}
		}},
		{"looks before it inserts", "one of many concurrent inserts succeeds", func(s *oauthAccounts) {
			s.insert = func(ctx context.Context, link oauthAccount) error {
				if _, err := s.OAuthAccounts.Find(ctx, link.Issuer, link.Subject); err == nil {
					return account.ErrOAuthAccountTaken
				}
				pause()
				if old, err := s.OAuthAccounts.Find(ctx, link.Issuer, link.Subject); err == nil {
					_ = s.drop(ctx, old)
				}
				return s.OAuthAccounts.Insert(ctx, link)
			}
		}},
		{"lists newest first", "the links of an account are listed in order", listingLinks(func(l []oauthAccount) []oauthAccount { slices.Reverse(l); return l })},
		{"lists by subject", "the links of an account are listed in order", listingLinks(func(l []oauthAccount) []oauthAccount {
			slices.SortFunc(l, func(a, b oauthAccount) int { return strings.Compare(a.Subject, b.Subject) })
			return l
		})},
		{"lists one link at most", "the links of an account are listed in order", listingLinks(func(l []oauthAccount) []oauthAccount { return l[:min(1, len(l))] })},
		{"deletes for any account", "a link is deleted once, by its own account only", func(s *oauthAccounts) {
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
				if link, err := s.OAuthAccounts.Find(ctx, issuer, subject); err == nil {
					userID = link.UserID
				}
				return s.OAuthAccounts.Delete(ctx, userID, issuer, subject, keep)
			}
		}},
		{"has no error for a second deletion", "a link is deleted once, by its own account only", func(s *oauthAccounts) {
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
				return unless(s.OAuthAccounts.Delete(ctx, userID, issuer, subject, keep), account.ErrOAuthAccountNotFound)
			}
		}},
		{"looks before it deletes", "one of many concurrent deletions succeeds", removing(func(s *oauthAccounts, ctx context.Context, link oauthAccount, keep []string, _ []oauthAccount) error {
			pause()
			return unless(s.OAuthAccounts.Delete(ctx, link.UserID, link.Issuer, link.Subject, keep), account.ErrOAuthAccountNotFound)
		})},
		{"remembers deleted links as taken", "a deleted link can be made again", func(s *oauthAccounts) {
			var gone sync.Map
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
				err := s.OAuthAccounts.Delete(ctx, userID, issuer, subject, keep)
				if err == nil {
					gone.Store(issuer+subject, true)
				}
				return err
			}
			s.insert = func(ctx context.Context, link oauthAccount) error {
				if _, was := gone.Load(link.Issuer + link.Subject); was {
					return account.ErrOAuthAccountTaken
				}
				return s.OAuthAccounts.Insert(ctx, link)
			}
		}},
		{"keeps nothing", "the last link to one of the kept issuers stays", func(s *oauthAccounts) {
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, _ []string) error {
				return s.OAuthAccounts.Delete(ctx, userID, issuer, subject, nil)
			}
		}},
		{"counts links to other issuers", "the last link to one of the kept issuers stays", removing(func(s *oauthAccounts, ctx context.Context, link oauthAccount, keep []string, others []oauthAccount) error {
			if len(keep) > 0 && len(others) == 0 {
				return account.ErrLastOAuthAccount
			}
			return s.drop(ctx, link)
		})},
		{"does not count a second link to the same issuer", "the last link to one of the kept issuers stays", removing(func(s *oauthAccounts, ctx context.Context, link oauthAccount, keep []string, others []oauthAccount) error {
			if len(keep) > 0 && !slices.ContainsFunc(others, func(o oauthAccount) bool { return o.Issuer != link.Issuer && slices.Contains(keep, o.Issuer) }) {
				return account.ErrLastOAuthAccount
			}
			return s.drop(ctx, link)
		})},
		{"counts before it deletes", "concurrent deletions leave a link", removing(func(s *oauthAccounts, ctx context.Context, link oauthAccount, keep []string, others []oauthAccount) error {
			if len(keep) > 0 && !slices.ContainsFunc(others, func(o oauthAccount) bool { return slices.Contains(keep, o.Issuer) }) {
				return account.ErrLastOAuthAccount
			}
			pause()
			return s.drop(ctx, link)
		})},
		{"leaves a refused link marked", "a refused deletion does not hinder another one", func(s *oauthAccounts) {
			var marked sync.Map
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
				err := s.OAuthAccounts.Delete(ctx, userID, issuer, subject, keep)
				all, _ := s.OAuthAccounts.ListByUser(ctx, userID)
				if err == nil && len(keep) > 0 && len(all) == 1 {
					if _, is := marked.Load(all[0].Subject + userID.String()); is {
						return account.ErrLastOAuthAccount
					}
				}
				if errors.Is(err, account.ErrLastOAuthAccount) {
					marked.Store(subject+userID.String(), true)
				}
				return err
			}
		}},
		{"deletes one link of an account", "all links of an account are deleted, and no others", func(s *oauthAccounts) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID) error {
				all, err := s.OAuthAccounts.ListByUser(ctx, userID)
				if err != nil || len(all) == 0 {
					return err
				}
				return s.drop(ctx, all[0])
			}
		}},
		{"an account without links is an error", "all links of an account are deleted, and no others", func(s *oauthAccounts) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID) error {
				if all, err := s.OAuthAccounts.ListByUser(ctx, userID); err == nil && len(all) == 0 {
					return account.ErrOAuthAccountNotFound
				}
				return s.OAuthAccounts.DeleteByUser(ctx, userID)
			}
		}},
	}
	for name, breakIt := range map[string]func(*oauthAccounts){
		"Insert": func(s *oauthAccounts) {
			s.insert = func(ctx context.Context, link oauthAccount) error {
				return s.OAuthAccounts.Insert(context.WithoutCancel(ctx), link)
			}
		},
		"Find": func(s *oauthAccounts) {
			s.find = func(ctx context.Context, issuer, subject string) (oauthAccount, error) {
				return s.OAuthAccounts.Find(context.WithoutCancel(ctx), issuer, subject)
			}
		},
		"ListByUser": func(s *oauthAccounts) {
			s.listByUser = func(ctx context.Context, userID uuid.UUID) ([]oauthAccount, error) {
				return s.OAuthAccounts.ListByUser(context.WithoutCancel(ctx), userID)
			}
		},
		"Delete": func(s *oauthAccounts) {
			s.remove = func(ctx context.Context, userID uuid.UUID, issuer, subject string, keep []string) error {
				return s.OAuthAccounts.Delete(context.WithoutCancel(ctx), userID, issuer, subject, keep)
			}
		},
		"DeleteByUser": func(s *oauthAccounts) {
			s.deleteByUser = func(ctx context.Context, userID uuid.UUID) error {
				return s.OAuthAccounts.DeleteByUser(context.WithoutCancel(ctx), userID)
			}
		},
	} {
		faults = append(faults, broken[*oauthAccounts]{name + " ignores cancellation", "a cancelled context stops every method", breakIt})
	}
	mustCatch(t, newOAuthAccounts, func(open func(testing.TB) *oauthAccounts) storetest.Suite {
		return storetest.OAuthAccounts(uuid.New, func(t testing.TB) account.OAuthAccountStore[uuid.UUID] { return open(t) })
	}, faults)
}
