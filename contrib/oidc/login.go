package oidc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/ginauth"
)

// incomplete is how long a link may be there before its account: a sign-up stores the link first,
// so that of two concurrent ones only one makes an account. A link without an account that is older
// belongs to a deleted account, or to a sign-up that failed.
const incomplete = time.Minute

// tries is how often a link that others change meanwhile is looked up.
const tries = 3

// user returns the account of a user of a provider. It makes one at the first login.
func (o *Logins[U, ID]) user(ctx context.Context, p *provider, id Identity) (user U, err error) {
	for range tries {
		found, ok, err := o.linked(ctx, id)
		if err != nil || ok {
			return found, err
		}
		user, err := o.firstLogin(ctx, p, id)
		if !errors.Is(err, account.ErrOAuthAccountTaken) {
			return user, err
		}
	}
	return user, failed("log in", errors.New("the link keeps changing"))
}

// linked returns the account that is linked to a user of a provider; ok is false without one. It
// removes the link of a deleted account.
func (o *Logins[U, ID]) linked(ctx context.Context, id Identity) (user U, ok bool, err error) {
	link, err := o.links.Find(ctx, id.Issuer, id.Subject)
	switch {
	case errors.Is(err, account.ErrOAuthAccountNotFound):
		return user, false, nil
	case err != nil:
		return user, false, failed("find the link", err)
	}
	user, err = o.accounts.ByID(ctx, link.UserID)
	switch {
	case err == nil:
		return user, true, nil
	case !errors.Is(err, account.ErrUserNotFound):
		return user, false, failed("find the linked account", err)
	case o.now().Sub(link.CreatedAt) < incomplete:
		return user, false, failed("find the linked account", errors.New("it is not there yet, or was deleted just now"))
	}
	err = o.links.Delete(ctx, link.UserID, link.Issuer, link.Subject, nil)
	if err != nil && !errors.Is(err, account.ErrOAuthAccountNotFound) {
		return user, false, failed("remove the link of a deleted account", err)
	}
	return user, false, nil
}

// firstLogin returns the account of a user of a provider who has no link yet: a new one, or one with
// the same address that both sides have verified. It returns an error wrapping
// account.ErrOAuthAccountTaken if there is a link by now.
func (o *Logins[U, ID]) firstLogin(ctx context.Context, p *provider, id Identity) (user U, err error) {
	email, err := account.NormalizeEmail(id.Email)
	if err != nil {
		return user, o.denied(ctx, login, nil, event.ReasonNoEmail, rejected(CodeNoEmail, nil))
	}
	existing, err := o.accounts.ByEmail(ctx, email)
	switch {
	case err == nil && p.LinkByEmail && id.EmailVerified && existing.IsVerified() && existing.IsActive():
		return existing, o.insert(ctx, id, existing.UserID())
	case err == nil:
		return user, o.denied(ctx, login, existing.UserID(), event.ReasonEmailTaken, rejected(CodeUserExists, nil))
	case !errors.Is(err, account.ErrUserNotFound):
		return user, failed("look for an account with the address", err)
	}
	return o.signUp(ctx, id, email)
}

// signUp makes an account without a password.
func (o *Logins[U, ID]) signUp(ctx context.Context, id Identity, email string) (U, error) {
	var user, none U
	if o.cfg.NewUser != nil {
		var err error
		if user, err = o.cfg.NewUser(ctx, id); err != nil {
			return none, err
		}
	}
	a := o.accounts.Account(&user)
	*a = account.User[ID]{ID: a.ID, Email: email, Active: true, Verified: id.EmailVerified}
	var noID ID
	if made := o.accounts.NewID(); made != noID {
		a.ID = made
	}
	if a.ID == noID {
		return none, failed("make an account", errors.New("the user has no ID: set it in Config.NewUser, or give NewManager a newID"))
	}
	if err := o.insert(ctx, id, a.ID); err != nil {
		return none, err
	}
	created, err := o.accounts.CreateWithHash(ctx, user, account.PasswordHash{})
	switch {
	case err == nil:
		return created, nil
	case errors.Is(err, account.ErrEmailTaken), errors.Is(err, account.ErrConflict):
		// If the link stays, it is taken for that of a deleted account later.
		_ = o.links.Delete(ctx, a.ID, id.Issuer, id.Subject, nil)
		return none, o.denied(ctx, login, nil, event.ReasonEmailTaken, rejected(CodeUserExists, nil))
	}
	return none, failed("make an account", err) // it may be there: the link stays
}

// insert links an account.
func (o *Logins[U, ID]) insert(ctx context.Context, id Identity, userID ID) error {
	link := account.OAuthAccount[ID]{Issuer: id.Issuer, Subject: id.Subject, UserID: userID, Email: id.Email, CreatedAt: o.now()}
	err := o.links.Insert(ctx, link)
	switch {
	case errors.Is(err, account.ErrOAuthAccountTaken):
		return err
	case err != nil:
		return failed("link the account", err)
	}
	o.emit(ctx, event.Event{Kind: event.OAuthLinked, UserID: userID})
	return nil
}

// associate links the account of a user who is logged in.
func (o *Logins[U, ID]) associate(ctx context.Context, user U, id Identity) error {
	for range tries {
		err := o.insert(ctx, id, user.UserID())
		if !errors.Is(err, account.ErrOAuthAccountTaken) {
			return err
		}
		owner, ok, err := o.linked(ctx, id)
		switch {
		case err != nil:
			return err
		case ok && owner.UserID() == user.UserID():
			return nil // linked already
		case ok:
			return o.denied(ctx, link, user.UserID(), event.ReasonOAuthTaken, rejected(CodeLinkedElsewhere, nil))
		}
	}
	return failed("link the account", errors.New("the link keeps changing"))
}

// denied reports that a flow was denied, and returns err.
func (o *Logins[U, ID]) denied(ctx context.Context, f flow, userID any, why event.Reason, err error) error {
	e := event.Event{Kind: event.LoginDenied, UserID: userID, Reason: why}
	if f == link {
		e.Kind = event.OAuthLinkDenied
	}
	if coded, ok := errors.AsType[*ginauth.CodeError](err); ok {
		e.Err = coded.Err
	}
	o.emit(ctx, e)
	return err
}

// Link is a link of an account to a user of a provider, to show to the account's user.
type Link struct {
	// ID names the link in [Logins.Unlink].
	ID string `json:"id"`
	// Provider is the provider's name; "" if it is not configured any more.
	Provider string `json:"provider"`
	// Email is the address that the provider named when the link was made, or "".
	Email string `json:"email"`
	// CreatedAt is when the link was made.
	CreatedAt time.Time `json:"created_at"`
}

// linkID returns an ID that can be part of a path.
func linkID(issuer, subject string) string {
	sum := sha256.Sum256([]byte(issuer + "\x00" + subject))
	return b64.EncodeToString(sum[:16])
}

// linksOf returns the links of an account, oldest first.
func (o *Logins[U, ID]) linksOf(ctx context.Context, userID ID) ([]Link, []account.OAuthAccount[ID], error) {
	stored, err := o.links.ListByUser(ctx, userID)
	if err != nil {
		return nil, nil, failed("list the links", err)
	}
	links := make([]Link, len(stored))
	for i, s := range stored {
		links[i] = Link{ID: linkID(s.Issuer, s.Subject), Email: s.Email, CreatedAt: s.CreatedAt}
		for _, p := range o.providers {
			if p.Issuer == s.Issuer {
				links[i].Provider = p.Name
			}
		}
	}
	return links, stored, nil
}

// unlink removes a link. An account that has no password that can be used keeps its last link to a
// provider that is configured.
func (o *Logins[U, ID]) unlink(ctx context.Context, userID ID, id string) error {
	user, err := o.accounts.ByID(ctx, userID) // not that of the session, which can be cached
	if err != nil {
		return failed("find the account", err)
	}
	links, stored, err := o.linksOf(ctx, userID)
	if err != nil {
		return err
	}
	for i, l := range links {
		if l.ID != id {
			continue
		}
		var keep []string
		if l.Provider != "" && !o.hasPassword(user) {
			for _, p := range o.providers {
				keep = append(keep, p.Issuer)
			}
		}
		err := o.links.Delete(ctx, userID, stored[i].Issuer, stored[i].Subject, keep)
		switch {
		case errors.Is(err, account.ErrLastOAuthAccount):
			return rejected(CodeLastLogin, nil)
		case errors.Is(err, account.ErrOAuthAccountNotFound):
			return errNoLink
		case err != nil:
			return failed("remove the link", err)
		}
		o.emit(ctx, event.Event{Kind: event.OAuthUnlinked, UserID: userID})
		return nil
	}
	return errNoLink
}

// unlinkAll removes the links of an account.
func (o *Logins[U, ID]) unlinkAll(ctx context.Context, userID ID) error {
	_, stored, err := o.linksOf(ctx, userID)
	if err == nil {
		err = o.links.DeleteByUser(ctx, userID) // those too that cannot be read
	}
	for range stored {
		if err == nil {
			o.emit(ctx, event.Event{Kind: event.OAuthUnlinked, UserID: userID})
		}
	}
	return err
}

var errNoLink = &ginauth.CodeError{Status: 404, Code: "NOT_FOUND", Err: fmt.Errorf("oidc: %w", account.ErrOAuthAccountNotFound)}

// hasPassword reports whether an account has a password with which its user can log in.
func (o *Logins[U, ID]) hasPassword(user U) bool {
	hash := o.accounts.Account(&user).HashedPassword
	if hash.IsZero() {
		return false
	}
	_, err := o.accounts.ImportHash(hash.Reveal())
	return err == nil
}
