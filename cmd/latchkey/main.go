// Command latchkey looks after the accounts and sessions of an application that uses Latchkey:
// it audits a collection of users, normalizes addresses, converts the tokens of fastapi-users,
// verifies and makes indexes, creates superusers, lists and ends sessions, and deactivates
// accounts.
//
//	export LATCHKEY_MONGODB_URI=mongodb://…
//	latchkey -db app audit
//	latchkey -db app normalize -keep-as email_as_typed
//	latchkey -db app normalize -keep-as email_as_typed -apply
//
// A command that changes anything is a dry run, which says what it would do, unless -apply is
// given. With -json, stdout is one JSON document. Progress and errors go to stderr. Without
// arguments, latchkey prints all commands and exit codes; with a command and -h, its flags.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
