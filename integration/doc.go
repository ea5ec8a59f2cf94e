// Package integration runs Latchkey's test suites against a real server over the
// wire. It is a separate module, so that an application that imports Latchkey
// inherits neither Docker nor FerretDB.
//
// The suites use the first of these servers that is available:
//
//  1. the server at LATCHKEY_TEST_MONGODB_URI;
//  2. a container of LATCHKEY_TEST_IMAGE (default mongo:8), if a Docker engine
//     answers and has the image or can pull it;
//  3. package devmongo in this process.
//
// LATCHKEY_TEST_REQUIRE_CONTAINER=1 fails the suites if they would fall back to
// devmongo. A test skips itself if the server lacks a feature that it needs;
// LATCHKEY_TEST_REQUIRE=all, or a list such as ttl,explain, fails it instead.
//
// Each test uses a new database and drops it at the end.
package integration
