package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/latchkey-go/latchkey/account"
	"github.com/latchkey-go/latchkey/mongostore"
)

// The exit codes.
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2
	exitProblems = 3
	exitNotFound = 4
)

const exitCodes = `Exit codes:
  0  done; an audit or a verification found nothing
  1  a failure, or interrupted
  2  wrong usage
  3  problems that need attention: findings of audit, documents that normalize or
     convert-tokens left, indexes that are missing or differ
  4  no such user or session
`

// envURI is the environment variable with the URI.
const envURI = "LATCHKEY_MONGODB_URI"

// flags are the values of all flags.
type flags struct {
	uri, db string
	id      string
	fields  mongostore.Fields
	anyCase bool
	json    bool
	apply   bool

	users, tokens, apiTokens, revocations, attempts, oneTimeTokens, legacyTokens string

	lifetime, legacyLifetime           *time.Duration // nil if it is not given
	apiLifetime, idleTimeout, ttlGrace time.Duration
	keepAs                             string
	user, session                      string
	email, newID                       string
	undo                               bool
}

// command is a command of the program.
type command struct {
	name    string // one or two words
	summary string
	flags   func(*flag.FlagSet, *flags) // can be nil
	changes bool                        // it has -apply
	check   func(*flags) error          // can be nil
	run     func(application, context.Context) (report, error)
}

var commands = []command{
	{name: "audit", summary: "report accounts that cannot log in as they are", run: application.audit},
	{
		name: "normalize", summary: "replace addresses by their normal form", changes: true, run: application.normalize,
		flags: func(fs *flag.FlagSet, o *flags) {
			fs.StringVar(&o.keepAs, "keep-as", "", "the `field` that gets the address as it was (default: it is not kept)")
		},
	},
	{
		name: "convert-tokens", summary: "copy the valid tokens of fastapi-users into the collection of sessions", changes: true, run: application.convertTokens,
		flags: func(fs *flag.FlagSet, o *flags) {
			durationFlag(fs, &o.lifetime, "lifetime", "the application's Config.Lifetime, as in 720h (default 0: tokens do not expire)")
			fs.BoolVar(&o.undo, "undo", false, "delete the copies instead; see LegacyTokens.UndoConversion")
		},
		check: func(o *flags) error {
			if o.legacyLifetime == nil && !o.undo {
				return usageError("-legacy-lifetime is missing: give fastapi-users' lifetime_seconds, as in 3600s, or 0 if its tokens do not expire")
			}
			return required("legacy-tokens", o.legacyTokens)
		},
	},
	{name: "indexes verify", summary: "report indexes that are missing or differ", flags: indexFlags, check: checkIndexFlags, run: application.verifyIndexes},
	{name: "indexes ensure", summary: "make missing indexes and mend others", flags: indexFlags, check: checkIndexFlags, changes: true, run: application.ensureIndexes},
	{
		name: "superuser create", summary: "create an active, verified account with the superuser flag", changes: true, run: application.createSuperuser,
		flags: func(fs *flag.FlagSet, o *flags) {
			fs.StringVar(&o.email, "email", "", "the `address` of the account (required)")
			fs.StringVar(&o.newID, "new-id", "", "the `ID` of the account (default: a new one; required for the types string and int64)")
		},
		check: func(o *flags) error { return required("email", o.email) },
	},
	{
		name: "sessions list", summary: "list a user's sessions and API tokens", check: checkUserFlag, run: application.listSessions,
		flags: func(fs *flag.FlagSet, o *flags) {
			userFlag(fs, o)
			lifetimeFlags(fs, o)
			fs.DurationVar(&o.idleTimeout, "idle-timeout", 0, "the application's Config.IdleTimeout (default 0: none)")
		},
	},
	{
		name: "sessions end", summary: "end a user's sessions and API tokens, or one of them", changes: true, check: checkUserFlag, run: application.endSessions,
		flags: func(fs *flag.FlagSet, o *flags) {
			userFlag(fs, o)
			fs.StringVar(&o.session, "session", "", "the `ID` of the only session to end (default: all)")
		},
	},
	{name: "user deactivate", summary: "make an account inactive and revoke all its tokens", changes: true, flags: userFlag, check: checkUserFlag, run: application.deactivate},
	{name: "user activate", summary: "make an account active again", changes: true, flags: userFlag, check: checkUserFlag, run: application.activate},
}

// commonFlags are the flags of all commands. They stand before or after the command.
func commonFlags(fs *flag.FlagSet, o *flags) {
	// Not a StringVar, whose default, with a password, would be printed.
	fs.Func("mongodb-uri", "the `URI` of the server (default: the variable "+envURI+", which keeps its password out of lists of processes)", func(s string) error {
		o.uri = s
		return nil
	})
	fs.StringVar(&o.db, "db", o.db, "the `name` of the database (required)")
	fs.StringVar(&o.id, "id", o.id, "the `type` of the accounts' IDs: uuid, objectid, string or int64 (default: found out from the data)")
	fs.Func("fields", "the collection's `names` of the account's fields, as in id=uid,email=mail; see mongostore.Fields", func(s string) (err error) {
		o.fields, err = parseFields(s)
		return err
	})
	fs.BoolVar(&o.anyCase, "any-case", o.anyCase, "the application's Config.AnyCase: find addresses in any spelling")
	fs.StringVar(&o.users, "users", o.users, "the `collection` of accounts (default users)")
	fs.StringVar(&o.tokens, "tokens", o.tokens, "the `collection` of sessions (default access_tokens)")
	fs.StringVar(&o.apiTokens, "api-tokens", o.apiTokens, "the `collection` of API tokens (default api_tokens; for indexes: none)")
	fs.StringVar(&o.legacyTokens, "legacy-tokens", o.legacyTokens, "the `collection` of fastapi-users' tokens, while they are accepted (default none)")
	durationFlag(fs, &o.legacyLifetime, "legacy-lifetime", "fastapi-users' lifetime_seconds, as in 3600s; 0: its tokens do not expire")
	fs.StringVar(&o.revocations, "revocations", o.revocations, "the `collection` of revocations (default revocations)")
	fs.BoolVar(&o.json, "json", o.json, "print one JSON document")
}

func userFlag(fs *flag.FlagSet, o *flags) {
	fs.StringVar(&o.user, "user", "", "the `ID or address` of the account (required)")
}

func checkUserFlag(o *flags) error { return required("user", o.user) }

func lifetimeFlags(fs *flag.FlagSet, o *flags) {
	durationFlag(fs, &o.lifetime, "lifetime", "the application's Config.Lifetime, as in 720h; 0: tokens do not expire")
	fs.DurationVar(&o.apiLifetime, "api-lifetime", 0, "the application's Config.APITokens.Lifetime (default 0: API tokens do not expire)")
}

// durationFlag is a DurationVar that tells 0 from a flag that is not given.
func durationFlag(fs *flag.FlagSet, value **time.Duration, name, usage string) {
	fs.Func(name, usage, func(s string) error {
		d, err := time.ParseDuration(s)
		*value = &d
		return err
	})
}

func indexFlags(fs *flag.FlagSet, o *flags) {
	lifetimeFlags(fs, o)
	fs.DurationVar(&o.ttlGrace, "ttl-grace", 0, "the application's Config.TTLGrace (default 5m)")
	fs.StringVar(&o.attempts, "attempts", "", "the `collection` of login attempts (default login_attempts)")
	fs.StringVar(&o.oneTimeTokens, "one-time-tokens", "", "the `collection` of one-time tokens (default one_time_tokens)")
}

// checkIndexFlags requires a lifetime: a default could remove the TTL index.
func checkIndexFlags(o *flags) error {
	if o.lifetime == nil {
		return usageError("-lifetime is missing: give the application's Config.Lifetime, or 0 if tokens do not expire")
	}
	return nil
}

func required(name, value string) error {
	if value == "" {
		return usageError("-%s is missing", name)
	}
	return nil
}

// parseFields parses the flag -fields.
func parseFields(s string) (mongostore.Fields, error) {
	var f mongostore.Fields
	names := map[string]*string{
		"id": &f.ID, "email": &f.Email, "hashed_password": &f.HashedPassword, "is_active": &f.Active, "is_verified": &f.Verified,
		"is_superuser": &f.Superuser, "created_at": &f.CreatedAt, "token_version": &f.TokenVersion,
	}
	for pair := range strings.SplitSeq(s, ",") {
		name, stored, ok := strings.Cut(strings.TrimSpace(pair), "=")
		field := names[name]
		if !ok || field == nil || stored == "" {
			return f, fmt.Errorf("%q is not FIELD=NAME, where FIELD is id, email, hashed_password, is_active, is_verified, is_superuser, created_at or token_version", pair)
		}
		if *field != "" {
			return f, fmt.Errorf("%s is given twice", name)
		}
		*field = stored
	}
	return f, nil
}

// errUsage marks errors of wrong usage.
type errUsage struct{ error }

func usageError(format string, args ...any) error { return errUsage{fmt.Errorf(format, args...)} }

// errNotFound means that there is no such user or session.
var errNotFound = errors.New("not found")

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	o := &flags{uri: os.Getenv(envURI)}
	cmd, err := parse(args, o, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintln(stderr, "latchkey:", printable(redact(o.uri, err.Error())))
		return exitUsage
	}
	e := &environment{flags: o, command: cmd, stdin: stdin, stderr: stderr}
	rep, err := e.run(ctx)
	if ctx.Err() != nil && err != nil {
		err = errors.New("interrupted: what was done stays done; run the command again for the rest")
	}
	h := header{Command: cmd.name, IDType: e.idType, Warnings: e.warnings(err)}
	if cmd.changes {
		h.Applied = &o.apply
	}
	if err != nil {
		h.Error = redact(o.uri, err.Error())
	}
	if failure := h.print(stdout, stderr, o, rep); failure != nil && err == nil {
		fmt.Fprintln(stderr, "latchkey: write the output:", failure)
		return exitFailed
	}
	var usage errUsage
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errNotFound), errors.Is(err, account.ErrUserNotFound):
		return exitNotFound
	case err != nil:
		return exitFailed
	case rep.problems():
		return exitProblems
	}
	return exitDone
}

// parse finds the command and sets the options.
func parse(args []string, o *flags, stderr io.Writer) (*command, error) {
	before := flag.NewFlagSet("latchkey", flag.ContinueOnError)
	before.SetOutput(io.Discard) // errors are printed once, by run
	commonFlags(before, o)
	usage := func() {
		before.SetOutput(stderr)
		printUsage(stderr, before)
	}
	if err := before.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			usage()
			return nil, err
		}
		return nil, errUsage{err}
	}
	words := before.Args()
	if len(words) == 0 {
		usage()
		return nil, usageError("no command")
	}
	i := slices.IndexFunc(commands, func(c command) bool {
		name := strings.Fields(c.name)
		return len(words) >= len(name) && slices.Equal(words[:len(name)], name)
	})
	if i < 0 {
		return nil, usageError("unknown command%s: latchkey -h lists them", plainWords(words))
	}
	cmd := &commands[i]
	after := flag.NewFlagSet("latchkey "+cmd.name, flag.ContinueOnError)
	after.SetOutput(io.Discard)
	commonFlags(after, o)
	if cmd.flags != nil {
		cmd.flags(after, o)
	}
	if cmd.changes {
		after.BoolVar(&o.apply, "apply", false, "make the changes (default: a dry run, which changes nothing)")
	}
	if err := after.Parse(words[len(strings.Fields(cmd.name)):]); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintf(stderr, "latchkey %s: %s.\n\n", cmd.name, cmd.summary)
			after.SetOutput(stderr)
			after.PrintDefaults()
			return nil, err
		}
		return nil, errUsage{err}
	}
	if after.NArg() > 0 {
		return nil, usageError("latchkey %s takes flags only, and got another argument", cmd.name)
	}
	if o.uri == "" {
		return nil, usageError("no server: set the variable %s, or give -mongodb-uri", envURI)
	}
	if err := required("db", o.db); err != nil {
		return nil, err
	}
	if o.id != "" && !slices.Contains(idTypes, o.id) {
		return nil, usageError("-id is not one of %s", strings.Join(idTypes, ", "))
	}
	if cmd.check != nil {
		if err := cmd.check(o); err != nil {
			return nil, err
		}
	}
	return cmd, nil
}

func printUsage(w io.Writer, fs *flag.FlagSet) {
	fmt.Fprint(w, "Usage: latchkey [flags] COMMAND [flags]\n\nCommands, each with flags of its own (latchkey COMMAND -h):\n")
	for _, c := range commands {
		does := c.summary
		if c.changes {
			does += " (a dry run without -apply)"
		}
		fmt.Fprintf(w, "  %-17s %s\n", c.name, does)
	}
	fmt.Fprint(w, "\nFlags of all commands:\n")
	fs.PrintDefaults()
	fmt.Fprint(w, "\n", exitCodes)
}

// plainWords returns the first two arguments for an error, unless they may hold a secret.
func plainWords(words []string) string {
	var b strings.Builder
	for _, word := range words[:min(2, len(words))] {
		if !regexp.MustCompile(`^[a-z-]{1,20}$`).MatchString(word) {
			break
		}
		b.WriteString(" " + word)
	}
	return b.String()
}

// report is the result of a command. It is encoded as JSON, or printed as text.
type report interface {
	print(w io.Writer, did string)
	// problems reports whether the exit code is 3.
	problems() bool
}

// header is the part that all JSON documents have.
type header struct {
	Command string `json:"command"`
	// Applied is false for a dry run. It is missing for commands that change nothing.
	Applied  *bool    `json:"applied,omitempty"`
	IDType   string   `json:"id_type,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	Error    string   `json:"error,omitempty"`
	Result   report   `json:"result,omitempty"`
}

// print prints the report, warnings and the error.
func (h header) print(stdout, stderr io.Writer, o *flags, rep report) error {
	for _, w := range h.Warnings {
		fmt.Fprintln(stderr, "latchkey: warning:", printable(w))
	}
	if h.Error != "" {
		defer fmt.Fprintln(stderr, "latchkey:", printable(h.Error))
	}
	if o.json {
		h.Result = rep
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(h)
	}
	if rep == nil {
		return nil
	}
	var text strings.Builder
	did := ""
	if h.Applied != nil && !o.apply {
		did = "would be "
	}
	rep.print(&text, did)
	if h.Applied != nil && !o.apply && h.Error == "" {
		text.WriteString("This was a dry run: nothing was changed. -apply makes the changes.\n")
	}
	_, err := io.WriteString(stdout, printable(text.String()))
	return err
}

// printable replaces what could control a terminal: users and other programs have chosen some
// of the texts in the database.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// plural returns a number with the noun, or the plural nouns, of it.
func plural(n int64, noun, nouns string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %s", n, nouns)
}
