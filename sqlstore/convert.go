package sqlstore

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// millis returns the value that is stored for a time: milliseconds since 1970, or NULL for
// the zero time.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// userIDValue returns the value that is stored for a user's ID.
func userIDValue[ID UserID](id ID) any {
	if u, ok := any(id).(uuid.UUID); ok {
		return u.String()
	}
	return id
}

// row reads the values of a row one after the other. The first value of another type sets
// err, and ends it.
type row struct {
	columns string // the names of the columns, separated by ", "
	values  []any
	err     error
}

// next returns the next value, with text as a string.
func (r *row) next() any {
	v := r.values[0]
	r.values = r.values[1:]
	return textOf(v)
}

// textOf returns a value as the driver returned it, but text as a string: MySQL's driver returns
// bytes, which are no text as an argument.
func textOf(v any) any {
	if b, ok := v.([]byte); ok {
		return string(b)
	}
	return v
}

// failed notes that the value that was read last is not what it should be.
func (r *row) failed(v any, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("the column %q has a value of the type %T, which is not %s", r.column(), v, want)
	}
}

// column returns the name of the column that was read last.
func (r *row) column() string {
	names := strings.Split(r.columns, ", ")
	return names[len(names)-len(r.values)-1]
}

func (r *row) string() string {
	v := r.next()
	s, ok := v.(string)
	if !ok {
		r.failed(v, "text")
	}
	return s
}

func (r *row) int64() int64 {
	v := r.next()
	n, ok := toInt(v)
	if !ok {
		r.failed(v, "an integer")
	}
	return n
}

func toInt(v any) (int64, bool) {
	switch v := v.(type) {
	case int64:
		return v, true
	case uint64: // a column of MySQL that is unsigned
		return int64(v), v <= math.MaxInt64
	case string: // MySQL's text protocol
		n, err := strconv.ParseInt(v, 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (r *row) bool() bool {
	v := r.next()
	switch v := v.(type) {
	case bool:
		return v
	case string:
		if v == "\x00" || v == "\x01" { // BIT(1) on MySQL
			return v == "\x01"
		}
	}
	n, ok := toInt(v)
	if !ok {
		r.failed(v, "a boolean")
	}
	return n != 0
}

// time returns a time, or the zero time for NULL.
func (r *row) time() time.Time {
	v := r.next()
	if v == nil {
		return time.Time{}
	}
	t, ok := toTime(v)
	if !ok {
		r.failed(v, "a time")
	}
	return t
}

// sqliteTime is the text of a time on SQLite, as its Go drivers write and read it.
const sqliteTime = "2006-01-02 15:04:05.000-07:00"

// toTime reads milliseconds since 1970, a date, or the text of one, in UTC if it names no zone:
// SQLite has no type for dates, and MySQL's driver returns text unless parseTime is set.
func toTime(v any) (time.Time, bool) {
	if n, ok := toInt(v); ok {
		return time.UnixMilli(n).UTC(), true
	}
	switch v := v.(type) {
	case time.Time:
		if v.IsZero() {
			return time.Time{}, true
		}
		return v.UTC(), true
	case string:
		if strings.HasPrefix(v, "0000-00-00") { // MySQL's date that is none
			return time.Time{}, true
		}
		v, _, _ = strings.Cut(v, " m=") // the end of time.Time.String
		for _, layout := range []string{"2006-01-02 15:04:05Z07:00", time.DateTime, time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04:05 -0700 MST"} {
			if t, err := time.Parse(layout, v); err == nil { // also with a fraction of a second
				return t.UTC(), true
			}
		}
	}
	return time.Time{}, false
}

// strings returns a list that is stored as JSON, or nil for NULL.
func (r *row) strings() (list []string) {
	v := r.next()
	if v == nil {
		return nil
	}
	s, ok := v.(string)
	if !ok || json.Unmarshal([]byte(s), &list) != nil || list == nil {
		r.failed(v, "a list of strings in JSON")
		return nil
	}
	return list
}

func (r *row) uuid() uuid.UUID {
	v := r.next()
	id, ok := toUUID(v)
	if !ok {
		r.failed(v, "a UUID")
	}
	return id
}

func toUUID(v any) (uuid.UUID, bool) {
	switch v := v.(type) {
	case [16]byte:
		return v, true
	case string:
		if len(v) == 16 {
			return uuid.UUID([]byte(v)), true
		}
		id, err := uuid.Parse(v)
		return id, err == nil
	}
	return uuid.Nil, false
}

// userID reads the ID of a user.
func userID[ID UserID](r *row) (id ID) {
	switch id := any(&id).(type) {
	case *uuid.UUID:
		text, isText := r.values[0].(string)
		if b, ok := r.values[0].([]byte); ok {
			text, isText = string(b), true
		}
		*id = r.uuid()
		// In another form, a comparison with the form that userIDValue returns finds no row.
		if isText && r.err == nil && text != id.String() {
			r.err = fmt.Errorf("the column %q has a UUID in a form that is not supported: store it as text with hyphens in lower case, or with the type UUID", r.column())
		}
	case *int64:
		*id = r.int64()
	case *string:
		*id = r.string()
	}
	return id
}
