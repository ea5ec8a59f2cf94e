//go:build !linux

package faults_test

import "testing"

// postgreSQL is a PostgreSQL server. The suite starts one on Linux only.
type postgreSQL struct{ sqlServer }

func suitePostgreSQL() (*postgreSQL, error) { return nil, errNoPostgreSQL }

func stopSuitePostgreSQL() {}

func ownPostgreSQL(tb testing.TB) crasher {
	skipPostgreSQL(tb, errNoPostgreSQL)
	return nil
}
