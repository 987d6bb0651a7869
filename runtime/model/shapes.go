package model

import (
	"encoding/binary"
	"fmt"
	"slices"

	"trainyard.dev/trainyard/runtime/model/internal/onnxpb"
)

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
	left := maxShapeNodes
	shape, err := b.shape(s.constant(1), &left)
	if err != nil {
		return err
	}
	keepsRows := len(shape) == 2 && (shape[0] == 0 || shape[0] == -1 || shape[0] == b.rows || shape[0] == allRows)
	keepsColumns := len(shape) == 2 && (shape[1] == -1 && shape[0] != -1 || b.width > 0 && shape[1] == int64(b.width) || shape[1] == 0 && !b.deep)
	if !keepsRows || !keepsColumns {
		return fmt.Errorf("reshaping to %v is not supported; each row must stay a row of %d columns", abridged(shape), b.width)
	}
	b.deep = false
	return nil
}

// allRows stands for the number of rows in a shape that is computed when the
// model runs.
const allRows = -2

// maxShapeNodes is more than any computation of a shape has.
const maxShapeNodes = 32

// shape returns a vector of integers that is constant but for the number of
// rows: exporters compute it from the shape of the graph's input.
func (b *builder) shape(value string, left *int) ([]int64, error) {
	if t := b.graph.constants[value]; t != nil {
		return integers(t)
	}
	n := b.graph.producers[value]
	if *left--; n == nil || *left < 0 || len(n.Input) == 0 {
		return nil, fmt.Errorf("its shape %.80q is not known", value)
	}
	if n.OpType == "Shape" {
		return b.inputShape(n)
	}
	var parts []int64
	for i, input := range n.Input {
		part, err := b.shape(input, left)
		if err != nil {
			return nil, err
		}
		switch n.OpType {
		case "Concat":
			parts = append(parts, part...)
		case "Squeeze", "Unsqueeze", "Cast", "Identity", "Reshape": // of one number
			if i == 0 {
				parts = part
			}
		case "Gather":
			if i == 1 && len(part) == 1 && part[0] >= 0 && part[0] < int64(len(parts)) {
				return parts[part[0] : part[0]+1], nil
			}
			parts = part
		default:
			return nil, fmt.Errorf("its shape comes from %s, which cannot be read", describe(n))
		}
	}
	return parts, nil
}

// inputShape is what a Shape node computes from the graph's input.
func (b *builder) inputShape(n *onnxpb.Node) ([]int64, error) {
	dims := b.graph.input.GetType().GetTensorType().GetShape().GetDim()
	if n.Input[0] != b.graph.input.Name || len(dims) == 0 {
		return nil, fmt.Errorf("its shape comes from %s, which cannot be read", describe(n))
	}
	shape := []int64{allRows}
	for _, d := range dims[1:] {
		shape = append(shape, d.GetDimValue())
	}
	s := step{Node: n}
	start, end := s.int("start", 0), s.int("end", int64(len(shape)))
	if start < 0 || end > int64(len(shape)) || start > end {
		return nil, fmt.Errorf("%s takes a part of the shape that cannot be read", describe(n))
	}
	return shape[start:end], nil
}

// integers are the elements of a constant.
func integers(t *onnxpb.Tensor) ([]int64, error) {
	if t.DataType != onnxInt64 || t.DataLocation != onnxpb.Tensor_DEFAULT {
		return nil, fmt.Errorf("its shape %.80q is not a constant of integers in the graph", t.Name)
	}
	if len(t.RawData)%8 != 0 {
		return nil, fmt.Errorf("tensor %.80q has %d bytes, which are no whole numbers", t.Name, len(t.RawData))
	}
	whole := slices.Clone(t.Int64Data)
	for i := 0; i < len(t.RawData); i += 8 {
		whole = append(whole, int64(binary.LittleEndian.Uint64(t.RawData[i:])))
	}
	return whole, nil
}
