// Package memstore keeps access tokens, accounts, login attempts and revocations in memory.
// Use it in unit tests and examples: the data belong to one process and are lost when it
// ends.
package memstore
