package sqlstore

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode"
)

// ownField is a field of the application's user struct that has a column.
type ownField struct {
	index  []int
	typ    reflect.Type
	column string
	json   bool // the column has the field in JSON
}

// ownFields returns the fields of a user struct outside the account, whose columns are given.
func ownFields(user, account reflect.Type, columns Columns) ([]ownField, error) {
	taken := make(map[string]string) // Go names by columns in lower case
	for _, column := range columns.list() {
		taken[strings.ToLower(column)] = "the account"
	}
	var fields []ownField
	var add func(t reflect.Type, index []int) error
	add = func(t reflect.Type, index []int) error {
		for f := range t.Fields() {
			at := append(index[:len(index):len(index)], f.Index...)
			name, tagged := f.Tag.Lookup("db")
			name, _, _ = strings.Cut(name, ",")
			switch {
			case f.Type == account || name == "-":
				continue
			case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct && !plain(f.Type):
				if err := add(f.Type, at); err != nil {
					return err
				}
				continue
			case f.Anonymous && !tagged && f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct && !plain(f.Type):
				return fmt.Errorf("sqlstore: %v embeds the pointer %v: embed the struct itself, or give the field the tag `db:\"-\"`", user, f.Type)
			case !f.IsExported():
				continue
			}
			if name == "" {
				name = snakeCase(f.Name)
			}
			if err := checkName(fmt.Sprintf("the column of the field %s of %v", f.Name, user), name); err != nil {
				return err
			}
			if other := taken[strings.ToLower(name)]; other != "" {
				return fmt.Errorf("sqlstore: the field %s of %v has the column %q, which %s has: give it another one with a db tag", f.Name, user, name, other)
			}
			taken[strings.ToLower(name)] = "the field " + f.Name
			fields = append(fields, ownField{at, f.Type, name, !plain(f.Type)})
		}
		return nil
	}
	if user == account || user.Kind() != reflect.Struct {
		return nil, nil
	}
	return fields, add(user, nil)
}

// plain reports whether database/sql can write and read a type.
func plain(t reflect.Type) bool {
	if t.Implements(reflect.TypeFor[driver.Valuer]()) && reflect.PointerTo(t).Implements(reflect.TypeFor[sql.Scanner]()) {
		return true
	}
	switch t.Kind() {
	case reflect.Pointer:
		return plain(t.Elem())
	case reflect.Slice:
		return t.Elem().Kind() == reflect.Uint8
	case reflect.Struct:
		return t == reflect.TypeFor[time.Time]()
	case reflect.Bool, reflect.String, reflect.Float32, reflect.Float64,
		reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return true
	}
	return false
}

// snakeCase returns a Go name in snake case: UserName becomes user_name, and URLOf url_of.
func snakeCase(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for i, r := range runes {
		if unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// ownValues returns what is stored of the fields of a user. It shares no memory with them.
func ownValues(fields []ownField, user reflect.Value) ([]any, error) {
	values := make([]any, len(fields))
	for i, f := range fields {
		v := user.FieldByIndex(f.index).Interface()
		var err error
		if f.json {
			var text []byte
			text, err = json.Marshal(v)
			values[i] = string(text)
		} else {
			values[i], err = driver.DefaultParameterConverter.ConvertValue(v)
			if b, ok := values[i].([]byte); ok {
				values[i] = bytes.Clone(b)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("sqlstore: the account's field for the column %q cannot be stored: %w", f.column, err)
		}
	}
	return values, nil
}

// holder returns a pointer into which database/sql can read the column, also NULL.
func (f ownField) holder() reflect.Value {
	if f.json {
		return reflect.ValueOf(new(*string))
	}
	return reflect.New(reflect.PointerTo(f.typ))
}

// set sets the field to what a holder has, and to the zero value for NULL.
func (f ownField) set(user, holder reflect.Value) error {
	value := holder.Elem()
	if value.IsNil() {
		return nil
	}
	field := user.FieldByIndex(f.index)
	if !f.json {
		field.Set(value.Elem())
		return nil
	}
	if err := json.Unmarshal([]byte(value.Elem().String()), field.Addr().Interface()); err != nil {
		return fmt.Errorf("the column %q is not the field in JSON: %w", f.column, err)
	}
	return nil
}
