package wirestub

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// store holds the databases: collections by database and name.
type store struct {
	mu        sync.Mutex
	databases map[string]map[string]*collection

	cursors    map[int64][]wirebson.RawDocument // what getMore will return
	lastCursor int64
}

// row is a stored document. It is immutable: an update replaces it.
type row struct {
	raw wirebson.RawDocument
	doc *wirebson.Document // raw, decoded one level deep
}

func newRow(raw wirebson.RawDocument) (*row, error) {
	doc, err := raw.Decode()
	if err != nil {
		return nil, &failure{codeFailedToParse, err.Error()}
	}
	if doc.Get("_id") == nil {
		return nil, notImplemented("a document without _id")
	}
	return &row{raw, doc}, nil
}

type index struct {
	name   string
	fields []string
	unique bool
	spec   wirebson.RawDocument
}

func (x index) key(doc *wirebson.Document) string {
	var b strings.Builder
	for _, field := range x.fields {
		b.WriteString(key(doc.Get(field)))
		b.WriteByte(0)
	}
	return b.String()
}

type collection struct {
	rows    map[string]*row              // by _id
	fields  map[string]map[string][]*row // by field and value, for fields compared in filters
	ordered map[string][]*row            // by field, for dates used in sorts; oldest first
	indexes []index
	unique  map[string]map[string]*row // by index and value
}

// collection returns a collection. If it is missing, it returns an empty one, and stores it
// if create is set.
func (s *store) collection(db, name string, create bool) *collection {
	coll := s.databases[db][name]
	if coll != nil {
		return coll
	}
	coll = &collection{
		rows:    make(map[string]*row),
		fields:  make(map[string]map[string][]*row),
		ordered: make(map[string][]*row),
		unique:  make(map[string]map[string]*row),
	}
	if create {
		if s.databases[db] == nil {
			s.databases[db] = make(map[string]*collection)
		}
		s.databases[db][name] = coll
	}
	return coll
}

// add stores a row, unless one of its unique keys is taken.
func (c *collection) add(r *row) error {
	id := key(r.doc.Get("_id"))
	if c.rows[id] != nil {
		return &failure{codeDuplicateKey, "E11000 duplicate key error, index: _id_"}
	}
	for _, x := range c.indexes {
		if x.unique && c.unique[x.name][x.key(r.doc)] != nil {
			return &failure{codeDuplicateKey, "E11000 duplicate key error, index: " + x.name}
		}
	}
	c.rows[id] = r
	for _, x := range c.indexes {
		if x.unique {
			c.unique[x.name][x.key(r.doc)] = r
		}
	}
	for field, values := range c.fields {
		k := key(r.doc.Get(field))
		values[k] = append(values[k], r)
	}
	for field, rows := range c.ordered {
		at, ok := r.doc.Get(field).(time.Time)
		if !ok {
			delete(c.ordered, field)
			continue
		}
		c.ordered[field] = slices.Insert(rows, since(rows, field, at.Add(time.Nanosecond)), r)
	}
	return nil
}

func (c *collection) remove(r *row) {
	delete(c.rows, key(r.doc.Get("_id")))
	for _, x := range c.indexes {
		if x.unique {
			delete(c.unique[x.name], x.key(r.doc))
		}
	}
	for field, values := range c.fields {
		k := key(r.doc.Get(field))
		var kept []*row
		for _, other := range values[k] {
			if other != r {
				kept = append(kept, other)
			}
		}
		if kept == nil {
			delete(values, k)
		} else {
			values[k] = kept
		}
	}
	for field, rows := range c.ordered {
		i := since(rows, field, date(r, field))
		for rows[i] != r {
			i++
		}
		c.ordered[field] = slices.Delete(rows, i, i+1)
	}
}

func date(r *row, field string) time.Time {
	at, _ := r.doc.Get(field).(time.Time)
	return at
}

// since returns the index of the first ordered row whose date is at or later.
func since(rows []*row, field string, at time.Time) int {
	i, _ := slices.BinarySearchFunc(rows, at, func(r *row, at time.Time) int { return date(r, field).Compare(at) })
	return i
}

// byDate returns the field and the direction of a sort. ok is false unless the sort has one
// field, which is a date in all rows.
func (c *collection) byDate(sort *wirebson.Document) (field string, newestFirst, ok bool) {
	if sort.Len() != 1 {
		return "", false, false
	}
	field, direction := sort.GetByIndex(0)
	n, _ := number(direction)
	if c.ordered[field] != nil {
		return field, n < 0, true
	}
	rows := make([]*row, 0, len(c.rows))
	for _, r := range c.rows {
		if _, ok := r.doc.Get(field).(time.Time); !ok {
			return "", false, false
		}
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b *row) int { return date(a, field).Compare(date(b, field)) })
	c.ordered[field] = rows
	return field, n < 0, true
}

// findInOrder is find for a sort that byDate accepts. If the filter has a $gte condition on
// the sorted field, it starts there.
func (c *collection) findInOrder(filter *wirebson.Document, field string, newestFirst bool, limit int64) (found []*row, err error) {
	rows := c.ordered[field]
	if ops, ok := filter.Get(field).(wirebson.RawDocument); ok {
		ops, err := ops.Decode()
		if err != nil {
			return nil, &failure{codeFailedToParse, err.Error()}
		}
		if at, ok := ops.Get("$gte").(time.Time); ok {
			rows = rows[since(rows, field, at):]
		}
	}
	for i := range rows {
		r := rows[i]
		if newestFirst {
			r = rows[len(rows)-1-i]
		}
		ok, err := matches(r.doc, filter)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, r)
		}
		if limit > 0 && int64(len(found)) == limit {
			break
		}
	}
	return found, nil
}

// byField returns the rows whose field equals a value.
func (c *collection) byField(field string, value any) []*row {
	if field == "_id" {
		if r := c.rows[key(value)]; r != nil {
			return []*row{r}
		}
		return nil
	}
	values := c.fields[field]
	if values == nil {
		values = make(map[string][]*row)
		for _, r := range c.rows {
			k := key(r.doc.Get(field))
			values[k] = append(values[k], r)
		}
		c.fields[field] = values
	}
	return values[key(value)]
}

// candidates returns the values that a condition allows: that of an equality, and the
// elements of $in. ok is false for any other condition.
func candidates(name string, value any) (values []any, ok bool) {
	raw, composite := value.(wirebson.RawDocument)
	if !composite {
		return []any{value}, !strings.HasPrefix(name, "$")
	}
	ops, err := raw.Decode()
	if err != nil || ops.Len() != 1 || ops.Command() != "$in" {
		return nil, false
	}
	array, _ := ops.Get("$in").(wirebson.AnyArray)
	if array == nil {
		return nil, false
	}
	list, err := array.Decode()
	if err != nil {
		return nil, false
	}
	seen := make(map[string]bool)
	for i := range list.Len() {
		if v := list.Get(i); !seen[key(v)] {
			seen[key(v)] = true
			values = append(values, v)
		}
	}
	return values, true
}

// find returns the rows that match a filter, at most limit of them; 0 means all.
func (c *collection) find(filter *wirebson.Document, limit int64) (found []*row, err error) {
	take := func(r *row) (full bool, err error) {
		ok, err := matches(r.doc, filter)
		if ok {
			found = append(found, r)
		}
		return limit > 0 && int64(len(found)) == limit, err
	}
	for i := range filter.Len() {
		name, value := filter.GetByIndex(i)
		values, ok := candidates(name, value)
		if !ok {
			continue
		}
		for _, value := range values {
			for _, r := range c.byField(name, value) {
				if full, err := take(r); full || err != nil {
					return found, err
				}
			}
		}
		return found, nil
	}
	for _, r := range c.rows {
		if full, err := take(r); full || err != nil {
			return found, err
		}
	}
	return found, nil
}

// key returns the same string for equal values. The type of a number does not matter.
func key(v any) string {
	switch v := v.(type) {
	case nil, wirebson.NullType:
		return ""
	case string:
		return "s" + v
	case wirebson.Binary:
		return "b" + string(rune(v.Subtype)) + string(v.B)
	case wirebson.ObjectID:
		return "o" + string(v[:])
	case int32:
		return fmt.Sprintf("n%v", float64(v))
	case int64:
		return fmt.Sprintf("n%v", float64(v))
	case float64:
		return fmt.Sprintf("n%v", v)
	case bool:
		return fmt.Sprintf("t%v", v)
	case time.Time:
		return fmt.Sprintf("d%d", v.UnixMilli())
	case wirebson.RawDocument:
		return "{" + string(v)
	case wirebson.RawArray:
		return "[" + string(v)
	default:
		return fmt.Sprintf("%T%v", v, v)
	}
}
