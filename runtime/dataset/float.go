package dataset

import (
	"math"
	"math/bits"
	"strings"

	"trainyard.dev/trainyard/runtime/decimal"
)

// places are what the digits behind a point are multiplied with.
var places = [8]float64{1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7}

// Constants to look at the eight bytes of a word together.
const (
	ones   = 0x0101010101010101 // times a byte: that byte eight times
	marks  = 0x80 * ones
	around = 16 // bytes before and behind the start of a number that readDecimal looks at
)

// readDecimal reads the number that starts there, up to the delimiter (a comma or a
// line end), and returns where it ends. It gives the bits that strconv gives. It
// is not ok for all that is not, or may not be, a decimal of a usual length.
//
// Nearly all numbers of nearly all tables have up to 8 digits. Those are read
// without looking at single bytes, and without jumps that depend on the number,
// which processors would guess wrong: find the delimiter, take the 8 bytes before
// it, push what is before the point over the point, and turn 8 digits into an
// integer with two multiplications.
func readDecimal(text string, at int, delimiter byte) (v float32, end int, ok bool) {
	if at < around || at+around > len(text) {
		return longDecimal(text, at, delimiter)
	}
	window := text[at-around : at+around]
	low := firstMark(find(word(window, around), delimiter))
	length := low + firstMark(find(word(window, around+8), delimiter))&-(low>>3)
	if length > 15 {
		return longDecimal(text, at, delimiter)
	}
	sign := 0
	if window[around] == '-' {
		sign = 1
	}
	tail := word(window, around-8+length)
	count, digits := length-sign, tail
	// The last point in the tail is the number's if it is within it.
	behind := bits.LeadingZeros64(find(tail, '.')) >> 3
	if behind < min(count, 8) {
		count--
		kept := uint64(math.MaxUint64&^0xff) << ((56 - 8*behind) & 63)
		moved := tail<<8 | uint64(window[around-9+length])
		digits = moved ^ (moved^tail)&kept
	} else {
		behind = 0
	}
	if uint(count-1) > 7 {
		return longDecimal(text, at, delimiter)
	}
	digits = (digits ^ '0'*ones) & (math.MaxUint64 << ((64 - 8*count) & 63))
	if (digits+(0x80-10)*ones|digits)&marks != 0 { // one of them is not a digit
		return longDecimal(text, at, delimiter)
	}
	// The factor and the product are rounded: the error is below 2 units.
	exact := float64(eightDigits(digits)) * places[behind&7]
	if decimal.NearMiddle(exact) {
		return longDecimal(text, at, delimiter)
	}
	return math.Float32frombits(math.Float32bits(float32(exact)) | uint32(sign)<<31), at + length, true
}

// word returns the 8 bytes that start there, the first one lowest.
func word(text string, at int) uint64 {
	b := text[at : at+8]
	return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
		uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
}

// find marks the bytes of w that are b, and sometimes a byte above one of these
// that is b^1. (Those are no digits.)
func find(w uint64, b byte) uint64 {
	x := w ^ uint64(b)*ones
	return (x - ones) &^ x & marks
}

// firstMark is the position of the lowest marked byte, 8 if there is none.
func firstMark(marked uint64) int { return bits.TrailingZeros64(marked) >> 3 }

// eightDigits returns the integer of eight digits, of which the first is the
// lowest byte of d, by adding neighbours.
func eightDigits(d uint64) uint64 {
	const pairs = 0x000000ff000000ff
	d = d*10 + d>>8
	return (d&pairs*(100+1000000<<32) + d>>16&pairs*(1+10000<<32)) >> 32
}

// longDecimal is readDecimal for the others.
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
