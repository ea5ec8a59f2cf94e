package mongostore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/account"
)

// AuditConfig configures [Users.AuditUsers]. The zero value checks all but the hashes.
type AuditConfig struct {
	// CheckHash returns an error for a password hash that no login can verify, as
	// account.Manager's ImportHash does. nil checks no hashes.
	CheckHash func(hash string) error

	// Progress is called after each batch with the number of documents that were read, and
	// an estimate of all. nil means no progress.
	Progress func(done, total int64)
}

// Audit is what [Users.AuditUsers] found in a collection of accounts.
type Audit struct {
	// Accounts is the number of documents.
	Accounts int64
	// NotNormal are the accounts whose address is not in the form of account.NormalizeEmail.
	// They are found only with UsersConfig.AnyCase.
	NotNormal Findings
	// Collisions are the accounts of NotNormal whose normal address another account has too,
	// in whatever spelling.
	Collisions Findings
	// Unreadable are the documents that are no account: the ID or the address is missing or
	// no address, or a field has a type that cannot be read.
	Unreadable Findings
	// UnusableHashes are the accounts whose password hash no login can verify.
	UnusableHashes Findings
}

// Findings are the documents with a problem.
type Findings struct {
	// Count is the number of documents.
	Count int64
	// IDs are the _ids of the first 10.
	IDs []any
}

func (f *Findings) add(doc bson.Raw) {
	const most = 10
	f.Count++
	if len(f.IDs) < most {
		var id any
		_ = doc.Lookup("_id").Unmarshal(&id)
		f.IDs = append(f.IDs, id)
	}
}

const auditBatch = 1000

// AuditUsers reads all documents, twice, and reports those that need a person's attention or
// [Users.NormalizeUsers]. It changes nothing. It keeps some bytes for each address that is not
// in normal form, and else the memory of a batch. Only ctx bounds its time.
func (u *Users[U, ID]) AuditUsers(ctx context.Context, cfg AuditConfig) (Audit, error) {
	var audit Audit
	odd, err := u.oddAddresses(ctx)
	if err != nil {
		return audit, err
	}
	err = u.eachBatch(ctx, bson.D{}, cfg.Progress, func(docs []bson.Raw) error {
		var addresses []spelling
		for _, doc := range docs {
			audit.Accounts++
			user, err := u.decodeDocument(doc)
			a := u.of(&user)
			x := addressOf(doc, u.fields.Email)
			var none ID
			switch {
			case err != nil || a.ID == none || x.normal == "":
				audit.Unreadable.add(doc)
				continue
			case x.normal != x.stored:
				audit.NotNormal.add(doc)
				addresses = append(addresses, x)
			}
			if hash := a.HashedPassword; cfg.CheckHash != nil && !hash.IsZero() && cfg.CheckHash(hash.Reveal()) != nil {
				audit.UnusableHashes.add(doc)
			}
		}
		collide, err := u.collisions(ctx, odd, addresses)
		for _, x := range collide {
			audit.Collisions.add(x.doc)
		}
		return err
	})
	return audit, err
}

// NormalizeConfig configures [Users.NormalizeUsers].
type NormalizeConfig struct {
	// DryRun changes nothing, and reports what would be changed. Default false.
	DryRun bool

	// KeepAs is the name of a field that gets the address as it was stored. Default "": it is
	// not kept.
	KeepAs string

	// Progress is called after each batch with the number of documents that were read, and
	// an estimate of all. nil means no progress.
	Progress func(done, total int64)
}

// Normalized is what [Users.NormalizeUsers] did.
type Normalized struct {
	// Changed is the number of accounts whose address was replaced by its normal form.
	Changed int64
	// Collisions are the accounts that were left as they are, because another account has the
	// same normal address, in whatever spelling. A person has to decide.
	Collisions Findings
	// Unreadable are the documents that were left as they are, because they have no address.
	Unreadable Findings
}

// NormalizeUsers replaces the addresses that are not in the form of account.NormalizeEmail by
// that form, in batches. It is safe while the application runs, with UsersConfig.AnyCase: an
// account whose address changes meanwhile is left as it is. It can be stopped at any time and
// begun again. It never merges accounts. The memory is that of [Users.AuditUsers]. Only ctx
// bounds its time.
func (u *Users[U, ID]) NormalizeUsers(ctx context.Context, cfg NormalizeConfig) (Normalized, error) {
	var result Normalized
	if name := cfg.KeepAs; name != "" && (u.fields.read[name] != "" || u.fields.stored[name] != "" || strings.HasPrefix(name, "$") || strings.Contains(name, ".")) {
		return result, fmt.Errorf("mongostore: NormalizeConfig.KeepAs is %q: want the name of a field that the account does not use", name)
	}
	odd, err := u.oddAddresses(ctx)
	if err != nil {
		return result, err
	}
	err = u.eachBatch(ctx, bson.D{}, cfg.Progress, func(docs []bson.Raw) error {
		var addresses []spelling
		for _, doc := range docs {
			switch x := addressOf(doc, u.fields.Email); x.normal {
			case "":
				result.Unreadable.add(doc)
			case x.stored:
			default:
				addresses = append(addresses, x)
			}
		}
		collide, err := u.collisions(ctx, odd, addresses)
		if err != nil {
			return err
		}
		for _, x := range addresses {
			if slices.ContainsFunc(collide, func(y spelling) bool { return bytes.Equal(x.doc, y.doc) }) {
				result.Collisions.add(x.doc)
				continue
			}
			changed, err := u.normalize(ctx, x, cfg)
			switch {
			case errors.Is(err, account.ErrEmailTaken):
				result.Collisions.add(x.doc)
			case err != nil:
				return err
			case changed:
				result.Changed++
			}
		}
		return nil
	})
	return result, err
}

// normalize replaces an address, unless it has changed meanwhile.
func (u *Users[U, ID]) normalize(ctx context.Context, x spelling, cfg NormalizeConfig) (changed bool, err error) {
	if cfg.DryRun {
		return true, nil
	}
	ctx, cancel := u.bounded(ctx)
	defer cancel()
	set := bson.D{{Key: u.fields.Email, Value: x.normal}}
	if cfg.KeepAs != "" {
		set = append(set, bson.E{Key: cfg.KeepAs, Value: x.stored})
	}
	changed, err = u.updateOne(ctx, bson.D{{Key: "_id", Value: x.doc.Lookup("_id")}, {Key: u.fields.Email, Value: x.stored}}, bson.D{{Key: "$set", Value: set}})
	if mongo.IsDuplicateKeyError(err) || hasCode(err, codeInternalError) { // FerretDB's error
		return false, u.duplicate(ctx, "normalize the address", bson.D{{Key: u.fields.Email, Value: x.normal}}, err)
	}
	return changed, wrap("normalize the address", err)
}

// spelling is the address of a document.
type spelling struct {
	doc            bson.Raw
	stored, normal string // normal is "" if stored is no address
}

func addressOf(doc bson.Raw, field string) spelling {
	x := spelling{doc: doc}
	x.stored, _ = doc.Lookup(field).StringValueOK()
	if normal, err := account.NormalizeEmail(x.stored); err == nil {
		x.normal = normal
	}
	return x
}

// oddAddresses counts the normal forms of the addresses that are stored in another form, by
// their hashes.
func (u *Users[U, ID]) oddAddresses(ctx context.Context) (*oddAddresses, error) {
	odd := &oddAddresses{maphash.MakeSeed(), make(map[uint64]uint32)}
	err := u.eachBatch(ctx, bson.D{{Key: u.fields.Email, Value: 1}}, nil, func(docs []bson.Raw) error {
		for _, doc := range docs {
			if x := addressOf(doc, u.fields.Email); x.normal != x.stored {
				odd.counts[odd.hash(x.normal)]++
			}
		}
		return nil
	})
	return odd, err
}

type oddAddresses struct {
	seed   maphash.Seed
	counts map[uint64]uint32
}

func (o *oddAddresses) hash(normal string) uint64 { return maphash.String(o.seed, normal) }

// collisions returns those addresses of a batch whose normal form another account has too.
func (u *Users[U, ID]) collisions(ctx context.Context, odd *oddAddresses, batch []spelling) (found []spelling, err error) {
	if len(batch) == 0 {
		return nil, nil
	}
	var normals bson.A
	for _, x := range batch {
		normals = append(normals, x.normal)
	}
	ctx, cancel := bounded(ctx, indexTimeout)
	defer cancel()
	filter := bson.D{{Key: u.fields.Email, Value: bson.D{{Key: "$in", Value: normals}}}}
	docs, err := documents(ctx, u.coll, filter, options.Find().SetProjection(bson.D{{Key: u.fields.Email, Value: 1}}))
	if err != nil {
		return nil, wrap("look for collisions", err)
	}
	taken := make(map[string]bool)
	for _, doc := range docs {
		taken[addressOf(doc, u.fields.Email).stored] = true
	}
	for _, x := range batch {
		if taken[x.normal] || odd.counts[odd.hash(x.normal)] > 1 {
			found = append(found, x)
		}
	}
	return found, nil
}

// eachBatch calls do with all documents, in batches.
func (s *store) eachBatch(ctx context.Context, projection bson.D, progress func(done, total int64), do func([]bson.Raw) error) error {
	var total, done int64
	if progress != nil {
		var err error
		if total, err = s.coll.EstimatedDocumentCount(ctx); err != nil {
			return wrap("count the documents of "+s.coll.Name(), err)
		}
	}
	opts := options.Find().SetBatchSize(auditBatch)
	if len(projection) > 0 {
		opts.SetProjection(projection)
	}
	cur, err := s.coll.Find(ctx, bson.D{}, opts)
	if err != nil {
		return wrap("read "+s.coll.Name(), err)
	}
	defer func() { _ = cur.Close(context.WithoutCancel(ctx)) }()
	var batch []bson.Raw
	flush := func() error {
		done += int64(len(batch))
		err := do(batch)
		batch = batch[:0]
		if err == nil && progress != nil {
			progress(done, max(total, done))
		}
		return err
	}
	for cur.Next(ctx) {
		if batch = append(batch, bytes.Clone(cur.Current)); len(batch) == auditBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := cur.Err(); err != nil {
		return wrap("read "+s.coll.Name(), err)
	}
	return flush()
}
