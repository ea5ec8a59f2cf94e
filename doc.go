// Package latchkey is the root of a library that puts login, logout and route
// guards on a Gin application, with revocable, expiring, opaque access tokens in
// the application's own MongoDB. It holds no code; begin with these:
//
//   - ginauth: the Gin plugin, its routes and guards
//   - strategy: what a token is and how it lives
//   - account: accounts and passwords
//   - mongostore: tokens and accounts in MongoDB
//
// The README has a complete program.
package latchkey
