package sqlstore

import "strings"

// kind is what a column can hold.
type kind string

// The kinds.
const (
	kindInteger kind = "an integer"
	kindText    kind = "text"
	kindBoolean kind = "a boolean"
	kindUUID    kind = "a UUID"
	kindTime    kind = "a date and time"
	kindOther   kind = "another type"
)

// kindOf returns the kind of a type that the database or its driver names.
func (d Dialect) kindOf(name string) kind {
	name, _, _ = strings.Cut(strings.ToUpper(name), "(")
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(name, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("UUID", "GUID"):
		return kindUUID
	case has("BOOL") || d == MySQL && strings.TrimSpace(name) == "BIT":
		return kindBoolean
	case has("TIME", "DATE"):
		return kindTime
	case has("INTERVAL", "POINT"):
		return kindOther
	case has("INT", "SERIAL"):
		return kindInteger
	case has("CHAR", "TEXT", "CLOB", "ENUM"):
		return kindText
	}
	return kindOther
}
