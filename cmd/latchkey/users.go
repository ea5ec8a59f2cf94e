package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

// findings are mongostore.Findings in reports.
type findings struct {
	Count int64 `json:"count"`
	IDs   []any `json:"ids"` // the first _ids
}

func findingsOf(f mongostore.Findings) findings {
	out := findings{f.Count, []any{}}
	for _, id := range f.IDs {
		out.IDs = append(out.IDs, shown(id))
	}
	return out
}

func (f findings) print(w io.Writer, what string) {
	if f.Count == 0 {
		return
	}
	fmt.Fprintf(w, "%s: %d\n", what, f.Count)
	var ids []string
	for _, id := range f.IDs {
		switch id := id.(type) {
		case string:
			ids = append(ids, fmt.Sprintf("%q", id))
		case json.RawMessage:
			ids = append(ids, string(id))
		default:
			ids = append(ids, fmt.Sprint(id))
		}
	}
	more := ""
	if f.Count > int64(len(ids)) {
		more = ", …"
	}
	fmt.Fprintf(w, "  _id %s%s\n", strings.Join(ids, ", "), more)
}

type auditReport struct {
	Accounts       int64    `json:"accounts"`
	NotNormal      findings `json:"not_normal"`
	Collisions     findings `json:"collisions"`
	Unreadable     findings `json:"unreadable"`
	UnusableHashes findings `json:"unusable_hashes"`
}

func (r *auditReport) problems() bool {
	return r.NotNormal.Count+r.Collisions.Count+r.Unreadable.Count+r.UnusableHashes.Count > 0
}

func (r *auditReport) print(w io.Writer, _ string) {
	fmt.Fprintf(w, "Accounts: %d\n", r.Accounts)
	r.NotNormal.print(w, "Addresses that are not in normal form, which only -any-case finds")
	r.Collisions.print(w, "Of these, addresses whose normal form another account has too")
	r.Unreadable.print(w, "Documents that are no account: no ID, no address, or a field of another type")
	r.UnusableHashes.print(w, "Password hashes that no login can verify")
	if !r.problems() {
		fmt.Fprintln(w, "No problems were found.")
	}
}

func (a *app[ID]) audit(ctx context.Context) (report, error) {
	show, end := progress(a.stderr, "audit")
	defer end()
	found, err := a.Users.AuditUsers(ctx, mongostore.AuditConfig{Progress: show, CheckHash: func(hash string) error {
		_, err := a.Accounts.ImportHash(hash)
		return err
	}})
	if err != nil {
		return nil, err
	}
	return &auditReport{
		found.Accounts, findingsOf(found.NotNormal), findingsOf(found.Collisions),
		findingsOf(found.Unreadable), findingsOf(found.UnusableHashes),
	}, nil
}

type normalizeReport struct {
	// Changed is the number of addresses that were changed, or would be in a dry run.
	Changed    int64    `json:"changed"`
	Collisions findings `json:"collisions"`
	Unreadable findings `json:"unreadable"`
}

func (r *normalizeReport) problems() bool { return r.Collisions.Count+r.Unreadable.Count > 0 }

func (r *normalizeReport) print(w io.Writer, did string) {
	fmt.Fprintf(w, "Addresses that %schanged: %d\n", orWere(did, r.Changed), r.Changed)
	r.Collisions.print(w, "Accounts left as they are, because another account has the same normal address")
	r.Unreadable.print(w, "Documents left as they are, because they have no address")
}

// orWere returns what stands before a participle: "would be ", or else "was " or "were ".
func orWere(did string, n int64) string {
	switch {
	case did != "":
		return did
	case n == 1:
		return "was "
	}
	return "were "
}

func (a *app[ID]) normalize(ctx context.Context) (report, error) {
	show, end := progress(a.stderr, "normalize")
	defer end()
	done, err := a.Users.NormalizeUsers(ctx, mongostore.NormalizeConfig{DryRun: !a.apply, KeepAs: a.keepAs, Progress: show})
	// After a failure, the report says how far it has come.
	return &normalizeReport{done.Changed, findingsOf(done.Collisions), findingsOf(done.Unreadable)}, err
}

// userReport is the report of a change to an account.
type userReport struct {
	User accountOf `json:"user"`
	did  string    // the participle
}

func (r *userReport) problems() bool { return false }

func (r *userReport) print(w io.Writer, did string) {
	fmt.Fprintf(w, "%v %s%s.\n", r.User, orWere(did, 1), r.did)
}

func (a *app[ID]) deactivate(ctx context.Context) (report, error) {
	return a.setActive(ctx, false, "deactivated, and all tokens revoked", a.Accounts.Deactivate)
}

func (a *app[ID]) activate(ctx context.Context) (report, error) {
	return a.setActive(ctx, true, "activated", a.Accounts.Activate)
}

// setActive sets the flag of an account. Its tokens are revoked even if it is inactive already.
func (a *app[ID]) setActive(ctx context.Context, active bool, did string, set func(context.Context, ID) error) (report, error) {
	user, err := a.account(ctx)
	if err != nil {
		return nil, err
	}
	if a.apply {
		if err := set(ctx, user.ID); err != nil {
			return nil, err
		}
		user.Active = active
	}
	return &userReport{reported(user), did}, nil
}

func (a *app[ID]) createSuperuser(ctx context.Context) (report, error) {
	user := account.User[ID]{Active: true, Verified: true, Superuser: true}
	var err error
	if user.Email, err = account.NormalizeEmail(a.email); err != nil {
		return nil, usageError("-email: %w", err)
	}
	switch {
	case a.newID != "":
		if user.ID, err = a.ids.parse(a.newID); err != nil {
			return nil, usageError("-new-id is not of the type %s", a.idType)
		}
	case a.ids.new == nil:
		return nil, usageError("-new-id is missing: it is required for IDs of the type %s", a.idType)
	default:
		user.ID = a.ids.new()
	}
	switch _, err := a.Users.ByEmail(ctx, user.Email); {
	case err == nil:
		return nil, fmt.Errorf("an account in %s has the address %s: %w", a.usersName(), user.Email, account.ErrEmailTaken)
	case !errors.Is(err, account.ErrUserNotFound):
		return nil, err
	}
	if a.apply {
		password, err := readPassword(ctx, a.stdin, a.stderr)
		if err != nil {
			return nil, err
		}
		if user, err = a.Accounts.Create(ctx, user, password); err != nil {
			return nil, err
		}
	}
	made := &userReport{reported(user), "created"}
	if !a.apply && a.newID == "" {
		made.User.ID = nil // another one is made then
	}
	return made, nil
}
