package model

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
)

// maxGraphBytes is the most that a protocol buffer can have.
const maxGraphBytes = 2 << 30

// graph is an ONNX graph with an index of what computes each value.
type graph struct {
	name      string
	input     *onnxpb.Value
	output    string
	classes   []string // labels of the outputs, if it tells
	nodes     int
	producers map[string]*onnxpb.Node
	constants map[string]*onnxpb.Tensor
}

// step is a node on the way from the graph's input to its output.
type step struct {
	*onnxpb.Node
	// operator is the node's type; for nodes that were recognized as one
	// function, its name.
	operator string
	// computed is which input is on the way. The others are constants.
	computed int
}

func (s step) constant(i int) string {
	if i < len(s.Input) {
		return s.Input[i]
	}
	return ""
}

func (s step) attribute(name string) *onnxpb.Attribute {
	for _, a := range s.Attribute {
		if a.Name == name {
			return a
		}
	}
	return nil
}

func (s step) float(name string, otherwise float32) float32 {
	if a := s.attribute(name); a != nil {
		return a.GetF()
	}
	return otherwise
}

func (s step) int(name string, otherwise int64) int64 {
	if a := s.attribute(name); a != nil {
		return a.GetI()
	}
	return otherwise
}

// describe is the node's operator and name, for messages.
func describe(n *onnxpb.Node) string {
	operator := n.OpType
	if n.Domain != "" && n.Domain != "ai.onnx" {
		operator = n.Domain + "." + operator
	}
	name := n.Name
	if name == "" && len(n.Output) > 0 {
		name = "output " + n.Output[0]
	}
	return fmt.Sprintf("node %.80q (%.60s)", name, operator)
}

func readGraph(files *files) (*graph, error) {
	data, err := files.read(graphFile, maxGraphBytes)
	if err != nil {
		return nil, err
	}
	var m onnxpb.Model
	if err := proto.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("it is not an ONNX model: %w", err)
	}
	if m.Graph == nil {
		return nil, errors.New("it is not an ONNX model: it has no graph")
	}
	for _, set := range m.OpsetImport {
		if set.GetDomain() == "" && set.GetVersion() < 7 {
			return nil, fmt.Errorf("it uses operator set %d; 7 is the oldest that can be read, so export it with a newer one", set.GetVersion())
		}
	}
	return indexGraph(m.Graph)
}

func indexGraph(pb *onnxpb.Graph) (*graph, error) {
	g := &graph{name: pb.Name, nodes: len(pb.Node), producers: map[string]*onnxpb.Node{}, constants: map[string]*onnxpb.Tensor{}}
	for _, t := range pb.Initializer {
		g.constants[t.Name] = t
	}
	for _, n := range pb.Node {
		if tensor := constantOf(n); tensor != nil {
			g.constants[n.Output[0]] = tensor
			continue
		}
		for _, output := range n.Output {
			g.producers[output] = n
		}
	}
	for _, input := range pb.Input {
		// Old files list initializers as inputs, too.
		if g.constants[input.Name] != nil {
			continue
		}
		if g.input != nil {
			return nil, fmt.Errorf("it has several inputs (%.40q, %.40q); a model has one, with a row for each sample. "+
				"(tf2onnx makes inputs of a Keras Normalization layer's constants; from a SavedModel it does not)", g.input.Name, input.Name)
		}
		g.input = input
	}
	if g.input == nil {
		return nil, errors.New("the graph has no input")
	}
	var err error
	g.output, err = g.chooseOutput(pb.Output)
	g.classes = g.classLabels(pb.Output)
	return g, err
}

// constantOf returns the tensor of a Constant node, else nil.
func constantOf(n *onnxpb.Node) *onnxpb.Tensor {
	if n.OpType != "Constant" || len(n.Output) != 1 || len(n.Attribute) != 1 {
		return nil
	}
	switch a := n.Attribute[0]; a.Name {
	case "value":
		return a.T
	case "value_float":
		return &onnxpb.Tensor{Name: n.Output[0], DataType: onnxFloat, FloatData: []float32{a.GetF()}}
	case "value_floats":
		return &onnxpb.Tensor{Name: n.Output[0], DataType: onnxFloat, Dims: []int64{int64(len(a.Floats))}, FloatData: a.Floats}
	case "value_ints":
		return &onnxpb.Tensor{Name: n.Output[0], DataType: onnxInt64, Dims: []int64{int64(len(a.Ints))}, Int64Data: a.Ints}
	}
	return nil
}

// chooseOutput takes the output that holds numbers: scikit-learn's classifiers
// give a label as well, and make a map of the numbers unless told not to.
func (g *graph) chooseOutput(outputs []*onnxpb.Value) (string, error) {
	if len(outputs) == 1 {
		return g.unzipped(outputs[0].Name), nil
	}
	numbers := slices.DeleteFunc(slices.Clone(outputs), func(o *onnxpb.Value) bool {
		kind := o.GetType().GetTensorType().GetElemType()
		return kind != onnxFloat && kind != onnxDouble && g.unzipped(o.Name) == o.Name
	})
	if len(numbers) != 1 {
		return "", fmt.Errorf("the graph has %d outputs, %d of them float; a model has one", len(outputs), len(numbers))
	}
	return g.unzipped(numbers[0].Name), nil
}

// chain returns the steps from the input to the output. It walks backwards, so
// that nodes that do not matter for the output are never looked at.
func (g *graph) chain() ([]step, error) {
	var steps []step
	value := g.output
	for value != g.input.Name {
		node := g.producers[value]
		if node == nil {
			return nil, fmt.Errorf("nothing in the graph computes %.80q", value)
		}
		if len(steps) > g.nodes {
			return nil, fmt.Errorf("%s depends on its own result", describe(node))
		}
		if _, supported := operators[operatorOf(node)]; !supported && len(node.Output) > 1 {
			return nil, fmt.Errorf("%s: %w", describe(node), errUnsupported)
		}
		if value != node.Output[min(resultOf(node), len(node.Output)-1)] {
			return nil, fmt.Errorf("%s: only its first output can be used, not %.80q", describe(node), value)
		}
		s, before, err := g.step(node)
		if err != nil {
			return nil, err
		}
		steps, value = append(steps, s), before
	}
	slices.Reverse(steps)
	return steps, nil
}

// step returns a node as a step, and the value that it computes from.
func (g *graph) step(n *onnxpb.Node) (step, string, error) {
	if kind, x, ok := g.matchActivation(n); ok {
		return step{Node: n, operator: kind.String()}, x, nil
	}
	if x, ok := g.matchBinary(n); ok {
		return step{Node: n, operator: binaryClasses}, x, nil
	}
	s, found := step{Node: n, operator: operatorOf(n)}, 0
	if s.operator == "Reshape" && len(n.Input) == 2 && !g.isConstant(n.Input[0]) {
		return s, n.Input[0], nil // the shape may be computed, too
	}
	for i, input := range n.Input {
		if input != "" && !g.isConstant(input) {
			s.computed = i
			found++
		}
	}
	if found != 1 {
		return s, "", fmt.Errorf("%s computes from %d computed values; only a chain of layers can be read, where each computes from the one before", describe(n), found)
	}
	return s, n.Input[s.computed], nil
}

// resultOf is which of its outputs a node computes numbers to.
func resultOf(n *onnxpb.Node) int {
	if operatorOf(n) == linearClassifier {
		return 1 // the first are labels
	}
	return 0
}

func operatorOf(n *onnxpb.Node) string {
	if n.Domain == "" || n.Domain == "ai.onnx" {
		return n.OpType
	}
	return n.Domain + "." + n.OpType
}

// maxConstantNodes bounds how many nodes a constant may pass through.
const maxConstantNodes = 8

// isConstant tells whether a value is an initializer, or is one after nodes
// that [graph.tensor] sees through.
func (g *graph) isConstant(value string) bool {
	for range maxConstantNodes {
		if g.constants[value] != nil {
			return true
		}
		n := g.producers[value]
		if n == nil || len(n.Input) != 1 || !slices.Contains([]string{"Identity", "Cast", "Transpose"}, n.OpType) {
			return false
		}
		value = n.Input[0]
	}
	return false
}
