package dataset

import "trainyard.dev/trainyard/runtime/decimal"

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
