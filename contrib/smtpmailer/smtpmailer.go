// Package smtpmailer sends the messages of an account.Manager through SMTP, with
// github.com/wneessen/go-mail. It is a module of its own, so that other applications do not
// inherit that dependency.
//
//	mailer, err := smtpmailer.New(smtpmailer.Config{
//		Host: "mail.example.com", Username: "app", Password: strategy.NewSecret(os.Getenv("SMTP_PASSWORD")),
//		From: "Example <accounts@example.com>", BaseURL: "https://app.example.com",
//	})
//	…
//	lk, err := latchkey.New[Member](db, uuid.New, latchkey.Config{Mail: account.MailConfig{Mailer: mailer}})
//
// # Links
//
// A link leads to a page of the application, with the token behind a #: browsers send that part
// to no server, so it gets into no log. The page must have a button that posts the token to the
// route verify or reset-password. Programs follow links in mails: opening the page must change
// nothing.
package smtpmailer

import (
	"bytes"
	"context"
	"crypto/tls"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"net"
	netmail "net/mail"
	"net/url"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures a [Mailer].
type Config struct {
	// Host is the name of the mail server. Required.
	Host string

	// Port is the server's port. Default 587, or 465 with ImplicitTLS.
	Port int

	// ImplicitTLS begins TLS with the connection (RFC 8314). Default false: STARTTLS, without
	// which nothing is sent.
	ImplicitTLS bool

	// InsecureNoTLS sends everything in the clear, also the tokens. Default false. It is meant
	// for a server on the same machine, and for tests.
	InsecureNoTLS bool

	// TLS configures TLS. Default: the system's roots, and the server name Host.
	TLS *tls.Config

	// Username and Password log in to the server. Default: no login.
	Username string
	Password strategy.Secret

	// From is the sender: an address, or a name and an address in angle brackets. Required.
	From string

	// BaseURL is where the application's pages are, for example "https://app.example.com".
	// Required unless Link is set.
	BaseURL string

	// Link returns the link of a message with a token. Default: BaseURL, then /verify or
	// /reset-password, then #token= and the token.
	Link func(m account.Message) string

	// Templates has the templates that replace the default ones: KIND.txt and KIND.html, where
	// KIND is an account.MessageKind. The first line of the text is the subject, after
	// "Subject: "; a blank line follows. They are executed with [Data]. Default nil: none.
	Templates fs.FS

	// Timeout bounds the delivery of a message. The context of Send can end it earlier. Default
	// 15 seconds.
	Timeout time.Duration
}

// Data is what templates are executed with.
type Data struct {
	// Message has the kind, the address, the user, the expiry and the client IP.
	account.Message
	// Link is the link with the token; "" if the message has none.
	Link string
}

// Mailer is an account.Mailer. It is safe for concurrent use: each call of Send has a client and
// a connection of its own.
type Mailer struct {
	cfg       Config
	templates map[account.MessageKind]templates
}

type templates struct {
	text *texttemplate.Template
	html *htmltemplate.Template
}

//go:embed templates
var defaults embed.FS

var kinds = []account.MessageKind{
	account.MessageVerification, account.MessagePasswordReset, account.MessageEmailChange, account.MessageEmailChanging, account.MessageEmailTaken,
	account.MessagePasswordChanged, account.MessageEmailChanged,
}

// New returns a Mailer. It does not connect. It returns an error that names the field where cfg
// is wrong, or a template that cannot be parsed. A mistake that shows only when a template is
// executed, such as an unknown field of the user, is an error of Send.
func New(cfg Config) (*Mailer, error) {
	if cfg.Host == "" {
		return nil, errors.New("smtpmailer: Config.Host is empty: name the mail server")
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return nil, fmt.Errorf("smtpmailer: Config.Port is %d, want 0 (for the default) to 65535", cfg.Port)
	}
	if cfg.ImplicitTLS && cfg.InsecureNoTLS {
		return nil, errors.New("smtpmailer: Config.ImplicitTLS and Config.InsecureNoTLS are both set")
	}
	if _, err := netmail.ParseAddress(cfg.From); err != nil {
		return nil, fmt.Errorf("smtpmailer: Config.From is %q, want an address such as \"Example <accounts@example.com>\"", cfg.From)
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("smtpmailer: Config.Timeout is negative: %v", cfg.Timeout)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.Link == nil {
		base, err := url.Parse(cfg.BaseURL)
		if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" || base.RawQuery != "" || base.Fragment != "" {
			return nil, fmt.Errorf("smtpmailer: Config.BaseURL is %q, want the address of the application, such as https://app.example.com", cfg.BaseURL)
		}
		cfg.Link = linkBelow(strings.TrimSuffix(cfg.BaseURL, "/"))
	}
	m := &Mailer{cfg: cfg, templates: make(map[account.MessageKind]templates)}
	for _, kind := range kinds {
		if err := m.load(kind); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// linkBelow returns the default links.
func linkBelow(base string) func(account.Message) string {
	return func(m account.Message) string {
		path := "/verify"
		if m.Kind == account.MessagePasswordReset {
			path = "/reset-password"
		}
		return base + path + "#token=" + url.QueryEscape(m.Token.Reveal())
	}
}

// load parses the templates of a kind.
func (m *Mailer) load(kind account.MessageKind) error {
	text, err := m.read(string(kind) + ".txt")
	if err != nil {
		return err
	}
	html, err := m.read(string(kind) + ".html")
	if err != nil {
		return err
	}
	var t templates
	if t.text, err = texttemplate.New(string(kind) + ".txt").Option("missingkey=error").Parse(text); err == nil {
		t.html, err = htmltemplate.New(string(kind) + ".html").Option("missingkey=error").Parse(html)
	}
	if err != nil {
		return fmt.Errorf("smtpmailer: Config.Templates: %w", err)
	}
	m.templates[kind] = t
	return nil
}

// read returns a template of Config.Templates, or the default.
func (m *Mailer) read(name string) (string, error) {
	if m.cfg.Templates != nil {
		content, err := fs.ReadFile(m.cfg.Templates, name)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return string(content), wrap("Config.Templates", err)
		}
	}
	content, err := defaults.ReadFile("templates/" + name)
	return string(content), wrap("read a template", err)
}

func wrap(doing string, err error) error {
	if err != nil {
		return fmt.Errorf("smtpmailer: %s: %w", doing, err)
	}
	return nil
}

// Send implements account.Mailer. Its errors contain neither the token nor the password.
func (m *Mailer) Send(ctx context.Context, msg account.Message) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	message, err := m.compose(msg)
	if err != nil {
		return err
	}
	client, err := m.client(ctx)
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(ctx, message); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(ctx.Err(), err)
		}
		return fmt.Errorf("smtpmailer: send the message: %w", err)
	}
	return nil
}

// compose returns the mail of a message.
func (m *Mailer) compose(msg account.Message) (*mail.Msg, error) {
	t, ok := m.templates[msg.Kind]
	if !ok {
		return nil, fmt.Errorf("smtpmailer: there is no template for messages of the kind %q", msg.Kind)
	}
	data := Data{Message: msg}
	if msg.Token.Reveal() != "" {
		data.Link = m.cfg.Link(msg)
	}
	var text, html bytes.Buffer
	if err := t.text.Execute(&text, data); err != nil {
		return nil, fmt.Errorf("smtpmailer: execute the template: %w", err)
	}
	if err := t.html.Execute(&html, data); err != nil {
		return nil, fmt.Errorf("smtpmailer: execute the template: %w", err)
	}
	head, body, _ := strings.Cut(strings.ReplaceAll(text.String(), "\r\n", "\n"), "\n\n")
	subject, ok := strings.CutPrefix(head, "Subject: ")
	if !ok || strings.ContainsAny(subject, "\r\n") {
		return nil, fmt.Errorf("smtpmailer: the template %s.txt does not begin with a line \"Subject: …\" and a blank line", msg.Kind)
	}
	message := mail.NewMsg()
	if err := message.From(m.cfg.From); err != nil {
		return nil, fmt.Errorf("smtpmailer: Config.From: %w", err)
	}
	if strings.ContainsAny(msg.To, "\r\n") {
		return nil, errors.New("smtpmailer: the address has a line break")
	}
	if err := message.To(msg.To); err != nil {
		return nil, fmt.Errorf("smtpmailer: the address: %w", err)
	}
	message.Subject(subject)
	message.SetDate()
	message.SetMessageID()
	message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 §5
	message.SetBodyString(mail.TypeTextPlain, body)
	message.AddAlternativeString(mail.TypeTextHTML, html.String())
	return message, nil
}

// client returns a client whose connection ends with ctx, before its own timeout.
func (m *Mailer) client(ctx context.Context) (*mail.Client, error) {
	tlsConfig := m.cfg.TLS.Clone()
	if tlsConfig == nil {
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if tlsConfig.ServerName == "" {
		tlsConfig.ServerName = m.cfg.Host
	}
	dial := func(dialCtx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(dialCtx, network, addr)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() }) // also if the client leaves it open
		if m.cfg.ImplicitTLS {
			return tls.Client(conn, tlsConfig), nil
		}
		return conn, nil
	}
	port := m.cfg.Port
	opts := []mail.Option{mail.WithTimeout(m.cfg.Timeout + time.Second), mail.WithTLSConfig(tlsConfig), mail.WithDialContextFunc(dial)}
	switch {
	case m.cfg.ImplicitTLS:
		opts = append(opts, mail.WithSSL())
		if port == 0 {
			port = 465
		}
	case m.cfg.InsecureNoTLS:
		opts = append(opts, mail.WithTLSPolicy(mail.NoTLS))
	default:
		opts = append(opts, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if port == 0 {
		port = 587
	}
	opts = append(opts, mail.WithPort(port))
	if m.cfg.Username != "" {
		opts = append(opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(m.cfg.Username), mail.WithPassword(m.cfg.Password.Reveal()))
	}
	client, err := mail.NewClient(m.cfg.Host, opts...)
	if err != nil {
		return nil, fmt.Errorf("smtpmailer: %w", err)
	}
	return client, nil
}
