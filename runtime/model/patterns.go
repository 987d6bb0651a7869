package model

import (
	"math"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
)

// Functions that exporters spell out as several nodes.

// matchGELU recognizes x*0.5*(1 + erf(x/sqrt(2))), multiplied in any order, by
// its last node.
func (g *graph) matchGELU(last *onnxpb.Node) (x string, ok bool) {
	if last.OpType != "Mul" || len(last.Input) != 2 {
		return "", false
	}
	product, halved := last, false
	if rest, isHalf := g.without(last, "Mul", isHalf); isHalf {
		if product = g.producers[rest]; product == nil || product.OpType != "Mul" || len(product.Input) != 2 {
			return "", false
		}
		halved = true
	}
	for i, factor := range product.Input {
		x, phiHalved, found := g.matchPhi(factor)
		other, otherHalved := g.withoutHalf(product.Input[1-i])
		if found && product.Input[1-i] == x {
			other, otherHalved = x, false
		}
		if found && other == x && count(halved, phiHalved, otherHalved) == 1 {
			return x, true
		}
	}
	return "", false
}

// matchPhi recognizes 1 + erf(x/sqrt(2)), or half of that.
func (g *graph) matchPhi(value string) (x string, halved, ok bool) {
	value, halved = g.withoutHalf(value)
	sum := g.producers[value]
	if sum == nil {
		return "", false, false
	}
	value, isSum := g.without(sum, "Add", func(v float32) bool { return v == 1 })
	erf := g.producers[value]
	if !isSum || erf == nil || erf.OpType != "Erf" || len(erf.Input) != 1 {
		return "", false, false
	}
	scaled := g.producers[erf.Input[0]]
	if scaled == nil {
		return "", false, false
	}
	if x, ok := g.without(scaled, "Div", isNear(math.Sqrt2)); ok {
		return x, halved, true
	}
	x, ok = g.without(scaled, "Mul", isNear(math.Sqrt2/2))
	return x, halved, ok
}

func (g *graph) withoutHalf(value string) (string, bool) {
	if n := g.producers[value]; n != nil {
		if rest, ok := g.without(n, "Mul", isHalf); ok {
			return rest, true
		}
	}
	return value, false
}

// without returns the computed input of a node of that type whose other input
// is a constant number that is accepted. Of Div, the constant is the second.
func (g *graph) without(n *onnxpb.Node, operator string, accepted func(float32) bool) (string, bool) {
	if n.OpType != operator || len(n.Input) != 2 {
		return "", false
	}
	if v, ok := g.number(n.Input[1]); ok && accepted(v) {
		return n.Input[0], true
	}
	if v, ok := g.number(n.Input[0]); ok && accepted(v) && operator != "Div" {
		return n.Input[1], true
	}
	return "", false
}

// number returns a constant that is one number in the graph's file.
func (g *graph) number(value string) (float32, bool) {
	t := g.constants[value]
	if t == nil || t.DataLocation != onnxpb.Tensor_DEFAULT || t.DataType != onnxFloat {
		return 0, false
	}
	for _, d := range t.Dims {
		if d != 1 {
			return 0, false
		}
	}
	switch {
	case len(t.FloatData) == 1:
		return t.FloatData[0], true
	case len(t.RawData) == 4:
		return floats(t.RawData)[0], true
	}
	return 0, false
}

func isHalf(v float32) bool { return v == 0.5 }

func isNear(want float64) func(float32) bool {
	return func(v float32) bool { return math.Abs(float64(v)/want-1) < 1e-3 }
}

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
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
