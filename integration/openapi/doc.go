// Package openapi tests the description that ginauth gives of its routes in OpenAPI 3.1, with
// kin-openapi: every answer of the contract suite must be as its description says, and every
// described refusal must occur.
package openapi
