package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// value is the k-th number of a request: pixels between 0 and 1, many of them 0,
// as Python's json module writes float32.
func value(k int) float32 { return []float32{0, 0.8125, 0.5, 0.1}[k%4] }

// jsonRequest asks for one row of inputs numbers in the JSON of V2.
func jsonRequest(inputs int) []byte {
	words := make([]string, inputs)
	for k := range words {
		words[k] = fmt.Sprint(float64(value(k)))
	}
	return fmt.Appendf(nil, `{"inputs": [{"name": "inputs", "shape": [1, %d], "datatype": "FP32", "data": [%s]}]}`,
		inputs, strings.Join(words, ", "))
}

// pixels are the first n values.
func pixels(n int) []float32 {
	numbers := make([]float32, n)
	for k := range numbers {
		numbers[k] = value(k)
	}
	return numbers
}

// rawTensor is numbers as they are sent in binary form.
func rawTensor(numbers []float32) []byte {
	raw := make([]byte, 0, 4*len(numbers))
	for _, v := range numbers {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	return raw
}

// binaryRequest asks with rows of numbers in the binary form of V2, for a binary
// answer. It returns the length of its head, too.
func binaryRequest(rows int, numbers []float32) (body []byte, head int) {
	inputs, raw := len(numbers)/rows, rawTensor(numbers)
	body = fmt.Appendf(nil, `{"inputs":[{"name":"inputs","shape":[%d,%d],"datatype":"FP32","parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}`,
		rows, inputs, len(raw))
	return append(body, raw...), len(body)
}

// message is a ModelInferRequest of one row with raw contents. Its numbers are those of
// the protocol.
func message(model string, inputs int) []byte {
	var input, m []byte
	input = protowire.AppendString(protowire.AppendTag(input, 1, protowire.BytesType), "inputs")
	input = protowire.AppendString(protowire.AppendTag(input, 2, protowire.BytesType), "FP32")
	shape := protowire.AppendVarint(protowire.AppendVarint(nil, 1), uint64(inputs))
	input = protowire.AppendBytes(protowire.AppendTag(input, 3, protowire.BytesType), shape)
	m = protowire.AppendString(protowire.AppendTag(m, 1, protowire.BytesType), model)
	m = protowire.AppendBytes(protowire.AppendTag(m, 5, protowire.BytesType), input)
	return protowire.AppendBytes(protowire.AppendTag(m, 7, protowire.BytesType), rawTensor(pixels(inputs)))
}

// framed is a message as gRPC sends it.
func framed(m []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m))), m...)
}
