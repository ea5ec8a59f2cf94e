package mongostore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func trailIn(t *testing.T, r *rig, cfg mongostore.AuditTrailConfig) *mongostore.AuditTrail[uuid.UUID] {
	t.Helper()
	trail, err := mongostore.NewAuditTrail[uuid.UUID](r.Database, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(trail.Close)
	return trail
}

// latchkey.Latchkey.AuditTrail is nil without AuditRetention, and in a latchkeytest.Kit.
func TestNilAuditTrailKeepsNothing(t *testing.T) {
	var trail *mongostore.AuditTrail[uuid.UUID]
	trail.Record(t.Context(), event.Event{Kind: event.AccountRegistered})
	if n := trail.Dropped(); n != 0 {
		t.Errorf("dropped %d events, want 0", n)
	}
	_, err := trail.ByUser(t.Context(), uuid.New(), strategy.Page{})
	if err == nil || !strings.Contains(err.Error(), "AuditRetention") {
		t.Errorf("ByUser returned %v, want an error that names AuditRetention", err)
	}
}

// inserts collects the documents that a server was asked to insert.
type inserts struct {
	mu      sync.Mutex
	docs    []bson.Raw
	batches int
}

func (i *inserts) answer(c command) bson.D {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.docs = append(i.docs, c.docs...)
	i.batches++
	return bson.D{{Key: "n", Value: len(c.docs)}}
}

// kinds returns the kinds of the documents.
func (i *inserts) kinds() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var kinds []string
	for _, doc := range i.docs {
		kinds = append(kinds, doc.Lookup("kind").StringValue())
	}
	return kinds
}

// gate is a server that answers nothing until it is opened.
type gate struct {
	inserts
	reached chan struct{} // receives a value for each command
	open    chan struct{}
}

func newGate() *gate { return &gate{reached: make(chan struct{}, 100), open: make(chan struct{})} }

func (g *gate) answer(c command) bson.D {
	g.reached <- struct{}{}
	<-g.open
	return g.inserts.answer(c)
}

// wantDropped checks that the events, except failures of the store, report n dropped events
// in all, for a reason.
func wantDropped(t *testing.T, events []event.Event, n int, reason string) {
	t.Helper()
	got := 0
	for _, e := range events {
		if e.Kind == event.StoreFailed {
			continue
		}
		one := 0
		if e.Kind != event.AuditDropped || e.Time.IsZero() || !strings.Contains(e.Err.Error(), reason) {
			t.Errorf("got the event %+v, want one %s for %q", e, event.AuditDropped, reason)
		} else if _, err := fmt.Sscanf(e.Err.Error(), "mongostore: audit lacks %d events", &one); err != nil {
			t.Errorf("got %q: %v", e.Err, err)
		}
		got += one
	}
	if got != n {
		t.Errorf("got %d dropped events, want %d", got, n)
	}
}

func TestAuditTrailConfigErrorsNameTheField(t *testing.T) {
	for field, cfg := range map[string]mongostore.AuditTrailConfig{
		"AuditTrailConfig.PurgeInterval is negative":        {PurgeInterval: -1},
		"AuditTrailConfig.Timeout is negative":              {Timeout: -1},
		"AuditTrailConfig.Drain is negative":                {Drain: -1},
		"AuditTrailConfig.Buffer is negative":               {Buffer: -1},
		"AuditTrailConfig.Retention is -1ns":                {Retention: -1},
		"AuditTrailConfig.Retention is 1ms":                 {Retention: time.Millisecond},
		"AuditTrailConfig.Retention is 2562047h47m16":       {Retention: 1<<63 - 1},
		"AuditTrailConfig.Registry":                         {Registry: bson.NewRegistry()},
		"AuditTrailConfig.Collection is \"system.profile\"": {Collection: "system.profile"},
	} {
		t.Run(field, func(t *testing.T) {
			_, err := mongostore.NewAuditTrail[string](database(t), cfg)
			wantErrorNaming(t, err, field)
		})
	}
	t.Run("db is nil", func(t *testing.T) {
		_, err := mongostore.NewAuditTrail[string](nil, mongostore.AuditTrailConfig{})
		wantErrorNaming(t, err, "db is nil")
	})
	t.Run("the zero value is valid", func(t *testing.T) {
		trail, err := mongostore.NewAuditTrail[string](database(t), mongostore.AuditTrailConfig{})
		if err != nil {
			t.Fatal(err)
		}
		trail.Close()
		trail.Close()
	})
}

func TestAuditTrailStoresEvents(t *testing.T) {
	var stored inserts
	var events recorder
	trail := trailIn(t, newRig(t, stored.answer), mongostore.AuditTrailConfig{OnEvent: events.record})
	at, session := time.UnixMilli(1_800_000_000_123), uuid.New()
	trail.Record(t.Context(), event.Event{
		Kind: event.TokenRevoked, Time: at, UserID: id, SessionID: session, ClientIP: "192.0.2.7",
		Reason: event.ReasonOverLimit, Err: errors.New("text of another program"),
	})
	trail.Record(t.Context(), event.Event{Kind: event.LoginDenied, Time: at, Reason: event.ReasonUnknownUser})
	trail.Close()
	if len(stored.docs) != 2 {
		t.Fatalf("got %d documents, want 2", len(stored.docs))
	}
	want := []bson.D{
		{
			{Key: "at", Value: at}, {Key: "kind", Value: "token.revoked"}, {Key: "user_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}},
			{Key: "session_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: session[:]}},
			{Key: "client_ip", Value: "192.0.2.7"}, {Key: "reason", Value: "over_limit"},
		},
		{{Key: "at", Value: at}, {Key: "kind", Value: "login.denied"}, {Key: "reason", Value: "unknown_user"}},
	}
	for i, doc := range stored.docs {
		own := doc.Lookup("_id")
		subtype, data, ok := own.BinaryOK()
		if !ok || subtype != bson.TypeBinaryUUID || uuid.UUID(data).Version() != 7 {
			t.Errorf("got the _id %v, want a UUIDv7", own)
		}
		raw, err := bson.Marshal(append(bson.D{{Key: "_id", Value: own}}, want[i]...))
		if err != nil {
			t.Fatal(err)
		}
		if doc.String() != bson.Raw(raw).String() {
			t.Errorf("got %v, want %v", doc, bson.Raw(raw))
		}
	}
	if got := events.take(); len(got) > 0 || trail.Dropped() != 0 {
		t.Errorf("got the events %v and %d dropped, want none", got, trail.Dropped())
	}
}

func TestAuditTrailIgnoresWhatNobodyDid(t *testing.T) {
	var stored inserts
	trail := trailIn(t, newRig(t, stored.answer), mongostore.AuditTrailConfig{})
	for _, e := range []event.Event{
		{Kind: event.TouchFailed, UserID: id}, {Kind: event.TokenDenied, Reason: event.ReasonMalformed}, {Kind: event.StoreFailed},
		{Kind: event.InvalidDocument, UserID: id}, {Kind: event.CacheSuspended}, {Kind: event.CacheResumed}, {Kind: event.Overloaded},
		{Kind: event.LimiterFailed}, {Kind: event.ProxyMisconfigured}, {Kind: event.MailSent, UserID: id}, {Kind: event.MailFailed, UserID: id},
		{Kind: event.PasswordRehashed, UserID: id}, {Kind: event.AuditDropped}, {Kind: event.Purged},
		{Kind: event.AccessDenied, UserID: id, Reason: event.ReasonNotFresh}, {Kind: event.AccessDenied, Reason: event.ReasonForbidden},
	} {
		trail.Record(t.Context(), e)
	}
	want := []string{"access.denied", "access.denied", "account.email_changed", "of.a.later.version"}
	trail.Record(t.Context(), event.Event{Kind: event.AccessDenied, UserID: id, Reason: event.ReasonForbidden})
	trail.Record(t.Context(), event.Event{Kind: event.AccessDenied, UserID: id, Reason: event.ReasonScope})
	trail.Record(t.Context(), event.Event{Kind: event.EmailChanged, UserID: id})
	trail.Record(t.Context(), event.Event{Kind: "of.a.later.version"})
	trail.Close()
	if got := stored.kinds(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAuditTrailWritesWaitingEventsTogether(t *testing.T) {
	server := newGate()
	trail := trailIn(t, newRig(t, server.answer), mongostore.AuditTrailConfig{})
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	<-server.reached
	for range 700 {
		trail.Record(t.Context(), event.Event{Kind: event.TokenRevoked, UserID: id})
	}
	close(server.open)
	trail.Close()
	if got := len(server.kinds()); got != 701 || server.batches != 3 {
		t.Errorf("got %d events in %d writes, want 701 in 3: of 1, 500 and 200", got, server.batches)
	}
}

// A request that causes an event must not wait for the database.
func TestFullAuditTrailDropsAndReports(t *testing.T) {
	server := newGate()
	var events recorder
	trail := trailIn(t, newRig(t, server.answer), mongostore.AuditTrailConfig{Buffer: 10, OnEvent: events.record})
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	<-server.reached // the worker waits for the server
	for range 100 {
		trail.Record(t.Context(), event.Event{Kind: event.LoginDenied, Reason: event.ReasonUnknownUser})
	}
	for range 7 {
		trail.Record(t.Context(), event.Event{Kind: event.PasswordChanged, UserID: id})
	}
	if got := trail.Dropped(); got != 95+2 {
		t.Errorf("got %d dropped events, want 97", got)
	}
	close(server.open)
	trail.Close()
	want := slices.Concat([]string{"token.issued"}, slices.Repeat([]string{"login.denied"}, 5), slices.Repeat([]string{"account.password_changed"}, 5))
	if got := server.kinds(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	wantDropped(t, events.take(), 97, "the buffer of 10 events is full")
}

// A user who repeats what is refused must not displace the events of others.
func TestRefusalsFillHalfOfTheAuditTrail(t *testing.T) {
	for _, kind := range []event.Kind{
		event.LoginDenied, event.AccessDenied, event.RegistrationDenied, event.OneTimeTokenDenied,
		event.VerificationRequested, event.PasswordResetRequested, event.EmailChangeRequested, event.OAuthLinkDenied,
	} {
		t.Run(string(kind), func(t *testing.T) {
			server := newGate()
			trail := trailIn(t, newRig(t, server.answer), mongostore.AuditTrailConfig{Buffer: 10})
			trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
			<-server.reached // the worker waits for the server
			for range 20 {
				trail.Record(t.Context(), event.Event{Kind: kind, UserID: id, Reason: event.ReasonForbidden})
			}
			if got := trail.Dropped(); got != 15 {
				t.Errorf("got %d dropped events, want 15: half of the buffer is for others", got)
			}
			close(server.open)
			trail.Close()
		})
	}
}

func TestAuditTrailRepeatsFailedWrites(t *testing.T) {
	var stored inserts
	var events recorder
	var tries atomic.Int32
	r := newRig(t, func(c command) bson.D {
		switch tries.Add(1) {
		case 1:
			return bson.D{{Key: "ok", Value: 0}, {Key: "code", Value: 13}, {Key: "errmsg", Value: "not authorized"}}
		case 2: // written, but not by a majority
			return append(stored.answer(c), bson.E{Key: "writeConcernError", Value: bson.D{{Key: "code", Value: 64}, {Key: "errmsg", Value: "timed out"}}})
		}
		return refused(11000, "E11000 duplicate key error")
	})
	trail := trailIn(t, r, mongostore.AuditTrailConfig{OnEvent: events.record})
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	trail.Close()
	sent := r.sent()
	if len(sent) != 3 || len(stored.docs) != 1 || sent[0].docs[0].String() != sent[2].docs[0].String() {
		t.Errorf("got %d tries and %d stored documents, want three tries to store the same document", len(sent), len(stored.docs))
	}
	got := events.take()
	if len(got) != 1 || got[0].Kind != event.StoreFailed || !strings.Contains(got[0].Err.Error(), "not authorized") || trail.Dropped() != 0 {
		t.Errorf("got the events %v, want one %s", got, event.StoreFailed)
	}
}

func TestAuditTrailDropsWhatTheServerRefuses(t *testing.T) {
	var events recorder
	r := newRig(t, func(command) bson.D { return refused(121, "Document failed validation") })
	trail := trailIn(t, r, mongostore.AuditTrailConfig{OnEvent: events.record})
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	trail.Close()
	wantDropped(t, events.take(), 1, "Document failed validation")
	if n := len(r.sent()); n != 1 || trail.Dropped() != 1 {
		t.Errorf("got %d tries and %d dropped events, want 1 and 1", n, trail.Dropped())
	}
}

func TestAuditTrailDropsWhatCannotBeEncoded(t *testing.T) {
	var stored inserts
	var events recorder
	trail := trailIn(t, newRig(t, stored.answer), mongostore.AuditTrailConfig{OnEvent: events.record})
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: complex(1, 1)})
	trail.Record(t.Context(), event.Event{Kind: event.TokenRevoked, UserID: id})
	trail.Close()
	wantDropped(t, events.take(), 1, "encode an event token.issued")
	if got := stored.kinds(); !slices.Equal(got, []string{"token.revoked"}) {
		t.Errorf("got %v, want the other event", got)
	}
}

func TestCloseOfTheAuditTrailIsBounded(t *testing.T) {
	server := newGate()
	var events recorder
	trail := trailIn(t, newRig(t, server.answer), mongostore.AuditTrailConfig{Drain: 50 * time.Millisecond, OnEvent: events.record})
	t.Cleanup(func() { close(server.open) })
	for range 3 {
		trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	}
	<-server.reached
	began := time.Now()
	trail.Close()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("Close took %v, want about 50 ms", took)
	}
	wantDropped(t, events.take(), 3, "not written before Close ended")
	trail.Record(t.Context(), event.Event{Kind: event.TokenIssued, UserID: id})
	wantDropped(t, events.take(), 1, "it is closed")
	if got := trail.Dropped(); got != 4 {
		t.Errorf("got %d dropped events, want 4", got)
	}
}

// auditRow is a document of audit.
func auditRow(at time.Time, own uuid.UUID) bson.D {
	return bson.D{
		{Key: "_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: own[:]}}, {Key: "at", Value: at}, {Key: "kind", Value: "token.revoked"},
		{Key: "user_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: id[:]}},
		{Key: "session_id", Value: bson.Binary{Subtype: bson.TypeBinaryUUID, Data: own[:]}},
		{Key: "client_ip", Value: "192.0.2.7"}, {Key: "reason", Value: "replaced"},
	}
}

func TestAuditTrailListsInPages(t *testing.T) {
	at, own := time.UnixMilli(1_800_000_000_123).UTC(), uuid.New()
	row := auditRow(at, own)
	rows := []any{row, changed(row, "kind", 7), changed(row, "session_id"), row}
	r := newRig(t, func(command) bson.D { return found(rows...) })
	var events recorder
	trail := trailIn(t, r, mongostore.AuditTrailConfig{OnEvent: events.record})

	page, err := trail.ByUser(t.Context(), id, strategy.Page{Limit: 2})
	if err != nil || len(page.Events) != 2 || page.Next == "" {
		t.Fatalf("got %+v, %v, want two events and a next page", page, err)
	}
	want := event.Event{Kind: event.TokenRevoked, Time: at, UserID: id, SessionID: own, ClientIP: "192.0.2.7", Reason: event.ReasonReplaced}
	if page.Events[0] != want {
		t.Errorf("got %+v, want %+v", page.Events[0], want)
	}
	want.SessionID = uuid.Nil
	if page.Events[1] != want {
		t.Errorf("got %+v, want %+v", page.Events[1], want)
	}
	events.wantInvalid(t, "audit", "kind: unexpected type 32-bit integer")

	r.sent()
	rows = nil
	page, err = trail.ByUser(t.Context(), id, strategy.Page{After: page.Next})
	if err != nil || len(page.Events) != 0 || page.Next != "" {
		t.Errorf("got %+v, %v, want an empty page", page, err)
	}
	filter := r.sent()[0].body.Lookup("filter")
	before := filter.Document().Lookup("$or", "1", "_id", "$lt")
	if _, data, ok := before.BinaryOK(); !ok || uuid.UUID(data) != own {
		t.Errorf("got the filter %v, want what is before %v", filter, own)
	}
	for _, bad := range []string{"x", strings.Repeat("A", 33)} {
		if _, err := trail.ByUser(t.Context(), id, strategy.Page{After: bad}); !errors.Is(err, strategy.ErrInvalidCursor) {
			t.Errorf("a wrong cursor: got %v, want %v", err, strategy.ErrInvalidCursor)
		}
	}
}

func TestInvalidAuditDocumentsAreReported(t *testing.T) {
	row := auditRow(time.UnixMilli(1_800_000_000_123), uuid.New())
	var doc bson.D
	r := newRig(t, func(command) bson.D { return found(doc) })
	var events recorder
	trail := trailIn(t, r, mongostore.AuditTrailConfig{OnEvent: events.record})
	for fault, invalid := range map[string]bson.D{
		"_id: unexpected type objectID":      changed(row, "_id", bson.NewObjectID()),
		"_id: it is missing":                 changed(row, "_id", nil),
		"at: unexpected type string":         changed(row, "at", "today"),
		"at: it is missing":                  changed(row, "at"),
		"kind: it is missing":                changed(row, "kind"),
		"user_id: cannot decode":             changed(row, "user_id", "x"),
		"session_id: unexpected type string": changed(row, "session_id", "x"),
		"client_ip: unexpected type boolean": changed(row, "client_ip", true),
		"reason: unexpected type array":      changed(row, "reason", bson.A{}),
	} {
		doc = invalid
		if page, err := trail.ByUser(t.Context(), id, strategy.Page{}); err != nil || len(page.Events) != 0 {
			t.Errorf("%s: got %+v, %v, want no event", fault, page, err)
		}
		events.wantInvalid(t, "audit", fault)
	}
}

func BenchmarkAuditTrailRecord(b *testing.B) {
	client, err := mongo.Connect(options.Client().ApplyURI("mongodb://127.0.0.1:1"))
	if err != nil {
		b.Fatal(err)
	}
	trail, err := mongostore.NewAuditTrail[uuid.UUID](client.Database("none"), mongostore.AuditTrailConfig{Drain: time.Millisecond})
	if err != nil {
		b.Fatal(err)
	}
	defer trail.Close()
	ctx, e := context.Background(), event.Event{Kind: event.TokenIssued, Time: time.Now(), UserID: id}
	b.ReportAllocs()
	for b.Loop() {
		trail.Record(ctx, e)
	}
}
