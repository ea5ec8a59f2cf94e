// Package integration runs Latchkey's suites against a real server over the
// wire. It is a module of its own, so that an application which imports Latchkey
// inherits neither Docker nor FerretDB.
//
// Which server: the one that LATCHKEY_TEST_MONGODB_URI names; else one that
// testcontainers starts of LATCHKEY_TEST_IMAGE (mongo:8), if a Docker engine
// answers and has the image or can pull it; else devmongo, in the process.
// LATCHKEY_TEST_REQUIRE_CONTAINER=1 turns having no container into a failure,
// LATCHKEY_TEST_REQUIRE=all (or ttl, lookup, …) the skipping of what the server
// cannot do.
//
// Every test uses a database of its own and drops it.
package integration
