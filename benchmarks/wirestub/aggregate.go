package wirestub

import (
	"strings"

	"github.com/FerretDB/wire/wirebson"
)

// aggregate knows pipelines that join: $lookup and $limit, behind a $match of what is to be joined.
func (s *store) aggregate(c command) (*wirebson.Document, error) {
	if err := refuse(c.spec, "collation", "let", "explain"); err != nil {
		return nil, err
	}
	stages, err := pipeline(c)
	if err != nil {
		return nil, err
	}
	filter := wirebson.MakeDocument(0)
	if len(stages) > 0 && stages[0].Command() == "$match" {
		if filter, err = document(stages[0], "$match"); err != nil {
			return nil, err
		}
		stages = stages[1:]
	}
	db, name := c.target()
	found, err := s.collection(db, name, false).find(filter, 0)
	if err != nil {
		return nil, err
	}
	docs := make([]*wirebson.Document, len(found))
	for i, r := range found {
		docs[i] = r.doc
	}
	for _, stage := range stages {
		switch op := stage.Command(); op {
		case "$lookup":
			docs, err = s.lookup(db, stage, docs)
		case "$limit":
			docs, err = limited(stage, docs)
		case "$match":
			err = &failure{codeNotImplemented, "a $match behind another stage"}
		default:
			err = &failure{codeUnknownStage, "Unrecognized pipeline stage name: '" + op + "'"}
		}
		if err != nil {
			return nil, err
		}
	}
	batch := wirebson.MakeArray(len(docs))
	for _, doc := range docs {
		if err := batch.Add(doc); err != nil {
			return nil, err
		}
	}
	return cursor(db, name, batch), nil
}

// pipeline returns a command's stages.
func pipeline(c command) ([]*wirebson.Document, error) {
	raw, err := c.docs("pipeline")
	if err != nil {
		return nil, err
	}
	stages := make([]*wirebson.Document, len(raw))
	for i := range stages {
		if stages[i], err = raw[i].Decode(); err != nil {
			return nil, &failure{codeFailedToParse, err.Error()}
		}
		if stages[i].Len() != 1 {
			return nil, &failure{codeBadValue, "a pipeline stage must have one field"}
		}
	}
	return stages, nil
}

func limited(stage *wirebson.Document, docs []*wirebson.Document) ([]*wirebson.Document, error) {
	n, _ := number(stage.Get("$limit"))
	if n < 1 {
		return nil, &failure{codeBadValue, "$limit must be a positive number"}
	}
	return docs[:int(min(n, float64(len(docs))))], nil
}

// lookup returns the documents with those of another collection that have the same value in a field. Documents without
// the field have null there, as with MongoDB: they get what is without the other field.
func (s *store) lookup(db string, stage *wirebson.Document, docs []*wirebson.Document) ([]*wirebson.Document, error) {
	spec, err := document(stage, "$lookup")
	if err != nil {
		return nil, err
	}
	from, _ := spec.Get("from").(string)
	local, _ := spec.Get("localField").(string)
	foreign, _ := spec.Get("foreignField").(string)
	as, _ := spec.Get("as").(string)
	if spec.Len() != 4 || from == "" || local == "" || foreign == "" || as == "" {
		return nil, &failure{codeNotImplemented, "another $lookup than one with from, localField, foreignField and as"}
	}
	if strings.Contains(local+foreign+as, ".") {
		return nil, &failure{codeNotImplemented, "a $lookup with an inner field"}
	}
	other := s.collection(db, from, false)
	joined := make([]*wirebson.Document, len(docs))
	for i, doc := range docs {
		value := doc.Get(local)
		if _, ok := value.(wirebson.AnyArray); ok {
			return nil, &failure{codeNotImplemented, "a $lookup of each value of an array"}
		}
		found := other.byField(foreign, value)
		list := wirebson.MakeArray(len(found))
		for _, r := range found {
			if err := list.Add(r.raw); err != nil {
				return nil, err
			}
		}
		if joined[i], err = clone(doc); err != nil { // it may be a row's, which does not change
			return nil, err
		}
		if err := set(joined[i], as, list); err != nil {
			return nil, err
		}
	}
	return joined, nil
}
