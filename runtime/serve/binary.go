package serve

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unsafe"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// The binary tensor extension: a body is JSON, whose length [binaryHeader]
// says, and then the binary tensors one after another, in the order of the
// JSON. Elements are little-endian; those of BYTES have their length, of four
// bytes, before them.

// binaryHeader says how many bytes at the front of a body are JSON.
const binaryHeader = "Inference-Header-Content-Length"

// split notes where the body's JSON ends and its binary tensors begin.
func (b *buffers) split(header string) error {
	b.head = 0
	if header == "" {
		return nil
	}
	n, err := strconv.Atoi(header)
	if err != nil || n < 1 || n > len(b.body) {
		return invalid("%s is %s, but the body has %d bytes; it must be the number of bytes of JSON at the body's front",
			binaryHeader, clipped(header), len(b.body))
	}
	b.head = n
	return nil
}

// tensors returns the request's inputs. Tail holds the binary ones: all of it
// must be somebody's.
func (r *inferRequest) tensors(tail []byte) ([]tensor, error) {
	tensors := make([]tensor, len(r.Inputs))
	for i := range r.Inputs {
		in := &r.Inputs[i]
		tensors[i] = tensor{name: in.Name, datatype: in.Datatype, shape: in.Shape, data: listed(in.Data)}
		size := in.Parameters.BinaryDataSize
		if size == nil {
			continue
		}
		if err := in.checkBinary(tail); err != nil {
			return nil, err
		}
		tensors[i].data = raw(tail[:*size])
		tail = tail[*size:]
	}
	if len(tail) > 0 {
		return nil, invalid("%d bytes after the JSON belong to no input; the inputs' parameters.binary_data_size must add up to all of them", len(tail))
	}
	return tensors, nil
}

// checkBinary says why an input that claims to be binary is not, in a body that
// goes on with tail.
func (in *inferInput) checkBinary(tail []byte) error {
	size := *in.Parameters.BinaryDataSize
	switch {
	case tail == nil:
		return invalid("input %q has parameters.binary_data_size, but the request has no header %s", clipped(in.Name), binaryHeader)
	case present(in.Data):
		return invalid("input %q has both data and parameters.binary_data_size; send one of them", clipped(in.Name))
	case size < 0 || size > int64(len(tail)):
		return invalid("input %q has parameters.binary_data_size %d, but %d bytes are left in the body", clipped(in.Name), size, len(tail))
	}
	return nil
}

// tensorsAt returns where the binary tensors of a body begin, if its header says
// so. What is wrong with the header is for split to tell.
func tensorsAt(header string) int {
	n, err := strconv.Atoi(header)
	if err != nil {
		return 0
	}
	return n
}

// raw are elements in binary form.
type raw []byte

func (r raw) appendTo(dst []float32, t *datatype, shape []int) ([]float32, error) {
	n := product(shape)
	if len(r) != n*t.size {
		return dst, fmt.Errorf("has %d bytes, but %d elements of %s, as the shape %s says, have %d", len(r), n, t.name, dimensions(shape), n*t.size)
	}
	if t == float32s {
		if all, ok := r.appendFloat32s(dst, n); ok {
			return all, nil
		}
	}
	return t.appendFloats(dst, n, func(i int) float64 { return t.binary(r[i*t.size : (i+1)*t.size]) }, shape)
}

// appendFloat32s appends n numbers that need no conversion, many times faster
// than one by one. It is false when one of them is not finite, or when this
// machine does not have them in memory as the protocol does.
func (r raw) appendFloat32s(dst []float32, n int) ([]float32, bool) {
	if n == 0 || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return dst, false
	}
	from := len(dst)
	dst = slices.Grow(dst, n)[:from+n]
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&dst[from])), 4*n), r)
	return dst, nn.AllFinite(dst[from:])
}

// float32s returns n numbers where they are. It is false when one of them is not
// finite, or when this machine would not have them there.
func (r raw) float32s(n int) ([]float32, bool) {
	if n == 0 || len(r) != 4*n || uintptr(unsafe.Pointer(&r[0]))%4 != 0 || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil, false
	}
	x := unsafe.Slice((*float32)(unsafe.Pointer(&r[0])), n)
	return x, nn.AllFinite(x)
}

func appendBinaryOutputs(dst []byte, s *signature, outputs []output, y blas32.General) []byte {
	for _, o := range outputs {
		if o.binary {
			dst = appendBinary(dst, s, o.name, y)
		}
	}
	return dst
}

// appendBinary appends an output in binary form.
func appendBinary(dst []byte, s *signature, name string, y blas32.General) []byte {
	if name == labelName {
		for i := range y.Rows {
			label := s.label(y.Data[i*y.Cols : (i+1)*y.Cols])
			dst = binary.LittleEndian.AppendUint32(dst, uint32(len(label)))
			dst = append(dst, label...)
		}
		return dst
	}
	for _, v := range y.Data {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(v))
	}
	return dst
}

// binarySize is how many bytes appendBinary appends.
func binarySize(s *signature, name string, y blas32.General) int {
	if name != labelName {
		return 4 * len(y.Data)
	}
	size := 0
	for i := range y.Rows {
		size += 4 + len(s.label(y.Data[i*y.Cols:(i+1)*y.Cols]))
	}
	return size
}
