// Package decimal turns the digits of a decimal number into the float32 that
// strconv gives, for those who read many numbers and have found the digits
// already.
package decimal

import "math"

// MostDigits is how many digits of a number always fit into a uint64.
const MostDigits = 19

// powersOfTen are exact in float64.
var powersOfTen = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// Float32 returns digits times ten to the power. It is not ok for numbers that
// may need more care; these are for strconv.
//
// With a power of ten up to 22, which is exact in float64, two roundings give a
// float64 that is off by less than 2 units; that decides which float32 is next,
// but for the middle of two of them. (The idea is Clinger's, "How to Read
// Floating Point Numbers Accurately", 1990.)
func Float32(digits uint64, power int) (v float32, ok bool) {
	if power >= len(powersOfTen) || -power >= len(powersOfTen) {
		return 0, false
	}
	exact := float64(digits)
	if power >= 0 {
		exact *= powersOfTen[power]
	} else {
		exact /= powersOfTen[-power]
	}
	// A subnormal float32 has fewer bits than NearMiddle looks at.
	if NearMiddle(exact) || exact > math.MaxFloat32 || exact < 0x1p-126 && digits != 0 {
		return 0, false
	}
	return float32(exact), true
}

// NearMiddle tells that v is so close to the middle of two float32 that an error
// of less than two units may have moved it there, or across.
func NearMiddle(v float64) bool {
	const below, middle, units = 1<<29 - 1, 1 << 28, 2 // the bits that float32 has not
	return math.Float64bits(v)&below-(middle-units) <= 2*units
}
