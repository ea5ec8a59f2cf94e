package mongostore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
)

// pingTimeout bounds how long EnsureIndexes and VerifyIndexes wait for a server. The
// driver waits 30 seconds by default, at each of their commands.
const pingTimeout = 10 * time.Second

// ping returns an error that names the server's address if no primary answers within
// timeout, or within the context's deadline if that is earlier.
func ping(ctx context.Context, client *mongo.Client, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := client.Ping(bounded, readpref.Primary())
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("mongostore: ping the MongoDB server: %w", err)
	}
	servers := addresses(err)
	switch {
	case servers == "":
		return fmt.Errorf("mongostore: ping the MongoDB server: %w", err)
	case strings.Contains(err.Error(), "Type: RSSecondary"):
		return fmt.Errorf("mongostore: none of the MongoDB servers at %s is the primary: %w", servers, err)
	case mongo.IsTimeout(err) || mongo.IsNetworkError(err) || strings.Contains(err.Error(), "server selection"):
		return fmt.Errorf("mongostore: no MongoDB server answers at %s: %w", servers, err)
	default:
		return fmt.Errorf("mongostore: ping the MongoDB server at %s: %w", servers, err)
	}
}

// address matches a server's address in the messages of the driver, "Addr: HOST:PORT,"
// in that of a server selection and "connection(HOST:PORT[-ID])" in that of a connection.
// The driver's types have it too, but they are in its experimental packages.
var address = regexp.MustCompile(`Addr: ([^,\s]+)|connection\((\S+?)\[-?\d+\]\)`)

// addresses returns the servers' addresses that a message of the driver contains.
func addresses(err error) string {
	var found []string
	for _, match := range address.FindAllStringSubmatch(err.Error(), -1) {
		if a := match[1] + match[2]; !slices.Contains(found, a) {
			found = append(found, a)
		}
	}
	return strings.Join(found, ", ")
}
