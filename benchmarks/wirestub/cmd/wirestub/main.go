// Command wirestub runs a stub of a MongoDB server until it is interrupted. It is for
// benchmarks, and not a database; see package wirestub.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/latchkey-go/latchkey/benchmarks/wirestub"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "`address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	server, err := wirestub.Start(*listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("wirestub (not a database) listens on %s\n", server.URI())
	<-ctx.Done()
	server.Close()
}
