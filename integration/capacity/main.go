// Capacity measures the cost of sessions on a MongoDB server: the bytes of a session on disk
// and in each index, and how many expired sessions the server deletes in a second. It creates
// a new database and drops it at the end.
//
//	go run ./integration/capacity -mongodb-uri mongodb://… -sessions 1000000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/devmongo"
	"github.com/latchkey-go/latchkey/internal/token"
	"github.com/latchkey-go/latchkey/mongostore"
	"github.com/latchkey-go/latchkey/strategy"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "capacity:", err)
		os.Exit(1)
	}
}

const lifetime, grace = time.Hour, time.Second

func run(ctx context.Context, args []string, stdout io.Writer) (err error) {
	flags := flag.NewFlagSet("capacity", flag.ContinueOnError)
	uri := flags.String("mongodb-uri", "", "connection `string` of the MongoDB to measure; empty means devmongo in this process, whose storage is not MongoDB's")
	n := flags.Int("sessions", 2_000, "number of sessions")
	patience := flags.Duration("patience", 5*time.Minute, "how long the deletion may take")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case *n < 1 || *patience <= 0:
		return errors.New("-sessions and -patience must be positive")
	}
	if *uri == "" {
		server, err := devmongo.Start(devmongo.Config{})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, server.Close()) }()
		*uri = server.URI()
	}
	client, err := mongo.Connect(options.Client().ApplyURI(*uri))
	if err != nil {
		return err
	}
	db := client.Database(fmt.Sprintf("latchkey_capacity_%d_%d", os.Getpid(), time.Now().UnixNano()))
	defer func() {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, db.Drop(ctx), client.Disconnect(ctx))
	}()
	if err := sizes(ctx, db, *n, stdout); err != nil {
		return err
	}
	return deletion(ctx, db, *n, *patience, stdout)
}

// sizes prints the bytes of a live session.
func sizes(ctx context.Context, db *mongo.Database, n int, stdout io.Writer) error {
	live, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Collection: "live", Lifetime: lifetime, TTLGrace: grace, PurgeInterval: time.Hour})
	if err != nil {
		return err
	}
	defer live.Close()
	if err := live.EnsureIndexes(ctx); err != nil {
		return err
	}
	took, err := insert(ctx, live, n, time.Now())
	if err != nil {
		return err
	}
	// Sizes on disk are those of the last checkpoint. The database user may lack the permission
	// for a new one.
	_ = db.Client().Database("admin").RunCommand(ctx, bson.D{{Key: "fsync", Value: 1}}).Err()
	var stats struct {
		Size    int64            `bson:"size"`
		Storage int64            `bson:"storageSize"`
		Indexes map[string]int64 `bson:"indexSizes"`
		Total   int64            `bson:"totalIndexSize"`
	}
	err = db.RunCommand(ctx, bson.D{{Key: "collStats", Value: "live"}}).Decode(&stats)
	var refused mongo.CommandError
	switch {
	case errors.As(err, &refused):
		fmt.Fprintf(stdout, "This server does not report sizes: %v\n\n", err)
		return nil
	case err != nil:
		return fmt.Errorf("collStats: %w", err)
	}
	each := func(bytes int64) string { return fmt.Sprintf("%.0f", float64(bytes)/float64(n)) }
	fmt.Fprintf(stdout, "%d sessions of browsers, each used once; written in %v\n\n| | bytes a session |\n|---|--:|\n", n, took.Round(time.Millisecond))
	fmt.Fprintf(stdout, "| documents, before compression | %s |\n| documents on disk | %s |\n", each(stats.Size), each(stats.Storage))
	for _, name := range slices.Sorted(maps.Keys(stats.Indexes)) {
		fmt.Fprintf(stdout, "| index %s | %s |\n", name, each(stats.Indexes[name]))
	}
	fmt.Fprintf(stdout, "| all indexes | %s |\n\n", each(stats.Total))
	return nil
}

// deletion prints how fast expired sessions are deleted.
func deletion(ctx context.Context, db *mongo.Database, n int, patience time.Duration, stdout io.Writer) error {
	expired, err := mongostore.NewTokens[uuid.UUID](db, mongostore.TokensConfig{Collection: "expired", Lifetime: lifetime, TTLGrace: grace})
	if err != nil {
		return err
	}
	defer expired.Close()
	if _, err := insert(ctx, expired, n, time.Now().Add(-2*lifetime)); err != nil {
		return err
	}
	err = expired.EnsureIndexes(ctx)
	if errors.Is(err, mongostore.ErrTTLUnsupported) {
		begin := time.Now()
		deleted, err := expired.Purge(ctx)
		if err != nil {
			return err
		}
		took := time.Since(begin)
		fmt.Fprintf(stdout, "No TTL indexes: Purge deleted %d sessions in %v, %.0f a second.\n", deleted, took.Round(time.Millisecond), float64(deleted)/took.Seconds())
		return nil
	} else if err != nil {
		return err
	}
	return watch(ctx, db.Collection("expired"), n, patience, stdout)
}

// watch waits until the server has deleted all sessions, and prints how long that took from
// the first deletion. Before it, the TTL monitor sleeps.
func watch(ctx context.Context, coll *mongo.Collection, n int, patience time.Duration, stdout io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	indexed := time.Now()
	for begin := indexed; ; {
		left, err := coll.EstimatedDocumentCount(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("wait for the TTL monitor: %w", err)
		case int(left) == n:
			begin = time.Now()
		case left == 0:
			took := time.Since(begin)
			fmt.Fprintf(stdout, "The TTL monitor began within %v, and deleted %d sessions in %v, %.0f a second.\n",
				begin.Sub(indexed).Round(100*time.Millisecond), n, took.Round(time.Millisecond), float64(n)/took.Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the TTL monitor: %d of %d sessions are left: %w", left, n, ctx.Err())
		case <-tick.C:
		}
	}
}

// insert stores sessions of browsers that were used once, with several concurrent writers.
func insert(ctx context.Context, tokens *mongostore.Tokens[uuid.UUID], n int, created time.Time) (time.Duration, error) {
	const workers = 8
	created = created.UTC().Truncate(time.Millisecond)
	begin := time.Now()
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		group.Go(func() {
			for errs[w] == nil && next.Add(1) <= int64(n) {
				_, digest := token.Default.New()
				errs[w] = tokens.Insert(ctx, strategy.AccessToken[uuid.UUID]{
					ID: uuid.Must(uuid.NewV7()), Digest: digest, UserID: uuid.New(), CreatedAt: created, LastUsedAt: created.Add(time.Minute),
					ClientIP:  "203.0.113.195",
					UserAgent: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
				})
			}
		})
	}
	group.Wait()
	return time.Since(begin), errors.Join(errs...)
}
