// Package testserver picks the MongoDB server that the integration suite runs against, and says what it can do.
//
// The first of these that is there:
//
//  1. the server at LATCHKEY_TEST_MONGODB_URI. It wins over everything else, LATCHKEY_TEST_REQUIRE_CONTAINER too;
//  2. a container of LATCHKEY_TEST_IMAGE (default mongo:8), through testcontainers, if a Docker engine answers and
//     has the image or can pull it;
//  3. package devmongo in this process: no TTL indexes, no $lookup, no transactions, no change streams.
//
// Two variables make sure that less is not mistaken for enough. LATCHKEY_TEST_REQUIRE_CONTAINER=1 turns falling back
// to devmongo into an error; LATCHKEY_TEST_REQUIRE lists the capabilities ("ttl,lookup", or "all") that a test may not
// skip for want of. See Require.
package testserver
