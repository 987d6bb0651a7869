package serve

import (
	"bytes"
	"context"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	"gonum.org/v1/gonum/blas/blas32"
)

// predictRequest is the body of POST /v1/models/{model}:predict.
type predictRequest struct {
	// Instances are rows: lists of numbers, or objects by column name.
	Instances jsontext.Value `json:"instances"`
	// Inputs are columns: an object of lists by column name, or of one list of
	// rows under another name. A bare list is one of rows.
	Inputs     jsontext.Value `json:"inputs"`
	Parameters struct {
		// Labels asks for the labels of the likeliest classes, too.
		Labels bool `json:"labels"`
	} `json:"parameters"`
}

// predictV1 answers a request of the V1 protocol.
func predictV1(ctx context.Context, v *version, mostRows int, b *buffers) error {
	if b.head > 0 {
		return invalid("the request has binary tensors (%s), which V1 does not have; send JSON, or use V2", binaryHeader)
	}
	var request predictRequest
	if err := decode(b.body, &request); err != nil {
		return err
	}
	if request.Parameters.Labels && len(v.classes) == 0 {
		return invalid("parameters.labels is set, but the model predicts numbers and has no labels")
	}
	x, err := request.matrix(&v.signature, mostRows, b)
	if err != nil {
		return err
	}
	y, err := v.predict(ctx, x, b)
	if err != nil {
		return err
	}
	b.answer = appendPredictions(b.answer[:0], &v.signature, request.Parameters.Labels, y)
	return nil
}

func (r *predictRequest) matrix(s *signature, mostRows int, b *buffers) (blas32.General, error) {
	hasInstances, hasInputs := present(r.Instances), present(r.Inputs)
	switch {
	case hasInstances && hasInputs:
		return blas32.General{}, invalid(`the request has both "instances" and "inputs"; send one of them`)
	case hasInstances:
		return s.rowList("instances", r.Instances, mostRows, b)
	case hasInputs && r.Inputs.Kind() == '{':
		return s.columnObject(r.Inputs, mostRows, b)
	case hasInputs:
		return s.rowList("inputs", r.Inputs, mostRows, b)
	}
	return blas32.General{}, invalid(`the request has neither "instances" (rows) nor "inputs" (columns)`)
}

func present(v jsontext.Value) bool { return len(v) > 0 && v.Kind() != 'n' }

// rowList reads a list of rows. Field is its name in the request.
func (s *signature) rowList(field string, data jsontext.Value, mostRows int, b *buffers) (blas32.General, error) {
	l := list{text: data}
	if !l.enter() {
		return blas32.General{}, invalid("%s is %s, expected a list of rows", field, article(data.Kind()))
	}
	b.x = b.x[:0]
	rows := 0
	for ; l.next(); rows++ {
		if rows == mostRows {
			return blas32.General{}, tooManyRows(mostRows)
		}
		if err := s.appendRow(&l, b); err != nil {
			return blas32.General{}, invalid("%s[%d]%s", field, rows, joined(err))
		}
	}
	if rows == 0 {
		return blas32.General{}, invalid("%s is empty; there must be at least 1 row", field)
	}
	return general(rows, s.features, b.x), nil
}

// appendRow reads the next row: a list of numbers, an object, or, for a model
// of one feature, a bare number.
func (s *signature) appendRow(l *list, b *buffers) error {
	switch kind := l.kind(); {
	case l.peek() == '{':
		return s.appendObject(l, b)
	case s.features == 1 && kind == '0':
		v, err := float32s.number(l.scalar())
		b.x = append(b.x, v)
		return err
	case !l.enter():
		return fmt.Errorf("is %s, expected a list of %d numbers or an object by column name", article(kind), s.features)
	}
	var n int
	var err error
	if b.x, n, err = l.appendFlat(b.x, float32s, s.features); err != nil {
		return fmt.Errorf("[%d] %w", n, err)
	}
	if n != s.features {
		return fmt.Errorf("holds %s numbers, but the model takes %d", count(n, s.features), s.features)
	}
	return nil
}

// appendObject reads a row whose values are named.
func (s *signature) appendObject(l *list, b *buffers) error {
	if len(s.columns) == 0 {
		return fmt.Errorf("is an object, but the model's columns have no names; send lists of %d numbers", s.features)
	}
	start := len(b.x)
	b.x = append(b.x, make([]float32, s.features)...)
	b.seen = append(b.seen[:0], make([]bool, s.features)...)
	l.at++
	for l.next() {
		name := l.name()
		column, ok := s.position[string(name)]
		if !ok {
			return fmt.Errorf("has the unknown column %q; the model's columns are %s", clipped(string(name)), few(s.columns))
		}
		v, err := float32s.number(l.scalar())
		if err != nil {
			return fmt.Errorf("column %q %w", name, err)
		}
		b.seen[column] = true
		b.x[start+column] = v
	}
	return s.missing(b.seen)
}

func (s *signature) missing(seen []bool) error {
	var missing []string
	for i, ok := range seen {
		if !ok {
			missing = append(missing, s.columns[i])
		}
	}
	if missing == nil {
		return nil
	}
	return fmt.Errorf("lacks column %s", few(missing))
}

// columnObject reads columns by name, or rows under the one name that is not a
// column's.
func (s *signature) columnObject(data jsontext.Value, mostRows int, b *buffers) (blas32.General, error) {
	names, values, err := members(data)
	if err != nil {
		return blas32.General{}, err
	}
	if len(names) == 1 {
		if _, column := s.position[names[0]]; !column {
			return s.rowList("inputs."+clipped(names[0]), values[0], mostRows, b)
		}
	}
	if err := s.checkColumns(names); err != nil {
		return blas32.General{}, err
	}
	rows := 0
	b.columns = b.columns[:0]
	for i, name := range names {
		n, err := appendColumn(name, values[i], mostRows, b)
		if err != nil {
			return blas32.General{}, err
		}
		if i > 0 && n != rows {
			return blas32.General{}, invalid("inputs.%s has %d rows, but inputs.%s has %d", name, n, names[0], rows)
		}
		rows = n
	}
	if rows == 0 {
		return blas32.General{}, invalid("inputs.%s is empty; there must be at least 1 row", names[0])
	}
	return s.interleave(names, rows, b), nil
}

// members returns the names and values of a JSON object.
func members(data jsontext.Value) (names []string, values []jsontext.Value, err error) {
	// That no name is there twice was checked when the body was read.
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true))
	if _, err := d.ReadToken(); err != nil {
		return nil, nil, err
	}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, nil, err
		}
		names = append(names, name.String())
		value, err := d.ReadValue()
		if err != nil {
			return nil, nil, err
		}
		values = append(values, value.Clone())
	}
	return names, values, nil
}

// appendColumn reads a list of numbers, or of lists of one number.
func appendColumn(name string, data jsontext.Value, mostRows int, b *buffers) (rows int, err error) {
	l := list{text: data}
	if !l.enter() {
		return 0, invalid("inputs.%s is %s, expected a list of numbers", name, article(data.Kind()))
	}
	for ; l.next(); rows++ {
		if rows == mostRows {
			return 0, tooManyRows(mostRows)
		}
		nested, n := l.enter(), 1
		if nested {
			b.columns, n, err = l.appendFlat(b.columns, float32s, 1)
		} else {
			var v float32
			v, err = float32s.number(l.scalar())
			b.columns = append(b.columns, v)
		}
		if err != nil {
			return 0, invalid("inputs.%s[%d] %v", name, rows, err)
		}
		if n != 1 {
			return 0, invalid("inputs.%s[%d] holds %s numbers, expected 1", name, rows, count(n, 1))
		}
	}
	return rows, nil
}

func appendPredictions(dst []byte, s *signature, labels bool, y blas32.General) []byte {
	dst = append(dst, `{"predictions":[`...)
	for i := range y.Rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendList(dst, y.Data[i*y.Cols:(i+1)*y.Cols])
	}
	dst = append(dst, ']')
	if labels {
		dst = append(dst, `,"labels":`...)
		dst = appendLabels(dst, s, y)
	}
	return append(dst, '}')
}
