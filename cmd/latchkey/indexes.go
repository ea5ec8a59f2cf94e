package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/latchkey-go/latchkey/mongostore"
)

// indexesReport is the report of the commands on indexes.
type indexesReport struct {
	Differences []string `json:"differences"` // indexes that are missing or differ
	// left means that the differences are still there, and that the command was to find or
	// mend them.
	left bool
}

func (r *indexesReport) problems() bool { return r.left && len(r.Differences) > 0 }

func (r *indexesReport) print(w io.Writer, did string) {
	switch {
	case len(r.Differences) == 0:
		fmt.Fprintln(w, "No index is missing or differs.")
	case did != "":
		fmt.Fprintln(w, "These indexes would be made or changed:")
	case r.left:
		fmt.Fprintln(w, "These indexes are missing or differ:")
	default:
		fmt.Fprintln(w, "These indexes were made or changed:")
	}
	for _, d := range r.Differences {
		fmt.Fprintln(w, " ", d)
	}
}

func (a *app[ID]) verifyIndexes(ctx context.Context) (report, error) {
	found, err := differences(a.VerifyIndexes(ctx))
	return &indexesReport{found, true}, err
}

func (a *app[ID]) ensureIndexes(ctx context.Context) (report, error) {
	found, err := differences(a.VerifyIndexes(ctx))
	if err != nil || !a.apply {
		return &indexesReport{found, false}, err
	}
	left, err := differences(a.EnsureIndexes(ctx))
	if err != nil || len(left) > 0 {
		return &indexesReport{left, true}, err
	}
	return &indexesReport{found, false}, nil
}

// differences splits the error of VerifyIndexes or EnsureIndexes into the differences and
// other errors.
func differences(err error) (found []string, other error) {
	found = []string{}
	var others []error
	for _, e := range parts(err) {
		if !errors.Is(e, mongostore.ErrIndexMismatch) {
			others = append(others, e)
			continue
		}
		_, text, _ := strings.Cut(e.Error(), mongostore.ErrIndexMismatch.Error()+": ")
		found = append(found, text)
	}
	return found, errors.Join(others...)
}

// parts returns the errors that errors.Join has joined, wherever they are wrapped.
func parts(err error) []error {
	if err == nil {
		return nil
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if joined, ok := inner.(interface{ Unwrap() []error }); ok {
			var all []error
			for _, e := range joined.Unwrap() {
				all = append(all, parts(e)...)
			}
			return all
		}
	}
	return []error{err}
}
