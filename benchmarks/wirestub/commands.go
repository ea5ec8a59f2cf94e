package wirestub

import (
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/FerretDB/wire/wirebson"
)

// run carries out a command.
func (s *store) run(c command) (*wirebson.Document, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch c.name {
	case "find":
		return s.find(c)
	case "insert":
		return s.insert(c)
	case "update":
		return s.update(c)
	case "delete":
		return s.delete(c)
	case "findAndModify":
		return s.findAndModify(c)
	case "getMore":
		return s.getMore(c)
	case "count", "aggregate":
		return s.count(c)
	case "createIndexes":
		return s.createIndexes(c)
	case "listIndexes":
		return s.listIndexes(c)
	case "buildInfo":
		return wirebson.MustDocument("version", "0.0.0 (wirestub)", "ok", 1.0), nil
	case "dropDatabase":
		db, _ := c.target()
		delete(s.databases, db)
		return wirebson.MustDocument("ok", 1.0), nil
	default:
		return nil, &failure{codeCommandNotFound, "no such command: '" + c.name + "'"}
	}
}

// rejectOptions returns an error if a command has one of these options, which would change
// its answer and which the stub does not implement. Empty and zero values are accepted.
func rejectOptions(doc *wirebson.Document, options ...string) error {
	for _, option := range options {
		switch v := doc.Get(option).(type) {
		case nil:
		case wirebson.RawDocument:
			if len(v) > 5 { // not empty
				return notImplemented("option " + option)
			}
		default:
			if n, ok := number(v); !ok || n != 0 {
				return notImplemented("option " + option)
			}
		}
	}
	return nil
}

// byID reports whether an option is {_id: 1}. Any other value is an error.
func byID(spec *wirebson.Document, option string) (bool, error) {
	doc, err := document(spec, option)
	if err != nil || doc.Len() == 0 {
		return false, err
	}
	if n, ok := number(doc.Get("_id")); doc.Len() != 1 || !ok || n != 1 {
		return false, rejectOptions(spec, option)
	}
	return true, nil
}

func (s *store) find(c command) (*wirebson.Document, error) {
	if err := rejectOptions(c.spec, "skip", "collation"); err != nil {
		return nil, err
	}
	projection, err := document(c.spec, "projection")
	if err != nil {
		return nil, err
	}
	filter, err := document(c.spec, "filter")
	if err != nil {
		return nil, err
	}
	limit, _ := number(c.spec.Get("limit"))
	if limit < 0 {
		limit = -limit
	}
	sort, err := document(c.spec, "sort")
	if err != nil {
		return nil, err
	}
	db, name := c.target()
	coll := s.collection(db, name, false)
	var found []*row
	field, newestFirst, byDate := coll.byDate(sort)
	switch {
	case byDate:
		found, err = coll.findInOrder(filter, field, newestFirst, int64(limit))
	case sort.Len() > 0:
		if found, err = coll.find(filter, 0); err == nil {
			found, err = sorted(found, sort, int64(limit))
		}
	default:
		found, err = coll.find(filter, int64(limit))
	}
	if err != nil {
		return nil, err
	}
	raws := make([]wirebson.RawDocument, len(found))
	for i, r := range found {
		if raws[i] = r.raw; projection.Len() > 0 {
			if raws[i], err = project(r.doc, projection); err != nil {
				return nil, err
			}
		}
	}
	size, _ := number(c.spec.Get("batchSize"))
	return s.cursor(db+"."+name, "firstBatch", 0, raws, int(size))
}

// project returns the fields of a document that a projection includes, and its _id.
func project(doc, projection *wirebson.Document) (wirebson.RawDocument, error) {
	out := wirebson.MustDocument("_id", doc.Get("_id"))
	for i := range projection.Len() {
		name, include := projection.GetByIndex(i)
		if n, ok := number(include); !ok || n != 1 || strings.Contains(name, ".") {
			return nil, notImplemented("a projection other than of fields")
		}
		if v := doc.Get(name); v != nil && name != "_id" {
			if err := out.Add(name, v); err != nil {
				return nil, err
			}
		}
	}
	return out.Encode()
}

// sorted returns the first rows by the fields of a sort; a limit of 0 means all.
func sorted(rows []*row, sort *wirebson.Document, limit int64) ([]*row, error) {
	var failed error
	slices.SortFunc(rows, func(a, b *row) int {
		for i := range sort.Len() {
			field, direction := sort.GetByIndex(i)
			n, ok := compare(a.doc.Get(field), b.doc.Get(field))
			if !ok {
				failed = notImplemented("a sort by values of several kinds")
			}
			if down, _ := number(direction); down < 0 {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	})
	if limit > 0 && int64(len(rows)) > limit {
		rows = rows[:limit]
	}
	return rows, failed
}

// cursor returns the next documents of a query, all if size is 0, and keeps the others for
// getMore. An id of 0 begins a cursor.
func (s *store) cursor(ns, field string, id int64, docs []wirebson.RawDocument, size int) (*wirebson.Document, error) {
	rest := docs[len(docs):]
	if size > 0 && size < len(docs) {
		docs, rest = docs[:size], docs[size:]
	}
	batch := wirebson.MakeArray(len(docs))
	for _, doc := range docs {
		if err := batch.Add(doc); err != nil {
			return nil, err
		}
	}
	switch {
	case len(rest) == 0:
		delete(s.cursors, id)
		id = 0
	case id == 0:
		s.lastCursor++
		id = s.lastCursor
	}
	if id != 0 {
		s.cursors[id] = rest
	}
	return wirebson.MustDocument("cursor", wirebson.MustDocument(field, batch, "id", id, "ns", ns), "ok", 1.0), nil
}

func (s *store) getMore(c command) (*wirebson.Document, error) {
	id, _ := c.spec.Get("getMore").(int64)
	docs, ok := s.cursors[id]
	if !ok {
		return nil, &failure{codeCursorNotFound, "no such cursor"}
	}
	db, _ := c.target()
	name, _ := c.spec.Get("collection").(string)
	size, _ := number(c.spec.Get("batchSize"))
	return s.cursor(db+"."+name, "nextBatch", id, docs, int(size))
}

// count carries out count, and the pipeline that drivers count documents with.
func (s *store) count(c command) (*wirebson.Document, error) {
	db, name := c.target()
	coll := s.collection(db, name, false)
	if c.name == "count" {
		if err := rejectOptions(c.spec, "query", "skip", "limit"); err != nil {
			return nil, err
		}
		return wirebson.MustDocument("n", int32(len(coll.rows)), "ok", 1.0), nil
	}
	stages, err := documents(c.spec.Get("pipeline"))
	if err != nil {
		return nil, err
	}
	filter := wirebson.MakeDocument(0)
	for i, raw := range stages {
		stage, err := raw.Decode()
		if err != nil {
			return nil, &failure{codeFailedToParse, err.Error()}
		}
		switch op := stage.Command(); {
		case op == "$match" && i == 0:
			if filter, err = document(stage, op); err != nil {
				return nil, err
			}
		case op == "$group" && i == len(stages)-1:
			if want := wirebson.MustDocument("_id", int32(1), "n", wirebson.MustDocument("$sum", int32(1))); !equal(stage.Get(op), want) {
				return nil, notImplemented("a $group other than a count")
			}
		default:
			return nil, notImplemented("pipeline stage " + op)
		}
	}
	found, err := coll.find(filter, 0)
	if err != nil {
		return nil, err
	}
	var docs []wirebson.RawDocument
	if len(found) > 0 {
		doc, err := wirebson.MustDocument("_id", int32(1), "n", int32(len(found))).Encode()
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return s.cursor(db+"."+name, "firstBatch", 0, docs, 0)
}

// equal reports whether a value is a document with these fields.
func equal(v any, want *wirebson.Document) bool {
	raw, err := want.Encode()
	return err == nil && key(v) == key(raw)
}

// eachStatement runs a write for every statement of a command. It returns a reply with the
// number of documents and the errors of the statements.
func eachStatement(c command, field string, write func(i int, statement wirebson.RawDocument) (n int, err error)) (*wirebson.Document, error) {
	statements, err := c.docs(field)
	if err != nil {
		return nil, err
	}
	var n int32
	errs := wirebson.MakeArray(0)
	for i, statement := range statements {
		changed, err := write(i, statement)
		n += int32(changed)
		if err == nil {
			continue
		}
		var f *failure
		if !errors.As(err, &f) {
			return nil, err
		}
		if err := errs.Add(wirebson.MustDocument("index", int32(i), "code", f.code, "errmsg", f.message)); err != nil {
			return nil, err
		}
		if c.spec.Get("ordered") != false {
			break
		}
	}
	reply := wirebson.MustDocument("n", n)
	if errs.Len() > 0 {
		if err := reply.Add("writeErrors", errs); err != nil {
			return nil, err
		}
	}
	return reply, nil
}

// withOK marks the reply to a write as successful.
func withOK(reply *wirebson.Document, err error) (*wirebson.Document, error) {
	if err != nil {
		return nil, err
	}
	return reply, reply.Add("ok", 1.0)
}

func (s *store) insert(c command) (*wirebson.Document, error) {
	db, name := c.target()
	coll := s.collection(db, name, true)
	return withOK(eachStatement(c, "documents", func(_ int, raw wirebson.RawDocument) (int, error) {
		r, err := newRow(raw)
		if err != nil {
			return 0, err
		}
		if err := coll.add(r); err != nil {
			return 0, err
		}
		return 1, nil
	}))
}

func (s *store) delete(c command) (*wirebson.Document, error) {
	db, name := c.target()
	coll := s.collection(db, name, false)
	return withOK(eachStatement(c, "deletes", func(_ int, raw wirebson.RawDocument) (int, error) {
		statement, err := raw.Decode()
		if err != nil {
			return 0, err
		}
		filter, err := document(statement, "q")
		if err != nil {
			return 0, err
		}
		limit, _ := number(statement.Get("limit"))
		found, err := coll.find(filter, int64(limit))
		if err != nil {
			return 0, err
		}
		for _, r := range found {
			coll.remove(r)
		}
		return len(found), nil
	}))
}

func (s *store) update(c command) (*wirebson.Document, error) {
	db, name := c.target()
	coll := s.collection(db, name, true)
	upserted, modified := wirebson.MakeArray(0), int32(0)
	reply, err := eachStatement(c, "updates", func(i int, raw wirebson.RawDocument) (int, error) {
		statement, err := raw.Decode()
		if err != nil {
			return 0, err
		}
		if err := rejectOptions(statement, "collation", "arrayFilters"); err != nil {
			return 0, err
		}
		filter, err := document(statement, "q")
		if err != nil {
			return 0, err
		}
		change, err := document(statement, "u")
		if err != nil {
			return 0, err
		}
		limit := int64(1)
		if statement.Get("multi") == true {
			limit = 0
		}
		found, err := coll.find(filter, limit)
		if err != nil {
			return 0, err
		}
		if len(found) == 0 && statement.Get("upsert") == true {
			r, err := coll.upsert(filter, change)
			if err != nil {
				return 0, err
			}
			return 1, upserted.Add(wirebson.MustDocument("index", int32(i), "_id", r.doc.Get("_id")))
		}
		for _, r := range found {
			if _, err := coll.change(r, change); err != nil {
				return 0, err
			}
		}
		modified += int32(len(found))
		return len(found), nil
	})
	if err != nil {
		return nil, err
	}
	if err := reply.Add("nModified", modified); err != nil {
		return nil, err
	}
	if upserted.Len() > 0 {
		if err := reply.Add("upserted", upserted); err != nil {
			return nil, err
		}
	}
	return withOK(reply, nil)
}

func (s *store) findAndModify(c command) (*wirebson.Document, error) {
	if err := rejectOptions(c.spec, "fields", "collation", "arrayFilters"); err != nil {
		return nil, err
	}
	if _, err := byID(c.spec, "sort"); err != nil { // the queries match one document
		return nil, err
	}
	filter, err := document(c.spec, "query")
	if err != nil {
		return nil, err
	}
	db, name := c.target()
	change, err := document(c.spec, "update")
	if err != nil {
		return nil, err
	}
	upsert := c.spec.Get("upsert") == true
	coll := s.collection(db, name, upsert)
	found, err := coll.find(filter, 1)
	if err != nil {
		return nil, err
	}
	var before, after *row
	switch {
	case len(found) == 0 && upsert:
		after, err = coll.upsert(filter, change)
	case len(found) == 0:
	case c.spec.Get("remove") == true:
		before = found[0]
		coll.remove(before)
	default:
		before = found[0]
		after, err = coll.change(before, change)
	}
	if err != nil {
		return nil, err
	}
	value := before
	if c.spec.Get("new") == true {
		value = after
	}
	if value == nil {
		return wirebson.MustDocument("value", wirebson.Null, "ok", 1.0), nil
	}
	return wirebson.MustDocument("value", value.raw, "ok", 1.0), nil
}

// change updates a row: it puts another one in its place.
func (c *collection) change(r *row, update *wirebson.Document) (*row, error) {
	after, err := updated(r.doc, update, false)
	if err != nil {
		return nil, err
	}
	c.remove(r)
	if err := c.add(after); err != nil {
		_ = c.add(r) // cannot fail: remove has just freed the keys
		return nil, err
	}
	return after, nil
}

// upsert adds the row that an update makes of a filter's equality conditions.
func (c *collection) upsert(filter, update *wirebson.Document) (*row, error) {
	doc := wirebson.MakeDocument(filter.Len())
	for i := range filter.Len() {
		name, value := filter.GetByIndex(i)
		if _, composite := value.(wirebson.RawDocument); composite || strings.HasPrefix(name, "$") {
			continue
		}
		if err := doc.Add(name, value); err != nil {
			return nil, err
		}
	}
	r, err := updated(doc, update, true)
	if err != nil {
		return nil, err
	}
	return r, c.add(r)
}

// updated returns a row with a document to which an update was applied.
func updated(doc, update *wirebson.Document, inserting bool) (*row, error) {
	after, err := clone(doc)
	if err != nil {
		return nil, err
	}
	for i := range update.Len() {
		op, _ := update.GetByIndex(i)
		fields, err := document(update, op)
		if err != nil {
			return nil, err
		}
		for i := range fields.Len() {
			name, value := fields.GetByIndex(i)
			switch op {
			case "$set":
			case "$setOnInsert":
				if !inserting {
					continue
				}
			case "$max":
				if n, ok := compare(after.Get(name), value); ok && n >= 0 {
					continue
				}
			case "$unset":
				after.Remove(name)
				continue
			case "$inc":
				by, ok := number(value)
				old := 0.0
				if had := after.Get(name); had != nil && ok {
					old, ok = number(had)
				}
				if !ok {
					return nil, &failure{codeTypeMismatch, "Cannot apply $inc to a value of non-numeric type"}
				}
				value = int64(old + by)
			case "$currentDate":
				if value != true {
					return nil, notImplemented("$currentDate with another value than true")
				}
				value = time.Now()
			default:
				return nil, notImplemented("update operator " + op)
			}
			if strings.Contains(name, ".") {
				return nil, notImplemented("update of a nested field")
			}
			if err := set(after, name, value); err != nil {
				return nil, err
			}
		}
	}
	if after.Get("_id") == nil {
		if err := after.Add("_id", newObjectID()); err != nil {
			return nil, err
		}
	}
	raw, err := after.Encode()
	if err != nil {
		return nil, err
	}
	return newRow(raw)
}

func newObjectID() (id wirebson.ObjectID) {
	_, _ = rand.Read(id[:]) // never fails
	return id
}

// clone returns a copy of a document.
func clone(doc *wirebson.Document) (*wirebson.Document, error) {
	other := wirebson.MakeDocument(doc.Len() + 1)
	for i := range doc.Len() {
		name, value := doc.GetByIndex(i)
		if err := other.Add(name, value); err != nil {
			return nil, err
		}
	}
	return other, nil
}

func set(doc *wirebson.Document, name string, value any) error {
	if doc.Get(name) == nil {
		return doc.Add(name, value)
	}
	return doc.Replace(name, value)
}

func (s *store) createIndexes(c command) (*wirebson.Document, error) {
	specs, err := c.docs("indexes")
	if err != nil {
		return nil, err
	}
	db, name := c.target()
	coll := s.collection(db, name, true)
	for _, raw := range specs {
		spec, err := raw.Decode()
		if err != nil {
			return nil, err
		}
		keys, err := document(spec, "key")
		if err != nil {
			return nil, err
		}
		x := index{fields: keys.FieldNames(), unique: spec.Get("unique") == true, spec: raw}
		x.name, _ = spec.Get("name").(string)
		if err := coll.addIndex(x); err != nil {
			return nil, err
		}
	}
	return wirebson.MustDocument("ok", 1.0), nil
}

// addIndex adds an index, unless one of this name exists.
func (c *collection) addIndex(x index) error {
	for _, other := range c.indexes {
		if other.name == x.name {
			return nil
		}
	}
	if x.unique {
		values := make(map[string]*row, len(c.rows))
		for _, r := range c.rows {
			k := x.key(r.doc)
			if values[k] != nil {
				return &failure{codeDuplicateKey, "E11000 duplicate key error, index: " + x.name}
			}
			values[k] = r
		}
		c.unique[x.name] = values
	}
	c.indexes = append(c.indexes, x)
	return nil
}

func (s *store) listIndexes(c command) (*wirebson.Document, error) {
	db, name := c.target()
	coll := s.databases[db][name]
	if coll == nil {
		return nil, &failure{codeNamespaceMissing, "ns does not exist: " + db + "." + name}
	}
	batch := wirebson.MustArray(wirebson.MustDocument("v", int32(2), "key", wirebson.MustDocument("_id", int32(1)), "name", "_id_"))
	for _, x := range coll.indexes {
		if err := batch.Add(x.spec); err != nil {
			return nil, err
		}
	}
	return wirebson.MustDocument("cursor", wirebson.MustDocument("firstBatch", batch, "id", int64(0), "ns", db+"."+name), "ok", 1.0), nil
}
