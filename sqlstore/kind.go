package sqlstore

import (
	"slices"
	"strconv"
	"strings"
)

// kind is what a column can hold.
type kind string

// The kinds.
const (
	kindInteger kind = "integer" // of 64 bits
	kindSmall   kind = "small integer"
	kindNumber  kind = "number"
	kindText    kind = "text"
	kindBoolean kind = "boolean"
	kindUUID    kind = "UUID"
	kindTime    kind = "date and time"
	kindBytes   kind = "bytes"
	kindOther   kind = "other"
)

// kindOf returns the kind of a type that the database or its driver names.
func (d Dialect) kindOf(name string) kind {
	name = strings.ToUpper(name)
	name, _, _ = strings.Cut(name, "(")
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(name, part) })
	}
	switch {
	case has("UUID", "GUID"):
		return kindUUID
	case has("BOOL") || d == MySQL && strings.TrimSpace(name) == "BIT":
		return kindBoolean
	case has("TIME", "DATE"):
		return kindTime
	case has("INTERVAL", "POINT", "[]"):
		return kindOther
	case has("INT", "SERIAL"):
		if d == SQLite || has("BIG", "INT8") {
			return kindInteger
		}
		return kindSmall
	case has("NUMERIC", "DECIMAL"):
		return kindNumber
	case has("CHAR", "TEXT", "CLOB"):
		return kindText
	case has("BINARY", "BLOB", "BYTEA"):
		return kindBytes
	}
	return kindOther
}

// length returns the length in the name of a type, such as 36 of CHAR(36), or 0.
func length(name string) int {
	_, rest, _ := strings.Cut(name, "(")
	digits, _, _ := strings.Cut(rest, ")")
	n, _ := strconv.Atoi(digits)
	return n
}

// accepts reports whether a column that Migrate would make with the type wanted may have the type
// actual. In the application's table of users, more types serve.
func (d Dialect) accepts(wanted, actual string, ofUsers bool) bool {
	want, is := d.kindOf(wanted), d.kindOf(actual)
	if want == is && is != kindOther {
		return want != kindText || length(wanted) != uuidLength || length(actual) == 0 || length(actual) >= uuidLength
	}
	switch want {
	case kindInteger, kindSmall:
		return is == kindInteger || is == kindNumber || is == kindSmall && ofUsers
	case kindBoolean:
		return d == MySQL && is == kindInteger || d == MySQL && is == kindSmall || d == SQLite && (is == kindInteger || is == kindNumber)
	case kindUUID:
		return is == kindText && (length(actual) == 0 || length(actual) >= uuidLength)
	case kindText:
		return is == kindUUID
	}
	return false
}

// uuidLength is the length of a UUID as text.
const uuidLength = 36
