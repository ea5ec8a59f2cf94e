package mongostore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
)

// Errors of EnsureIndexes and VerifyIndexes, for [errors.Is].
var (
	// ErrTTLUnsupported means that the server has no TTL indexes and that the Config's
	// PurgeInterval is 0. With a PurgeInterval, this process removes expired documents
	// itself.
	ErrTTLUnsupported = errors.New("the server has no TTL indexes: set PurgeInterval, so that this process removes expired documents itself")

	// ErrIndexMismatch means that an index is missing or differs from the one that
	// Latchkey needs. The message names the index and the difference.
	ErrIndexMismatch = errors.New("index mismatch")
)

const (
	// defaultTimeout bounds a call whose context has no deadline.
	defaultTimeout = 3 * time.Second

	// indexTimeout bounds EnsureIndexes if the context has no deadline: building an index
	// on a large collection takes minutes.
	indexTimeout = 5 * time.Minute
)

// wrap says what failed. It returns nil for nil.
func wrap(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("mongostore: %s: %w", doing, err)
	}
	return nil
}

// bounded returns ctx with a deadline, unless it already has one.
func bounded(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// Error codes of the server, by the server's names. The driver exports few of them.
const (
	codeInternalError         = 1
	codeBadValue              = 2
	codeTypeMismatch          = 14
	codeNamespaceNotFound     = 26
	codeIndexNotFound         = 27
	codeNamespaceExists       = 48
	codeCommandNotFound       = 59
	codeShardKeyNotFound      = 61
	codeIndexAlreadyExists    = 68
	codeInvalidOptions        = 72
	codeIndexOptionsConflict  = 85
	codeIndexKeySpecsConflict = 86
	codeWriteConflict         = 112
	codeCommandNotSupported   = 115
	codeConflictingOperation  = 117
	codeNotImplemented        = 238
	codeBackgroundOperation   = 12587
	codeDocumentDBDeadlock    = 16908292
)

// hasCode reports whether err is a server's answer with one of the codes.
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

// isDeadlock reports whether the server aborted a write because of a deadlock. Servers
// on PostgreSQL (FerretDB v2, DocumentDB) do so to concurrent writers of one unique key.
// The write changed nothing.
func isDeadlock(err error) bool {
	if hasCode(err, codeDocumentDBDeadlock) {
		return true
	}
	var se mongo.ServerError
	return errors.As(err, &se) && se.HasErrorCodeWithMessage(codeInternalError, "deadlock detected")
}

// retryDeadlock runs a write, up to five times if the server reports a deadlock.
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

// pause waits for d, or returns the context's error.
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
