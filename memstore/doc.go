// Package memstore keeps access tokens and accounts in memory: the reference
// stores, for unit tests and examples. What they hold is gone when the process
// ends, no other process sees it, and expired tokens stay until they are deleted.
package memstore
