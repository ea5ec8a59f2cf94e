// Command ttlmongo runs devmongo behind a ttlproxy until it is interrupted, and prints its URI: a
// value for LATCHKEY_TEST_MONGODB_URI.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/latchkey-go/latchkey/integration/devmongo"
	"github.com/latchkey-go/latchkey/integration/internal/ttlproxy"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen); err != nil {
		fmt.Fprintln(os.Stderr, "ttlmongo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string) error {
	server, err := devmongo.Start(devmongo.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = server.Close() }()
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	proxy, err := ttlproxy.Start(listener, server.Addr())
	if err != nil {
		return err
	}
	defer proxy.Close()
	fmt.Printf("mongodb://%s/?directConnection=true\n", listener.Addr())
	<-ctx.Done()
	return nil
}
