// Package reported marks the failures that an event has reported, so that no other package
// reports them again.
package reported

import "errors"

var errReported = errors.New("reported")

type failure struct{ error }

func (f *failure) Unwrap() error        { return f.error }
func (f *failure) Is(target error) bool { return target == errReported }

// Mark returns err, marked as reported.
func Mark(err error) error { return &failure{err} }

// Is reports whether err wraps an error that was marked.
func Is(err error) bool { return errors.Is(err, errReported) }
