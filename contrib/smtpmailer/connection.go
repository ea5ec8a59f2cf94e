package smtpmailer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// idleTimeout is how long an idle connection is kept. Most servers keep it for five minutes, but a
// firewall can drop it silently before.
var idleTimeout = time.Minute

// connection is an authenticated connection to the server.
type connection struct {
	client *mail.Client // without the password
	smtp   *smtp.Client
	raw    net.Conn
	expiry *time.Timer // while it is idle
	stop   func() bool // ends the watch on the context
}

// watch makes every read and write fail when ctx ends, until release.
func (c *connection) watch(ctx context.Context) {
	c.stop = context.AfterFunc(ctx, func() { _ = c.raw.SetDeadline(time.Unix(1, 0)) })
}

// release ends the watch, and reports whether the connection can be used again.
func (c *connection) release() bool { return c.stop() }

// quit ends the connection, politely if the server answers within a second.
func (c *connection) quit() {
	_ = c.raw.SetDeadline(time.Now().Add(time.Second))
	_ = c.client.CloseWithSMTPClient(c.smtp)
	_ = c.raw.Close()
}

// foreignConn ignores the deadlines that go-mail and crypto/tls set: only watch sets one.
type foreignConn struct{ net.Conn }

func (foreignConn) SetDeadline(time.Time) error      { return nil }
func (foreignConn) SetReadDeadline(time.Time) error  { return nil }
func (foreignConn) SetWriteDeadline(time.Time) error { return nil }

// dial returns a new connection, which is watched.
func (m *Mailer) dial(ctx context.Context) (*connection, error) {
	c := new(connection)
	addr := net.JoinHostPort(m.cfg.Host, strconv.Itoa(m.cfg.Port))
	opts := []mail.Option{
		mail.WithPort(m.cfg.Port), mail.WithTimeout(m.cfg.Timeout), mail.WithTLSConfig(m.cfg.TLS), mail.WithoutRset(),
		mail.WithDialContextFunc(func(dialCtx context.Context, _, _ string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(dialCtx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			c.raw = raw
			c.watch(ctx) // dialCtx ends with the dial
			if m.cfg.ImplicitTLS {
				return tls.Client(foreignConn{raw}, m.cfg.TLS), nil
			}
			return foreignConn{raw}, nil
		}),
	}
	switch {
	case m.cfg.ImplicitTLS:
		opts = append(opts, mail.WithSSL())
	case m.cfg.InsecureNoTLS:
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	default:
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if m.cfg.Username != "" {
		// go-mail's discovery does not choose PLAIN with a dialer of ours and implicit TLS: it
		// does not know that the connection is encrypted. PLAIN and LOGIN do, and refuse
		// connections in the clear, except to localhost.
		opts = append(opts, mail.WithUsername(m.cfg.Username), mail.WithPassword(m.cfg.Password.Reveal()),
			mail.WithOpportunisticSMTPAuth(mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthPlain, mail.SMTPAuthLogin))
	}
	client, err := mail.NewClient(m.cfg.Host, opts...)
	if err == nil {
		c.client = client
		c.smtp, err = client.DialToSMTPClientWithContext(ctx)
	}
	if err != nil {
		if c.raw != nil { // go-mail leaves it open
			c.release()
			_ = c.raw.Close()
		}
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	client.SetPassword("") // it would be in memory dumps for as long as the connection lives
	return c, nil
}

// deliver sends a mail through an idle connection or a new one.
func (m *Mailer) deliver(ctx context.Context, message *mail.Msg) error {
	if c, err := m.idle.take(); err != nil {
		return err
	} else if c != nil {
		c.watch(ctx)
		if err := m.send(c, message); err == nil || ctx.Err() != nil || !again(err) {
			return err
		}
	}
	c, err := m.dial(ctx)
	if err != nil {
		return err
	}
	return m.send(c, message)
}

// send sends a mail through a connection that is watched, and puts it back if it still works.
func (m *Mailer) send(c *connection, message *mail.Msg) error {
	err := c.client.SendWithSMTPClient(c.smtp, message)
	if c.release() && err == nil {
		m.idle.put(c)
	} else {
		_ = c.raw.Close()
	}
	return err
}

// again reports whether a mail that failed on an idle connection is tried on a new one: the
// server has none of it, and did not refuse it for good. Servers close idle connections, and bound
// the messages of one.
func again(err error) bool {
	var failed *mail.SendError
	return errors.As(err, &failed) && failed.ErrorCode()/100 != 5 &&
		(failed.Reason == mail.ErrConnCheck || failed.Reason == mail.ErrSMTPMailFrom || failed.Reason == mail.ErrSMTPRcptTo || failed.Reason == mail.ErrSMTPData)
}

// pool holds the idle connections.
type pool struct {
	mu     sync.Mutex
	idle   []*connection
	closed bool
}

// take returns the connection that was used last, or nil if there is none.
func (p *pool) take() (*connection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("the Mailer is closed: %w", net.ErrClosed)
	}
	if len(p.idle) == 0 {
		return nil, nil
	}
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	c.expiry.Stop()
	return c, nil
}

// put keeps a connection until it is taken or too old.
func (p *pool) put(c *connection) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		go c.quit()
		return
	}
	p.idle = append(p.idle, c)
	c.expiry = time.AfterFunc(idleTimeout, func() { p.expire(c) })
}

// expire closes a connection if it is idle.
func (p *pool) expire(c *connection) {
	p.mu.Lock()
	i := slices.Index(p.idle, c)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		c.quit()
	}
}

// Close closes the idle connections. A Send that is in progress goes on, and closes its
// connection at the end. Close is idempotent.
func (m *Mailer) Close() {
	m.idle.mu.Lock()
	idle := m.idle.idle
	m.idle.idle, m.idle.closed = nil, true
	m.idle.mu.Unlock()
	var quits sync.WaitGroup
	for _, c := range idle {
		c.expiry.Stop()
		quits.Go(c.quit)
	}
	quits.Wait()
}
