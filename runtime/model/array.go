package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
)

// array is a constant of a graph: its elements, row-major. It may share memory
// with a file, so it is only read.
type array struct {
	shape []int64
	data  []float32
}

// length is the number of elements if the array has one row, else -1: [n],
// [1, n], or a single number.
func (a array) length() int {
	for _, d := range a.shape[:max(0, len(a.shape)-1)] {
		if d != 1 {
			return -1
		}
	}
	return len(a.data)
}

// matrix returns a two-dimensional array.
func (a array) matrix() (blas32.General, error) {
	if len(a.shape) != 2 || len(a.data) == 0 {
		return blas32.General{}, fmt.Errorf("has shape %v; a matrix is needed", abridged(a.shape))
	}
	rows, cols := int(a.shape[0]), int(a.shape[1])
	return blas32.General{Rows: rows, Cols: cols, Stride: cols, Data: a.data}, nil
}

// constants reads a graph's constants.
type constants struct {
	graph *graph
	files *files
	// left is how many more elements may be copied or made up: a small file can
	// refer to a large constant many times.
	left int64
}

// spareElements may be made up on top of what the files hold.
const spareElements = 16 << 20

var errTooMuch = errors.New("the graph asks for far more memory than its constants take")

// allocate returns zeros.
func (c *constants) allocate(n int) ([]float32, error) {
	if c.left -= int64(n); n < 0 || c.left < 0 {
		return nil, errTooMuch
	}
	return make([]float32, n), nil
}

// filled returns n times v.
func (c *constants) filled(n int, v float32) ([]float32, error) {
	data, err := c.allocate(n)
	for i := range data {
		data[i] = v
	}
	return data, err
}

// transposed returns a copy of m with rows and columns exchanged.
func (c *constants) transposed(m blas32.General) (blas32.General, error) {
	data, err := c.allocate(m.Rows * m.Cols)
	if err != nil {
		return blas32.General{}, err
	}
	for i := range m.Rows {
		for j := range m.Cols {
			data[j*m.Rows+i] = m.Data[i*m.Stride+j]
		}
	}
	return blas32.General{Rows: m.Cols, Cols: m.Rows, Stride: m.Rows, Data: data}, nil
}

// scaled returns v, or a copy times factor.
func (c *constants) scaled(v []float32, factor float32) ([]float32, error) {
	if factor == 1 {
		return v, nil
	}
	data, err := c.allocate(len(v))
	for i := range data {
		data[i] = v[i] * factor
	}
	return data, err
}

// array returns a value that [graph.isConstant].
func (c *constants) array(value string) (array, error) {
	transposed := false
	for range maxConstantNodes {
		if t := c.graph.constants[value]; t != nil {
			a, err := c.tensor(t)
			if err == nil && transposed {
				a, err = c.transposedArray(a)
			}
			if err != nil {
				return a, fmt.Errorf("tensor %.80q: %w", value, err)
			}
			return a, nil
		}
		n := c.graph.producers[value]
		if n == nil || len(n.Input) != 1 {
			break
		}
		s := step{Node: n}
		switch n.OpType {
		case "Cast":
			if to := s.int("to", 0); to != onnxFloat && to != onnxDouble {
				return array{}, fmt.Errorf("%s casts a constant to type %d; only float is understood", describe(n), to)
			}
		case "Transpose":
			if a := s.attribute("perm"); a == nil || !slices.Equal(a.Ints, []int64{0, 1}) {
				transposed = !transposed
			}
		}
		value = n.Input[0]
	}
	return array{}, fmt.Errorf("%.80q is not a constant", value)
}

func (c *constants) transposedArray(a array) (array, error) {
	m, err := a.matrix()
	if err != nil {
		return a, err
	}
	m, err = c.transposed(m)
	return array{shape: []int64{int64(m.Rows), int64(m.Cols)}, data: m.Data}, err
}

// tensor returns a tensor's elements, from wherever they are.
func (c *constants) tensor(t *onnxpb.Tensor) (array, error) {
	a := array{shape: t.Dims}
	n, err := elements(t.Dims)
	if err != nil {
		return a, err
	}
	if t.DataType != onnxFloat && t.DataType != onnxDouble {
		return a, fmt.Errorf("has element type %d; only float (1) and double (11) can be read", t.DataType)
	}
	if t.DataLocation == onnxpb.Tensor_EXTERNAL {
		a.data, err = c.external(t, n)
		return a, err
	}
	raw := t.RawData
	switch {
	case t.DataType == onnxFloat && len(raw) == 0:
		a.data = t.FloatData
	case t.DataType == onnxFloat && len(raw)%4 == 0:
		a.data = floats(raw)
	case t.DataType == onnxDouble && len(raw) == 0:
		a.data, err = c.rounded(len(t.DoubleData), func(i int) float64 { return t.DoubleData[i] })
	case t.DataType == onnxDouble && len(raw)%8 == 0:
		a.data, err = c.rounded(len(raw)/8, func(i int) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:])) })
	default:
		err = fmt.Errorf("has %d bytes, which are no whole numbers", len(raw))
	}
	if err == nil && int64(len(a.data)) != n {
		err = fmt.Errorf("of shape %v needs %d elements, but has %d", abridged(t.Dims), n, len(a.data))
	}
	return a, err
}

func (c *constants) rounded(n int, at func(int) float64) ([]float32, error) {
	data, err := c.allocate(n)
	for i := range data {
		data[i] = float32(at(i))
	}
	return data, err
}

// external returns elements that lie in another file, mapped.
func (c *constants) external(t *onnxpb.Tensor, n int64) ([]float32, error) {
	if t.DataType != onnxFloat {
		return nil, fmt.Errorf("has element type %d in another file; only float (1) can be read there", t.DataType)
	}
	place, err := externalPlace(t, 4*n)
	if err != nil {
		return nil, err
	}
	_, mapped := c.files.mapped[place.name]
	data, err := c.files.mapFile(place.name)
	if err != nil {
		return nil, err
	}
	if !mapped {
		c.left += int64(len(data))
	}
	if place.end > int64(len(data)) {
		return nil, fmt.Errorf("ends at offset %d of %s, but the file has %d bytes", place.end, place.name, len(data))
	}
	if err := c.agrees(t, place); err != nil {
		return nil, err
	}
	b := data[place.begin:place.end:place.end]
	if place.begin%4 != 0 {
		// floats will copy.
		if c.left -= n; c.left < 0 {
			return nil, errTooMuch
		}
	}
	return floats(b), nil
}

// agrees checks that a safetensors file knows the tensor as the graph does, so
// that files of two models are not mixed.
func (c *constants) agrees(t *onnxpb.Tensor, place tensorPlace) error {
	known, ok := c.files.tensors[place.name]
	if !ok {
		return nil
	}
	there, ok := known[t.Name]
	if !ok {
		return fmt.Errorf("is not in %s; do the files belong to one model?", place.name)
	}
	if there.begin != place.begin || there.end != place.end || !slices.Equal(there.shape, t.Dims) {
		return fmt.Errorf("of shape %v lies at offset %d of %s, but is there of shape %v at offset %d; do the files belong to one model?",
			abridged(t.Dims), place.begin, place.name, abridged(there.shape), there.begin)
	}
	return nil
}

// externalPlace reads where the bytes of a tensor are. name is the file.
func externalPlace(t *onnxpb.Tensor, bytes int64) (tensorPlace, error) {
	p, length := tensorPlace{}, bytes
	for _, entry := range t.ExternalData {
		var err error
		switch entry.GetKey() {
		case "location":
			p.name = entry.GetValue()
		case "offset":
			p.begin, err = strconv.ParseInt(entry.GetValue(), 10, 62)
		case "length":
			length, err = strconv.ParseInt(entry.GetValue(), 10, 62)
		}
		if err != nil || p.begin < 0 {
			return p, fmt.Errorf("has %s %.40q in its external data, which is no size", entry.GetKey(), entry.GetValue())
		}
	}
	if !filepath.IsLocal(p.name) {
		return p, fmt.Errorf("has location %.80q in its external data; it must be a file beside the model", p.name)
	}
	if length != bytes {
		return p, fmt.Errorf("of shape %v needs %d bytes, but its external data has length %d", abridged(t.Dims), bytes, length)
	}
	p.end = p.begin + bytes
	return p, nil
}
