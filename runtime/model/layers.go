package model

import (
	"errors"
	"fmt"

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
	linearClassifier:             (*builder).linearClassifier,
	"ai.onnx.ml.Normalizer":      (*builder).normalizer,

	"Relu":      activate(nn.ReLU, 0),
	"LeakyRelu": activate(nn.LeakyReLU, 0.01),
	"Elu":       activate(nn.ELU, 1),
	"Sigmoid":   activate(nn.Sigmoid, 0),
	"Tanh":      activate(nn.Tanh, 0),
	"Gelu":      (*builder).gelu,
	"GELU":      activate(nn.GELU, 0), // of several nodes
	"GELUTanh":  activate(nn.GELUTanh, 0),
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
