package dataset

import (
	"math"
	"math/bits"
	"strings"

	"trainyard.dev/trainyard/runtime/decimal"
)

// cells are those of a piece of text without quotes, which was cut at commas and
// line ends, with the numbers in them. In a piece as a whole, processors can look at
// many bytes and read many numbers at a time.
type cells struct {
	// starts is where each cell starts, and last where one behind them would. The
	// byte before the start of the next cell is the delimiter.
	starts []uint32
	// numbers has those of the cells that are not odd. They are the bits that
	// strconv gives.
	numbers []float32
	// odd are the cells, in order, whose number takes more care, or that have none.
	odd []uint32
	// rowEnds is how many cells there are up to the end of each row.
	rowEnds []uint32
}

// cellsAtOnce are few enough for them and their text to stay in a core's nearest
// cache, and enough for what a call costs not to matter.
const cellsAtOnce = 2048

// slack is how much behind the last cell may be written to.
const slack = 64

func newCells(room int) *cells {
	return &cells{
		starts:  make([]uint32, room+1+slack),
		numbers: make([]float32, room+slack),
		odd:     make([]uint32, room+slack),
		rowEnds: make([]uint32, room+slack),
	}
}

// room is how many cells there may be.
func (c *cells) room() int { return cap(c.numbers) - slack }

// row is a row of text without quotes.
type row struct {
	text    string
	starts  []uint32 // of its cells, and of the next row
	numbers []float32
	odd     []uint32 // positions among cells, as is first
	first   int
	line    int
}

func (r *row) width() int { return len(r.numbers) }

// cell returns the text of a cell.
func (r *row) cell(i int) string {
	text := r.text[r.starts[i] : r.starts[i+1]-1]
	if i == len(r.numbers)-1 {
		return strings.TrimSuffix(text, "\r")
	}
	return text
}

// isEmpty says that the row is an empty line, which does not count as a row.
func (r *row) isEmpty() bool { return r.width() == 1 && r.cell(0) == "" }

// plainRows calls yield with each row of text without quotes that starts on a
// line. A row is valid until the next one.
func plainRows(text string, line int, yield func(*row) error) error {
	if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	c := newCells(cellsAtOnce)
	var r row
	for at := 0; at < len(text); {
		c.read(text, at)
		if len(c.rowEnds) == 0 { // a row that is wider than this
			c = newCells(2 * c.room())
			continue
		}
		first, odd := 0, c.odd
		for _, end := range c.rowEnds {
			end, ofRow := int(end), 0
			for ofRow < len(odd) && int(odd[ofRow]) < end {
				ofRow++
			}
			r = row{text, c.starts[first : end+1], c.numbers[first:end], odd[:ofRow], first, line}
			if !r.isEmpty() {
				if err := yield(&r); err != nil {
					return err
				}
			}
			first, odd = end, odd[ofRow:]
			line++
		}
		at = int(c.starts[first])
	}
	return nil
}

// readPlainly cuts text from there on, which ends with a line end, into as many
// cells as there is room for.
func (c *cells) readPlainly(text string, at int) {
	room := c.room()
	c.starts, c.numbers, c.odd, c.rowEnds = c.starts[:room+1], c.numbers[:room], c.odd[:0], c.rowEnds[:0]
	c.starts[0] = uint32(at)
	n := 0
	for {
		if n, at = c.readUsual(text, n, at); n == room || at == len(text) {
			break
		}
		c.odd = append(c.odd, uint32(n))
		for text[at] != ',' && text[at] != '\n' {
			at++
		}
		at, n = at+1, n+1
		c.starts[n] = uint32(at)
		if text[at-1] == '\n' {
			c.rowEnds = append(c.rowEnds, uint32(n))
		}
		if n == room || at == len(text) {
			break
		}
	}
	c.starts, c.numbers = c.starts[:n+1], c.numbers[:n]
}

// places are what the digits are multiplied with, by the place of the point in a
// word of 8 bytes: 1 is its lowest byte, 7 the one before its last, 0 no point.
var places = [8]float64{1e0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1}

// Constants to look at the eight bytes of a word together.
const (
	ones   = 0x0101010101010101 // times a byte: that byte eight times
	marks  = 0x80 * ones
	around = 16 // bytes before and behind the start of a number that readUsual looks at
)

// readUsual goes on behind n cells, up to the first one that is not a decimal of up
// to 8 digits, or that is close to the text's beginning or end. It returns how
// many there are then, and where the next one starts.
//
// Nearly all numbers of nearly all tables are such. They are read without looking
// at single bytes, and without jumps that depend on the number, which processors
// would guess wrong: find the delimiter, take the 8 bytes before it, push what is
// before the point over the point, and turn 8 digits into an integer with two
// multiplications.
func (c *cells) readUsual(text string, n, at int) (count, next int) {
	numbers := c.numbers
	starts := c.starts[1 : len(numbers)+1]
	for ; n < len(numbers) && at >= around && at+around <= len(text); n++ {
		window := text[at-around : at+around]
		end, length := findLow(word(window, around)), 0
		if end == 0 {
			end, length = findLow(word(window, around+8)), 8
		}
		if end == 0 {
			break
		}
		length += bits.TrailingZeros64(end) >> 3
		sign := 0
		if window[around] == '-' {
			sign = 1
		}
		count := length - sign // of digits, and a point
		last := window[around-9+length:]
		behind := (word(last, 1) ^ '0'*ones) & lastBytes(min(count, 8))
		// The last point of the word, as the number of bits up to its end.
		point := bits.Len64(find(behind, ('.'^'0')*ones))
		before := (word(last, 0) ^ '0'*ones) & lastBytes(count-1)
		digits := before ^ (before^behind)&(math.MaxUint64<<(point&63))
		hasPoint := (point + 56) >> 6
		if uint(count-1) > uint(7+hasPoint) || (digits+(0x80-10)*ones|digits)&marks != 0 {
			break
		}
		// The factor and the product are rounded: the error is below 2 units.
		exact := float64(eightDigits(digits)) * places[point>>3&7]
		delimiter := last[9]
		if decimal.NearMiddle(exact) || delimiter != ',' && delimiter != '\n' {
			break
		}
		numbers[n] = math.Float32frombits(math.Float32bits(float32(exact)) | uint32(sign)<<31)
		at += length + 1
		starts[n] = uint32(at)
		if delimiter == '\n' {
			c.rowEnds = append(c.rowEnds, uint32(n+1))
		}
	}
	return n, at
}

// lastBytes masks the last n bytes of a word, 1 to 8; else it masks anything.
func lastBytes(n int) uint64 { return math.MaxUint64 << ((64 - 8*n) & 63) }

// word returns the 8 bytes that start there, the first one lowest.
func word(text string, at int) uint64 {
	b := text[at : at+8]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// findLow marks the first byte of w that is below '-', as a comma and a line end
// are and what numbers are made of is not, and perhaps bytes above it.
func findLow(w uint64) uint64 { return (w - '-'*ones) &^ w & marks }

// find marks the bytes of w that are b, which is a byte eight times, and sometimes
// a byte above one of these that is b^1. (Those are no digits.)
func find(w, b uint64) uint64 {
	x := w ^ b
	return (x - ones) &^ x & marks
}

// eightDigits returns the integer of eight digits, of which the first is the
// lowest byte of d, by adding neighbours.
func eightDigits(d uint64) uint64 {
	const pairs = 0x000000ff000000ff
	d = d*10 + d>>8
	return (d&pairs*(100+1000000<<32) + d>>16&pairs*(1+10000<<32)) >> 32
}
