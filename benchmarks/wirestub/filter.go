package wirestub

import (
	"bytes"
	"cmp"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// matches reports whether a document matches a filter.
func matches(doc, filter *wirebson.Document) (bool, error) {
	for i := range filter.Len() {
		name, want := filter.GetByIndex(i)
		ok, err := matchesField(doc, name, want)
		if !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func matchesField(doc *wirebson.Document, name string, want any) (bool, error) {
	switch {
	case name == "$or" || name == "$and":
		return matchesList(doc, want, name == "$and")
	case name == "$nor":
		ok, err := matchesList(doc, want, false)
		return !ok, err
	case strings.HasPrefix(name, "$"):
		return false, notImplemented("filter " + name)
	}
	have := doc.Get(name)
	if raw, ok := want.(wirebson.RawDocument); ok {
		ops, err := raw.Decode()
		if err != nil {
			return false, &failure{codeFailedToParse, err.Error()}
		}
		if strings.HasPrefix(ops.Command(), "$") {
			return matchesOps(have, ops)
		}
	}
	return key(have) == key(want), nil
}

// matchesList evaluates $and if all is set, else $or.
func matchesList(doc *wirebson.Document, list any, all bool) (bool, error) {
	filters, err := documents(list)
	if err != nil {
		return false, err
	}
	for _, raw := range filters {
		filter, err := raw.Decode()
		if err != nil {
			return false, &failure{codeFailedToParse, err.Error()}
		}
		if ok, err := matches(doc, filter); err != nil || ok != all {
			return ok, err
		}
	}
	return all, nil
}

func matchesOps(have any, ops *wirebson.Document) (bool, error) {
	for i := range ops.Len() {
		op, want := ops.GetByIndex(i)
		n, comparable := compare(have, want)
		var ok bool
		switch op {
		case "$gt":
			ok = comparable && n > 0
		case "$gte":
			ok = comparable && n >= 0
		case "$lt":
			ok = comparable && n < 0
		case "$lte":
			ok = comparable && n <= 0
		case "$not":
			raw, _ := want.(wirebson.RawDocument)
			inner, err := raw.Decode()
			if err != nil {
				return false, &failure{codeBadValue, "$not needs a document"}
			}
			matched, err := matchesOps(have, inner)
			if err != nil {
				return false, err
			}
			ok = !matched
		case "$ne":
			ok = key(have) != key(want)
		case "$exists":
			ok = (have != nil) == (want == true)
		case "$in", "$nin":
			raw, _ := want.(wirebson.AnyArray)
			if raw == nil {
				return false, &failure{codeBadValue, op + " needs an array"}
			}
			list, err := raw.Decode()
			if err != nil {
				return false, &failure{codeFailedToParse, err.Error()}
			}
			in := false
			for i := range list.Len() {
				in = in || key(list.Get(i)) == key(have)
			}
			ok = in == (op == "$in")
		default:
			return false, notImplemented("filter operator " + op)
		}
		if !ok {
			return false, nil
		}
	}
	return true, nil
}

// compare orders two values. ok is false if they are of different kinds.
func compare(a, b any) (n int, ok bool) {
	switch a := a.(type) {
	case time.Time:
		b, ok := b.(time.Time)
		return a.Compare(b), ok
	case string:
		b, ok := b.(string)
		return cmp.Compare(a, b), ok
	case wirebson.Binary:
		b, ok := b.(wirebson.Binary)
		return bytes.Compare(a.B, b.B), ok
	case wirebson.ObjectID:
		b, ok := b.(wirebson.ObjectID)
		return bytes.Compare(a[:], b[:]), ok
	}
	x, okX := number(a)
	y, okY := number(b)
	return cmp.Compare(x, y), okX && okY
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int32:
		return float64(v), true
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// documents returns the documents of an array, or none for nil.
func documents(v any) ([]wirebson.RawDocument, error) {
	if v == nil {
		return nil, nil
	}
	raw, ok := v.(wirebson.AnyArray)
	if !ok {
		return nil, &failure{codeBadValue, "expected an array"}
	}
	list, err := raw.Decode()
	if err != nil {
		return nil, &failure{codeFailedToParse, err.Error()}
	}
	docs := make([]wirebson.RawDocument, list.Len())
	for i := range docs {
		if docs[i], ok = list.Get(i).(wirebson.RawDocument); !ok {
			return nil, &failure{codeBadValue, "expected an array of documents"}
		}
	}
	return docs, nil
}

// document returns a field that is a document, or an empty document if it is missing.
func document(doc *wirebson.Document, field string) (*wirebson.Document, error) {
	switch v := doc.Get(field).(type) {
	case nil:
		return wirebson.MakeDocument(0), nil
	case wirebson.AnyDocument:
		d, err := v.Decode()
		if err != nil {
			return nil, &failure{codeFailedToParse, err.Error()}
		}
		return d, nil
	default:
		return nil, &failure{codeBadValue, field + " must be a document"}
	}
}
