package dataset

import (
	"math"
	"math/bits"
	"strings"

	"trainyard.dev/trainyard/runtime/decimal"
)

// places are what the digits are multiplied with, by the place of the point in a
// word of 8 bytes: 1 is its lowest byte, 7 the one before its last, 0 no point.
var places = [8]float64{1e0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1}

// Constants to look at the eight bytes of a word together.
const (
	ones   = 0x0101010101010101 // times a byte: that byte eight times
	marks  = 0x80 * ones
	around = 16 // bytes before and behind the start of a number that usualDecimals looks at
)

// readDecimals reads as many numbers as v has room for, which follow each other
// from there on: each with a comma behind it, but the last one with a line end if
// it is the last of its row. It returns where the next cell starts. It gives the
// bits that strconv gives. It is not ok if one of them is not, or may not be, a
// decimal.
func readDecimals(text string, at int, isEnd bool, v []float32) (next int, ok bool) {
	for {
		n, next := usualDecimals(text, at, isEnd, v)
		if n == len(v) {
			return next, true
		}
		var end int
		if v[n], end, ok = longDecimal(text, next, delimiter(isEnd && n == len(v)-1)); !ok {
			return 0, false
		}
		at, v = end+1, v[n+1:]
		if len(v) == 0 {
			return at, true
		}
	}
}

// usualDecimals is readDecimals up to the first number that is not a decimal of up
// to 8 digits, or that is close to the text's beginning or end. It returns how
// many it has read, and where the next cell starts.
//
// Nearly all numbers of nearly all tables are such. They are read without looking
// at single bytes, and without jumps that depend on the number, which processors
// would guess wrong: find the delimiter, take the 8 bytes before it, push what is
// before the point over the point, and turn 8 digits into an integer with two
// multiplications.
func usualDecimals(text string, at int, isEnd bool, v []float32) (n, next int) {
	delimiter := uint64(',' * ones)
	for ; n < len(v) && at >= around && at+around <= len(text); n++ {
		if isEnd && n == len(v)-1 {
			delimiter = '\n' * ones
		}
		window := text[at-around : at+around]
		end, length := find(word(window, around), delimiter), 0
		if end == 0 {
			end, length = find(word(window, around+8), delimiter), 8
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
		if decimal.NearMiddle(exact) {
			break
		}
		v[n] = math.Float32frombits(math.Float32bits(float32(exact)) | uint32(sign)<<31)
		at += length + 1
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

// longDecimal reads the others. It returns where the number ends.
func longDecimal(text string, at int, delimiter byte) (v float32, end int, ok bool) {
	if end, ok = endOfCell(text, at, delimiter); !ok {
		return 0, 0, false
	}
	cell := text[at:end]
	if delimiter == '\n' {
		cell = strings.TrimSuffix(cell, "\r")
	}
	v, ok = parseDecimal(cell)
	return v, end, ok
}

// parseDecimal reads text such as 12, -0.5 and 3.14159e-05, and gives the bits
// that strconv gives. It is not ok for all others, numbers or not.
func parseDecimal(text string) (v float32, ok bool) {
	i, negative := 0, false
	if text != "" && text[0] == '-' {
		i, negative = 1, true
	}
	digits, start, point := uint64(0), i, -1
	for ; i < len(text); i++ {
		b := text[i]
		if '0' <= b && b <= '9' {
			digits = digits*10 + uint64(b-'0')
			continue
		}
		if b != '.' || point >= 0 {
			break
		}
		point = i
	}
	count, power := i-start, 0
	if point >= 0 {
		count, power = count-1, -(i - point - 1)
	}
	exponent, ok := parseExponent(text[i:])
	power += exponent
	if !ok || count <= 0 || count > decimal.MostDigits {
		return 0, false
	}
	if v, ok = decimal.Float32(digits, power); negative {
		v = -v
	}
	return v, ok
}

// parseExponent reads text such as e-05, or none.
func parseExponent(text string) (exponent int, ok bool) {
	const mostDigits = 3
	if text == "" {
		return 0, true
	}
	sign, digits := 1, text[1:]
	if digits != "" && (digits[0] == '-' || digits[0] == '+') {
		if digits[0] == '-' {
			sign = -1
		}
		digits = digits[1:]
	}
	if text[0]|0x20 != 'e' || digits == "" || len(digits) > mostDigits {
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
		exponent = exponent*10 + int(digits[i]-'0')
	}
	return sign * exponent, true
}
