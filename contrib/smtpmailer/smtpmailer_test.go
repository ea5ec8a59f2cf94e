package smtpmailer_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/emersion/go-smtp"
	gomail "github.com/wneessen/go-mail"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/contrib/smtpmailer"
	"github.com/latchkey-go/latchkey/strategy"
)

// oneTime stands for a one-time token. It does not look like one: test logs are searched for them.
const oneTime = "oneTimeTokenOfTheTests"

type member struct{ Name string }

func message(kind account.MessageKind) account.Message {
	m := account.Message{Kind: kind, To: "ann@example.org", User: member{"Ann"}, ClientIP: "192.0.2.7"}
	switch kind {
	case account.MessageVerification, account.MessagePasswordReset, account.MessageEmailChange:
		m.Token, m.ExpiresAt = strategy.NewSecret(oneTime), time.Date(2026, 6, 1, 12, 30, 0, 0, time.UTC)
	}
	return m
}

func newMailer(t *testing.T, cfg smtpmailer.Config) *smtpmailer.Mailer {
	t.Helper()
	m, err := smtpmailer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// send sends a message of a kind, which must work.
func send(t *testing.T, m *smtpmailer.Mailer, kind account.MessageKind) {
	t.Helper()
	if err := m.Send(t.Context(), message(kind)); err != nil {
		t.Fatal(err)
	}
}

// checkNoSecret fails the test if an error shows the token or a password.
func checkNoSecret(t *testing.T, err error) {
	t.Helper()
	text := fmt.Sprintf("%v %+v %#v", err, err, err)
	for _, s := range []string{oneTime, hunter, base64.StdEncoding.EncodeToString([]byte(hunter)), plainAuth("app", hunter)} {
		if strings.Contains(text, s) {
			t.Error("an error shows a secret")
		}
	}
}

const hunter = "hunter2-hunter2"

func TestEveryKindIsDelivered(t *testing.T) {
	verify, reset := "https://app.example.com/verify#token="+oneTime, "https://app.example.com/reset-password#token="+oneTime
	for _, tt := range []struct {
		kind                account.MessageKind
		link, subject, word string
	}{
		{account.MessageVerification, verify, "Confirm your e-mail address", "1 June 2026 at 12:30 UTC"},
		{account.MessagePasswordReset, reset, "Set a new password", "1 June 2026 at 12:30 UTC"},
		{account.MessageEmailChange, verify, "Confirm your new e-mail address", "1 June 2026 at 12:30 UTC"},
		{account.MessageEmailChanging, "", "Your e-mail address is about to change", "192.0.2.7"},
		{account.MessageEmailTaken, "", "You already have an account", "sign up"},
		{account.MessagePasswordChanged, "", "Your account has a new password", "192.0.2.7"},
		{account.MessageEmailChanged, "", "Your account has a new e-mail address", "contact us"},
	} {
		t.Run(string(tt.kind), func(t *testing.T) {
			s := newServer(t, &server{})
			send(t, newMailer(t, s.config()), tt.kind)
			mails := s.all()
			if len(mails) != 1 {
				t.Fatalf("the server has %d mails, want 1", len(mails))
			}
			if m := mails[0]; m.from != "accounts@example.com" || m.to != "ann@example.org" {
				t.Errorf("the envelope is from %q to %q", m.from, m.to)
			}
			h, text, html, err := mails[0].read()
			if err != nil {
				t.Fatal(err)
			}
			date, err := h.Date()
			if err != nil || time.Since(date) > time.Hour {
				t.Errorf("the date is %v, %v", date, err)
			}
			for name, want := range map[string]string{
				"From": `^"Example" <accounts@example\.com>$`, "To": `^<ann@example\.org>$`, "Auto-Submitted": `^auto-generated$`,
				"Message-Id": `^<[0-9A-Z]{26}@example\.com>$`, "Mime-Version": `^1\.0$`, "User-Agent": `^$`, "X-Mailer": `^$`,
			} {
				if got := h.Get(name); !regexp.MustCompile(want).MatchString(got) {
					t.Errorf("%s is %q, want %s", name, got, want)
				}
			}
			if got := subject(h); got != tt.subject {
				t.Errorf("the subject is %q, want %q", got, tt.subject)
			}
			if !strings.HasPrefix(text, "Hello,\n") || !strings.Contains(html, "<p>Hello,</p>") || !strings.Contains(text, tt.word) || !strings.Contains(html, tt.word) {
				t.Errorf("the words are missing:\n%s\n%s", text, html)
			}
			if tt.link == "" {
				if strings.Contains(text+html, "token") || strings.Contains(text+html, "http") {
					t.Error("a notice has a link")
				}
			} else if !strings.Contains(text, "\n"+tt.link+"\n") || !strings.Contains(html, `<a href="`+tt.link+`">`) {
				t.Error("the link is missing")
			}
		})
	}
}

func TestNoKindIsForgotten(t *testing.T) {
	source, err := os.ReadFile("../../account/mail.go")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`Message\w+ +MessageKind = "(\w+)"`).FindAllSubmatch(source, -1)
	if len(found) < 7 {
		t.Fatalf("found %d kinds only", len(found))
	}
	m := newMailer(t, newServer(t, &server{}).config())
	for _, f := range found {
		msg := message(account.MessageKind(f[1]))
		msg.Token = strategy.NewSecret(oneTime) // unused by notices
		if err := m.Send(t.Context(), msg); err != nil {
			t.Errorf("%s: %v", f[1], err)
		}
	}
}

func TestConnectionsAreEncryptedAndAuthenticated(t *testing.T) {
	for name, s := range map[string]*server{
		"STARTTLS":                      {startTLS: true},
		"STARTTLS with a password":      {startTLS: true, password: hunter},
		"implicit TLS":                  {implicitTLS: true},
		"implicit TLS with a password":  {implicitTLS: true, password: hunter},
		"localhost in the clear, login": {password: hunter},
	} {
		t.Run(name, func(t *testing.T) {
			newServer(t, s)
			m := newMailer(t, s.config())
			send(t, m, account.MessageVerification)
			send(t, m, account.MessagePasswordReset) // on the same connection
			for _, got := range s.all() {
				if got.tls != (s.startTLS || s.implicitTLS) || (got.username == "app") != (s.password != "") {
					t.Errorf("TLS is %t, the user is %q", got.tls, got.username)
				}
			}
			if conns, _ := s.counts(); conns != 1 || len(s.all()) != 2 {
				t.Errorf("%d connections, %d mails", conns, len(s.all()))
			}
		})
	}
}

func TestUnsafeConnectionsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server *server
		change func(*smtpmailer.Config)
		want   string
	}{
		{"no STARTTLS", &server{}, func(c *smtpmailer.Config) { c.InsecureNoTLS = false }, "STARTTLS"},
		{"unknown authority", &server{startTLS: true}, func(c *smtpmailer.Config) { c.TLS = nil }, "certificate"},
		{"unknown authority, implicit TLS", &server{implicitTLS: true}, func(c *smtpmailer.Config) { c.TLS = nil }, "certificate"},
		{"another server name", &server{startTLS: true}, func(c *smtpmailer.Config) { c.TLS.ServerName = "smtp.invalid" }, "smtp.invalid"},
		{"wrong password", &server{startTLS: true, password: "another"}, func(c *smtpmailer.Config) { c.Password = strategy.NewSecret(hunter) }, "454"},
		{"no authentication offered", &server{startTLS: true}, func(c *smtpmailer.Config) { c.Username, c.Password = "app", strategy.NewSecret(hunter) }, "AUTH"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.server)
			cfg := s.config()
			tt.change(&cfg)
			err := newMailer(t, cfg).Send(t.Context(), message(account.MessageVerification))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			checkNoSecret(t, err)
			if _, begun := s.counts(); begun > 0 {
				t.Error("a message was begun")
			}
			if !s.implicitTLS { // with it, the session did not begin
				<-s.closed
			}
		})
	}
}

func TestTemplatesAreReplaced(t *testing.T) {
	s := newServer(t, &server{})
	cfg := s.config()
	cfg.BaseURL = "http://localhost:8080/app/"
	cfg.SampleUser = member{"Ann"}
	cfg.Templates = fstest.MapFS{
		"verification.txt":  {Data: []byte("Subject: Grüße, {{.User.Name}}\n\nOpen {{.BaseURL}}/confirm?code={{.Token.Reveal}} {{template \"_footer.txt\" .}}")},
		"verification.html": {Data: []byte("<b>{{.User.Name}}</b> <a href='{{.BaseURL}}/confirm?code={{.Token.Reveal}}'>go</a> {{.Token}} {{template \"_footer.html\"}}")},
		"_footer.txt":       {Data: []byte("to {{.To}}")},
		"_footer.html":      {Data: []byte("<hr>")},
		".hidden":           {Data: []byte("{{")},
	}
	m := newMailer(t, cfg)
	msg := message(account.MessageVerification)
	msg.User = member{"Ann\r\nBcc: eve@example.net\n\n<script>"}
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	h, text, html, err := s.all()[0].read()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := subject(h), "Grüße, Ann Bcc: eve@example.net <script>"; got != want || h.Get("Bcc") != "" {
		t.Errorf("the subject is %q, want %q", got, want)
	}
	if want := "Open http://localhost:8080/app/confirm?code=" + oneTime + " to ann@example.org"; strings.TrimSpace(text) != want {
		t.Errorf("the text is %q, want %q", text, want)
	}
	for _, want := range []string{"&lt;script&gt;</b>", "href='http://localhost:8080/app/confirm?code=" + oneTime + "'", "redacted", "<hr>"} {
		if !strings.Contains(html, want) {
			t.Errorf("the HTML lacks %q", want)
		}
	}

	send(t, m, account.MessagePasswordReset) // keeps its default
	if _, text, _, err := s.all()[1].read(); err != nil || !strings.Contains(text, "http://localhost:8080/app/reset-password#token="+oneTime) {
		t.Errorf("the default template: %v", err)
	}
}

func TestLinksAreReplaced(t *testing.T) {
	s := newServer(t, &server{})
	cfg := s.config()
	cfg.BaseURL = ""
	cfg.Link = func(m account.Message) string {
		return "https://other.example/" + string(m.Kind) + "#" + m.Token.Reveal()
	}
	m := newMailer(t, cfg)
	send(t, m, account.MessagePasswordReset)
	send(t, m, account.MessageEmailTaken)
	_, text, html, err := s.all()[0].read()
	if want := "https://other.example/password_reset#" + oneTime; err != nil || !strings.Contains(text, want) || !strings.Contains(html, want) {
		t.Errorf("the link is missing, %v", err)
	}
	if _, text, html, err := s.all()[1].read(); err != nil || strings.Contains(text+html, "other.example") {
		t.Errorf("a notice has a link, %v", err)
	}

	for name, link := range map[string]string{"no token": "https://other.example/", "unsafe scheme": "javascript:sample-token"} {
		cfg.Link = func(account.Message) string { return link }
		if _, err := smtpmailer.New(cfg); err == nil || !strings.Contains(err.Error(), "{{.Link}}") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTemplateMistakesAreFoundAtTheStart(t *testing.T) {
	const link = "{{.Link}}"
	for _, tt := range []struct{ name, text, html, want string }{
		{"syntax of the text", "Subject: x\n\n\n{{.Link", link, "verification.txt:4"},
		{"syntax of the HTML", "Subject: x\n\n" + link, "{{if .Link}}", "verification.html:1"},
		{"syntax of the subject", "Subject: {{end}}\n\n" + link, link, "verification.subject"},
		{"unknown field", "Subject: x\n\n{{.Links}}", link, "Links"},
		{"unknown field of the user", "Subject: {{.User.Age}}\n\n" + link, link, "Age"},
		{"unknown field in the HTML", "Subject: x\n\n" + link, link + "{{.User.Age}}", "Age"},
		{"unknown include", "Subject: x\n\n" + link + `{{template "_x.txt"}}`, link, "_x.txt"},
		{"unsafe place in the HTML", "Subject: x\n\n" + link, "<a href=" + link + "{{if .To}} '{{end}}>", "verification.html"},
		{"no subject line", link, link, `"Subject: …"`},
		{"empty subject", "Subject: \n\n" + link, link, "subject"},
		{"token in the subject", "Subject: {{.Token.Reveal}}\n\n" + link, link, "subject"},
		{"no link in the text", "Subject: x\n\nHello", link, "{{.Link}}"},
		{"no link in the HTML", "Subject: x\n\n" + link, "{{.Token}}", "{{.Link}}"},
		{"empty text", "Subject: x\n", link, "txt"},
		{"empty HTML", "Subject: x\n\n" + link, " ", "html"},
		{"text without HTML", "Subject: x\n\n" + link, "", "only one of verification.txt and verification.html"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := fstest.MapFS{"verification.txt": {Data: []byte(tt.text)}}
			if tt.html != "" {
				files["verification.html"] = &fstest.MapFile{Data: []byte(tt.html)}
			}
			cfg := (&server{}).config()
			cfg.Templates, cfg.SampleUser = files, member{"Ann"}
			if _, err := smtpmailer.New(cfg); err == nil || !strings.Contains(err.Error(), "Config.Templates") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error of Config.Templates with %q", err, tt.want)
			}
		})
	}
	for name, want := range map[string]string{"verify.txt": "verify.txt", "verification.htm": "verification.htm"} {
		cfg := (&server{}).config()
		cfg.Templates = fstest.MapFS{name: {Data: []byte("x")}}
		if _, err := smtpmailer.New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the file %s: got %v", name, err)
		}
	}
	cfg := (&server{}).config()
	cfg.Templates = fstest.MapFS{"verification.txt": {Data: []byte("Subject: {{.User.Name}}\n\n" + link)}, "verification.html": {Data: []byte(link)}}
	if _, err := smtpmailer.New(cfg); err == nil || !strings.Contains(err.Error(), "Config.SampleUser") {
		t.Errorf("no sample user: got %v", err)
	}
}

func TestNothingIsInjected(t *testing.T) {
	s := newServer(t, &server{})
	m := newMailer(t, s.config())
	for name, to := range map[string]string{
		"line break":              "ann@example.org\r\nBcc: eve@example.net",
		"line break in the front": "ann\r\n@example.org",
		"folded":                  "ann@example.org\r\n ",
		"bare line feed":          "ann@example.org\nRCPT TO:<eve@example.net>",
		"bare carriage return":    "ann@example.org\rx",
		"next line":               "ann\u0085@example.org",
		"zero byte":               "ann\x00@example.org",
		"two addresses":           "ann@example.org, eve@example.net",
		"display name":            "Ann <ann@example.org>",
		"angle brackets":          "<ann@example.org>",
		"comment":                 "ann@example.org (x)",
		"parameter":               "ann@example.org> NOTIFY=SUCCESS",
		"quoted parameter":        `"ann> NOTIFY=SUCCESS"@example.org`,
		"quoted line break":       "\"ann\r\nx\"@example.org",
		"no address":              "",
		"no domain":               "ann",
	} {
		msg := message(account.MessageVerification)
		msg.To = to
		err := m.Send(t.Context(), msg)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		if strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("%s: the error has a line break", name)
		}
		checkNoSecret(t, err)
	}
	for name, change := range map[string]func(*account.Message){
		"unknown kind": func(m *account.Message) { m.Kind = "other\r\nkind" },
		"no token":     func(m *account.Message) { m.Token = strategy.Secret{} },
	} {
		msg := message(account.MessageVerification)
		change(&msg)
		if err := m.Send(t.Context(), msg); err == nil || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%s: got %v, want an error in one line", name, err)
		}
	}
	if conns, _ := s.counts(); conns > 0 {
		t.Errorf("%d connections, want none", conns)
	}

	// The client IP and the lines of a body that look like commands are only words.
	msg := message(account.MessageEmailChanging)
	msg.ClientIP = "\r\n.\r\nMAIL FROM:<eve@example.net>\r\n\r\n<script>"
	if err := m.Send(t.Context(), msg); err != nil {
		t.Fatal(err)
	}
	mails := s.all()
	if _, begun := s.counts(); len(mails) != 1 || begun != 1 {
		t.Fatalf("%d mails, %d MAIL commands, want one each", len(mails), begun)
	}
	if _, text, html, err := mails[0].read(); err != nil || !strings.Contains(text, "MAIL FROM") || strings.Contains(html, "<script>") {
		t.Errorf("the body: %v", err)
	}
}

func TestServerIsDown(t *testing.T) {
	s := new(server)
	s.start()()
	err := newMailer(t, s.config()).Send(t.Context(), message(account.MessageVerification))
	var op *net.OpError
	if !errors.As(err, &op) {
		t.Errorf("got %v, want a *net.OpError", err)
	}
	checkNoSecret(t, err)
}

func TestServerRefuses(t *testing.T) {
	no := func() error {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such user"}
	}
	for name, s := range map[string]*server{
		"sender":    {onMail: no},
		"recipient": {onRcpt: no},
		"content":   {onData: func(string) error { return no() }},
	} {
		t.Run(name, func(t *testing.T) {
			newServer(t, s)
			err := newMailer(t, s.config()).Send(t.Context(), message(account.MessageVerification))
			var failed *gomail.SendError
			if !errors.As(err, &failed) || failed.ErrorCode() != 550 || !strings.Contains(err.Error(), "no such user") {
				t.Errorf("got %v, want the server's answer", err)
			}
			checkNoSecret(t, err)
			if _, begun := s.counts(); begun != 1 || len(s.all()) > 0 {
				t.Errorf("%d MAIL commands, %d mails", begun, len(s.all()))
			}
		})
	}
}

func TestServerQuotesTheToken(t *testing.T) {
	s := newServer(t, &server{onData: func(string) error {
		return &smtp.SMTPError{Code: 554, Message: "blocked: https://app.example.com/verify#token=" + oneTime}
	}})
	err := newMailer(t, s.config()).Send(t.Context(), message(account.MessageVerification))
	if err == nil || !strings.Contains(err.Error(), "554") || !strings.Contains(err.Error(), "…redacted") {
		t.Error("want the answer without the token")
	}
	for ; err != nil; err = errors.Unwrap(err) {
		checkNoSecret(t, err)
	}
}

func TestSlowServersAreLeft(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // never greets
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mute.Close() }()
	left := make(chan error, 10)
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			go func() {
				_, err := io.Copy(io.Discard, c) // until the client closes
				left <- err
			}()
		}
	}()
	hang := make(chan struct{})
	stuck := newServer(t, &server{onData: func(string) error { <-hang; return nil }})
	defer close(hang)

	for name, port := range map[string]int{"no greeting": mute.Addr().(*net.TCPAddr).Port, "no answer to the content": stuck.port} {
		for _, implicit := range []bool{false, true} {
			if implicit && port == stuck.port {
				continue
			}
			cfg := stuck.config()
			cfg.Port, cfg.ImplicitTLS, cfg.InsecureNoTLS = port, implicit, !implicit
			t.Run(fmt.Sprintf("%s, implicit TLS %t", name, implicit), func(t *testing.T) {
				m := newMailer(t, cfg)
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				err := m.Send(ctx, message(account.MessageVerification))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("the deadline of the context: got %v", err)
				}
				checkNoSecret(t, err)

				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				time.AfterFunc(50*time.Millisecond, stop)
				if err := m.Send(ctx, message(account.MessageVerification)); !errors.Is(err, context.Canceled) {
					t.Errorf("a cancelled context: got %v", err)
				}
				if err := m.Send(ctx, message(account.MessageVerification)); !errors.Is(err, context.Canceled) {
					t.Errorf("a context that was cancelled before: got %v", err)
				}

				cfg := cfg
				cfg.Timeout = 50 * time.Millisecond
				if err := newMailer(t, cfg).Send(t.Context(), message(account.MessageVerification)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Config.Timeout: got %v", err)
				}
			})
		}
	}
	for range 6 {
		<-left // no connection stays open
	}
}

func TestConnectionsAreReused(t *testing.T) {
	s := newServer(t, &server{startTLS: true, password: hunter})
	m := newMailer(t, s.config())
	for range 3 {
		send(t, m, account.MessageVerification)
	}
	if conns, _ := s.counts(); conns != 1 {
		t.Errorf("%d connections for three messages, want 1", conns)
	}

	s.drop()
	send(t, m, account.MessageVerification)
	send(t, m, account.MessageVerification)
	if conns, _ := s.counts(); conns != 2 {
		t.Errorf("%d connections after the first was dropped, want 2", conns)
	}
	if got := len(s.all()); got != 5 {
		t.Errorf("%d mails, want 5", got)
	}
}

func TestReusedConnectionHonoursTheContext(t *testing.T) {
	hang := make(chan struct{})
	s := &server{}
	n := 0
	s.onData = func(string) error {
		if n++; n == 2 {
			<-hang
		}
		return nil
	}
	newServer(t, s)
	m := newMailer(t, s.config())
	send(t, m, account.MessageVerification)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.Send(ctx, message(account.MessageVerification)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if conns, _ := s.counts(); conns != 1 {
		t.Errorf("%d connections, want 1", conns)
	}
	close(hang)
	<-s.closed
	send(t, m, account.MessageVerification) // on a new connection
}

func TestServerBoundsMessagesOfAConnection(t *testing.T) {
	s := &server{}
	n := 0
	s.onMail = func() error {
		if n++; n == 2 {
			return &smtp.SMTPError{Code: 421, Message: "too many messages"}
		}
		return nil
	}
	newServer(t, s)
	m := newMailer(t, s.config())
	send(t, m, account.MessageVerification)
	send(t, m, account.MessageVerification)
	if conns, begun := s.counts(); conns != 2 || begun != 3 || len(s.all()) != 2 {
		t.Errorf("%d connections, %d MAIL commands, %d mails, want 2, 3, 2", conns, begun, len(s.all()))
	}
}

func TestRefusedMessageIsNotTriedAgain(t *testing.T) {
	var refuse bool
	s := &server{onRcpt: func() error {
		if refuse {
			return &smtp.SMTPError{Code: 550, Message: "no such user"}
		}
		return nil
	}}
	newServer(t, s)
	m := newMailer(t, s.config())
	send(t, m, account.MessageVerification)
	refuse = true
	if err := m.Send(t.Context(), message(account.MessageVerification)); err == nil {
		t.Error("no error")
	}
	if conns, begun := s.counts(); conns != 1 || begun != 2 {
		t.Errorf("%d connections, %d MAIL commands, want 1 and 2", conns, begun)
	}
	refuse = false
	send(t, m, account.MessageVerification)
}

func TestContentIsNotSentTwice(t *testing.T) {
	s := &server{}
	n := 0
	s.onData = func(string) error {
		if n++; n == 2 {
			s.drop() // has the content; the client does not learn what became of it
		}
		return nil
	}
	newServer(t, s)
	m := newMailer(t, s.config())
	send(t, m, account.MessageVerification)
	if err := m.Send(t.Context(), message(account.MessageVerification)); err == nil {
		t.Error("no error")
	}
	if got := len(s.all()); n != 2 {
		t.Errorf("the content was sent %d times, %d mails", n, got)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Run("after a while", func(t *testing.T) {
		t.Cleanup(smtpmailer.SetIdleTimeout(time.Millisecond))
		s := newServer(t, &server{})
		m := newMailer(t, s.config())
		send(t, m, account.MessageVerification)
		<-s.closed
		send(t, m, account.MessageVerification)
		<-s.closed
	})
	t.Run("by Close", func(t *testing.T) {
		s := newServer(t, &server{startTLS: true})
		m := newMailer(t, s.config())
		send(t, m, account.MessageVerification)
		m.Close()
		<-s.closed
		m.Close()
		if err := m.Send(t.Context(), message(account.MessageVerification)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Send after Close: got %v", err)
		}
	})
	t.Run("by Close, during a message", func(t *testing.T) {
		s := &server{}
		closed := make(chan struct{})
		s.onData = func(string) error { <-closed; return nil }
		newServer(t, s)
		m := newMailer(t, s.config())
		result := make(chan error)
		go func() { result <- m.Send(t.Context(), message(account.MessageVerification)) }()
		for { // until the server has the message
			if _, begun := s.counts(); begun == 1 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		m.Close()
		close(closed)
		if err := <-result; err != nil {
			t.Error(err)
		}
		<-s.closed
	})
}

func TestMessagesAreSentConcurrently(t *testing.T) {
	const together, rounds = 4, 5
	var barrier sync.WaitGroup
	s := newServer(t, &server{startTLS: true, password: hunter, onData: func(string) error {
		barrier.Done()
		barrier.Wait() // all are in progress
		return nil
	}})
	m := newMailer(t, s.config())
	for range rounds {
		barrier.Add(together)
		var sends sync.WaitGroup
		for i := range together {
			sends.Go(func() {
				msg := message(account.MessageVerification)
				msg.To = fmt.Sprintf("user%d@example.org", i)
				if err := m.Send(t.Context(), msg); err != nil {
					t.Error(err)
				}
			})
		}
		sends.Wait()
	}
	count := make(map[string]int)
	for _, got := range s.all() {
		h, _, _, err := got.read()
		if err != nil || h.Get("To") != "<"+got.to+">" {
			t.Errorf("the mail to %s is for %s, %v", got.to, h.Get("To"), err)
		}
		count[got.to]++
	}
	for i := range together {
		if to := fmt.Sprintf("user%d@example.org", i); count[to] != rounds {
			t.Errorf("%d mails to %s, want %d", count[to], to, rounds)
		}
	}
	if conns, _ := s.counts(); conns != together {
		t.Errorf("%d connections, want %d", conns, together)
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	s := newServer(t, &server{startTLS: true, password: hunter})
	cfg := s.config()
	cfg.TLS = nil // prints pointers to functions
	m := newMailer(t, cfg)
	cfg2 := s.config()
	used := newMailer(t, cfg2)
	send(t, used, account.MessageVerification) // has an idle connection
	for name, v := range map[string]any{"Config": cfg, "*Config": &cfg, "*Mailer": m, "*Mailer in use": used} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, hunter) || strings.Contains(text, fmt.Sprintf("%x", hunter)) {
				t.Errorf("%s of a %s shows the password", verb, name)
			}
		}
	}
	if text, err := json.Marshal(struct{ Password strategy.Secret }{cfg.Password}); err != nil || strings.Contains(string(text), hunter) {
		t.Errorf("JSON: %s, %v", text, err)
	}
}

// TestIdleConnectionsDoNotHoldThePassword looks at all strings that a Mailer can reach.
func TestIdleConnectionsDoNotHoldThePassword(t *testing.T) {
	s := newServer(t, &server{startTLS: true, password: hunter})
	m := newMailer(t, s.config())
	send(t, m, account.MessageVerification)
	type place struct {
		at   uintptr
		kind reflect.Type
	}
	seen := make(map[place]bool)
	n := 0
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		switch v.Kind() {
		case reflect.String:
			if n++; strings.Contains(v.String(), hunter) {
				t.Errorf("%s holds the password", path)
			}
		case reflect.Pointer:
			if p := (place{v.Pointer(), v.Type()}); !v.IsNil() && !seen[p] {
				seen[p] = true
				walk(v.Elem(), path)
			}
		case reflect.Interface:
			if !v.IsNil() {
				walk(v.Elem(), path)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
		case reflect.Slice, reflect.Array:
			if k := v.Type().Elem().Kind(); k != reflect.Uint8 {
				for i := range v.Len() {
					walk(v.Index(i), path)
				}
			}
		}
	}
	idle := reflect.ValueOf(m).Elem().FieldByName("idle")
	walk(idle, "idle")
	if n < 10 {
		t.Errorf("looked at %d strings only", n)
	}
}

func TestInvalidConfigIsAnError(t *testing.T) {
	good := smtpmailer.Config{Host: "smtp.example.com", From: "accounts@example.com", BaseURL: "https://app.example.com"}
	newMailer(t, good)
	for _, tt := range []struct {
		name   string
		change func(*smtpmailer.Config)
		want   string
	}{
		{"no host", func(c *smtpmailer.Config) { c.Host = "" }, "Config.Host"},
		{"host with a port", func(c *smtpmailer.Config) { c.Host = "smtp.example.com:587" }, "Config.Port"},
		{"host is a URL", func(c *smtpmailer.Config) { c.Host = "unix:///run/smtp" }, "Config.Host"},
		{"host with a line break", func(c *smtpmailer.Config) { c.Host = "smtp\r\n" }, "Config.Host"},
		{"port", func(c *smtpmailer.Config) { c.Port = 65536 }, "Config.Port"},
		{"both kinds of TLS", func(c *smtpmailer.Config) { c.ImplicitTLS, c.InsecureNoTLS = true, true }, "Config.InsecureNoTLS"},
		{"no password", func(c *smtpmailer.Config) { c.Username = "app" }, "Config.Password"},
		{"no user name", func(c *smtpmailer.Config) { c.Password = strategy.NewSecret(hunter) }, "Config.Username"},
		{"no sender", func(c *smtpmailer.Config) { c.From = "" }, "Config.From"},
		{"sender without a domain", func(c *smtpmailer.Config) { c.From = "accounts" }, "Config.From"},
		{"sender with a line break", func(c *smtpmailer.Config) { c.From = "\"A\r\n B\" <accounts@example.com>" }, "Config.From"},
		{"sender with an encoded line break", func(c *smtpmailer.Config) { c.From = "=?utf-8?q?A=0D=0ABcc:_x?= <accounts@example.com>" }, "Config.From"},
		{"no base URL", func(c *smtpmailer.Config) { c.BaseURL = "" }, "Config.BaseURL"},
		{"base URL without a scheme", func(c *smtpmailer.Config) { c.BaseURL = "app.example.com" }, "Config.BaseURL"},
		{"base URL in the clear", func(c *smtpmailer.Config) { c.BaseURL = "http://app.example.com" }, "Config.BaseURL"},
		{"base URL with a query", func(c *smtpmailer.Config) { c.BaseURL += "/?" }, "Config.BaseURL"},
		{"base URL with a fragment", func(c *smtpmailer.Config) { c.BaseURL += "/#x" }, "Config.BaseURL"},
		{"timeout", func(c *smtpmailer.Config) { c.Timeout = -1 }, "Config.Timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.change(&cfg)
			m, err := smtpmailer.New(cfg)
			if m != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %s", err, tt.want)
			}
			checkNoSecret(t, err)
		})
	}
}
