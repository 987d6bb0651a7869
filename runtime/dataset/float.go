package dataset

import "math"

// powersOfTen are exact in float64.
var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// shortDecimal reads numbers such as 12, -0.5 and 3.14159, and gives the bits
// that strconv gives. It is not ok for all others, numbers or not.
//
// An integer below 2^53 and a power of ten up to 22 are exact in float64, so
// that one division rounds once (Clinger, "How to Read Floating Point Numbers
// Accurately", 1990). Rounding the quotient again, to float32, gives another
// result than rounding the decimal only where the quotient is so close to the
// middle of two float32 that the first rounding may have moved it there, or
// across; that is left to strconv.
func shortDecimal(text string) (float32, bool) {
	i, negative := 0, false
	if text != "" && text[0] == '-' {
		i, negative = 1, true
	}
	const mostDigits = 15 // below 2^53
	digits, places, seenPoint := uint64(0), 0, false
	start := i
	for ; i < len(text); i++ {
		b := text[i]
		switch {
		case '0' <= b && b <= '9':
			digits = digits*10 + uint64(b-'0')
			if seenPoint {
				places++
			}
		case b == '.' && !seenPoint:
			seenPoint = true
		default:
			return 0, false
		}
	}
	length := i - start
	if seenPoint {
		length--
	}
	if length == 0 || length > mostDigits {
		return 0, false
	}
	v := float64(digits) / powersOfTen[places]
	if negative {
		v = -v
	}
	return roundOnce(v, digits)
}

// roundOnce rounds a quotient that was rounded before.
func roundOnce(v float64, digits uint64) (float32, bool) {
	const below, middle = 1<<29 - 1, 1 << 28 // the bits that float32 has not
	rest := math.Float64bits(v) & below
	smallest := math.Abs(v) < 0x1p-126 && digits != 0 // a subnormal float32 has fewer bits
	if rest >= middle-1 && rest <= middle+1 || smallest {
		return 0, false
	}
	return float32(v), true
}
