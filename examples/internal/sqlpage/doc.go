// Package sqlpage has the code of docs/sql.md, as tests that run it.
package sqlpage
