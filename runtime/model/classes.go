package model

import (
	"encoding/binary"
	"strconv"
	"strings"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
)

// zipMap makes a map from class to probability of each row of probabilities.
const zipMap = "ai.onnx.ml.ZipMap"

// unzipped returns the tensor that the maps of an output are made from.
func (g *graph) unzipped(output string) string {
	if n := g.producers[output]; n != nil && operatorOf(n) == zipMap && len(n.Input) == 1 {
		return n.Input[0]
	}
	return output
}

// classLabels finds the labels that a classifier's graph answers with, in the
// order of its probabilities. Nil: there are none.
func (g *graph) classLabels(outputs []*onnxpb.Value) []string {
	for _, output := range outputs {
		if labels := g.labelsOf(output.Name); labels != nil {
			return labels
		}
	}
	return nil
}

func (g *graph) labelsOf(value string) []string {
	for range maxConstantNodes {
		n := g.producers[value]
		if n == nil || len(n.Input) == 0 {
			return nil
		}
		switch s := (step{Node: n}); operatorOf(n) {
		case zipMap:
			return labels(s.attribute("classlabels_int64s").GetInts(), s.attribute("classlabels_strings").GetStrings())
		case linearClassifier:
			return labels(s.attribute("classlabels_ints").GetInts(), s.attribute("classlabels_strings").GetStrings())
		case "ai.onnx.ml.ArrayFeatureExtractor": // the labels, at the place of the largest probability
			return tensorLabels(g.constants[n.Input[0]])
		case "Cast", "Reshape", "Identity":
			value = n.Input[0]
		default:
			return nil
		}
	}
	return nil
}

// labels returns numbers or texts, whichever there are, as texts.
func labels[I int32 | int64](numbers []I, texts [][]byte) []string {
	var all []string
	for _, n := range numbers {
		all = append(all, strconv.FormatInt(int64(n), 10))
	}
	for _, t := range texts {
		all = append(all, strings.ToValidUTF8(string(t), "\uFFFD"))
	}
	return all
}

func tensorLabels(t *onnxpb.Tensor) []string {
	if t == nil || t.DataLocation != onnxpb.Tensor_DEFAULT {
		return nil
	}
	if found := append(labels(t.Int32Data, nil), labels(t.Int64Data, t.StringData)...); found != nil {
		return found
	}
	var numbers []int64
	switch raw := t.RawData; t.DataType {
	case onnxInt32:
		for ; len(raw) >= 4; raw = raw[4:] {
			numbers = append(numbers, int64(int32(binary.LittleEndian.Uint32(raw))))
		}
	case onnxInt64:
		for ; len(raw) >= 8; raw = raw[8:] {
			numbers = append(numbers, int64(binary.LittleEndian.Uint64(raw)))
		}
	}
	return labels(numbers, nil)
}
