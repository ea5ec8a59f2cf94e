// Package moving has the code of docs/from-other-libraries.md, as tests that run it.
package moving
