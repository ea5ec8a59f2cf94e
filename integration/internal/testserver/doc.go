// Package testserver picks the MongoDB server for the integration suite, and finds out which
// optional features the server has.
//
// It picks the first of these that is available:
//
//  1. the server at LATCHKEY_TEST_MONGODB_URI, also if LATCHKEY_TEST_REQUIRE_CONTAINER is set;
//  2. a container of LATCHKEY_TEST_IMAGE (default mongo:8), through testcontainers, if a Docker engine
//     answers and has the image or can pull it;
//  3. package devmongo in this process: no TTL indexes, no transactions, no change streams, no decimal128.
//
// Two variables keep a lesser server from passing for a full one.
// LATCHKEY_TEST_REQUIRE_CONTAINER=1 turns the fallback to devmongo into an error.
// LATCHKEY_TEST_REQUIRE lists the capabilities ("ttl,explain", or "all") whose absence fails a
// test instead of skipping it; see [Require].
package testserver
