package serve

import (
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that bounded stands on
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// mostParts is the most tensors, parameters and the like that a request may
// have. Two bytes on the wire can be an empty tensor, which takes a hundred in
// memory: without a limit, a body of the largest size would take gigabytes. A
// request with one tensor for each column has as many as the model has columns.
const mostParts = 1 << 16

func tooManyParts() error {
	return tooLarge("the request has more than %d tensors; send one tensor of whole rows", mostParts)
}

// atMost is a list of JSON that stops at [mostParts] elements.
type atMost[T any] []T

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (a *atMost[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '[' {
		return json.UnmarshalDecode(d, (*[]T)(a))
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if len(*a) == mostParts {
			return tooManyParts()
		}
		var element T
		if err := json.UnmarshalDecode(d, &element); err != nil {
			return err
		}
		*a = append(*a, element)
	}
	_, err := d.ReadToken()
	return err
}

// bounded is gRPC's usual codec for messages with [mostParts] parts or fewer.
type bounded struct{ encoding.CodecV2 }

func newBounded() bounded { return bounded{encoding.GetCodecV2("proto")} }

// Unmarshal implements [encoding.CodecV2].
func (c bounded) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	wire := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer wire.Free()
	if parts(wire.ReadOnlyData(), m.ProtoReflect().Descriptor(), mostParts) > mostParts {
		return tooManyParts()
	}
	return proto.Unmarshal(wire.ReadOnlyData(), m)
}

// parts counts the messages, byte strings and strings within a message of type
// d. It stops when there are more than most, and at what is no message, which
// is for others to refuse.
func parts(wire []byte, d protoreflect.MessageDescriptor, most int) int {
	n := 0
	for len(wire) > 0 && n <= most {
		number, kind, length := protowire.ConsumeTag(wire)
		if length < 0 {
			break
		}
		wire = wire[length:]
		length = protowire.ConsumeFieldValue(number, kind, wire)
		if length < 0 {
			break
		}
		field := d.Fields().ByNumber(number)
		if kind == protowire.BytesType && field != nil && !field.IsPacked() {
			n++
			if field.Message() != nil {
				inner, _ := protowire.ConsumeBytes(wire)
				n += parts(inner, field.Message(), most-n)
			}
		}
		wire = wire[length:]
	}
	return n
}
