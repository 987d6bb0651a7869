package serve

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"gonum.org/v1/gonum/blas/blas32"
)

// Names of a model's tensors.
const (
	inputName  = "inputs"
	outputName = "outputs"
	labelName  = "label"
)

// tensor is an input as a client sent it: its claims, and its elements unread.
type tensor struct {
	name     string
	datatype string
	shape    []int64
	data     elements
}

// elements are a tensor's, in one of the forms that the protocols have:
// [listed], [raw] or [typed].
type elements interface {
	// appendTo appends them to dst, row-major. They must be as many as shape
	// says, of rank 1 or 2 and with a product that does not overflow. The error
	// continues a sentence that begins with "data"; memory grows only with
	// elements that are really there.
	appendTo(dst []float32, t *datatype, shape []int) ([]float32, error)
}

// listed are elements in JSON.
type listed jsontext.Value

func (l listed) appendTo(dst []float32, t *datatype, shape []int) ([]float32, error) {
	if t.halved {
		return dst, fmt.Errorf("of datatype %s has no form in JSON; send it as a binary tensor, or as FP32", t.name)
	}
	return appendNumbers(dst, jsontext.Value(l), t, shape)
}

// signature is what a model takes and gives.
type signature struct {
	features int
	outputs  int
	// columns names the features, in order; empty when the model has no names.
	columns []string
	// classes are the labels in the order of outputs; nil: it predicts numbers.
	classes []string
	// position of each column.
	position map[string]int
}

// newSignature checks that the names fit the numbers.
func newSignature(features, outputs int, columns, classes []string) (signature, error) {
	s := signature{features: features, outputs: outputs, columns: columns, classes: classes}
	if len(columns) != 0 && len(columns) != features {
		return s, fmt.Errorf("the model names %d input columns, but its network takes %d", len(columns), features)
	}
	// Two classes can be told apart by one output.
	fits := len(classes) == outputs || len(classes) == 2 && outputs == 1
	if len(classes) != 0 && !fits {
		return s, fmt.Errorf("the model names %d classes, but its network has %d outputs", len(classes), outputs)
	}
	s.position = make(map[string]int, len(columns))
	for i, c := range columns {
		if _, twice := s.position[c]; twice {
			return s, fmt.Errorf("the model names two input columns %q", c)
		}
		s.position[c] = i
	}
	return s, nil
}

// outputNames lists the outputs that a client can ask for.
func (s *signature) outputNames() []string {
	if len(s.classes) == 0 {
		return []string{outputName}
	}
	return []string{outputName, labelName}
}

// checkOutputs names an output that there is not, or that is asked for twice.
func (s *signature) checkOutputs(names []string) error {
	known := s.outputNames()
	for i, name := range names {
		if !slices.Contains(known, name) {
			return invalid("the model has no output %q; it has %s", clipped(name), few(known))
		}
		if slices.Contains(names[:i], name) {
			return invalid("output %q is asked for twice", name)
		}
	}
	return nil
}

// label returns the label of the likeliest class of a row of outputs: the
// largest of several, or for a single one, the second class from 0.5 on.
func (s *signature) label(row []float32) string {
	if len(row) == 1 && len(s.classes) == 2 {
		if row[0] >= 0.5 {
			return s.classes[1]
		}
		return s.classes[0]
	}
	best := 0
	for i, v := range row {
		if v > row[best] {
			best = i
		}
	}
	return s.classes[best]
}

// matrix assembles the rows that the tensors hold. The numbers lie in w, or where
// the request has them, and are valid until w is used again.
func (s *signature) matrix(tensors []tensor, mostRows int, w *buffers) (blas32.General, error) {
	if len(tensors) == 0 {
		return blas32.General{}, invalid("the request has no inputs; send one tensor of shape [rows, %d], or one for each column", s.features)
	}
	if s.byColumn(tensors) {
		return s.fromColumns(tensors, mostRows, w)
	}
	return s.fromRows(tensors[0], mostRows, w)
}

// byColumn tells whether the tensors are columns: several always are, and a
// single one is if it has a column's name and not the shape of whole rows.
func (s *signature) byColumn(tensors []tensor) bool {
	if len(tensors) > 1 {
		return true
	}
	t := tensors[0]
	_, named := s.position[t.name]
	whole := s.features > 1 && len(t.shape) > 0 && t.shape[len(t.shape)-1] == int64(s.features)
	return named && !whole
}

func (s *signature) fromRows(t tensor, mostRows int, w *buffers) (blas32.General, error) {
	dims := t.shape
	if len(dims) == 1 {
		dims = []int64{1, dims[0]}
	}
	if len(dims) != 2 || dims[1] != int64(s.features) {
		return blas32.General{}, invalid("input %q has shape %s, expected [rows, %d], or [%d] for one row",
			clipped(t.name), dimensions(t.shape), s.features, s.features)
	}
	rows, err := rowsOf(t, dims[0], mostRows)
	if err != nil {
		return blas32.General{}, err
	}
	if r, ok := t.data.(raw); ok && t.datatype == float32s.name {
		if x, ok := r.float32s(rows * s.features); ok {
			return general(rows, s.features, x), nil
		}
	}
	shape := []int{rows, s.features}
	if len(t.shape) == 1 {
		shape = shape[1:]
	}
	w.x, err = t.appendTo(w.x[:0], shape)
	return general(rows, s.features, w.x), err
}

func (s *signature) fromColumns(tensors []tensor, mostRows int, w *buffers) (blas32.General, error) {
	names := make([]string, len(tensors))
	for i, t := range tensors {
		names[i] = t.name
	}
	if err := s.checkColumns(names); err != nil {
		return blas32.General{}, err
	}
	rows := 0
	for i, t := range tensors {
		if len(t.shape) == 0 || len(t.shape) > 2 || len(t.shape) == 2 && t.shape[1] != 1 {
			return blas32.General{}, invalid("input %q is a column and has shape %s, expected [rows] or [rows, 1]", t.name, dimensions(t.shape))
		}
		n, err := rowsOf(t, t.shape[0], mostRows)
		if err != nil {
			return blas32.General{}, err
		}
		if i > 0 && n != rows {
			return blas32.General{}, invalid("input %q has %d rows, but input %q has %d", t.name, n, tensors[0].name, rows)
		}
		rows = n
	}
	w.columns = w.columns[:0]
	for _, t := range tensors {
		var err error
		if w.columns, err = t.appendTo(w.columns, []int{rows, 1}[:len(t.shape)]); err != nil {
			return blas32.General{}, err
		}
	}
	return s.interleave(names, rows, w), nil
}

// interleave makes rows of w.columns, which holds one column after another in
// the order of names.
func (s *signature) interleave(names []string, rows int, w *buffers) blas32.General {
	w.x = slices.Grow(w.x[:0], rows*s.features)[:rows*s.features]
	for i, name := range names {
		column := s.position[name]
		for row, v := range w.columns[i*rows : (i+1)*rows] {
			w.x[row*s.features+column] = v
		}
	}
	return general(rows, s.features, w.x)
}

// checkColumns names an input that is no column, is there twice, or is missing.
func (s *signature) checkColumns(names []string) error {
	if len(s.columns) == 0 {
		return invalid("the request has %d inputs, but the model takes one, of shape [rows, %d]; its columns have no names", len(names), s.features)
	}
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] {
			return invalid("input %q is there twice", clipped(name))
		}
		if _, ok := s.position[name]; !ok {
			return invalid("input %q is not a column of the model; its columns are %s", clipped(name), few(s.columns))
		}
		seen[name] = true
	}
	if len(seen) == s.features {
		return nil
	}
	var missing []string
	for _, c := range s.columns {
		if !seen[c] {
			missing = append(missing, c)
		}
	}
	return invalid("there is no input for column %s; send one tensor of shape [rows, %d], or one for each column", few(missing), s.features)
}

// rowsOf checks a number of rows that a tensor claims.
func rowsOf(t tensor, rows int64, most int) (int, error) {
	if rows < 1 {
		return 0, invalid("input %q has shape %s; there must be at least 1 row", clipped(t.name), dimensions(t.shape))
	}
	if rows > int64(most) {
		return 0, tooManyRows(most)
	}
	return int(rows), nil
}

func tooManyRows(most int) error {
	return tooLarge("the request has more than %d rows; send several requests", most)
}

// appendTo appends the tensor's numbers, which must be as many as shape says.
func (t *tensor) appendTo(dst []float32, shape []int) ([]float32, error) {
	kind, ok := datatypes[t.datatype]
	if !ok {
		return dst, unknownDatatype(t)
	}
	dst, err := t.data.appendTo(dst, kind, shape)
	if err != nil {
		return dst, invalid("input %q: data%s", clipped(t.name), joined(err))
	}
	return dst, nil
}

// joined puts a space before a text that does not go on with an index.
func joined(err error) string {
	text := err.Error()
	if strings.HasPrefix(text, "[") {
		return text
	}
	return " " + text
}

func unknownDatatype(t *tensor) error {
	switch t.datatype {
	case "":
		return invalid("input %q has no datatype; send FP32, FP64, BOOL or an integer type", clipped(t.name))
	case "BYTES":
		return invalid("input %q has datatype BYTES, but the model computes with numbers; send FP32, FP64, BOOL or an integer type", clipped(t.name))
	}
	return invalid("input %q has datatype %q, which the protocol does not know; send FP32, FP64, BOOL or an integer type", clipped(t.name), clipped(t.datatype))
}

func general(rows, cols int, data []float32) blas32.General {
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: data}
}
