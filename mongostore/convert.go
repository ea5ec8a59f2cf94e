package mongostore

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/strategy"
)

// A legacy token is converted in three steps: its copy is inserted with a mark, a token version
// that no user has, so that it is not valid yet; the legacy row is read again; if it is still
// there, the copy is confirmed. Whatever revokes a token deletes the legacy row first and then the
// copy. So if the second step finds the row, a revocation that began meanwhile deletes the copy.
// If it does not, the copy is never confirmed, even if the process is killed.
//
// Each inserted copy has a mark of its own, and only the copy with the mark that was there before
// the second step is confirmed: another conversion can have inserted a new copy after a revocation.
//
// The legacy rows stay, so that conversion can be undone.
//
// A rotation beside fastapi-users does not make the copy valid, but gives it the mark rotating: if
// it is killed, fastapi-users can still revoke the token, and knows nothing of the copy.

// rotating is the mark of a copy that is to be rotated.
const rotating = -1

// newMark returns the mark of a copy that is inserted.
func newMark() int64 { return rotating - 1 - rand.Int64N(math.MaxInt64-1) }

var (
	// unconfirmed matches the token version of copies that are not confirmed: a mark.
	unconfirmed = bson.D{{Key: "$lt", Value: 0}}
	// confirm makes a copy valid.
	confirm = bson.D{
		{Key: "$set", Value: bson.D{{Key: "legacy", Value: true}}},
		{Key: "$unset", Value: bson.D{{Key: "token_version", Value: ""}}},
	}
	// toRotate readies a copy for a rotation.
	toRotate = bson.D{{Key: "$set", Value: bson.D{{Key: "token_version", Value: int64(rotating)}}}}
	// isCopy matches copies, confirmed or not.
	isCopy = bson.D{{Key: "$or", Value: bson.A{
		bson.D{{Key: "legacy", Value: true}}, bson.D{{Key: "token_version", Value: unconfirmed}},
	}}}
)

// unconfirmedCopy returns the copy of a legacy row that is to be inserted.
func unconfirmedCopy[ID comparable](row strategy.AccessToken[ID]) strategy.AccessToken[ID] {
	row.Legacy, row.TokenVersion = false, newMark()
	return row
}

// convertRow copies a legacy row into Latchkey's collection and returns the copy. It returns an
// error wrapping ErrTokenNotFound if the token was revoked or rotated meanwhile. It is
// idempotent.
func (l *LegacyTokens[ID]) convertRow(ctx context.Context, row strategy.AccessToken[ID]) (strategy.AccessToken[ID], error) {
	return l.copyRow(ctx, row, confirm)
}

// copyRow is convertRow with the update that is made to the copy if the legacy row is still there.
func (l *LegacyTokens[ID]) copyRow(ctx context.Context, row strategy.AccessToken[ID], update bson.D) (strategy.AccessToken[ID], error) {
	inserted := unconfirmedCopy(row)
	mark := inserted.TokenVersion
	if err := l.Insert(ctx, inserted); errors.Is(err, strategy.ErrDuplicateToken) {
		// The copy is missing if the session was rotated.
		copied, err := l.ByToken(ctx, row.Digest)
		if err != nil || copied.TokenVersion >= 0 {
			return copied, err
		}
		mark = copied.TokenVersion
	} else if err != nil {
		return row, err
	}
	oid, _ := objectOf(row.ID)
	there, err := exists(ctx, l.old.coll, bson.D{{Key: "_id", Value: oid}})
	if err != nil {
		return row, wrap("read the legacy token again", err)
	}
	copied := bson.D{{Key: "token", Value: row.Digest}, {Key: "token_version", Value: mark}}
	switch {
	case there:
		_, err = l.updateOne(ctx, copied, update)
		err = wrap("confirm the copy of a legacy token", err)
	case mark != rotating: // a rotation has deleted the legacy row
		_, err = l.deleteOne(ctx, "delete the copy of a revoked token", copied)
	}
	if err != nil {
		return row, err
	}
	// Without the legacy row, a copy that another call confirmed is about to be deleted or
	// rotated.
	return l.ByToken(ctx, row.Digest)
}

// ConvertConfig configures [LegacyTokens.ConvertAll].
type ConvertConfig struct {
	// DryRun changes nothing, and reports what would be converted. Default false.
	DryRun bool

	// Progress is called after each batch with the number of legacy tokens that were read, and
	// an estimate of all. nil means no progress.
	Progress func(done, total int64)
}

// Converted is what [LegacyTokens.ConvertAll] did.
type Converted struct {
	// Converted is the number of tokens that were copied into Latchkey's collection.
	Converted int64
	// Already is the number of tokens that were there before.
	Already int64
	// Expired is the number of tokens that were left out because they have expired.
	Expired int64
	// Unreadable are the documents that are no token. They are left as they are.
	Unreadable Findings
}

// ConvertAll copies all valid tokens of fastapi-users into Latchkey's collection, in batches. It
// is safe while applications run that have LegacyConfig.Convert set, or no Latchkey at all. It
// can be stopped at any time, even by a kill, and begun again. Clients notice nothing. Only ctx
// bounds its time.
func (l *LegacyTokens[ID]) ConvertAll(ctx context.Context, cfg ConvertConfig) (Converted, error) {
	var result Converted
	err := l.old.eachBatch(ctx, bson.D{}, cfg.Progress, func(docs []bson.Raw) error {
		var rows []strategy.AccessToken[ID]
		for _, doc := range docs {
			row, err := l.parse(doc)
			switch {
			case err != nil:
				result.Unreadable.add(doc)
			case l.expired(&row):
				result.Expired++
			default:
				rows = append(rows, row)
			}
		}
		converted, err := l.convertBatch(ctx, rows, cfg.DryRun)
		result.Converted += converted
		if err == nil {
			result.Already += int64(len(rows)) - converted
		}
		return err
	})
	return result, err
}

// convertBatch converts the rows that are not converted yet, and returns their number.
func (l *LegacyTokens[ID]) convertBatch(ctx context.Context, rows []strategy.AccessToken[ID], dryRun bool) (int64, error) {
	if len(rows) == 0 {
		return 0, nil
	}
	ids := make([]uuid.UUID, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	done, err := l.present(ctx, l.coll, append(bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: ids}}}}, bson.E{Key: "token_version", Value: bson.D{{Key: "$not", Value: unconfirmed}}}))
	if err != nil {
		return 0, err
	}
	var copies []any
	var objects []bson.ObjectID
	for _, row := range rows {
		if !done[row.ID] {
			oid, _ := objectOf(row.ID)
			copies, objects = append(copies, newTokenDoc(unconfirmedCopy(row))), append(objects, oid)
		}
	}
	if len(copies) == 0 || dryRun {
		return int64(len(copies)), nil
	}
	return l.copyRows(ctx, copies, objects)
}

// copyRows inserts copies, and confirms those whose legacy rows are still there.
func (l *LegacyTokens[ID]) copyRows(ctx context.Context, copies []any, objects []bson.ObjectID) (int64, error) {
	if _, err := l.coll.InsertMany(ctx, copies, options.InsertMany().SetOrdered(false)); err != nil && !onlyDuplicates(err) {
		return 0, wrap("insert copies of legacy tokens", err)
	}
	sessions := make([]uuid.UUID, len(objects))
	for i, oid := range objects {
		sessions[i] = sessionOf(oid)
	}
	marked, err := documents(ctx, l.coll, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: sessions}}}, {Key: "token_version", Value: unconfirmed}},
		options.Find().SetProjection(bson.D{{Key: "token_version", Value: 1}}))
	if err != nil {
		return 0, wrap("read the copies", err)
	}
	marks := make(bson.A, len(marked))
	for i, doc := range marked {
		marks[i] = doc.Lookup("token_version")
	}
	there, err := l.present(ctx, l.old.coll, bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: objects}}}})
	if err != nil {
		return 0, err
	}
	var valid, revoked []uuid.UUID
	for _, id := range sessions {
		if there[id] {
			valid = append(valid, id)
		} else {
			revoked = append(revoked, id)
		}
	}
	for _, do := range []struct {
		ids []uuid.UUID
		run func(filter bson.D) error
	}{
		{valid, func(filter bson.D) error {
			_, err := l.coll.UpdateMany(ctx, filter, confirm)
			return wrap("confirm copies of legacy tokens", err)
		}},
		{revoked, func(filter bson.D) error {
			_, err := l.coll.DeleteMany(ctx, append(bson.D{{Key: "$nor", Value: bson.A{bson.D{{Key: "token_version", Value: rotating}}}}}, filter...))
			return wrap("delete copies of revoked tokens", err)
		}},
	} {
		if len(do.ids) == 0 || len(marks) == 0 {
			continue
		}
		filter := bson.D{{Key: "_id", Value: bson.D{{Key: "$in", Value: do.ids}}}, {Key: "token_version", Value: bson.D{{Key: "$in", Value: marks}}}}
		if err := retryDeadlock(ctx, func() error { return do.run(filter) }); err != nil {
			return 0, err
		}
	}
	return int64(len(valid)), nil
}

// present returns the session IDs of the rows that a filter matches.
func (l *LegacyTokens[ID]) present(ctx context.Context, coll *mongo.Collection, filter bson.D) (map[uuid.UUID]bool, error) {
	docs, err := documents(ctx, coll, filter, options.Find().SetProjection(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return nil, wrap("read the tokens", err)
	}
	present := make(map[uuid.UUID]bool, len(docs))
	for _, doc := range docs {
		id := doc.Lookup("_id")
		if oid, ok := id.ObjectIDOK(); ok {
			present[sessionOf(oid)] = true
		} else if session, ok := uuidOf(id); ok {
			present[session] = true
		}
	}
	return present, nil
}

// onlyDuplicates reports whether an InsertMany left out documents that were there, and no
// others.
func onlyDuplicates(err error) bool {
	failed, ok := errors.AsType[mongo.BulkWriteException](err)
	if !ok || failed.WriteConcernError != nil {
		return false
	}
	for _, e := range failed.WriteErrors {
		if !mongo.IsDuplicateKeyError(e) {
			return false
		}
	}
	return true
}

// UndoConversion deletes the copies of legacy tokens, and returns their number. The legacy
// tokens themselves remain. Call it before an application goes back from conversion to
// fastapi-users, while no Latchkey runs with LegacyConfig.Convert; and after the last legacy
// token has expired, to remove sessions that nobody can use any more. Sessions that have got a
// token of Latchkey's are no copies. Only ctx bounds its time.
func (l *LegacyTokens[ID]) UndoConversion(ctx context.Context) (n int64, err error) {
	err = retryDeadlock(ctx, func() error {
		res, err := l.coll.DeleteMany(ctx, isCopy)
		if err == nil {
			n += res.DeletedCount
		}
		return err
	})
	return n, wrap("delete the copies of legacy tokens", err)
}

// legacyIndexSpec returns the indexes that look-ups in fastapi-users' collection need.
func legacyIndexSpec() indexSpec {
	spec := tokensIndexSpec(0, 0)
	spec.ttl = index{ttl: noTTL} // fastapi-users may have one
	return spec
}
