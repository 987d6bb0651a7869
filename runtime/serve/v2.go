package serve

import (
	"context"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
	"gonum.org/v1/gonum/blas/blas32"
)

// inferRequest is the body of POST /v2/models/{model}/infer. Parameters are
// ignored.
type inferRequest struct {
	ID     string `json:"id"`
	Inputs []struct {
		Name     string         `json:"name"`
		Datatype string         `json:"datatype"`
		Shape    []int64        `json:"shape"`
		Data     jsontext.Value `json:"data"`
	} `json:"inputs"`
	Outputs []struct {
		Name string `json:"name"`
	} `json:"outputs"`
}

// inferV2 answers a request of the Open Inference Protocol.
func inferV2(ctx context.Context, v *version, mostRows int, b *buffers) error {
	var request inferRequest
	if err := decode(b.body.Bytes(), &request); err != nil {
		return err
	}
	outputs, err := request.outputs(&v.signature)
	if err != nil {
		return err
	}
	x, err := v.matrix(request.tensors(), mostRows, b)
	if err != nil {
		return err
	}
	y, err := v.predict(ctx, x, b)
	if err != nil {
		return err
	}
	b.answer = appendInferResponse(b.answer[:0], v, request.ID, outputs, y)
	return nil
}

func (r *inferRequest) tensors() []tensor {
	tensors := make([]tensor, len(r.Inputs))
	for i, in := range r.Inputs {
		tensors[i] = tensor{name: in.Name, datatype: in.Datatype, shape: in.Shape, data: in.Data}
	}
	return tensors
}

// outputs returns the names of the outputs to answer, in order.
func (r *inferRequest) outputs(s *signature) ([]string, error) {
	if len(r.Outputs) == 0 {
		return []string{outputName}, nil
	}
	known := s.outputNames()
	var names []string
	for _, o := range r.Outputs {
		if !slices.Contains(known, o.Name) {
			return nil, invalid("the model has no output %q; it has %s", clipped(o.Name), few(known))
		}
		if slices.Contains(names, o.Name) {
			return nil, invalid("output %q is asked for twice", o.Name)
		}
		names = append(names, o.Name)
	}
	return names, nil
}

func appendInferResponse(dst []byte, v *version, id string, outputs []string, y blas32.General) []byte {
	dst = append(dst, `{"model_name":`...)
	dst = quoted(dst, v.model.Name)
	dst = append(dst, `,"model_version":`...)
	dst = quoted(dst, v.model.Version())
	if id != "" {
		dst = append(dst, `,"id":`...)
		dst = quoted(dst, id)
	}
	dst = append(dst, `,"outputs":[`...)
	for i, name := range outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendOutput(dst, &v.signature, name, y)
	}
	return append(dst, `]}`...)
}

func appendOutput(dst []byte, s *signature, name string, y blas32.General) []byte {
	rows := strconv.Itoa(y.Rows)
	if name == labelName {
		dst = append(dst, `{"name":"label","datatype":"BYTES","shape":[`+rows+`],"data":`...)
		return append(appendLabels(dst, s, y), '}')
	}
	dst = append(dst, `{"name":"outputs","datatype":"FP32","shape":[`+rows+`,`+strconv.Itoa(y.Cols)+`],"data":`...)
	return append(appendList(dst, y.Data), '}')
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
