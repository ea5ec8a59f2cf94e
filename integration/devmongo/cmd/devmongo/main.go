// Command devmongo runs a MongoDB-compatible server for demos and tests until it is interrupted.
// Package devmongo describes its limits.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/latchkey-go/latchkey/integration/devmongo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("devmongo", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:27017", "`address` to listen on")
	dir := flags.String("dir", "", "`directory` for the data (default: a temporary one, removed at the end)")
	postgresql := flags.String("postgresql", "", "`URL` of a PostgreSQL database for the data, instead of -dir")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return fmt.Errorf("devmongo: %w", err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("devmongo: unexpected argument %q", flags.Arg(0))
	}

	server, err := devmongo.Start(devmongo.Config{Listen: *listen, Dir: *dir, PostgreSQL: *postgresql})
	if err != nil {
		return err
	}
	data := server.Dir()
	if *postgresql != "" {
		data = "PostgreSQL" // the URL may contain a password
	}
	_, err = fmt.Fprintf(stdout, "devmongo: listening on %s, data in %s\n", server.URI(), data)
	if err == nil {
		<-ctx.Done()
	}
	return errors.Join(err, server.Close())
}
