package mongostore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/cursor"
	"github.com/latchkey-go/latchkey/strategy"
)

// AuditTrailConfig configures an [AuditTrail]. The zero value is usable.
type AuditTrailConfig struct {
	// Collection is the collection's name. Default "audit".
	Collection string

	// Retention is how long the server keeps an event, at least 1 second. Default 90 days.
	Retention time.Duration

	// Buffer is how many events can wait to be written. What does not fit is dropped, with an
	// event of the kind event.AuditDropped. Default 10,000, about 1.2 MB.
	Buffer int

	// Drain is how long Close waits for events to be written. Default 5 seconds.
	Drain time.Duration

	// PurgeInterval is a substitute on servers without TTL indexes (FerretDB v1):
	// EnsureIndexes and VerifyIndexes then accept a plain index, and start a goroutine
	// that calls Purge at this interval until Close. If it is 0, such a server is an
	// error, [ErrTTLUnsupported]. It has no effect on servers with TTL indexes.
	PurgeInterval time.Duration

	// Timeout bounds every call whose context has no deadline, and each write of a batch.
	// Default 3 seconds. EnsureIndexes has 5 minutes instead.
	Timeout time.Duration

	// Registry has the codecs for the ID type. Default [NewRegistry].
	Registry *bson.Registry

	// Now is the clock of Purge and of the events that the AuditTrail reports. Recorded events
	// have times of their own. Default [time.Now].
	Now func() time.Time

	// OnEvent receives event.AuditDropped, and an event for every failure to write or to
	// purge and for every document that cannot be read; see strategy.Config.OnEvent. nil
	// means no events.
	OnEvent func(context.Context, event.Event)
}

// AuditTrail keeps what users and administrators did in a MongoDB collection. Its method
// Record is an OnEvent function. It only inserts documents, and the server removes them after
// the Retention:
//
//	audit
//	  _id         UUIDv7
//	  at          date, the event's time     TTL index {at: 1}
//	  kind        string
//	  user_id     the application's ID type  index {user_id: 1, at: -1, _id: -1}
//	  session_id  UUID
//	  client_ip, reason
//
// A field that the event lacks is missing. Errors of events are not stored: the text of a
// Mailer's error could contain a token.
//
// A goroutine writes the events in batches, behind the answer. If the server fails, it tries
// again until the batch is written. A process that is killed loses the events that wait. Make
// an AuditTrail with [NewAuditTrail], call EnsureIndexes (or VerifyIndexes) when the
// application starts, and Close when it ends. It is safe for concurrent use.
//
// A nil *AuditTrail keeps nothing: Record ignores events, Dropped returns 0, and ByUser returns an
// error.
type AuditTrail[ID comparable] struct {
	store
	retention, drain time.Duration
	queue            chan event.Event
	worker           sync.WaitGroup
	writing          context.Context // of the writes; cancelled at the end of the drain
	cancelWrites     context.CancelFunc

	mu         sync.Mutex
	closed     bool
	dropped    int64
	unreported int64 // dropped events that did not fit, and that no event has reported yet
}

// auditDoc is a document of the collection. Unused fields are missing.
type auditDoc struct {
	ID        uuid.UUID  `bson:"_id"`
	At        time.Time  `bson:"at"`
	Kind      event.Kind `bson:"kind"`
	UserID    any        `bson:"user_id,omitempty"`
	SessionID *uuid.UUID `bson:"session_id,omitempty"`
	ClientIP  string     `bson:"client_ip,omitempty"`
	Reason    string     `bson:"reason,omitempty"`
}

// NewAuditTrail returns an audit trail in a database, and starts the goroutine that writes
// it. It does no I/O. It returns an error if a field of cfg is invalid, or if BSON cannot
// represent the ID type.
func NewAuditTrail[ID comparable](db *mongo.Database, cfg AuditTrailConfig) (*AuditTrail[ID], error) {
	a := &AuditTrail[ID]{
		store: store{
			purgeInterval: cfg.PurgeInterval, timeout: cfg.Timeout, registry: cfg.Registry, now: cfg.Now, onEvent: cfg.OnEvent,
		},
		retention: cmp.Or(cfg.Retention, 90*24*time.Hour), drain: cmp.Or(cfg.Drain, 5*time.Second),
	}
	if err := a.open(db, "AuditTrailConfig", cmp.Or(cfg.Collection, "audit")); err != nil {
		return nil, err
	}
	if err := notNegative("AuditTrailConfig", duration{"Drain", cfg.Drain}); err != nil {
		return nil, err
	}
	if most := math.MaxInt32 * time.Second; a.retention < time.Second || a.retention > most {
		return nil, fmt.Errorf("mongostore: AuditTrailConfig.Retention is %v, want 0 (for the default) or 1s to %v, the maximum of a TTL index", cfg.Retention, most)
	}
	if cfg.Buffer < 0 {
		return nil, fmt.Errorf("mongostore: AuditTrailConfig.Buffer is negative: %d", cfg.Buffer)
	}
	if err := checkID[ID](a.registry, "AuditTrailConfig"); err != nil {
		return nil, err
	}
	a.indexed(a.coll, auditIndexSpec(a.retention), a.Purge)
	a.check = a.checkAudit
	a.queue = make(chan event.Event, cmp.Or(cfg.Buffer, 10_000))
	a.writing, a.cancelWrites = context.WithCancel(context.Background())
	a.worker.Go(a.work)
	return a, nil
}

// Record queues an event to be written, if it belongs into an audit trail, and never waits. It
// is a function for the OnEvent fields; use [event.Join] to log events too.
//
// It ignores what is no act of a user or an administrator: failures of the database and of
// mails, hashes with new parameters, invalid tokens, and guards that reject a request for
// other reasons than missing rights. Events that anybody can cause by requests, such as denied
// logins, fill at most half of the buffer, so that a flood of them does not displace others.
func (a *AuditTrail[ID]) Record(ctx context.Context, e event.Event) {
	if a == nil || !audited(e) {
		return
	}
	e.Err = nil
	if e.Time.IsZero() {
		e.Time = a.now()
	}
	a.mu.Lock()
	room := cap(a.queue)
	if anybodys(e.Kind) {
		room = (room + 1) / 2
	}
	closed := a.closed
	switch {
	case closed:
		a.dropped++
	case len(a.queue) < room:
		a.queue <- e // cannot block: only Record sends, one call at a time
	default:
		a.dropped++
		a.unreported++
	}
	a.mu.Unlock()
	if closed {
		a.report(ctx, 1, errors.New("it is closed"))
	}
}

// audited reports whether an event belongs into an audit trail. Kinds of later versions do,
// unless they are added here.
func audited(e event.Event) bool {
	switch e.Kind {
	case event.TouchFailed, event.TokenDenied, event.StoreFailed, event.InvalidDocument, event.CacheSuspended, event.CacheResumed,
		event.Overloaded, event.LimiterFailed, event.ProxyMisconfigured, event.MailSent, event.MailFailed, event.PasswordRehashed,
		event.AuditDropped, event.Purged:
		return false
	case event.AccessDenied:
		return e.UserID != nil && (e.Reason == event.ReasonForbidden || e.Reason == event.ReasonScope)
	}
	return true
}

// anybodys reports whether clients can cause any number of events of a kind.
func anybodys(kind event.Kind) bool {
	switch kind {
	case event.LoginDenied, event.AccessDenied, event.RegistrationDenied, event.OneTimeTokenDenied,
		event.VerificationRequested, event.PasswordResetRequested, event.EmailChangeRequested, event.OAuthLinkDenied:
		return true
	}
	return false
}

// Dropped returns how many events have been dropped since [NewAuditTrail].
func (a *AuditTrail[ID]) Dropped() int64 {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.dropped
}

// drop counts events that had fitted, and reports them.
func (a *AuditTrail[ID]) drop(n int, why error) {
	if n == 0 {
		return
	}
	a.mu.Lock()
	a.dropped += int64(n)
	a.mu.Unlock()
	a.report(context.Background(), int64(n), why)
}

// reportFull reports the events that did not fit since the last call.
func (a *AuditTrail[ID]) reportFull() {
	a.mu.Lock()
	n := a.unreported
	a.unreported = 0
	a.mu.Unlock()
	if n > 0 {
		a.report(context.Background(), n, fmt.Errorf("the buffer of %d events is full", cap(a.queue)))
	}
}

func (a *AuditTrail[ID]) report(ctx context.Context, n int64, why error) {
	a.emit(ctx, event.Event{Kind: event.AuditDropped, Err: fmt.Errorf("mongostore: %s lacks %d events: %w", a.coll.Name(), n, why)})
}

const (
	// auditWrite is the maximum number of events in a write.
	auditWrite = 500
	// auditPause is how long the worker waits after a failed write. It doubles, up to
	// auditLongest.
	auditPause   = 100 * time.Millisecond
	auditLongest = 5 * time.Second
)

// work writes what is queued, until the queue is closed and empty.
func (a *AuditTrail[ID]) work() {
	for e := range a.queue {
		batch := []any{}
		for more := true; more; {
			if doc, err := a.document(e); err == nil {
				batch = append(batch, doc)
			} else {
				a.drop(1, err)
			}
			if more = len(batch) < auditWrite; more {
				select {
				case e, more = <-a.queue:
				default:
					more = false
				}
			}
		}
		a.writeAll(batch)
		a.reportFull()
	}
}

// document returns the document of an event. Its ID makes a repeated write harmless.
func (a *AuditTrail[ID]) document(e event.Event) (bson.Raw, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make an ID: %w", err)
	}
	doc := auditDoc{ID: id, At: e.Time.UTC(), Kind: e.Kind, UserID: e.UserID, ClientIP: e.ClientIP, Reason: string(e.Reason)}
	if e.SessionID != uuid.Nil {
		doc.SessionID = &e.SessionID
	}
	raw, err := encode(a.registry, doc)
	if err != nil {
		return nil, fmt.Errorf("encode an event %s: %w", e.Kind, err)
	}
	return raw, nil
}

// writeAll writes a batch, as often as it takes.
func (a *AuditTrail[ID]) writeAll(batch []any) {
	if len(batch) == 0 {
		return
	}
	wait := auditPause
	for try := 1; ; try++ {
		refused, err := a.insert(batch)
		switch {
		case err == nil:
			return
		case refused > 0:
			a.drop(refused, err)
			return
		}
		if try == 1 && a.writing.Err() == nil {
			a.emit(context.Background(), event.Event{Kind: event.StoreFailed, Err: wrap("write the audit trail", err)})
		}
		a.reportFull()
		if pause(a.writing, wait) != nil {
			a.drop(len(batch), fmt.Errorf("they were not written before Close ended: %w", err))
			return
		}
		wait = min(2*wait, auditLongest)
	}
}

// insert writes a batch once. refused is the number of documents that the server will never
// take, for example because of a validator. With refused == 0, an error means that the batch
// can be written again.
func (a *AuditTrail[ID]) insert(batch []any) (refused int, err error) {
	ctx, cancel := context.WithTimeout(a.writing, a.timeout)
	defer cancel()
	_, err = a.coll.InsertMany(ctx, batch, options.InsertMany().SetOrdered(false))
	var written mongo.BulkWriteException
	if !errors.As(err, &written) || written.WriteConcernError != nil || isDeadlock(err) {
		return 0, err
	}
	err = nil
	for _, w := range written.WriteErrors {
		if !mongo.IsDuplicateKeyError(w) { // otherwise an earlier try has written it
			refused++
			err = w
		}
	}
	return refused, err
}

// Close stops recording and waits until the queued events are written, for at most the Drain
// of [AuditTrailConfig]; those that are left then are dropped with an event. It also ends the
// periodic purge. Events that are recorded later are dropped with an event each. Close is
// idempotent. ByUser can still be used.
func (a *AuditTrail[ID]) Close() {
	a.mu.Lock()
	if !a.closed {
		a.closed = true
		close(a.queue)
	}
	a.mu.Unlock()
	timer := time.AfterFunc(a.drain, a.cancelWrites)
	defer timer.Stop()
	a.worker.Wait()
	a.cancelWrites()
	a.store.Close()
}

// AuditPage is a page of a user's events.
type AuditPage struct {
	// Events are the events on the page, newest first. Their times are in whole milliseconds.
	// They have no Err.
	Events []event.Event
	// Next is the After of the next page; "" on the last page.
	Next string
}

// ByUser returns a page of the events that name a user, newest first. It returns at most 200
// events, and an error wrapping strategy.ErrInvalidCursor if page.After is not the Next of a
// page. A document that cannot be read, because another program wrote it, is left out, with an
// event of the kind event.InvalidDocument.
func (a *AuditTrail[ID]) ByUser(ctx context.Context, userID ID, page strategy.Page) (AuditPage, error) {
	if a == nil {
		return AuditPage{}, errors.New("mongostore: there is no audit trail: set AuditRetention of latchkey.Config")
	}
	const defaultPage, maxPage = 50, 200
	ctx, cancel := a.bounded(ctx)
	defer cancel()
	limit := page.Limit
	if limit <= 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	filter := bson.D{{Key: "user_id", Value: userID}}
	if page.After != "" {
		at, id, ok := cursor.Parse(page.After)
		if !ok {
			return AuditPage{}, fmt.Errorf("mongostore: %w", strategy.ErrInvalidCursor)
		}
		filter = append(filter, bson.E{Key: "$or", Value: bson.A{
			bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: at}}}},
			bson.D{{Key: "at", Value: at}, {Key: "_id", Value: bson.D{{Key: "$lt", Value: id}}}},
		}})
	}
	newestFirst := options.Find().SetSort(bson.D{{Key: "at", Value: -1}, {Key: "_id", Value: -1}}).SetBatchSize(int32(limit + 1))
	cur, err := a.coll.Find(ctx, filter, newestFirst)
	if err != nil {
		return AuditPage{}, wrap("list the user's events", err)
	}
	defer func() { _ = cur.Close(ctx) }()
	var out AuditPage
	var last uuid.UUID
	for cur.Next(ctx) {
		id, e, err := parseAudit[ID](cur.Current, a.registry)
		if err != nil {
			a.invalid(ctx, cur.Current, userID, err)
			continue
		}
		if len(out.Events) == limit {
			out.Next = cursor.Format(out.Events[limit-1].Time, last)
			break
		}
		out.Events, last = append(out.Events, e), id
	}
	return out, wrap("list the user's events", cur.Err())
}

// parseAudit reads a document of audit. It returns an error that names the first field of
// another type, or a required field that is missing.
func parseAudit[ID comparable](doc bson.Raw, reg *bson.Registry) (id uuid.UUID, e event.Event, err error) {
	elems, err := doc.Elements()
	if err != nil {
		return id, e, err
	}
	for _, elem := range elems {
		key, v, ok := elem.Key(), elem.Value(), true
		if v.Type == bson.TypeNull {
			continue // equivalent to a missing field
		}
		var cause error
		var text string
		switch key {
		case "_id":
			id, ok = uuidOf(v)
		case "at":
			e.Time, ok = timeOf(v)
		case "kind":
			text, ok = v.StringValueOK()
			e.Kind = event.Kind(text)
		case "user_id":
			var userID ID
			cause = parseID(v, reg, &userID)
			e.UserID = known(userID)
		case "session_id":
			e.SessionID, ok = uuidOf(v)
		case "client_ip":
			e.ClientIP, ok = v.StringValueOK()
		case "reason":
			text, ok = v.StringValueOK()
			e.Reason = event.Reason(text)
		}
		if err == nil {
			err = fieldError(key, v, ok, cause)
		}
	}
	for _, f := range []struct {
		name    string
		missing bool
	}{{"_id", id == uuid.Nil}, {"at", e.Time.IsZero()}, {"kind", e.Kind == ""}} {
		if f.missing && err == nil {
			err = fmt.Errorf("decode the field %s: it is missing", f.name)
		}
	}
	return id, e, err
}

// checkAudit looks for invalid documents by the indexes.
func (a *AuditTrail[ID]) checkAudit(ctx context.Context) {
	a.checkDocuments(ctx, append(ends("_id"), ends("at")...), func(doc bson.Raw) error {
		_, _, err := parseAudit[ID](doc, a.registry)
		return err
	})
}

// Purge removes the events that the TTL index would remove, those older than the Retention.
// It returns their number.
func (a *AuditTrail[ID]) Purge(ctx context.Context) (int64, error) {
	return a.purge(ctx, a.coll, bson.D{{Key: "at", Value: bson.D{{Key: "$lt", Value: a.now().Add(-a.retention)}}}})
}
