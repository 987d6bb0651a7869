package model

import (
	"encoding/binary"
	"errors"
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
