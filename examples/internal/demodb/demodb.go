// Package demodb has the flags and the database of the examples on MongoDB.
package demodb

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"github.com/latchkey-go/latchkey/integration/devmongo"
)

// Flags are the flags of every example.
type Flags struct {
	*flag.FlagSet
	Addr     string
	MongoURI string // empty: run a server in this process
	Database string
	Demo     bool // add the demo accounts
}

// NewFlags returns the flags of an example, to which it may add its own.
func NewFlags(name, addr string, stderr io.Writer) *Flags {
	f := &Flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.SetOutput(stderr)
	f.StringVar(&f.Addr, "addr", addr, "address to listen on")
	f.StringVar(&f.MongoURI, "mongodb-uri", os.Getenv("MONGODB_URI"), "URI of a MongoDB server; empty runs one in this process, with demo accounts (default $MONGODB_URI)")
	f.StringVar(&f.Database, "db", "latchkey_"+name, "name of the database")
	f.BoolVar(&f.Demo, "demo-accounts", false, "add demo accounts to the server of -mongodb-uri too; their password is public")
	return f
}

// Parse parses the arguments, which may be flags only.
func (f *Flags) Parse(args []string) error {
	if err := f.FlagSet.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	f.Demo = f.Demo || f.MongoURI == ""
	return nil
}

// Connect returns the database of the flags. Without -mongodb-uri it starts a
// MongoDB-compatible server in this process and prints the directory of its data. Call
// disconnect at the end: it also stops that server.
func (f *Flags) Connect(stdout io.Writer) (db *mongo.Database, disconnect func(), err error) {
	uri, stop := f.MongoURI, func() {}
	if uri == "" {
		server, err := devmongo.Start(devmongo.Config{})
		if err != nil {
			return nil, nil, err
		}
		uri, stop = server.URI(), func() { _ = server.Close() }
		fmt.Fprintf(stdout, "MongoDB-compatible server in this process, data in %s\n", server.Dir())
	}
	client, err := mongo.Connect(options.Client().ApplyURI(uri))
	if err != nil {
		stop()
		return nil, nil, err
	}
	return client.Database(f.Database), func() { _ = client.Disconnect(context.Background()); stop() }, nil
}
