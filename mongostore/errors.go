package mongostore

import (
	"context"
	"errors"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// The errors of EnsureIndexes and VerifyIndexes that callers tell apart with
// [errors.Is].
var (
	// ErrTTLUnsupported means that the server has no TTL indexes, and that
	// PurgeInterval of the Config does not ask for the substitute.
	ErrTTLUnsupported = errors.New("the server has no TTL indexes")

	// ErrIndexMismatch means that an index is missing or is not as it must be.
	// The message says which, and how it differs.
	ErrIndexMismatch = errors.New("index mismatch")
)

const (
	// DefaultTimeout bounds a call whose context has no deadline.
	DefaultTimeout = 3 * time.Second

	// indexTimeout bounds EnsureIndexes likewise: building an index on a large
	// collection takes its time.
	indexTimeout = 5 * time.Minute
)

// bounded gives a context a deadline where it has none.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// The server's error codes that are told apart here. The driver names few.
const (
	codeNamespaceNotFound     = 26
	codeIndexNotFound         = 27
	codeNamespaceExists       = 48
	codeShardKeyNotFound      = 61
	codeCommandNotFound       = 59
	codeIndexAlreadyExists    = 68
	codeInvalidOptions        = 72
	codeIndexOptionsConflict  = 85
	codeIndexKeySpecsConflict = 86
	codeWriteConflict         = 112
	codeCommandNotSupported   = 115
	codeConflictingOperation  = 117
	codeNotImplemented        = 238
	codeBackgroundOperation   = 12587
	codeLookupSharded         = 28769 // $lookup from a sharded collection, before MongoDB 5.1
	codeUnknownStage          = 40324
	codeDocumentDBDeadlock    = 16908292
)

func hasCode(err error, codes ...int) bool {
	var se mongo.ServerError
	if !errors.As(err, &se) {
		return false
	}
	for _, code := range codes {
		if se.HasErrorCode(code) {
			return true
		}
	}
	return false
}

// isDeadlock recognises what servers on PostgreSQL (FerretDB v2, DocumentDB)
// answer to one of several concurrent writers of a unique key. Nothing was
// written.
func isDeadlock(err error) bool {
	if hasCode(err, codeDocumentDBDeadlock) {
		return true
	}
	var se mongo.ServerError
	return errors.As(err, &se) && se.HasErrorCodeWithMessage(1, "deadlock detected")
}

// retryDeadlock runs a write again that lost a deadlock, a few times.
func retryDeadlock(ctx context.Context, write func() error) error {
	for attempt := 1; ; attempt++ {
		err := write()
		if err == nil || attempt == 5 || !isDeadlock(err) {
			return err
		}
		if pause(ctx, time.Duration(attempt)*5*time.Millisecond) != nil {
			return err
		}
	}
}

// pause waits, or returns the context's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
