package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
	"trainyard.dev/trainyard/runtime/nn"
)

// maxWidth is the most columns that a graph may only claim, without a matrix
// that has them.
const maxWidth = 1_000_000

// network builds the network that a graph describes.
func (g *graph) network(files *files) (*nn.Network, error) {
	steps, err := g.chain()
	if err != nil {
		return nil, err
	}
	b := &builder{constants: constants{graph: g, files: files, left: spareElements + 4*g.elements()}}
	if err := b.begin(g.input); err != nil {
		return nil, err
	}
	for _, s := range steps {
		if err := b.add(s); err != nil {
			return nil, fmt.Errorf("%s: %w", describe(s.Node), err)
		}
	}
	if len(b.layers) == 0 && b.width > 0 {
		// A graph of Identity computes something, too.
		if err := b.normalize(nil, nil); err != nil {
			return nil, err
		}
	}
	n := &nn.Network{Inputs: b.inputs, Layers: b.layers}
	return n, n.Validate()
}

// elements estimates from above how many numbers the graph's file holds.
func (g *graph) elements() int64 {
	n := int64(0)
	for _, t := range g.constants {
		n += int64(len(t.RawData)/4 + len(t.FloatData) + len(t.DoubleData))
	}
	return n
}

// builder appends layers, a step at a time.
type builder struct {
	constants
	layers []nn.Layer
	// inputs of the network and width after the layers so far; 0: not known yet.
	inputs, width int
	// rows is the batch that the graph was made for; -1: any.
	rows int64
	// deep tells that samples have several dimensions and must be flattened.
	deep bool
	// open is the last layer, if it only subtracts so far.
	open *nn.Normalization
}

var errUnsupported = errors.New("this operator is not supported in a dense network")

// operators are what can be read.
var operators = map[string]func(*builder, step) error{
	"Gemm":   (*builder).gemm,
	"MatMul": (*builder).matMul,
	"Add":    (*builder).addition,
	"Sub":    (*builder).subtraction,
	"Mul":    (*builder).multiplication,
	"Div":    (*builder).division,

	"BatchNormalization": (*builder).batchNormalization,

	"ai.onnx.ml.Scaler":          (*builder).scaler,
	"ai.onnx.ml.LinearRegressor": (*builder).linearRegressor,

	"Relu":      activate(nn.ReLU, 0),
	"LeakyRelu": activate(nn.LeakyReLU, 0.01),
	"Elu":       activate(nn.ELU, 1),
	"Sigmoid":   activate(nn.Sigmoid, 0),
	"Tanh":      activate(nn.Tanh, 0),
	"Gelu":      (*builder).gelu,
	"Softmax":   (*builder).softmax,

	binaryClasses: (*builder).binaryClasses,

	"Identity": func(*builder, step) error { return nil },
	"Dropout":  func(*builder, step) error { return nil },
	"Cast":     (*builder).cast,
	"Flatten":  (*builder).flatten,
	"Reshape":  (*builder).reshape,
}

// begin takes the width from the graph's input, as far as it is told.
func (b *builder) begin(input *onnxpb.Value) error {
	b.rows = -1
	shape := input.GetType().GetTensorType().GetShape()
	if shape == nil {
		return nil
	}
	if len(shape.Dim) < 2 {
		return fmt.Errorf("input %.80q has %d dimensions; it needs rows and columns", input.Name, len(shape.Dim))
	}
	b.deep = len(shape.Dim) > 2
	if rows := shape.Dim[0].GetDimValue(); rows > 0 {
		b.rows = rows
	}
	width := int64(1)
	for _, d := range shape.Dim[1:] {
		size := d.GetDimValue()
		if size < 0 || size > maxWidth || width*size > maxWidth {
			return fmt.Errorf("input %.80q has a dimension of %d; %d columns are the most", input.Name, size, maxWidth)
		}
		width *= size
	}
	b.inputs, b.width = int(width), int(width)
	return nil
}

func (b *builder) add(s step) error {
	read, ok := operators[s.operator]
	if !ok {
		return errUnsupported
	}
	switch s.operator {
	case "Identity", "Dropout", "Cast", "Flatten", "Reshape":
	default:
		if b.deep {
			return errors.New("the input has more than two dimensions here; flatten it first")
		}
	}
	return read(b, s)
}

// expect fixes the width, or checks it.
func (b *builder) expect(width int) error {
	if b.width == 0 && width > 0 {
		b.width = width
		if b.inputs == 0 {
			b.inputs = width
		}
	}
	if b.width != width {
		return fmt.Errorf("its constant is for %d columns, but %d come in", width, b.width)
	}
	return nil
}

func (b *builder) append(l nn.Layer) {
	b.layers, b.open = append(b.layers, l), nil
	b.width = l.Outputs(b.width)
}

func (b *builder) dense(weight blas32.General, bias []float32) error {
	if err := b.expect(weight.Cols); err != nil {
		return err
	}
	b.append(&nn.Dense{Weight: weight, Bias: bias})
	return nil
}

// gemm is alpha*x*B + beta*C, with B transposed if transB.
func (b *builder) gemm(s step) error {
	if s.computed != 0 || s.int("transA", 0) != 0 {
		return errors.New("the data must be its first input, not transposed")
	}
	weight, err := b.weight(s.constant(1), s.int("transB", 0) != 0)
	if err != nil {
		return err
	}
	if weight.Data, err = b.scaled(weight.Data, s.float("alpha", 1)); err != nil {
		return err
	}
	var bias []float32
	if c := s.constant(2); c != "" {
		if bias, err = b.vector(c, weight.Rows); err != nil {
			return err
		}
		if bias, err = b.scaled(bias, s.float("beta", 1)); err != nil {
			return err
		}
	}
	return b.dense(weight, bias)
}

func (b *builder) matMul(s step) error {
	if s.computed != 0 {
		return errors.New("the data must be its first input")
	}
	weight, err := b.weight(s.constant(1), false)
	if err != nil {
		return err
	}
	return b.dense(weight, nil)
}

// weight returns a matrix as nn wants it: a row for each output.
func (b *builder) weight(value string, transposed bool) (blas32.General, error) {
	a, err := b.array(value)
	if err != nil {
		return blas32.General{}, err
	}
	m, err := a.matrix()
	if err != nil {
		return m, fmt.Errorf("%.80q %w", value, err)
	}
	if transposed {
		return m, nil
	}
	return b.transposed(m)
}

// vector returns a constant with an element for each of the columns.
func (b *builder) vector(value string, columns int) ([]float32, error) {
	a, err := b.array(value)
	if err != nil {
		return nil, err
	}
	switch n := a.length(); {
	case n == 1 && columns == 0:
		return nil, errors.New("the number of columns is not known here; export the model with the shape of its input")
	case n == columns || n > 1 && columns == 0:
		return a.data, nil
	case n == 1:
		return b.filled(columns, a.data[0])
	}
	return nil, fmt.Errorf("%.80q has shape %v; one number for each of the %d columns is needed", value, abridged(a.shape), columns)
}

// operand returns the constant of an operator of two inputs.
func (b *builder) operand(s step) ([]float32, error) {
	if len(s.Input) != 2 {
		return nil, fmt.Errorf("it has %d inputs instead of 2", len(s.Input))
	}
	v, err := b.vector(s.Input[1-s.computed], b.width)
	if err != nil {
		return nil, err
	}
	return v, b.expect(len(v))
}

// addition is a bias after a product, else a shift.
func (b *builder) addition(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if d := b.lastDense(); d != nil && d.Bias == nil && d.Activation.Kind == nn.Linear {
		d.Bias = v
		return nil
	}
	if v, err = b.scaled(v, -1); err != nil {
		return err
	}
	return b.shift(v)
}

func (b *builder) subtraction(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if s.computed == 0 {
		return b.shift(v)
	}
	minus, err := b.filled(len(v), -1)
	if err != nil {
		return err
	}
	return b.normalize(v, minus) // v - x = (x - v) * -1
}

// shift subtracts v, and leaves the layer open for a factor.
func (b *builder) shift(v []float32) error {
	if err := b.normalize(v, nil); err != nil {
		return err
	}
	b.open = b.layers[len(b.layers)-1].(*nn.Normalization)
	return nil
}

func (b *builder) multiplication(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	return b.scale(v)
}

func (b *builder) division(s step) error {
	v, err := b.operand(s)
	if err != nil {
		return err
	}
	if s.computed != 0 {
		return errors.New("only a division by a constant can be read")
	}
	inverse, err := b.allocate(len(v))
	for i := range inverse {
		inverse[i] = 1 / v[i]
		if math.IsInf(float64(inverse[i]), 0) {
			return fmt.Errorf("it divides column %d by %g", i, v[i])
		}
	}
	if err != nil {
		return err
	}
	return b.scale(inverse)
}

// scale multiplies by v: in the layer that subtracts, if that was the last.
func (b *builder) scale(v []float32) error {
	if b.open != nil {
		b.open.Scale, b.open = v, nil
		return nil
	}
	return b.normalize(nil, v)
}

// normalize appends (x-mean)*scale. Nil: zeros, ones.
func (b *builder) normalize(mean, scale []float32) (err error) {
	if mean == nil {
		if mean, err = b.allocate(b.width); err != nil {
			return err
		}
	}
	if scale == nil {
		if scale, err = b.filled(b.width, 1); err != nil {
			return err
		}
	}
	b.append(&nn.Normalization{Mean: mean, Scale: scale})
	return nil
}

// scaler is scikit-learn's (x-offset)*scale.
func (b *builder) scaler(s step) error {
	vector := func(name string) ([]float32, error) {
		v := s.attribute(name).GetFloats()
		switch {
		case len(v) == 0:
			return nil, nil
		case len(v) == 1 && b.width > 0:
			return b.filled(b.width, v[0])
		}
		return v, b.expect(len(v))
	}
	offset, err := vector("offset")
	if err != nil {
		return err
	}
	scale, err := vector("scale")
	if err != nil {
		return err
	}
	return b.normalize(offset, scale)
}

// linearRegressor is scikit-learn's linear model: a row of coefficients for each
// target.
func (b *builder) linearRegressor(s step) error {
	if a := s.attribute("post_transform"); a != nil && string(a.S) != "NONE" {
		return fmt.Errorf("post_transform %.20q is not supported", a.S)
	}
	weight, bias := s.attribute("coefficients").GetFloats(), s.attribute("intercepts").GetFloats()
	targets := int(min(s.int("targets", 1), maxWidth))
	if targets < 1 || len(weight) == 0 || len(weight)%targets != 0 || bias != nil && len(bias) != targets {
		return fmt.Errorf("%d coefficients and %d intercepts do not make %d targets", len(weight), len(bias), targets)
	}
	columns := len(weight) / targets
	return b.dense(blas32.General{Rows: targets, Cols: columns, Stride: columns, Data: weight}, bias)
}

func (b *builder) batchNormalization(s step) error {
	if s.computed != 0 || s.int("training_mode", 0) != 0 {
		return errors.New("only batch normalization of the data, as it is after training, can be read; export the model for inference")
	}
	l := &nn.BatchNormalization{Epsilon: s.float("epsilon", 1e-5)}
	for i, v := range []*[]float32{&l.Gamma, &l.Beta, &l.Mean, &l.Variance} {
		var err error
		if *v, err = b.vector(s.constant(i+1), b.width); err != nil {
			return err
		}
		if err := b.expect(len(*v)); err != nil {
			return err
		}
	}
	b.append(l)
	return nil
}

// lastDense returns the last layer if it is dense.
func (b *builder) lastDense() *nn.Dense {
	if len(b.layers) == 0 {
		return nil
	}
	d, _ := b.layers[len(b.layers)-1].(*nn.Dense)
	return d
}

func activate(kind nn.ActivationKind, alpha float32) func(*builder, step) error {
	return func(b *builder, s step) error {
		a := nn.Activation{Kind: kind}
		if alpha != 0 {
			a.Alpha = s.float("alpha", alpha)
		}
		return b.activation(a)
	}
}

// activation gives the last layer an activation. Where that cannot have one, a
// layer that changes nothing else gets it.
func (b *builder) activation(a nn.Activation) error {
	d := b.lastDense()
	if d == nil || d.Activation.Kind != nn.Linear {
		weight, err := b.identity()
		if err != nil {
			return err
		}
		d = &nn.Dense{Weight: weight}
		b.append(d)
	}
	d.Activation = a
	return nil
}

func (b *builder) identity() (blas32.General, error) {
	if b.width == 0 || b.width > math.MaxInt32 {
		return blas32.General{}, errors.New("the number of columns is not known here; export the model with the shape of its input")
	}
	data, err := b.allocate(b.width * b.width)
	if err != nil {
		return blas32.General{}, err
	}
	for i := range b.width {
		data[i*b.width+i] = 1
	}
	return blas32.General{Rows: b.width, Cols: b.width, Stride: b.width, Data: data}, nil
}

func (b *builder) gelu(s step) error {
	if a := s.attribute("approximate"); a != nil && string(a.S) != "none" {
		return fmt.Errorf("approximation %.20q is not supported; export the exact GELU", a.S)
	}
	return b.activation(nn.Activation{Kind: nn.GELU})
}

func (b *builder) softmax(s step) error {
	// Before operator set 13 the default was 1. With rows and columns, both are
	// the columns.
	if axis := s.int("axis", -1); axis != -1 && axis != 1 {
		return fmt.Errorf("axis %d is not supported; it must be over the columns", axis)
	}
	return b.activation(nn.Activation{Kind: nn.Softmax})
}

// binaryClasses is [1-p, p] for p = sigmoid(x), which is softmax of [0, x].
func (b *builder) binaryClasses(step) error {
	if err := b.expect(1); err != nil {
		return err
	}
	weight := blas32.General{Rows: 2, Cols: 1, Stride: 1, Data: []float32{0, 1}}
	b.append(&nn.Dense{Weight: weight, Activation: nn.Activation{Kind: nn.Softmax}})
	return nil
}

// cast passes numbers on; everything is computed in float32.
func (b *builder) cast(s step) error {
	if to := s.int("to", 0); to != onnxFloat && to != onnxDouble {
		return fmt.Errorf("a cast to type %d is not supported; only float is", to)
	}
	return nil
}

// flatten makes one row of each sample.
func (b *builder) flatten(s step) error {
	if axis := s.int("axis", 1); axis != 1 {
		return fmt.Errorf("axis %d is not supported; each row must stay a row", axis)
	}
	b.deep = false
	return nil
}

// reshape may do what flatten does.
func (b *builder) reshape(s step) error {
	if s.computed != 0 {
		return errors.New("only a constant shape can be read")
	}
	shape, err := b.shape(s.constant(1))
	if err != nil {
		return err
	}
	keepsRows := len(shape) == 2 && (shape[0] == 0 || shape[0] == -1 || shape[0] == b.rows)
	keepsColumns := len(shape) == 2 && (shape[1] == -1 && shape[0] != -1 || b.width > 0 && shape[1] == int64(b.width) || shape[1] == 0 && !b.deep)
	if !keepsRows || !keepsColumns {
		return fmt.Errorf("reshaping to %v is not supported; each row must stay a row of %d columns", abridged(shape), b.width)
	}
	b.deep = false
	return nil
}

// shape returns a constant vector of integers.
func (b *builder) shape(value string) ([]int64, error) {
	t := b.graph.constants[value]
	if t == nil || t.DataType != onnxInt64 || t.DataLocation != onnxpb.Tensor_DEFAULT {
		return nil, fmt.Errorf("its shape %.80q is not a constant in the graph", value)
	}
	if len(t.RawData)%8 != 0 {
		return nil, fmt.Errorf("tensor %.80q has %d bytes, which are no whole numbers", value, len(t.RawData))
	}
	shape := slices.Clone(t.Int64Data)
	for i := 0; i < len(t.RawData); i += 8 {
		shape = append(shape, int64(binary.LittleEndian.Uint64(t.RawData[i:])))
	}
	return shape, nil
}
