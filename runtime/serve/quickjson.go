package serve

import (
	"strconv"

	"trainyard.dev/trainyard/runtime/decimal"
)

// simple reads the JSON of a request that is as nearly all are: one input, whose
// data comes after its shape and datatype, and strings without escapes. It looks
// at each byte once. It is not ok for all others, whether they are right or
// wrong: those are for [decode], which takes several times as long, and can say
// what is wrong.
func (r *inferRequest) simple(text, tail []byte, b *buffers) (t tensor, ok bool) {
	s := scanner{text: text}
	inputs := 0
	ok = s.object(func(name []byte) bool {
		switch string(name) {
		case "id":
			return s.string(&r.ID)
		case "inputs":
			return s.list(func() bool {
				inputs++
				return inputs == 1 && s.input(&t, &tail, b)
			})
		case "outputs":
			return s.list(func() bool {
				r.Outputs = append(r.Outputs, requestedOutput{})
				return len(r.Outputs) <= mostMembers && s.output(&r.Outputs[len(r.Outputs)-1])
			})
		case "parameters":
			return s.object(func(name []byte) bool {
				return string(name) == "binary_data_output" && s.boolean(&r.Parameters.BinaryDataOutput)
			})
		}
		return false
	})
	return t, ok && inputs == 1 && len(tail) == 0 && s.ends()
}

// input reads an input. If it is binary, it is all of tail, of which it leaves
// nothing.
func (s *scanner) input(t *tensor, tail *[]byte, b *buffers) bool {
	ok := s.object(func(name []byte) bool {
		switch string(name) {
		case "name":
			return s.string(&t.name)
		case "datatype":
			return s.string(&t.datatype)
		case "shape":
			t.shape = b.shape[:0]
			return s.list(func() bool {
				n, ok := s.natural()
				t.shape = append(t.shape, n)
				return ok && len(t.shape) <= len(b.shape)
			})
		case "data":
			if t.datatype != "FP32" || len(t.shape) == 0 || t.data != nil {
				return false
			}
			b.x = b.x[:0]
			if !s.data(&b.x, t.shape) {
				return false
			}
			t.data = parsed{b}
			return true
		case "parameters":
			return s.object(func(name []byte) bool {
				size, ok := s.natural()
				if string(name) != "binary_data_size" || !ok || size != int64(len(*tail)) || size == 0 || t.data != nil {
					return false
				}
				t.data, *tail = raw(*tail), nil
				return true
			})
		}
		return false
	})
	return ok && t.data != nil
}

func (s *scanner) output(o *requestedOutput) bool {
	return s.object(func(name []byte) bool {
		switch string(name) {
		case "name":
			return s.string(&o.Name)
		case "parameters":
			return s.object(func(name []byte) bool {
				o.Parameters.BinaryData = new(bool)
				return string(name) == "binary_data" && s.boolean(o.Parameters.BinaryData)
			})
		}
		return false
	})
}

// data reads as many numbers as shape says, flat or in rows.
func (s *scanner) data(to *[]float32, shape []int64) bool {
	count := shape[0]
	if len(shape) == 2 {
		count *= shape[1]
	}
	if !s.take('[') {
		return false
	}
	outer := s.at - 1
	if s.peek() != '[' {
		return s.floats(to) && int64(len(*to)) == count
	}
	if len(shape) != 2 {
		return false
	}
	s.at = outer // which list takes again
	return s.list(func() bool {
		before := len(*to)
		return s.take('[') && s.floats(to) && int64(len(*to)-before) == shape[1]
	}) && int64(len(*to)) == count
}

// parsed are elements of FP32 that lie in x already, as many as the shape says.
type parsed struct{ *buffers }

func (p parsed) appendTo([]float32, *datatype, []int) ([]float32, error) { return p.x, nil }

// mostMembers is how many an object, or a list of objects, is expected to have.
const mostMembers = 8

// scanner reads JSON from the front to the end. What it does not understand is
// not ok; then it can be anywhere.
type scanner struct {
	text []byte
	at   int
}

// peek returns the next byte that is not white, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		if c := s.text[s.at]; c != ' ' && c != '\n' && c != '\r' && c != '\t' {
			return c
		}
	}
	return 0
}

// ends tells whether nothing more comes.
func (s *scanner) ends() bool { return s.peek() == 0 && s.at == len(s.text) }

// take steps over a byte, if it is the next one.
func (s *scanner) take(c byte) bool {
	if s.peek() != c {
		return false
	}
	s.at++
	return true
}

// more steps over what is between two elements, or over the end.
func (s *scanner) more(end byte) (more, ok bool) {
	if s.take(',') {
		return true, true
	}
	return false, s.take(end)
}

// object lets member read the value of each name. No name is there twice, and
// there are not many.
func (s *scanner) object(member func(name []byte) bool) (ok bool) {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		return true
	}
	var names [mostMembers][]byte
	for n, more := 0, true; more; n++ {
		if n == len(names) {
			return false
		}
		if names[n], ok = s.plain(); !ok || !s.take(':') {
			return false
		}
		for _, before := range names[:n] {
			if string(before) == string(names[n]) {
				return false
			}
		}
		if !member(names[n]) {
			return false
		}
		if more, ok = s.more('}'); !ok {
			return false
		}
	}
	return true
}

// list lets element read each of the elements.
func (s *scanner) list(element func() bool) (ok bool) {
	if !s.take('[') {
		return false
	}
	if s.take(']') {
		return true
	}
	for more := true; more; {
		if !element() {
			return false
		}
		if more, ok = s.more(']'); !ok {
			return false
		}
	}
	return true
}

// plain reads a string of ASCII without escapes.
func (s *scanner) plain() ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	for i := s.at; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			text := s.text[s.at:i]
			s.at = i + 1
			return text, true
		case c < ' ' || c >= 0x7f || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

func (s *scanner) string(to *string) bool {
	text, ok := s.plain()
	switch string(text) { // what nearly all say need not be copied
	case "FP32":
		*to = "FP32"
	case inputName:
		*to = inputName
	default:
		*to = string(text)
	}
	return ok
}

func (s *scanner) boolean(to *bool) bool {
	*to = s.peek() == 't'
	return s.literal("true") || s.literal("false")
}

func (s *scanner) literal(word string) bool {
	if len(s.text)-s.at < len(word) || string(s.text[s.at:s.at+len(word)]) != word {
		return false
	}
	s.at += len(word)
	return true
}

// natural reads a whole number of at most nine digits.
func (s *scanner) natural() (n int64, ok bool) {
	s.peek()
	start := s.at
	for ; s.at < len(s.text) && isDigit(s.text[s.at]); s.at++ {
		n = 10*n + int64(s.text[s.at]-'0')
	}
	length := s.at - start
	return n, length > 0 && length <= 9 && (length == 1 || s.text[start] != '0')
}

// floats reads numbers up to the end of a list whose beginning was read.
func (s *scanner) floats(to *[]float32) bool {
	if s.take(']') {
		return true
	}
	all := *to
	for more := true; more; {
		s.peek()
		v, ok := s.float()
		if !ok {
			return false
		}
		all = append(all, v)
		if more, ok = s.more(']'); !ok {
			return false
		}
	}
	*to = all
	return true
}

// float reads a number, which ends where its digits do.
func (s *scanner) float() (v float32, ok bool) {
	text, i := s.text, s.at
	negative := i < len(text) && text[i] == '-'
	if negative {
		i++
	}
	digits, first := uint64(0), i
	for ; i < len(text) && isDigit(text[i]); i++ {
		digits = 10*digits + uint64(text[i]-'0')
	}
	count, power := i-first, 0
	if count == 0 || count > 1 && text[first] == '0' {
		return 0, false
	}
	if i < len(text) && text[i] == '.' {
		point := i
		for i++; i < len(text) && isDigit(text[i]); i++ {
			digits = 10*digits + uint64(text[i]-'0')
		}
		if power = point + 1 - i; power == 0 {
			return 0, false
		}
		count -= power
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		return s.scientific(i)
	}
	if count <= decimal.MostDigits {
		if v, ok = decimal.Float32(digits, power); ok {
			s.at = i
			if negative {
				v = -v
			}
			return v, true
		}
	}
	return s.parse(i)
}

// scientific reads the rest of a number from its e on.
func (s *scanner) scientific(e int) (float32, bool) {
	i := e + 1
	if i < len(s.text) && (s.text[i] == '-' || s.text[i] == '+') {
		i++
	}
	first := i
	for i < len(s.text) && isDigit(s.text[i]) {
		i++
	}
	if i == first {
		return 0, false
	}
	return s.parse(i)
}

// parse has strconv read the number up to end.
func (s *scanner) parse(end int) (float32, bool) {
	v, err := strconv.ParseFloat(string(s.text[s.at:end]), 32)
	s.at = end
	return float32(v), err == nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
