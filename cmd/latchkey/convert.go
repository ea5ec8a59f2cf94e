package main

import (
	"context"
	"fmt"
	"io"

	"github.com/latchkey-go/latchkey/mongostore"
)

type convertReport struct {
	// Converted is the number of tokens that were copied, or would be in a dry run.
	Converted  int64    `json:"converted"`
	Already    int64    `json:"already"`
	Expired    int64    `json:"expired"`
	Unreadable findings `json:"unreadable"`
}

func (r *convertReport) problems() bool { return r.Unreadable.Count > 0 }

func (r *convertReport) print(w io.Writer, did string) {
	fmt.Fprintf(w, "Tokens that %sconverted: %d\n", orWere(did, 2), r.Converted)
	fmt.Fprintf(w, "Tokens that were converted before: %d\n", r.Already)
	fmt.Fprintf(w, "Tokens left out because they have expired: %d\n", r.Expired)
	r.Unreadable.print(w, "Documents left as they are, because they are no token")
}

// undoReport is the report of convert-tokens -undo.
type undoReport struct {
	Deleted *int64 `json:"deleted,omitempty"` // nil in a dry run
}

func (r *undoReport) problems() bool { return false }

func (r *undoReport) print(w io.Writer, _ string) {
	if r.Deleted == nil {
		fmt.Fprintln(w, "The copies of legacy tokens would be deleted. The legacy tokens themselves remain.")
		return
	}
	fmt.Fprintf(w, "Copies of legacy tokens that were deleted: %d\n", *r.Deleted)
}

func (a *app[ID]) convertTokens(ctx context.Context) (report, error) {
	if a.undo {
		undone := &undoReport{}
		if !a.apply {
			return undone, nil
		}
		n, err := a.Legacy.UndoConversion(ctx)
		undone.Deleted = &n
		return undone, err
	}
	show, end := progress(a.stderr, "convert-tokens")
	defer end()
	done, err := a.Legacy.ConvertAll(ctx, mongostore.ConvertConfig{DryRun: !a.apply, Progress: show})
	// After a failure, the report says how far it has come.
	return &convertReport{done.Converted, done.Already, done.Expired, findingsOf(done.Unreadable)}, err
}
