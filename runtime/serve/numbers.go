package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/x448/float16"
)

// datatype is one of the protocol's types of elements, as far as a network can
// compute with them. Everything becomes float32.
type datatype struct {
	name string
	// integer types hold whole numbers from least to most.
	integer     bool
	least, most float64
	// size is that of a binary element, in bytes, and binary reads one, which
	// must be as long.
	size   int
	binary func([]byte) float64
	// halved types have two bytes and are in binary tensors only.
	halved bool
}

var float32s = datatypes["FP32"]

var datatypes = map[string]*datatype{
	"FP32":   {name: "FP32", size: 4, binary: func(b []byte) float64 { return float64(math.Float32frombits(little.Uint32(b))) }},
	"FP64":   {name: "FP64", size: 8, binary: func(b []byte) float64 { return math.Float64frombits(little.Uint64(b)) }},
	"FP16":   {name: "FP16", size: 2, halved: true, binary: func(b []byte) float64 { return float64(float16.Frombits(little.Uint16(b)).Float32()) }},
	"BF16":   {name: "BF16", size: 2, halved: true, binary: func(b []byte) float64 { return float64(math.Float32frombits(uint32(little.Uint16(b)) << 16)) }},
	"BOOL":   integers("BOOL", 1, 0, 1, func(b []byte) float64 { return float64(b[0]) }),
	"INT8":   integers("INT8", 1, math.MinInt8, math.MaxInt8, func(b []byte) float64 { return float64(int8(b[0])) }),
	"INT16":  integers("INT16", 2, math.MinInt16, math.MaxInt16, func(b []byte) float64 { return float64(int16(little.Uint16(b))) }),
	"INT32":  integers("INT32", 4, math.MinInt32, math.MaxInt32, func(b []byte) float64 { return float64(int32(little.Uint32(b))) }),
	"INT64":  integers("INT64", 8, math.MinInt64, math.MaxInt64, func(b []byte) float64 { return float64(int64(little.Uint64(b))) }),
	"UINT8":  integers("UINT8", 1, 0, math.MaxUint8, func(b []byte) float64 { return float64(b[0]) }),
	"UINT16": integers("UINT16", 2, 0, math.MaxUint16, func(b []byte) float64 { return float64(little.Uint16(b)) }),
	"UINT32": integers("UINT32", 4, 0, math.MaxUint32, func(b []byte) float64 { return float64(little.Uint32(b)) }),
	"UINT64": integers("UINT64", 8, 0, math.MaxUint64, func(b []byte) float64 { return float64(little.Uint64(b)) }),
}

var little = binary.LittleEndian

func integers(name string, size int, least, most float64, read func([]byte) float64) *datatype {
	return &datatype{name: name, integer: true, least: least, most: most, size: size, binary: read}
}

// float returns v as what the network computes with. Its error continues a
// sentence that begins with where the value stands.
func (t *datatype) float(v float64) (float32, error) {
	switch f := float32(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0, fmt.Errorf("is %v, not a finite number; replace it before you send it", v)
	case math.IsInf(float64(f), 0):
		return 0, fmt.Errorf("is %v, beyond what float32 can hold", v)
	case t.integer && (v < t.least || v > t.most):
		return 0, fmt.Errorf("is %v, not a value of %s", v, t.name)
	default:
		return f, nil
	}
}

// appendFloats appends n values of a tensor of that shape. The error says which
// element is wrong.
func (t *datatype) appendFloats(dst []float32, n int, value func(int) float64, shape []int) ([]float32, error) {
	dst = slices.Grow(dst, n)
	for i := range n {
		v, err := t.float(value(i))
		if err != nil {
			return dst, fmt.Errorf("%s %w", position(i, shape), err)
		}
		dst = append(dst, v)
	}
	return dst, nil
}

// position writes where the i-th element stands in a tensor of rank 1 or 2.
func position(i int, shape []int) string {
	if len(shape) == 1 {
		return fmt.Sprintf("[%d]", i)
	}
	return fmt.Sprintf("[%d][%d]", i/shape[1], i%shape[1])
}

func product(shape []int) int {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return n
}

// number returns the float32 of one JSON value that starts with text. Its
// error continues a sentence that begins with where the value stands.
func (t *datatype) number(text []byte) (float32, error) {
	switch {
	case text[0] == '-' || '0' <= text[0] && text[0] <= '9':
	case t.name == "BOOL" && text[0] == 't':
		return 1, nil
	case t.name == "BOOL" && text[0] == 'f':
		return 0, nil
	default:
		return 0, fmt.Errorf("is %s, not a number", article(jsontext.Value(text).Kind()))
	}
	if t.integer {
		v, err := strconv.ParseFloat(string(text), 64)
		if err != nil || v != math.Trunc(v) || v < t.least || v > t.most {
			return 0, fmt.Errorf("is %s, not a value of %s", clipped(string(text)), t.name)
		}
		return float32(v), nil
	}
	v, err := strconv.ParseFloat(string(text), 32)
	if err != nil {
		return 0, fmt.Errorf("is %s, beyond what float32 can hold", clipped(string(text)))
	}
	return float32(v), nil
}

// article names a kind of JSON value.
func article(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '{':
		return "an object"
	case '[':
		return "a list"
	}
	return "no value"
}

// appendNumbers appends the numbers of a JSON list, which is flat or nested as
// shape says, in row-major order. The value must be valid JSON. Rank is 1 or 2
// and the product of shape does not overflow. The errors say what is wrong at
// which element, and memory grows only with numbers that are really there.
func appendNumbers(dst []float32, data jsontext.Value, t *datatype, shape []int) ([]float32, error) {
	l := list{text: data}
	if !l.enter() {
		return dst, fmt.Errorf("is %s, not a list of numbers", article(data.Kind()))
	}
	if len(shape) == 2 && l.peek() == '[' {
		return appendNested(dst, l, t, shape)
	}
	expected := product(shape)
	dst, n, err := l.appendFlat(dst, t, expected)
	if err != nil {
		return dst, fmt.Errorf("[%d] %w", n, err)
	}
	if n != expected {
		return dst, fmt.Errorf("holds %s numbers, but the shape %s says %d", count(n, expected), dimensions(shape), expected)
	}
	return dst, nil
}

func appendNested(dst []float32, l list, t *datatype, shape []int) ([]float32, error) {
	rows, columns := shape[0], shape[1]
	row := 0
	for ; l.next(); row++ {
		if row == rows {
			return dst, fmt.Errorf("holds more than %d rows, but the shape is %s", rows, dimensions(shape))
		}
		if !l.enter() {
			return dst, fmt.Errorf("[%d] is %s, not a list of numbers", row, article(l.kind()))
		}
		var n int
		var err error
		dst, n, err = l.appendFlat(dst, t, columns)
		if err != nil {
			return dst, fmt.Errorf("[%d][%d] %w", row, n, err)
		}
		if n != columns {
			return dst, fmt.Errorf("[%d] holds %s numbers, but the shape is %s", row, count(n, columns), dimensions(shape))
		}
	}
	if row != rows {
		return dst, fmt.Errorf("holds %d rows, but the shape is %s", row, dimensions(shape))
	}
	return dst, nil
}

// count says how many there are when counting stopped right after most.
func count(n, most int) string {
	if n > most {
		return fmt.Sprintf("more than %d", most)
	}
	return strconv.Itoa(n)
}

// list walks over a list or object of JSON that is known to be valid: no check of syntax, no
// reflection, no token objects. It is what makes large bodies cheap.
type list struct {
	text []byte
	at   int
}

// peek returns the first byte of the next value or name, or the ']' or '}' at
// the end.
func (l *list) peek() byte {
	for ; l.at < len(l.text); l.at++ {
		switch c := l.text[l.at]; c {
		case ' ', '\t', '\r', '\n', ',', ':':
		default:
			return c
		}
	}
	return ']'
}

// enter steps into a list if the next value is one.
func (l *list) enter() bool {
	if l.peek() != '[' || l.at >= len(l.text) {
		return false
	}
	l.at++
	return true
}

// next tells whether the list or object goes on. If not, it steps out of it.
func (l *list) next() bool {
	if c := l.peek(); c != ']' && c != '}' {
		return true
	}
	l.at++
	return false
}

func (l *list) kind() jsontext.Kind { return jsontext.Value(l.text[l.at:]).Kind() }

// appendFlat appends the numbers up to the list's end and steps out of it. It
// stops after most+1 of them. It returns how many it took.
func (l *list) appendFlat(dst []float32, t *datatype, most int) ([]float32, int, error) {
	n := 0
	for ; l.next() && n <= most; n++ {
		v, err := t.number(l.scalar())
		if err != nil {
			return dst, n, err
		}
		dst = append(dst, v)
	}
	return dst, n, nil
}

// scalar returns the text of the next value and steps over it, if it is a
// number or a literal; of other values it returns the beginning.
func (l *list) scalar() []byte {
	l.peek()
	start := l.at
	for l.at < len(l.text) && !delimits(l.text[l.at]) {
		l.at++
	}
	return l.text[start:max(l.at, min(start+1, len(l.text)))]
}

// name returns the name of the next member, which is an object's, and steps
// over it.
func (l *list) name() []byte {
	l.peek()
	start := l.at
	for l.at++; l.at < len(l.text) && l.text[l.at] != '"'; l.at++ {
		if l.text[l.at] == '\\' {
			l.at++
		}
	}
	l.at = min(l.at+1, len(l.text))
	quoted := l.text[start:l.at]
	if bytes.IndexByte(quoted, '\\') < 0 && len(quoted) >= 2 {
		return quoted[1 : len(quoted)-1]
	}
	// The only errors are about syntax, which has been checked.
	name, _ := jsontext.AppendUnquote(nil, quoted)
	return name
}

func delimits(c byte) bool {
	return c == ',' || c == ']' || c == '}' || c == '[' || c == '{' || c <= ' '
}

// finite returns an error that names the first value that is not finite.
func finite(values []float32, columns int) error {
	for i, v := range values {
		if v-v != 0 { // NaN, since v is NaN or infinite
			return internal("the model computed %v for row %d, output %d: a value of the row is far outside of what the model was trained on, or the model's weights are damaged",
				v, i/columns, i%columns)
		}
	}
	return nil
}

// appendNumber appends the shortest text that reads back as the same float32.
func appendNumber(dst []byte, v float32) []byte {
	return strconv.AppendFloat(dst, float64(v), 'g', -1, 32)
}

// dimensions writes a shape as JSON does.
func dimensions[T int | int64](shape []T) string {
	words := make([]string, len(shape))
	for i, n := range shape {
		words[i] = strconv.FormatInt(int64(n), 10)
	}
	return "[" + strings.Join(words, ", ") + "]"
}
