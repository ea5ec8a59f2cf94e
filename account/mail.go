package account

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/latchkey-go/latchkey/event"
	"github.com/latchkey-go/latchkey/internal/testhook"
	"github.com/latchkey-go/latchkey/strategy"
)

// MessageKind says what a [Message] is about.
type MessageKind string

// The kinds of messages.
const (
	// MessageVerification asks the user to confirm the e-mail address. Token.
	MessageVerification MessageKind = "verification"
	// MessagePasswordReset lets the user set a new password. Token.
	MessagePasswordReset MessageKind = "password_reset"
	// MessageEmailChange asks the user to confirm a new address, to which it goes. Token.
	MessageEmailChange MessageKind = "email_change"
	// MessageEmailChanging tells the user, at the present address, that a new one was
	// requested (ASVS 6.3.7). It has no token.
	MessageEmailChanging MessageKind = "email_changing"
	// MessageEmailTaken tells the user that a registration was tried with the address; see
	// [Manager.RequestRegistration]. It has no token.
	MessageEmailTaken MessageKind = "email_taken"
	// MessagePasswordChanged tells the user that the account has a new password, however it was
	// set (ASVS 6.3.7). It has no token.
	MessagePasswordChanged MessageKind = "password_changed"
	// MessageEmailChanged tells the user, at the old address, that the account has a new one
	// (ASVS 6.3.7). It has no token.
	MessageEmailChanged MessageKind = "email_changed"
)

// Message is what a [Mailer] sends to a user. The application chooses the words and the link.
type Message struct {
	Kind MessageKind
	// To is the address.
	To string
	// User is the account, of the application's user type.
	User any
	// Token is the one-time token for the link. It is the zero Secret if the message has none.
	Token strategy.Secret
	// ExpiresAt is when the token expires, in UTC.
	ExpiresAt time.Time
	// ClientIP is the IP address of the request that caused the message, or "".
	ClientIP string
}

// Mailer sends messages. It must be safe for concurrent use and honour the cancellation of
// its context, which has a deadline (MailConfig.Timeout). A failed message is not sent
// again: the user can request another.
type Mailer interface {
	Send(ctx context.Context, m Message) error
}

// MailerFunc is a function that is a [Mailer].
type MailerFunc func(ctx context.Context, m Message) error

// Send calls f.
func (f MailerFunc) Send(ctx context.Context, m Message) error { return f(ctx, m) }

// MailConfig configures the messages of a [Manager]. The zero value sends none.
type MailConfig struct {
	// Mailer sends the messages. Default nil: the methods that send one return [ErrNoMailer].
	Mailer Mailer

	// Workers is how many messages are sent at once. Default 2.
	Workers int

	// Queue is how many messages can wait. What does not fit is dropped, with an event of the
	// kind event.MailFailed. Default 1,000.
	Queue int

	// Timeout bounds each message: looking the account up, storing the token, and
	// Mailer.Send. Default 30 seconds.
	Timeout time.Duration

	// Drain is how long [Manager.Close] waits for queued messages. Default 10 seconds.
	Drain time.Duration

	// PerAddress and PerNetwork are how many messages can be requested in an hour, for an
	// address and by the clients of a network (IPv4 /24, IPv6 /64; ten times as many by an
	// IPv6 /48). More are dropped with an event, which the client does not see. The counters
	// are in the store of login attempts. Default 5 and 50.
	//
	// Messages that tell of a change (MessagePasswordChanged, MessageEmailChanged) do not count
	// as requested, and no request keeps them back. An account and an address get at most
	// PerAddress of them in an hour.
	PerAddress, PerNetwork int

	// VerificationLifetime is how long a token for [Manager.Verify] is
	// valid. Default 24 hours, which is also the most.
	VerificationLifetime time.Duration

	// ResetLifetime is how long a token for [Manager.ResetPassword] is valid. Default 1 hour,
	// which is also the most.
	ResetLifetime time.Duration
}

// fillDefaults fills the defaults in, and checks the settings.
func (c *MailConfig) fillDefaults() error {
	for _, f := range []struct {
		name      string
		value     *int
		byDefault int
	}{{"Workers", &c.Workers, 2}, {"Queue", &c.Queue, 1000}, {"PerAddress", &c.PerAddress, 5}, {"PerNetwork", &c.PerNetwork, 50}} {
		if *f.value < 0 {
			return fmt.Errorf("account: Config.Mail.%s is negative: %d", f.name, *f.value)
		}
		*f.value = cmp.Or(*f.value, f.byDefault)
	}
	for _, f := range []struct {
		name            string
		value           *time.Duration
		byDefault, most time.Duration
	}{
		{"Timeout", &c.Timeout, 30 * time.Second, time.Hour},
		{"Drain", &c.Drain, 10 * time.Second, time.Hour},
		{"VerificationLifetime", &c.VerificationLifetime, 24 * time.Hour, 24 * time.Hour},
		{"ResetLifetime", &c.ResetLifetime, time.Hour, time.Hour},
	} {
		if *f.value < 0 || *f.value > f.most {
			return fmt.Errorf("account: Config.Mail.%s is %v, want 0 (for %v) to %v", f.name, *f.value, f.byDefault, f.most)
		}
		*f.value = cmp.Or(*f.value, f.byDefault)
	}
	return nil
}

// mailQueue runs the jobs that end in a message, behind the answer of the request: an answer
// takes the same time whether or not there is an account. Its memory is bounded.
type mailQueue struct {
	jobs    chan mailJob
	timeout time.Duration // of a job
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu     sync.Mutex
	closed bool
	left   int       // jobs that are queued or run
	none   sync.Cond // left has become 0
}

// mailJob is what a request leaves to the queue.
type mailJob struct {
	ctx    context.Context // the values of the request, without its cancellation
	queued time.Time
	do     func(ctx context.Context)
}

// answerLead is how long a job waits before it begins. The answer of its request is sent
// meanwhile: a job that began at once would compete with the answer for the processors, and
// delay it by more the more there is to do. It is not Config.Now's time.
const answerLead = 20 * time.Millisecond

// errMailClosed means that the queue takes no more jobs.
var errMailClosed = errors.New("account: the Manager is closed")

func newMailQueue(workers, length int, timeout time.Duration) *mailQueue {
	closing, cancel := context.WithCancel(context.Background())
	q := &mailQueue{jobs: make(chan mailJob, length), timeout: timeout, cancel: cancel}
	q.none.L = &q.mu
	for range workers {
		q.workers.Go(func() {
			for job := range q.jobs {
				lead := time.NewTimer(answerLead - time.Since(job.queued))
				select {
				case <-lead.C:
				case <-closing.Done():
				}
				lead.Stop()
				q.run(closing, job)
				q.done()
			}
		})
	}
	return q
}

func (q *mailQueue) run(closing context.Context, job mailJob) {
	ctx, end := context.WithCancelCause(job.ctx)
	defer end(nil)
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	stop := context.AfterFunc(closing, func() { end(errMailClosed) })
	defer stop()
	if closing.Err() != nil {
		end(errMailClosed) // AfterFunc calls it in a goroutine, which may be late
	}
	job.do(ctx)
}

// add queues a job. It does not wait: it returns ErrBusy if the queue is full.
func (q *mailQueue) add(ctx context.Context, do func(ctx context.Context)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errMailClosed
	}
	select {
	case q.jobs <- mailJob{ctx, time.Now(), do}:
		q.left++
		return nil
	default:
		return fmt.Errorf("account: the mail queue is full: %w", ErrBusy)
	}
}

func (q *mailQueue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.left--; q.left == 0 {
		q.none.Broadcast()
	}
}

// wait returns when no job is left.
func (q *mailQueue) wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.left > 0 {
		q.none.Wait()
	}
}

func init() {
	testhook.WaitForMail = func(manager any) { manager.(interface{ waitForMail() }).waitForMail() }
}

func (m *Manager[U, ID]) waitForMail() {
	if m.mail != nil {
		m.mail.wait()
	}
}

// close ends the queue. Jobs that are queued go on for at most drain; then the contexts of
// all that are left are cancelled. It is idempotent.
func (q *mailQueue) close(drain time.Duration) {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.jobs)
	}
	q.mu.Unlock()
	timer := time.AfterFunc(drain, q.cancel)
	defer timer.Stop()
	q.workers.Wait()
	q.cancel()
}

// Close waits until the queued messages are sent, for at most the Drain of [MailConfig]; each
// message that is left then is an event of the kind event.MailFailed. Later requests for
// messages are dropped with such an event too. Close is idempotent. Without a Mailer it does
// nothing.
func (m *Manager[U, ID]) Close() {
	if m.mail != nil {
		m.mail.close(m.cfg.Mail.Drain)
	}
}

// later does a job behind the answer. If the queue is full, the job is dropped with an event,
// and the caller's answer is the same.
func (m *Manager[U, ID]) later(ctx context.Context, do func(ctx context.Context)) error {
	if err := m.queue(ctx, do); err != nil {
		if errors.Is(err, ErrNoMailer) {
			return err
		}
		m.emit(ctx, event.Event{Kind: event.MailFailed, Err: err})
	}
	return nil
}

// queue does a job behind the answer. It returns an error if the job is not queued.
func (m *Manager[U, ID]) queue(ctx context.Context, do func(ctx context.Context)) error {
	if m.mail == nil {
		return fmt.Errorf("account: %w", ErrNoMailer)
	}
	// The client IP is resolved now: the request is over when the job begins.
	ctx = event.ContextWithClientIP(context.WithoutCancel(ctx), event.ClientIP(ctx))
	return m.mail.add(ctx, func(ctx context.Context) {
		if err := ctx.Err(); err != nil {
			m.emit(ctx, event.Event{Kind: event.MailFailed, Err: fmt.Errorf("account: not sent before Close ended: %w", err)})
			return
		}
		do(ctx)
	})
}

// notify tells the user of an account about a new password and a new address, if there is a
// Mailer. before is the account as it was before the change. The messages go to the address
// that it had then, because an attacker may have made the change.
func (m *Manager[U, ID]) notify(ctx context.Context, before U, change Change) {
	a := *m.of(&before)
	var kinds []MessageKind
	if change.Password != nil {
		kinds = append(kinds, MessagePasswordChanged)
	}
	if change.Email != nil && *change.Email != a.Email {
		kinds = append(kinds, MessageEmailChanged)
	}
	if m.mail == nil || len(kinds) == 0 {
		return
	}
	_ = m.later(ctx, func(ctx context.Context) {
		for _, kind := range kinds {
			if !m.within(ctx, "notice account", fmt.Sprint(a.ID), m.cfg.Mail.PerAddress) || !m.within(ctx, "notice address", a.Email, m.cfg.Mail.PerAddress) {
				err := fmt.Errorf("account: more than %d messages about changes in an hour: the %s message is dropped", m.cfg.Mail.PerAddress, kind)
				m.emit(ctx, event.Event{Kind: event.MailFailed, UserID: a.ID, Err: err})
				continue
			}
			m.send(ctx, &before, Message{Kind: kind, To: a.Email})
		}
	})
}

// send sends a message, and reports a failure.
func (m *Manager[U, ID]) send(ctx context.Context, user *U, msg Message) {
	msg.User, msg.ClientIP = *user, event.ClientIP(ctx)
	if err := m.callMailer(ctx, msg); err != nil {
		m.emit(ctx, event.Event{Kind: event.MailFailed, UserID: m.of(user).ID, Err: fmt.Errorf("account: send the %s message: %w", msg.Kind, err)})
		return
	}
	m.emit(ctx, event.Event{Kind: event.MailSent, UserID: m.of(user).ID})
}

// callMailer calls the Mailer. A panic in it, which no handler would recover, is an error.
func (m *Manager[U, ID]) callMailer(ctx context.Context, msg Message) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the Mailer panicked: %v", v)
		}
	}()
	return m.cfg.Mail.Mailer.Send(ctx, msg)
}

// mailAllowed counts a request for a message to an address, and reports whether the address
// and the client's network are within their limits.
func (m *Manager[U, ID]) mailAllowed(ctx context.Context, email string) bool {
	if !m.within(ctx, "mail address", email, m.cfg.Mail.PerAddress) {
		return false
	}
	return m.withinNetwork(ctx, "mail network", m.cfg.Mail.PerNetwork)
}

// withinNetwork is within for the networks of the client.
func (m *Manager[U, ID]) withinNetwork(ctx context.Context, kind string, limit int) bool {
	for _, network := range networksOf(event.ClientIP(ctx)) {
		if !m.within(ctx, kind, network, limit) {
			return false
		}
		limit = 10 * min(limit, math.MaxInt/10)
	}
	return true
}

// within counts one request in the window of an hour that begins with the first, and reports
// whether it is within a limit. While the counters fail, all are, each with an event.
func (m *Manager[U, ID]) within(ctx context.Context, kind, key string, limit int) bool {
	if m.attempts == nil {
		return true
	}
	now := m.now()
	counter, err := m.attempts.Add(ctx, digest(kind, key), now, now.Add(time.Hour), false)
	if err != nil {
		if !abandoned(ctx) {
			m.emit(ctx, event.Event{Kind: event.LimiterFailed, Err: fmt.Errorf("account: limit requests: %w", err)})
		}
		return true
	}
	return counter.Failures <= limit
}
