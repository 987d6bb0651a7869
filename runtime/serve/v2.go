package serve

import (
	"context"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"gonum.org/v1/gonum/blas/blas32"
)

// inferRequest is the JSON of POST /v2/models/{model}/infer. Parameters that
// are not here are ignored.
type inferRequest struct {
	ID         string                  `json:"id"`
	Inputs     atMost[inferInput]      `json:"inputs"`
	Outputs    atMost[requestedOutput] `json:"outputs"`
	Parameters struct {
		// BinaryDataOutput is the default of the outputs' BinaryData.
		BinaryDataOutput bool `json:"binary_data_output"`
	} `json:"parameters"`
}

type inferInput struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype"`
	Shape      []int64        `json:"shape"`
	Data       jsontext.Value `json:"data"`
	Parameters struct {
		// BinaryDataSize is how many bytes of the body's tail are the tensor's.
		BinaryDataSize *int64 `json:"binary_data_size"`
	} `json:"parameters"`
}

type requestedOutput struct {
	Name       string `json:"name"`
	Parameters struct {
		// BinaryData asks for the output in binary form.
		BinaryData *bool `json:"binary_data"`
	} `json:"parameters"`
}

// output is what is to be answered.
type output struct {
	name   string
	binary bool
}

// inferV2 answers a request of the Open Inference Protocol.
func inferV2(ctx context.Context, v *version, mostRows int, b *buffers) error {
	var request inferRequest
	tensors, err := request.read(b)
	if err != nil {
		return err
	}
	outputs, err := request.outputs(&v.signature)
	if err != nil {
		return err
	}
	x, err := v.matrix(tensors, mostRows, b)
	if err != nil {
		return err
	}
	y, err := v.predict(ctx, x, b)
	if err != nil {
		return err
	}
	b.answer = appendInferResponse(b.answer[:0], v, request.ID, outputs, y)
	b.answerHead = 0
	if slices.ContainsFunc(outputs, func(o output) bool { return o.binary }) {
		b.answerHead = len(b.answer)
		b.answer = appendBinaryOutputs(b.answer, &v.signature, outputs, y)
	}
	return nil
}

// read reads the body. The tensors' elements are checked when they are used.
func (r *inferRequest) read(b *buffers) ([]tensor, error) {
	if t, ok := r.simple(b.text(), b.tail(), b); ok {
		return []tensor{t}, nil
	}
	*r = inferRequest{}
	if err := decode(b.text(), r); err != nil {
		return nil, err
	}
	return r.tensors(b.tail())
}

// outputs returns what is to be answered, in order.
func (r *inferRequest) outputs(s *signature) ([]output, error) {
	names := make([]string, len(r.Outputs))
	for i, o := range r.Outputs {
		names[i] = o.Name
	}
	if err := s.checkOutputs(names); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return []output{{outputName, r.Parameters.BinaryDataOutput}}, nil
	}
	outputs := make([]output, len(names))
	for i, o := range r.Outputs {
		outputs[i] = output{o.Name, r.Parameters.BinaryDataOutput}
		if own := o.Parameters.BinaryData; own != nil {
			outputs[i].binary = *own
		}
	}
	return outputs, nil
}

func appendInferResponse(dst []byte, v *version, id string, outputs []output, y blas32.General) []byte {
	dst = append(dst, `{"model_name":`...)
	dst = quoted(dst, v.model.Name)
	dst = append(dst, `,"model_version":`...)
	dst = quoted(dst, v.model.Version())
	if id != "" {
		dst = append(dst, `,"id":`...)
		dst = quoted(dst, id)
	}
	dst = append(dst, `,"outputs":[`...)
	for i, o := range outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendOutput(dst, &v.signature, o, y)
	}
	return append(dst, `]}`...)
}

func appendOutput(dst []byte, s *signature, o output, y blas32.General) []byte {
	rows := strconv.Itoa(y.Rows)
	if o.name == labelName {
		dst = append(dst, `{"name":"label","datatype":"BYTES","shape":[`+rows+`],`...)
	} else {
		dst = append(dst, `{"name":"outputs","datatype":"FP32","shape":[`+rows+`,`+strconv.Itoa(y.Cols)+`],`...)
	}
	switch {
	case o.binary:
		dst = append(dst, `"parameters":{"binary_data_size":`...)
		dst = strconv.AppendInt(dst, int64(binarySize(s, o.name, y)), 10)
		return append(dst, `}}`...)
	case o.name == labelName:
		dst = appendLabels(append(dst, `"data":`...), s, y)
	default:
		dst = appendList(append(dst, `"data":`...), y.Data)
	}
	return append(dst, '}')
}

// appendList appends numbers as a JSON list.
func appendList(dst []byte, values []float32) []byte {
	dst = append(dst, '[')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendNumber(dst, v)
	}
	return append(dst, ']')
}

// appendLabels appends the rows' labels as a JSON list.
func appendLabels(dst []byte, s *signature, y blas32.General) []byte {
	dst = append(dst, '[')
	for i := range y.Rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = quoted(dst, s.label(y.Data[i*y.Cols:(i+1)*y.Cols]))
	}
	return append(dst, ']')
}
