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
