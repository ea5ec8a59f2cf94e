package smtpmailer_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/latchkey-go/latchkey/contrib/smtpmailer"
	"github.com/latchkey-go/latchkey/strategy"
)

// received is a mail that the server accepted.
type received struct {
	from, to string
	username string // of the authenticated client
	tls      bool
	content  string
}

// server is a mail server in the process. It serves in the clear, unless startTLS or implicitTLS
// is set. Set the fields before start.
type server struct {
	startTLS, implicitTLS bool
	password              string // of the user "app"; "" accepts everybody
	// onMail, onRcpt and onData answer the commands; nil accepts them.
	onMail, onRcpt func() error
	onData         func(content string) error

	port  int
	roots *x509.CertPool

	mu     sync.Mutex
	mails  []received
	conns  []net.Conn
	begun  int           // messages: MAIL commands
	closed chan struct{} // receives one value for each connection that ended
}

// certificate returns a certificate for 127.0.0.1, and the roots that accept it.
var certificate = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.TLS.Certificates[0], roots
})

// start starts the server, and returns a function that stops it.
func (s *server) start() (stop func()) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	s.closed = make(chan struct{}, 1000)
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{server: s, conn: c}, nil }))
	srv.Domain, srv.AllowInsecureAuth, srv.ErrorLog = "localhost", true, log.New(io.Discard, "", 0)
	var cert tls.Certificate
	cert, s.roots = certificate()
	l = listener{l, s}
	if s.startTLS {
		srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	if s.implicitTLS {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}})
	}
	go func() { _ = srv.Serve(l) }()
	return func() {
		_ = srv.Close()
		_ = l.Close() // Serve may not have begun
		s.drop()
	}
}

func newServer(t *testing.T, s *server) *server {
	t.Helper()
	t.Cleanup(s.start())
	return s
}

// config returns a Config for the server.
func (s *server) config() smtpmailer.Config {
	cfg := smtpmailer.Config{Host: "127.0.0.1", Port: s.port, From: "Example <accounts@example.com>", BaseURL: "https://app.example.com"}
	switch {
	case s.startTLS || s.implicitTLS:
		cfg.TLS, cfg.ImplicitTLS = &tls.Config{RootCAs: s.roots}, s.implicitTLS
	default:
		cfg.InsecureNoTLS = true
	}
	if s.password != "" {
		cfg.Username, cfg.Password = "app", strategy.NewSecret(s.password)
	}
	return cfg
}

func (s *server) all() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mails
}

// counts returns how many connections and MAIL commands there were.
func (s *server) counts() (conns, begun int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.begun
}

// drop closes the connections without a word.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// listener keeps the connections for drop.
type listener struct {
	net.Listener
	s *server
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.s.mu.Lock()
		defer l.s.mu.Unlock()
		l.s.conns = append(l.s.conns, c)
	}
	return c, err
}

// session is a connection as the server sees it.
type session struct {
	server *server
	conn   *smtp.Conn
	mail   received
	user   string
}

func (s *session) AuthMechanisms() []string {
	if s.server.password == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != "app" || password != s.server.password {
			// Some servers are that careless.
			return fmt.Errorf("the user %s does not have the password %s: %s", username, password, plainAuth(username, password))
		}
		s.user = username
		return nil
	}), nil
}

// plainAuth returns what AUTH PLAIN sends.
func plainAuth(username, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password))
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.server.password != "" && s.user == "" {
		return smtp.ErrAuthRequired
	}
	_, isTLS := s.conn.TLSConnectionState()
	s.mail = received{from: from, username: s.user, tls: isTLS}
	s.server.mu.Lock()
	s.server.begun++
	s.server.mu.Unlock()
	if s.server.onMail != nil {
		return s.server.onMail()
	}
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.mail.to != "" {
		return errors.New("a second recipient")
	}
	s.mail.to = to
	if s.server.onRcpt != nil {
		return s.server.onRcpt()
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.content = string(content)
	if s.server.onData != nil {
		if err := s.server.onData(s.mail.content); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.mails = append(s.server.mails, s.mail)
	return nil
}

func (s *session) Reset() {}

func (s *session) Logout() error {
	s.server.closed <- struct{}{}
	return nil
}

// read returns the header, the text and the HTML of a mail.
func (m received) read() (h mail.Header, text, html string, err error) {
	msg, err := mail.ReadMessage(strings.NewReader(m.content))
	if err != nil {
		return nil, "", "", err
	}
	mediaType, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || mediaType != "multipart/alternative" {
		return nil, "", "", fmt.Errorf("the media type %s: %w", mediaType, err)
	}
	for r := multipart.NewReader(msg.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return msg.Header, text, html, nil
		}
		if err != nil {
			return nil, "", "", err
		}
		content, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			return nil, "", "", err
		}
		body := strings.ReplaceAll(string(content), "\r\n", "\n")
		switch contentType := part.Header.Get("Content-Type"); {
		case strings.HasPrefix(contentType, "text/plain") && html == "": // clients show the last part that they understand
			text = body
		case strings.HasPrefix(contentType, "text/html"):
			html = body
		default:
			return nil, "", "", fmt.Errorf("an unexpected part: %s", contentType)
		}
	}
}

// subject returns the decoded subject.
func subject(h mail.Header) string {
	s, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if err != nil {
		return err.Error()
	}
	return s
}
