package model

import (
	"encoding/binary"
	"math"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
	"trainyard.dev/trainyard/runtime/nn"
)

// Functions that exporters spell out as several nodes.

// elementwise are the operators that activations are spelled out in.
var elementwise = map[string]struct {
	inputs  int
	compute func(a, b float64) float64
}{
	"Add":     {2, func(a, b float64) float64 { return a + b }},
	"Sub":     {2, func(a, b float64) float64 { return a - b }},
	"Mul":     {2, func(a, b float64) float64 { return a * b }},
	"Div":     {2, func(a, b float64) float64 { return a / b }},
	"Pow":     {2, math.Pow},
	"Neg":     {1, func(a, _ float64) float64 { return -a }},
	"Tanh":    {1, func(a, _ float64) float64 { return math.Tanh(a) }},
	"Sigmoid": {1, func(a, _ float64) float64 { return 1 / (1 + math.Exp(-a)) }},
	"Erf":     {1, func(a, _ float64) float64 { return math.Erf(a) }},
	// Not of ONNX, but tf2onnx writes it for Keras's GELU.
	"Erfc": {1, func(a, _ float64) float64 { return math.Erfc(a) }},
}

// maxFormulaNodes is more than any spelling of an activation has.
const maxFormulaNodes = 16

// spelledOut are the activations that are looked for.
var spelledOut = map[nn.ActivationKind]func(x float64) float64{
	nn.GELU:     func(x float64) float64 { return x * math.Erfc(-x/math.Sqrt2) / 2 },
	nn.GELUTanh: func(x float64) float64 { return x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x))) / 2 },
}

// matchActivation recognizes an activation by its last node, however it is
// spelled: it computes what the nodes compute, and compares. x is what it is
// applied to.
func (g *graph) matchActivation(last *onnxpb.Node) (kind nn.ActivationKind, x string, ok bool) {
	if operator := operatorOf(last); operator != "Mul" && operator != "Div" || len(last.Output) != 1 {
		return 0, "", false
	}
	for _, x := range g.formulaValues(last) {
		for kind, function := range spelledOut {
			if g.computes(last.Output[0], x, function) {
				return kind, x, true
			}
		}
	}
	return 0, "", false
}

// formulaValues are what a node computes from by way of elementwise operators,
// the nearest first.
func (g *graph) formulaValues(last *onnxpb.Node) []string {
	var values []string
	seen := map[string]bool{}
	nodes := []*onnxpb.Node{last}
	for i := 0; i < min(len(nodes), maxFormulaNodes); i++ {
		for _, input := range nodes[i].Input {
			if seen[input] || g.constants[input] != nil {
				continue
			}
			seen[input] = true
			values = append(values, input)
			if n := g.producers[input]; n != nil && elementwise[operatorOf(n)].compute != nil {
				nodes = append(nodes, n)
			}
		}
	}
	return values
}

// computes tells whether y is that function of x.
func (g *graph) computes(y, x string, function func(float64) float64) bool {
	for at := -6.0; at <= 6; at += 0.25 {
		got, ok := g.formula(y, map[string]float64{x: at}, maxFormulaNodes)
		// Half a digit less than what predictions must agree to.
		if want := function(at); !ok || !(math.Abs(got-want) <= 3e-6*(1+math.Abs(want))) {
			return false
		}
	}
	return true
}

// formula computes a value by elementwise operators from those that are known.
func (g *graph) formula(value string, known map[string]float64, depth int) (float64, bool) {
	if v, ok := known[value]; ok {
		return v, true
	}
	if v, ok := g.number(value); ok {
		return v, true
	}
	n := g.producers[value]
	if n == nil || depth == 0 {
		return 0, false
	}
	operator, ok := elementwise[operatorOf(n)]
	if !ok || len(n.Input) != operator.inputs {
		return 0, false
	}
	var operands [2]float64
	for i, input := range n.Input {
		if operands[i], ok = g.formula(input, known, depth-1); !ok {
			return 0, false
		}
	}
	known[value] = operator.compute(operands[0], operands[1])
	return known[value], true
}

// number returns a constant that is one number in the graph's file.
func (g *graph) number(value string) (float64, bool) {
	t := g.constants[value]
	if t == nil || t.DataLocation != onnxpb.Tensor_DEFAULT {
		return 0, false
	}
	if n, err := elements(t.Dims); err != nil || n != 1 {
		return 0, false
	}
	switch raw := t.RawData; {
	case t.DataType == onnxFloat && len(t.FloatData) == 1:
		return float64(t.FloatData[0]), true
	case t.DataType == onnxFloat && len(raw) == 4:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(raw))), true
	case t.DataType == onnxDouble && len(t.DoubleData) == 1:
		return t.DoubleData[0], true
	case t.DataType == onnxDouble && len(raw) == 8:
		return math.Float64frombits(binary.LittleEndian.Uint64(raw)), true
	case t.DataType == onnxInt64 && len(t.Int64Data) == 1:
		return float64(t.Int64Data[0]), true
	case t.DataType == onnxInt64 && len(raw) == 8:
		return float64(int64(binary.LittleEndian.Uint64(raw))), true
	}
	return 0, false
}

// binaryClasses is how scikit-learn's classifiers of two classes end: with the
// probabilities [1-p, p] for p = sigmoid(x).
const binaryClasses = "binary classes"

// matchBinary recognizes Concat(1 - p, p) for p = Sigmoid(x) by its last node,
// and returns x.
func (g *graph) matchBinary(last *onnxpb.Node) (x string, ok bool) {
	axis := step{Node: last}.int("axis", 0)
	if last.OpType != "Concat" || len(last.Input) != 2 || axis != 1 && axis != -1 {
		return "", false
	}
	complement, p := g.producers[last.Input[0]], last.Input[1]
	if complement == nil || complement.OpType != "Sub" || len(complement.Input) != 2 || complement.Input[1] != p {
		return "", false
	}
	one, isNumber := g.number(complement.Input[0])
	sigmoid := g.producers[p]
	if !isNumber || one != 1 || sigmoid == nil || sigmoid.OpType != "Sigmoid" || len(sigmoid.Input) != 1 {
		return "", false
	}
	return sigmoid.Input[0], true
}
