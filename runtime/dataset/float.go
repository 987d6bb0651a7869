package dataset

import "math"

// powersOfTen are exact in float64.
var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// shortPowersOfTen are exact in float32.
var shortPowersOfTen = [...]float32{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}

// shortDecimal reads numbers such as 12, -0.5 and 3.14159, up to a comma or the
// end of the text, and gives the bits that strconv gives, and their length. It
// is not ok for all others, numbers or not.
//
// An integer below 2^53 and a power of ten up to 22 are exact in float64, so
// that one division rounds once (Clinger, "How to Read Floating Point Numbers
// Accurately", 1990); so are integers up to 2^24 and powers up to 10 in float32.
func shortDecimal(text string) (v float32, length int, ok bool) {
	const mostDigits = 15 // below 2^53
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
		if b == ',' {
			break
		}
		if b != '.' || point >= 0 {
			return 0, 0, false
		}
		point = i
	}
	read, places := i-start, 0
	if point >= 0 {
		read, places = read-1, i-point-1
	}
	if read <= 0 || read > mostDigits {
		return 0, 0, false
	}
	if digits <= 1<<24 && places < len(shortPowersOfTen) {
		v, ok = float32(digits)/shortPowersOfTen[places], true
	} else {
		v, ok = roundOnce(float64(digits)/powersOfTen[places], digits)
	}
	if negative {
		v = -v
	}
	return v, i, ok
}

// roundOnce rounds a quotient that was rounded before. That gives another result
// than rounding the decimal itself only where the quotient is so close to the
// middle of two float32 that the first rounding may have moved it there, or
// across; those are left to strconv.
func roundOnce(v float64, digits uint64) (float32, bool) {
	const below, middle = 1<<29 - 1, 1 << 28 // the bits that float32 has not
	rest := math.Float64bits(v) & below
	smallest := v < 0x1p-126 && digits != 0 // a subnormal float32 has fewer bits
	if rest >= middle-1 && rest <= middle+1 || smallest {
		return 0, false
	}
	return float32(v), true
}
