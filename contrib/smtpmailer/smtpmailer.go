// Package smtpmailer sends the messages of an [account.Manager] over SMTP:
//
//	mailer, err := smtpmailer.New(smtpmailer.Config{
//		Host:     "smtp.example.com",
//		Username: "app",
//		Password: strategy.NewSecret(os.Getenv("SMTP_PASSWORD")),
//		From:     "Example <accounts@example.com>",
//		BaseURL:  "https://app.example.com",
//	})
//	...
//	cfg.Mail.Mailer = mailer
//
// It is a module of its own, so that other applications do not inherit the SMTP client,
// github.com/wneessen/go-mail.
//
// # Links
//
// Messages with a token have a link to a page of the application: BaseURL/verify#token=… or
// BaseURL/reset-password#token=…. Browsers do not send the part after the # to any server, so
// the token gets into no access log and no Referer header. Mail scanners follow links, so opening
// the page must change nothing: it shows a button that posts the token.
//
// # Templates
//
// Config.Templates replaces the words. The files KIND.txt and KIND.html are templates of
// text/template and html/template, where KIND is an [account.MessageKind]; they are executed with
// [Data]. The first line of KIND.txt is "Subject: " and the subject:
//
//	Subject: Welcome, {{.User.Name}}
//
//	Please confirm your address: {{.Link}}
//
// A kind without files keeps the default ones. Files whose names begin with "_", such as
// _footer.html, are included with {{template "_footer.html" .}}.
//
// The default templates show nothing that a client chose except its IP address. Take care with
// values such as the user's name: anybody can sign up with the address of a stranger, and the
// message then carries that name to the stranger.
package smtpmailer

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	netmail "net/mail"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/wneessen/go-mail"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Config configures a [Mailer].
type Config struct {
	// Host is the name or the IP address of the mail server, without a port. Required.
	Host string

	// Port is the port of the mail server. Default 587, or 465 with ImplicitTLS.
	Port int

	// ImplicitTLS begins every connection with TLS (RFC 8314). Default false, or true if Port is
	// 465: the connection is upgraded with STARTTLS, and nothing is sent if that fails.
	ImplicitTLS bool

	// InsecureNoTLS sends messages, with their tokens, in the clear. Default false. It is meant
	// for test servers and for a relay on the same machine. The password goes in the clear to
	// localhost only.
	InsecureNoTLS bool

	// TLS configures TLS, for example with the roots of a private certificate authority. Default
	// nil: the system's roots. The ServerName defaults to Host.
	TLS *tls.Config

	// Username and Password authenticate to the server, with SCRAM-SHA-256, PLAIN, LOGIN or
	// another mechanism that the server offers. Default: no authentication. The password is in a
	// Secret, which does not print.
	Username string
	Password strategy.Secret

	// From is the sender: an address such as "accounts@example.com", or a display name and an
	// address, "Example <accounts@example.com>". Required.
	From string

	// BaseURL is where the application's pages are, such as "https://app.example.com". Links
	// begin with it. Required unless Link is set: https, or http for localhost.
	BaseURL string

	// Link returns the link of a message with a token. It must be safe for concurrent use. Put
	// the token behind a #, so that it gets into no log. Default: BaseURL, then /verify or
	// /reset-password, then #token= and the token.
	Link func(m account.Message) string

	// Templates has templates that replace the default ones, such as an embed.FS; see the
	// package's documentation. Default nil: the default templates, in English.
	Templates fs.FS

	// SampleUser is a user of the application's type. [New] executes every template with it once,
	// so that mistakes show at the start. Required if a template uses {{.User}}.
	SampleUser any

	// Timeout bounds each message: to connect, to authenticate and to send. The context of
	// [Mailer.Send] can end it earlier. Default 15 seconds.
	Timeout time.Duration
}

// Mailer is an [account.Mailer]. It is safe for concurrent use: each concurrent Send has a
// connection of its own, which later messages reuse for up to a minute. Call Close at the end,
// after the Close of the Manager.
type Mailer struct {
	cfg       Config // complete and checked
	from      netmail.Address
	baseURL   string
	templates *templates
	idle      pool
}

var _ account.Mailer = (*Mailer)(nil)

// New returns a Mailer. It does not connect to the server. It returns an error that names the
// field if cfg is invalid, or if a template cannot be parsed or executed with a sample message.
func New(cfg Config) (*Mailer, error) {
	m := &Mailer{cfg: cfg}
	if err := m.complete(); err != nil {
		return nil, fmt.Errorf("smtpmailer: %w", err)
	}
	var err error
	if m.templates, err = parse(cfg.Templates); err == nil {
		err = m.try(cfg.SampleUser)
	}
	if err != nil {
		return nil, fmt.Errorf("smtpmailer: Config.Templates: %w", err)
	}
	return m, nil
}

// complete checks the Config and fills the defaults in.
func (m *Mailer) complete() error {
	cfg := &m.cfg
	if cfg.Host == "" {
		return errors.New("Config.Host is empty: name the mail server")
	}
	if _, _, err := net.SplitHostPort(cfg.Host); err == nil || strings.ContainsAny(cfg.Host, "/[]") || hasControl(cfg.Host) {
		return fmt.Errorf("Config.Host is %q, want a name or an IP address alone; the port goes into Config.Port", cfg.Host)
	}
	if cfg.Port < 0 || cfg.Port > 65535 {
		return fmt.Errorf("Config.Port is %d, want 0 (for the default) to 65535", cfg.Port)
	}
	if cfg.ImplicitTLS && cfg.InsecureNoTLS {
		return errors.New("Config.ImplicitTLS and Config.InsecureNoTLS are both set: choose one")
	}
	if cfg.TLS != nil && cfg.InsecureNoTLS {
		return errors.New("Config.TLS and Config.InsecureNoTLS are both set: choose one")
	}
	cfg.ImplicitTLS = cfg.ImplicitTLS || cfg.Port == 465 && !cfg.InsecureNoTLS
	if cfg.Port == 0 {
		cfg.Port = 587
		if cfg.ImplicitTLS {
			cfg.Port = 465
		}
	}
	if cfg.TLS = cfg.TLS.Clone(); cfg.TLS == nil {
		cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	cfg.TLS.ServerName = cmp.Or(cfg.TLS.ServerName, cfg.Host)
	if (cfg.Username == "") != (cfg.Password.Reveal() == "") {
		return errors.New("only one of Config.Username and Config.Password is set: set both or none")
	}
	from, err := netmail.ParseAddress(cfg.From)
	if err != nil || hasControl(cfg.From) || hasControl(from.Name) {
		return fmt.Errorf("Config.From is %q, want an address such as \"Example <accounts@example.com>\"", cfg.From)
	}
	m.from = *from
	if cfg.BaseURL != "" || cfg.Link == nil {
		base, err := url.Parse(cfg.BaseURL)
		if err != nil || base.Host == "" || base.User != nil || strings.ContainsAny(cfg.BaseURL, "?#") ||
			base.Scheme != "https" && (base.Scheme != "http" || !isLocal(base.Hostname())) {
			return fmt.Errorf("Config.BaseURL is %q, want https (or http for localhost) without a query or a fragment, such as https://app.example.com", cfg.BaseURL)
		}
		m.baseURL = strings.TrimRight(base.String(), "/")
	}
	if cfg.Link == nil {
		cfg.Link = func(msg account.Message) string {
			return m.baseURL + paths[msg.Kind] + "#token=" + url.QueryEscape(msg.Token.Reveal())
		}
	}
	if cfg.Timeout < 0 {
		return fmt.Errorf("Config.Timeout is negative: %v", cfg.Timeout)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	return nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, unicode.IsControl) }

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Send sends a message, and returns when the server has accepted it. It reuses an idle connection
// if there is one that works. Errors of the server are *mail.SendError of go-mail, by errors.As;
// an error after the end of ctx or of Config.Timeout wraps ctx.Err() or
// context.DeadlineExceeded. No error shows the token or the password. Send returns an error
// wrapping net.ErrClosed after Close.
func (m *Mailer) Send(ctx context.Context, msg account.Message) error {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	message, err := m.compose(msg)
	if err == nil {
		err = m.deliver(ctx, message)
	}
	if err == nil {
		return nil
	}
	err = m.redact(err, msg.Token)
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("smtpmailer: %w", err)
}

// compose returns the mail of a message.
func (m *Mailer) compose(msg account.Message) (*mail.Msg, error) {
	if err := check(msg); err != nil {
		return nil, err
	}
	// ParseAddress also accepts a display name and comments.
	to, err := netmail.ParseAddress(msg.To)
	if err != nil || to.Address != msg.To || hasControl(msg.To) {
		return nil, fmt.Errorf("%q is not an e-mail address", msg.To)
	}
	words, err := m.templates.execute(m.data(msg))
	if err != nil {
		return nil, err
	}
	message := mail.NewMsg(mail.WithNoDefaultUserAgent())
	message.FromMailAddress(&m.from)
	message.ToMailAddress(to)
	message.Subject(words.subject)
	message.SetDate()
	// go-mail's default would show the name of this machine.
	message.SetMessageIDWithValue(rand.Text() + m.from.Address[strings.LastIndexByte(m.from.Address, '@'):])
	message.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 §5: no answers by machines
	message.SetBodyString(mail.TypeTextPlain, words.text)
	message.AddAlternativeString(mail.TypeTextHTML, words.html)
	return message, nil
}

// redact returns err, or what is left of it if its text shows the token or the password: servers
// can quote either in an answer.
func (m *Mailer) redact(err error, token strategy.Secret) error {
	text, password := err.Error(), m.cfg.Password.Reveal()
	secrets := []string{token.Reveal()}
	if password != "" {
		secrets = append(secrets, base64.StdEncoding.EncodeToString([]byte("\x00"+m.cfg.Username+"\x00"+password)),
			base64.StdEncoding.EncodeToString([]byte(password)), password)
	}
	for _, s := range secrets {
		if s != "" {
			text = strings.ReplaceAll(text, s, "…redacted")
		}
	}
	if text == err.Error() {
		return err
	}
	return errors.New(text) // the wrapped errors show it too
}
