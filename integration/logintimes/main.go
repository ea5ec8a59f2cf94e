// Logintimes measures how long refused logins take, over HTTP on the loopback interface and
// with the default hashes: an unknown user, a wrong password, an inactive user, a locked
// account. It prints their distributions, and whether the kinds that must look alike can be
// distinguished. With -accounts, it measures requests for messages (request-verify-token,
// forgot-password) and sign-ups that conceal taken addresses (register), for unknown,
// unverified, verified and inactive addresses. With -flood, it measures a guarded route during a flood of logins.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/latchkey-go/latchkey/account"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, account.Argon2{}); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "logintimes:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer, argon2 account.Argon2) error {
	flags := flag.NewFlagSet("logintimes", flag.ContinueOnError)
	n := flags.Int("n", 200, "number of measured requests of each kind")
	uri := flags.String("mongodb-uri", "", "connection `string` of a MongoDB for a new database that is dropped at the end; empty means stores in memory, without a database's times")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano()), "seed of the random order and of the bootstrap (default: the time)")
	aboutAccounts := flags.Bool("accounts", false, "measure request-verify-token, forgot-password and register instead of logins")
	pause := flags.Duration("pause", 50*time.Millisecond, "with -accounts, the wait between two requests, in which the work behind the first answer ends")
	flooding := flags.Bool("flood", false, "measure a guarded route during a flood of logins instead")
	clients := flags.Int("clients", 500, "number of clients that log in during the flood")
	length := flags.Duration("length", 10*time.Second, "how long the flood lasts")
	concurrent := flags.Int("max-hashes", 0, "number of passwords hashed at once, account.Config.MaxConcurrentHashes; 0 means its default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *n < 2:
		return fmt.Errorf("-n is %d, want at least 2", *n)
	case *clients < 1 || *length <= 0:
		return errors.New("-clients and -length must be positive")
	case *pause < 0:
		return fmt.Errorf("-pause is %v, want 0 or more", *pause)
	case *aboutAccounts && *flooding:
		return errors.New("-accounts and -flood are both set")
	}
	open := func(limit account.Limit) (*app, error) {
		s, clean, err := stores{}, func() {}, error(nil)
		if *uri == "" {
			s, err = inMemory()
		} else {
			s, clean, err = inMongoDB(ctx, *uri)
		}
		if err != nil {
			return nil, err
		}
		a, err := newApp(s, hashing{argon2, *concurrent}, limit)
		if err != nil {
			clean()
			return nil, err
		}
		shut := a.close
		a.close = func() { shut(); clean() }
		return a, nil
	}
	a, err := open(account.Limit{})
	if err != nil {
		return err
	}
	defer a.close()
	where := "in memory"
	if *uri != "" {
		where = "in MongoDB"
	}
	fmt.Fprintf(stdout, "%s, %s/%s, %d processors; accounts, tokens and attempts %s\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), where)
	if *flooding {
		return flood(ctx, stdout, a, *clients, *length)
	}
	random := rand.New(rand.NewPCG(*seed, 0))
	warmUp := max(2, *n/20)
	var all []*kind
	pairs := loginPairs
	if *aboutAccounts {
		all, pairs, err = accountKinds(ctx, a, *n+warmUp)
	} else {
		*pause = 0
		var locking *app
		if locking, err = open(lockAtOnce); err != nil {
			return err
		}
		defer locking.close()
		all, err = kinds(ctx, a, locking, *n+warmUp, min(20, *n))
	}
	if err != nil {
		return err
	}
	if err := measure(ctx, all, *n, warmUp, *pause, random); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "-n %d -seed %d, after %d requests of each kind to warm up\n\n", *n, *seed, warmUp)
	report(stdout, all, pairs, random)
	return nil
}
