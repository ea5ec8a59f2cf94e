// Package sqlcontainers runs the tests of sqlstore on PostgreSQL and MySQL in
// containers, where a Docker engine has their images.
package sqlcontainers
