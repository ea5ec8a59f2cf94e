package smtpmailer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/smtpmailer"
	"github.com/latchkey-go/latchkey/strategy"
)

const secret = "a-one-time-token"

func message(kind account.MessageKind) account.Message {
	m := account.Message{Kind: kind, To: "ann@example.com", User: struct{ Name string }{"Ann"}, ExpiresAt: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), ClientIP: "192.0.2.1"}
	switch kind {
	case account.MessageVerification, account.MessageEmailChange, account.MessagePasswordReset:
		m.Token = strategy.NewSecret(secret)
	}
	return m
}

func (s *server) config() smtpmailer.Config {
	return smtpmailer.Config{Host: "127.0.0.1", Port: s.addr.Port, InsecureNoTLS: true, From: "Example <accounts@example.com>", BaseURL: "https://app.example.com/"}
}

func newMailer(t *testing.T, cfg smtpmailer.Config) *smtpmailer.Mailer {
	t.Helper()
	m, err := smtpmailer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// parts returns the headers, the text and the HTML of a mail.
func parts(t *testing.T, raw string) (h mail.Header, text, html string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for r := multipart.NewReader(m.Body, params["boundary"]); ; {
		part, err := r.NextRawPart()
		if err == io.EOF {
			return m.Header, text, html
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(quotedprintable.NewReader(part))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(part.Header.Get("Content-Type"), "text/html") {
			html = string(content)
		} else {
			text = string(content)
		}
	}
}

func TestMessagesAreSent(t *testing.T) {
	for kind, link := range map[account.MessageKind]string{
		account.MessageVerification:    "https://app.example.com/verify#token=" + secret,
		account.MessageEmailChange:     "https://app.example.com/verify#token=" + secret,
		account.MessagePasswordReset:   "https://app.example.com/reset-password#token=" + secret,
		account.MessageEmailChanging:   "",
		account.MessageEmailTaken:      "",
		account.MessagePasswordChanged: "",
		account.MessageEmailChanged:    "",
	} {
		t.Run(string(kind), func(t *testing.T) {
			s := newServer(t, &server{})
			if err := newMailer(t, s.config()).Send(t.Context(), message(kind)); err != nil {
				t.Fatal(err)
			}
			mails := s.received()
			if len(mails) != 1 {
				t.Fatalf("got %d mails, want 1", len(mails))
			}
			h, text, html := parts(t, mails[0])
			to, err := h.AddressList("To")
			if err != nil || len(to) != 1 || to[0].Address != "ann@example.com" || h.Get("Subject") == "" || h.Get("Date") == "" ||
				h.Get("Message-Id") == "" || h.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(h.Get("From"), "accounts@example.com") {
				t.Errorf("got the headers %v", h)
			}
			if !strings.Contains(text, "Hello") || !strings.Contains(html, "<p>Hello") || strings.Contains(text, "Subject:") {
				t.Error("a part lacks its words")
			}
			for name, part := range map[string]string{"text": text, "HTML": html} {
				if link != "" && !strings.Contains(part, link) || link == "" && strings.Contains(part, "token") {
					t.Errorf("the %s part does not have the link alone", name)
				}
			}
		})
	}
}

func TestTemplatesAreReplaced(t *testing.T) {
	s := newServer(t, &server{})
	cfg := s.config()
	cfg.Templates = fstest.MapFS{
		"verification.txt":  {Data: []byte("Subject: Welcome, {{.User.Name}} — Änne\n\nGo to {{.Link}}\n")},
		"verification.html": {Data: []byte("<b>{{.User.Name}}</b> <a href='{{.Link}}'>go</a>")},
	}
	cfg.Link = func(m account.Message) string { return "https://other.example/x?" + m.Token.Reveal() }
	m := newMailer(t, cfg)
	msg := message(account.MessageVerification)
	msg.User = struct{ Name string }{"<script>Ann"}
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	h, text, html := parts(t, s.received()[0])
	subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if err != nil || subject != "Welcome, <script>Ann — Änne" || !strings.Contains(text, "https://other.example/x?"+secret) || !strings.Contains(html, "&lt;script&gt;Ann") {
		t.Errorf("got the subject %q, %v, and other words than the templates'", subject, err)
	}
	if err := m.Send(t.Context(), message(account.MessagePasswordReset)); err != nil {
		t.Errorf("a kind whose templates were not replaced: %v", err)
	}
}

func TestNothingIsInjected(t *testing.T) {
	s := newServer(t, &server{})
	cfg := s.config()
	cfg.Templates = fstest.MapFS{"verification.txt": {Data: []byte("Subject: Hello {{.User.Name}}\n\nx\n")}}
	m := newMailer(t, cfg)
	for name, change := range map[string]func(*account.Message){
		"a line break in the address": func(m *account.Message) { m.To = "ann@example.com\r\nBcc: eve@example.com" },
		"two addresses":               func(m *account.Message) { m.To = "ann@example.com, eve@example.com" },
		"no address":                  func(m *account.Message) { m.To = "" },
		"a line break in a name":      func(m *account.Message) { m.User = struct{ Name string }{"x\nBcc: eve@example.com"} },
		"an unknown kind":             func(m *account.Message) { m.Kind = "other" },
		"another user type":           func(m *account.Message) { m.User = 7 },
	} {
		msg := message(account.MessageVerification)
		change(&msg)
		if err := m.Send(t.Context(), msg); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: got %v, want an error without the token", name, err)
		}
	}
	if got := s.received(); len(got) > 0 {
		t.Errorf("the server received %d mails, want none", len(got))
	}
}

func TestServersThatFail(t *testing.T) {
	down := newServer(t, &server{})
	cfg := down.config()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close() // nothing listens there now
	if err := newMailer(t, cfg).Send(t.Context(), message(account.MessageVerification)); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("a server that is down: got %v, want an error without the token", err)
	}
	refusing := newServer(t, &server{refuse: "554 no"})
	if err := newMailer(t, refusing.config()).Send(t.Context(), message(account.MessageVerification)); err == nil || !strings.Contains(err.Error(), "554") {
		t.Errorf("a server that refuses: got %v, want its answer", err)
	}
	// Without TLS, nothing is sent by default.
	plain := newServer(t, &server{})
	cfg = plain.config()
	cfg.InsecureNoTLS = false
	if err := newMailer(t, cfg).Send(t.Context(), message(account.MessageVerification)); err == nil || len(plain.received()) > 0 {
		t.Errorf("a server without TLS: got %v and %d mails, want an error and none", err, len(plain.received()))
	}
}

func TestSlowServersAreLeft(t *testing.T) {
	slow := newServer(t, &server{hang: true})
	cfg := slow.config()
	cfg.Timeout = 50 * time.Millisecond
	if err := newMailer(t, cfg).Send(t.Context(), message(account.MessageVerification)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Config.Timeout: got %v, want DeadlineExceeded", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := newMailer(t, slow.config()).Send(ctx, message(account.MessageVerification)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the context's deadline: got %v, want DeadlineExceeded", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, stop)
	if err := newMailer(t, slow.config()).Send(ctx, message(account.MessageVerification)); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that is cancelled: got %v, want Canceled", err)
	}
}

func TestMessagesAreSentConcurrently(t *testing.T) {
	s := newServer(t, &server{})
	m := newMailer(t, s.config())
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := m.Send(t.Context(), message(account.MessageVerification)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(s.received()); got != 10 {
		t.Errorf("the server received %d mails, want 10", got)
	}
}

func TestWrongConfigIsAnError(t *testing.T) {
	good := smtpmailer.Config{Host: "mail.example.com", From: "accounts@example.com", BaseURL: "https://app.example.com"}
	newMailer(t, good)
	for name, change := range map[string]func(*smtpmailer.Config){
		"Host":        func(c *smtpmailer.Config) { c.Host = "" },
		"Port":        func(c *smtpmailer.Config) { c.Port = 65536 },
		"From":        func(c *smtpmailer.Config) { c.From = "accounts" },
		"BaseURL":     func(c *smtpmailer.Config) { c.BaseURL = "app.example.com" },
		"Timeout":     func(c *smtpmailer.Config) { c.Timeout = -1 },
		"ImplicitTLS": func(c *smtpmailer.Config) { c.ImplicitTLS, c.InsecureNoTLS = true, true },
		"Templates": func(c *smtpmailer.Config) {
			c.Templates = fstest.MapFS{"verification.txt": {Data: []byte("{{.Link")}}
		},
	} {
		cfg := good
		change(&cfg)
		if _, err := smtpmailer.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want an error that names it", name, err)
		}
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	cfg := smtpmailer.Config{Host: "mail.example.com", From: "accounts@example.com", BaseURL: "https://app.example.com", Username: "app", Password: strategy.NewSecret("hunter2")}
	for _, v := range []any{cfg, newMailer(t, cfg)} {
		if text := fmt.Sprintf("%v %+v %#v", v, v, v); strings.Contains(text, "hunter2") {
			t.Errorf("%T shows the password", v)
		}
	}
}

func ExampleNew() {
	mailer, err := smtpmailer.New(smtpmailer.Config{
		Host: "mail.example.com", Username: "app", Password: strategy.NewSecret("from the environment"),
		From: "Example <accounts@example.com>", BaseURL: "https://app.example.com",
	})
	fmt.Println(mailer != nil, err) // put it into account.MailConfig
	_, err = smtpmailer.New(smtpmailer.Config{Host: "mail.example.com", From: "accounts@example.com"})
	fmt.Println(err)
	// Output:
	// true <nil>
	// smtpmailer: Config.BaseURL is "", want the address of the application, such as https://app.example.com
}
