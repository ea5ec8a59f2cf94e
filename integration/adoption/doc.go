// Package adoption tests the move of a running fastapi-users application to Latchkey: a stand-in
// for fastapi-users works on the same database, in the documents of both of its MongoDB adapters.
package adoption
