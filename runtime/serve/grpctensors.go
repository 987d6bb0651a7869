package serve

import (
	"context"
	"fmt"
	"slices"

	"gonum.org/v1/gonum/blas/blas32"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// inferGRPC is the codec of gRPC. Nothing of b is in the answer.
func inferGRPC(ctx context.Context, v *version, r *inference.ModelInferRequest, mostRows int, b *buffers) (*inference.ModelInferResponse, error) {
	outputs, err := outputsOf(r, &v.signature)
	if err != nil {
		return nil, err
	}
	tensors, err := tensorsOf(r)
	if err != nil {
		return nil, err
	}
	x, err := v.matrix(tensors, mostRows, b)
	if err != nil {
		return nil, err
	}
	y, err := v.predict(ctx, x, b)
	if err != nil {
		return nil, err
	}
	answer := &inference.ModelInferResponse{ModelName: v.model.Name, ModelVersion: v.model.Version(), Id: r.GetId()}
	for _, name := range outputs {
		answer.Outputs = append(answer.Outputs, outputOf(&v.signature, name, y))
	}
	fill(answer, len(r.GetRawInputContents()) > 0, &v.signature, y)
	return answer, nil
}

func outputsOf(r *inference.ModelInferRequest, s *signature) ([]string, error) {
	if len(r.GetOutputs()) == 0 {
		return []string{outputName}, nil
	}
	names := make([]string, len(r.GetOutputs()))
	for i, o := range r.GetOutputs() {
		names[i] = o.GetName()
	}
	return names, s.checkOutputs(names)
}

func tensorsOf(r *inference.ModelInferRequest) ([]tensor, error) {
	all := r.GetRawInputContents()
	if len(all) != 0 && len(all) != len(r.GetInputs()) {
		return nil, invalid("the request has %d inputs, but %d raw_input_contents; send one for each input, or none", len(r.GetInputs()), len(all))
	}
	tensors := make([]tensor, len(r.GetInputs()))
	for i, in := range r.GetInputs() {
		tensors[i] = tensor{name: in.GetName(), datatype: in.GetDatatype(), shape: in.GetShape(), data: typed{in.GetContents()}}
		if len(all) == 0 {
			continue
		}
		if proto.Size(in.GetContents()) > 0 {
			return nil, invalid("input %q has contents, but the request has raw_input_contents; send all inputs in one of the two", clipped(in.GetName()))
		}
		tensors[i].data = raw(all[i])
	}
	return tensors, nil
}

// typed are elements in a field of a message.
type typed struct{ *inference.InferTensorContents }

func (c typed) appendTo(dst []float32, t *datatype, shape []int) ([]float32, error) {
	switch t.name {
	case "BOOL":
		return appendField(dst, "bool_contents", c.GetBoolContents(), zeroOrOne, t, shape)
	case "INT8", "INT16", "INT32":
		return appendField(dst, "int_contents", c.GetIntContents(), float64Of, t, shape)
	case "INT64":
		return appendField(dst, "int64_contents", c.GetInt64Contents(), float64Of, t, shape)
	case "UINT8", "UINT16", "UINT32":
		return appendField(dst, "uint_contents", c.GetUintContents(), float64Of, t, shape)
	case "UINT64":
		return appendField(dst, "uint64_contents", c.GetUint64Contents(), float64Of, t, shape)
	case "FP32":
		return appendField(dst, "fp32_contents", c.GetFp32Contents(), float64Of, t, shape)
	case "FP64":
		return appendField(dst, "fp64_contents", c.GetFp64Contents(), float64Of, t, shape)
	}
	return dst, fmt.Errorf("of datatype %s has no field in contents; send it in raw_input_contents", t.name)
}

func appendField[T any](dst []float32, field string, values []T, float func(T) float64, t *datatype, shape []int) ([]float32, error) {
	n := product(shape)
	if len(values) != n {
		return dst, fmt.Errorf("has %d elements in contents.%s, where %s belongs, but the shape %s says %d", len(values), field, t.name, dimensions(shape), n)
	}
	return t.appendFloats(dst, n, func(i int) float64 { return float(values[i]) }, shape)
}

func float64Of[T int32 | int64 | uint32 | uint64 | float32 | float64](v T) float64 { return float64(v) }

func zeroOrOne(v bool) float64 {
	if v {
		return 1
	}
	return 0
}

func outputOf(s *signature, name string, y blas32.General) *inference.ModelInferResponse_InferOutputTensor {
	if name == labelName {
		return &inference.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "BYTES", Shape: []int64{int64(y.Rows)}}
	}
	return &inference.ModelInferResponse_InferOutputTensor{Name: name, Datatype: "FP32", Shape: []int64{int64(y.Rows), int64(s.outputs)}}
}

// fill gives the answer's outputs their elements, raw or not.
func fill(answer *inference.ModelInferResponse, asRaw bool, s *signature, y blas32.General) {
	for _, o := range answer.GetOutputs() {
		switch {
		case asRaw:
			buffer := make([]byte, 0, binarySize(s, o.GetName(), y))
			answer.RawOutputContents = append(answer.RawOutputContents, appendBinary(buffer, s, o.GetName(), y))
		case o.GetName() == labelName:
			o.Contents = &inference.InferTensorContents{BytesContents: labelsOf(s, y)}
		default:
			o.Contents = &inference.InferTensorContents{Fp32Contents: slices.Clone(y.Data)}
		}
	}
}

func labelsOf(s *signature, y blas32.General) [][]byte {
	labels := make([][]byte, y.Rows)
	for i := range labels {
		labels[i] = []byte(s.label(y.Data[i*y.Cols : (i+1)*y.Cols]))
	}
	return labels
}
