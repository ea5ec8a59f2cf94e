package smtpmailer

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/strategy"
)

// Data is what templates are executed with.
type Data struct {
	// Message has the kind, the address, the user, the expiry and the client IP. Its Token
	// prints as "…redacted"; {{.Token.Reveal}} prints it in the clear.
	account.Message

	// BaseURL is Config.BaseURL without a slash at the end.
	BaseURL string

	// Link is the link of a message with a token; see Config.Link. It is "" for other messages.
	Link string
}

// paths has the page that the default link of each kind of message leads to; "" means that the
// messages have no token and no link.
var paths = map[account.MessageKind]string{
	account.MessageVerification:    "/verify",
	account.MessagePasswordReset:   "/reset-password",
	account.MessageEmailChange:     "/verify",
	account.MessageEmailChanging:   "",
	account.MessageEmailTaken:      "",
	account.MessagePasswordChanged: "",
	account.MessageEmailChanged:    "",
}

// kinds returns the kinds of messages in a fixed order.
func kinds() []account.MessageKind { return slices.Sorted(maps.Keys(paths)) }

//go:embed templates
var defaults embed.FS

// templates has, for each kind of message, KIND.subject and KIND.txt in text, and KIND.html in
// html.
type templates struct {
	text *texttemplate.Template
	html *htmltemplate.Template
}

// parse parses the templates of custom, which can be nil, and the default templates of the other
// kinds. It does not parse the default ones first: text/template ignores the redefinition of a
// template as an empty one.
func parse(custom fs.FS) (*templates, error) {
	t := &templates{texttemplate.New("").Option("missingkey=error"), htmltemplate.New("").Option("missingkey=error")}
	if custom != nil {
		if err := t.add(custom); err != nil {
			return nil, err
		}
	}
	for _, kind := range kinds() {
		text, html := string(kind)+".txt", string(kind)+".html"
		hasText, hasHTML := t.text.Lookup(text) != nil, t.html.Lookup(html) != nil
		if hasText != hasHTML {
			return nil, fmt.Errorf("there is only one of %s and %s: replace both", text, html)
		}
		if hasText {
			continue
		}
		for _, name := range []string{text, html} {
			content, err := defaults.ReadFile("templates/" + name)
			if err != nil {
				return nil, err
			}
			if err := t.addFile(name, string(content)); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// add parses the files of fsys.
func (t *templates) add(fsys fs.FS) error {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		content, err := fs.ReadFile(fsys, e.Name())
		if err != nil {
			return err
		}
		if err := t.addFile(e.Name(), string(content)); err != nil {
			return err
		}
	}
	return nil
}

func (t *templates) addFile(name, content string) error {
	ext := path.Ext(name)
	base := strings.TrimSuffix(name, ext)
	_, isKind := paths[account.MessageKind(base)]
	if ext != ".txt" && ext != ".html" || !isKind && !strings.HasPrefix(name, "_") {
		return fmt.Errorf("there is the file %q, want KIND.txt and KIND.html, such as verification.txt, or _NAME.txt and _NAME.html, which others include", name)
	}
	if ext == ".html" {
		_, err := t.html.New(name).Parse(content)
		return err
	}
	if isKind {
		line, body, _ := strings.Cut(content, "\n")
		subject, ok := strings.CutPrefix(line, "Subject: ")
		if !ok {
			return fmt.Errorf("%s does not begin with a line \"Subject: …\"", name)
		}
		// The subject is a template of its own: a line break in a value cannot end it.
		if _, err := t.text.New(base + ".subject").Parse(subject); err != nil {
			return err
		}
		content = "\n" + body // keeps the line numbers in errors
	}
	_, err := t.text.New(name).Parse(content)
	return err
}

// content is a message in words.
type content struct{ subject, text, html string }

// execute executes the templates of a kind.
func (t *templates) execute(data Data) (content, error) {
	var subject, text, html strings.Builder
	kind := string(data.Kind)
	err := t.text.ExecuteTemplate(&subject, kind+".subject", data)
	if err == nil {
		err = t.text.ExecuteTemplate(&text, kind+".txt", data)
	}
	if err == nil {
		err = t.html.ExecuteTemplate(&html, kind+".html", data)
	}
	return content{oneLine(subject.String()), strings.TrimLeft(text.String(), "\r\n"), html.String()}, err
}

// oneLine replaces line breaks, other control characters and white space by single spaces.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
}

// try executes the templates of every kind with a sample message.
func (m *Mailer) try(user any) error {
	const token = "sample-token"
	for _, kind := range kinds() {
		path := paths[kind]
		msg := account.Message{Kind: kind, To: "ann@example.com", User: user, ClientIP: "192.0.2.1"}
		if path != "" {
			msg.Token, msg.ExpiresAt = strategy.NewSecret(token), time.Now().UTC()
		}
		c, err := m.templates.execute(m.data(msg))
		if err != nil {
			if user == nil {
				return fmt.Errorf("%w (Config.SampleUser is nil; a template with .User needs it)", err)
			}
			return err
		}
		empty := ""
		for _, part := range []struct{ name, content string }{{"subject", c.subject}, {"txt", c.text}, {"html", c.html}} {
			if strings.TrimSpace(part.content) == "" {
				empty = cmp.Or(empty, part.name)
			}
		}
		if empty != "" {
			return fmt.Errorf("the %s of the kind %s is empty", empty, kind)
		}
		if path == "" {
			continue
		}
		if strings.Contains(c.subject, token) {
			return fmt.Errorf("the subject of the kind %s shows the token; mail programs show subjects on locked screens", kind)
		}
		if !strings.Contains(c.text, token) || !strings.Contains(c.html, token) {
			return fmt.Errorf("%s.txt and %s.html must both show {{.Link}} with the token, or {{.Token.Reveal}} in a link of their own", kind, kind)
		}
	}
	return nil
}

// data returns what the templates of a message are executed with.
func (m *Mailer) data(msg account.Message) Data {
	d := Data{Message: msg, BaseURL: m.baseURL}
	if paths[msg.Kind] != "" {
		d.Link = m.cfg.Link(msg)
	}
	return d
}

// check returns an error if a message cannot be sent.
func check(msg account.Message) error {
	path, ok := paths[msg.Kind]
	switch {
	case !ok:
		return fmt.Errorf("messages of the kind %q have no template", msg.Kind)
	case path != "" && msg.Token.Reveal() == "":
		return errors.New("the message has no token")
	}
	return nil
}
