package model

import (
	"fmt"
	"math"
	"strconv"

	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
	"trainyard.dev/trainyard/runtime/nn"
)

// Versions that every onnxruntime since 1.14 (2023) accepts. GELU has an
// operator of its own only from operator set 20 on, so it is written as its
// formula, which runtimes recognize.
const (
	irVersion   = 8
	operatorSet = 17
)

// Element types of ONNX.
const (
	onnxFloat  = 1
	onnxInt32  = 6
	onnxInt64  = 7
	onnxDouble = 11
)

// encodeGraph returns model.onnx for weights that were laid out.
func encodeGraph(m *Model, tensors []*tensor) ([]byte, error) {
	e := &encoder{value: "inputs"}
	for i, layer := range m.Network.Layers {
		e.layer("layers."+strconv.Itoa(i), layer)
	}
	if len(e.nodes) == 0 {
		e.node("identity", "Identity")
	}
	e.nodes[len(e.nodes)-1].Output[0] = "outputs"
	for _, t := range tensors {
		e.initializers = append(e.initializers, externalTensor(t))
	}
	name := m.Metadata.Name
	if name == "" {
		name = "model"
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(&onnxpb.Model{
		IrVersion: irVersion, ProducerName: "trainyard", ProducerVersion: m.Metadata.CodeVersion,
		OpsetImport: []*onnxpb.OperatorSet{{Version: operatorSet}},
		Graph: &onnxpb.Graph{
			Name: name, Node: e.nodes, Initializer: e.initializers,
			Input:  []*onnxpb.Value{rowsOf("inputs", m.Network.Inputs)},
			Output: []*onnxpb.Value{rowsOf("outputs", m.Network.Outputs())},
		},
	})
}

// encoder chains nodes: each one computes from what the last one computed.
type encoder struct {
	nodes        []*onnxpb.Node
	initializers []*onnxpb.Tensor
	value        string // what the last node computes
}

// node appends a node that computes from the chain's value and constants.
func (e *encoder) node(name, operator string, constants ...string) *onnxpb.Node {
	n := &onnxpb.Node{Name: name, OpType: operator, Input: append([]string{e.value}, constants...), Output: []string{name + ".out"}}
	e.nodes, e.value = append(e.nodes, n), n.Output[0]
	return n
}

func (e *encoder) layer(name string, layer nn.Layer) {
	switch l := layer.(type) {
	case *nn.Normalization:
		e.node(name+".sub", "Sub", name+".mean")
		e.node(name+".mul", "Mul", name+".scale")
	case *nn.BatchNormalization:
		n := e.node(name, "BatchNormalization", name+".weight", name+".bias", name+".running_mean", name+".running_var")
		n.Attribute = append(n.Attribute, floatAttribute("epsilon", l.Epsilon))
	case *nn.Dense:
		constants := []string{name + ".weight"}
		if l.Bias != nil {
			constants = append(constants, name+".bias")
		}
		n := e.node(name, "Gemm", constants...)
		n.Attribute = append(n.Attribute, intAttribute("transB", 1))
		e.activation(name+".activation", l.Activation)
	}
}

var activationOperators = map[nn.ActivationKind]string{
	nn.ReLU: "Relu", nn.LeakyReLU: "LeakyRelu", nn.ELU: "Elu",
	nn.Sigmoid: "Sigmoid", nn.Tanh: "Tanh", nn.Softmax: "Softmax",
}

func (e *encoder) activation(name string, a nn.Activation) {
	switch a.Kind {
	case nn.Linear:
	case nn.GELU:
		e.gelu(name)
	case nn.GELUTanh:
		e.geluTanh(name)
	case nn.LeakyReLU, nn.ELU:
		n := e.node(name, activationOperators[a.Kind])
		n.Attribute = append(n.Attribute, floatAttribute("alpha", a.Alpha))
	case nn.Softmax:
		n := e.node(name, "Softmax")
		n.Attribute = append(n.Attribute, intAttribute("axis", -1))
	default:
		e.node(name, activationOperators[a.Kind])
	}
}

// gelu is x/2 * (1 + erf(x/sqrt(2))).
func (e *encoder) gelu(name string) {
	x := e.value
	e.node(name+".div", "Div", e.scalar(name+".sqrt2", math.Sqrt2))
	e.node(name+".erf", "Erf")
	e.node(name+".add", "Add", e.scalar(name+".one", 1))
	e.node(name+".mul", "Mul", x)
	e.node(name, "Mul", e.scalar(name+".half", 0.5))
}

// geluTanh is x/2 * (1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3))).
func (e *encoder) geluTanh(name string) {
	x := e.value
	e.node(name+".pow", "Pow", e.scalar(name+".three", 3))
	e.node(name+".cube", "Mul", e.scalar(name+".factor", 0.044715))
	e.node(name+".sum", "Add", x)
	e.node(name+".scale", "Mul", e.scalar(name+".root", float32(math.Sqrt(2/math.Pi))))
	e.node(name+".tanh", "Tanh")
	e.node(name+".add", "Add", e.scalar(name+".one", 1))
	e.node(name+".mul", "Mul", x)
	e.node(name, "Mul", e.scalar(name+".half", 0.5))
}

func (e *encoder) scalar(name string, v float32) string {
	e.initializers = append(e.initializers, &onnxpb.Tensor{Name: name, DataType: onnxFloat, FloatData: []float32{v}})
	return name
}

func externalTensor(t *tensor) *onnxpb.Tensor {
	return &onnxpb.Tensor{
		Name: t.name, Dims: t.shape(), DataType: onnxFloat, DataLocation: onnxpb.Tensor_EXTERNAL,
		ExternalData: []*onnxpb.Entry{
			{Key: "location", Value: weightsFile},
			{Key: "offset", Value: fmt.Sprint(t.offset)},
			{Key: "length", Value: fmt.Sprint(t.bytes())},
		},
	}
}

// rowsOf is a value with any number of rows.
func rowsOf(name string, columns int) *onnxpb.Value {
	shape := &onnxpb.Shape{Dim: []*onnxpb.Dimension{
		{Value: &onnxpb.Dimension_DimParam{DimParam: "N"}},
		{Value: &onnxpb.Dimension_DimValue{DimValue: int64(columns)}},
	}}
	return &onnxpb.Value{Name: name, Type: &onnxpb.Type{TensorType: &onnxpb.TensorType{ElemType: onnxFloat, Shape: shape}}}
}

func floatAttribute(name string, v float32) *onnxpb.Attribute {
	return &onnxpb.Attribute{Name: name, Type: onnxpb.Attribute_FLOAT, F: &v}
}

func intAttribute(name string, v int64) *onnxpb.Attribute {
	return &onnxpb.Attribute{Name: name, Type: onnxpb.Attribute_INT, I: &v}
}
