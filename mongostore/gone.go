package mongostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

// untilGone calls write until it has done something, or until no document matches the
// filter. DocumentDB answers a write that nothing matched if another command updates the
// document at that moment, so only a read tells whether the document is gone. If it is still
// there after some tries, untilGone returns an error.
func untilGone(ctx context.Context, coll *mongo.Collection, filter any, write func() (done bool, err error)) error {
	const most = 15
	for try := 1; ; try++ {
		done := false
		err := retryDeadlock(ctx, func() (err error) {
			done, err = write()
			return err
		})
		if err != nil || done {
			return err
		}
		switch there, err := exists(ctx, coll, filter); {
		case err != nil || !there:
			return err
		case try == most:
			return fmt.Errorf("the server finds the document, but %d writes did not match it", most)
		}
		if err := pause(ctx, time.Duration(try)*2*time.Millisecond); err != nil {
			return err
		}
	}
}

// exists reports whether a document matches a filter.
func exists(ctx context.Context, coll *mongo.Collection, filter any) (bool, error) {
	err := coll.FindOne(ctx, filter, options.FindOne().SetProjection(bson.D{{Key: "_id", Value: 1}})).Err()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return false, nil
	}
	return err == nil, err
}

// findAndModify runs a command that changes or deletes the document that a filter matches, and
// returns the document; nil if there is none.
func (s *store) findAndModify(ctx context.Context, doing string, filter any, run func(ctx context.Context, filter any) *mongo.SingleResult) (doc bson.Raw, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	err = untilGone(ctx, s.coll, filter, func() (done bool, err error) {
		doc, err = one(run(ctx, filter))
		return doc != nil, err
	})
	return doc, wrap(doing, err)
}

// updateOne updates the document that a filter matches, and reports whether there was one.
func (s *store) updateOne(ctx context.Context, filter, update bson.D) (matched bool, err error) {
	err = untilGone(ctx, s.coll, filter, func() (done bool, err error) {
		res, err := s.coll.UpdateOne(ctx, filter, update)
		if err == nil {
			matched = res.MatchedCount > 0
		}
		return matched, err
	})
	return matched, err
}

// deleteOne deletes the document that a filter matches, and returns it; nil if there is none.
func (s *store) deleteOne(ctx context.Context, doing string, filter any) (bson.Raw, error) {
	// Without a sort, a findAndModify by one field after one by another crashes a process
	// of DocumentDB 0.106.
	opts := options.FindOneAndDelete().SetSort(bson.D{{Key: "_id", Value: 1}})
	return s.findAndModify(ctx, doing, filter, func(ctx context.Context, filter any) *mongo.SingleResult {
		return s.coll.FindOneAndDelete(ctx, filter, opts)
	})
}

// deleteAll deletes all documents that a filter matches, and returns their number.
func (s *store) deleteAll(ctx context.Context, doing string, filter any) (n int64, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	// A delete that removed some documents can have missed others, so a read follows each.
	err = untilGone(ctx, s.coll, filter, func() (done bool, err error) {
		res, err := s.coll.DeleteMany(ctx, filter)
		if err == nil {
			n += res.DeletedCount
		}
		return false, err
	})
	return n, wrap(doing, err)
}

// one returns the document of a result; nil if there is none.
func one(found *mongo.SingleResult) (bson.Raw, error) {
	doc, err := found.Raw()
	if errors.Is(err, mongo.ErrNoDocuments) {
		return nil, nil
	}
	return doc, err
}
