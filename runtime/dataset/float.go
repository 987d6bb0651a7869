package dataset

import "trainyard.dev/trainyard/runtime/decimal"

// parseDecimal reads text such as 12, -0.5 and 3.14159e-05, and gives the bits
// that strconv gives. It is not ok for all others, numbers or not.
func parseDecimal(text string) (v float32, ok bool) {
	start, negative := 0, text != "" && text[0] == '-'
	if negative {
		start = 1
	}
	digits, i := readDigits(text, start, 0)
	count, power := i-start, 0
	if i < len(text) && text[i] == '.' {
		fraction := i + 1
		digits, i = readDigits(text, fraction, digits)
		count, power = count+i-fraction, fraction-i
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

// readDigits appends the digits that start there to those before, eight at a time
// while there are so many, and returns where they end.
func readDigits(text string, at int, before uint64) (digits uint64, end int) {
	for digits = before; len(text)-at >= 8; at += 8 {
		eight := word(text, at) ^ '0'*ones
		if (eight+(0x80-10)*ones|eight)&marks != 0 {
			break
		}
		digits = digits*1e8 + eightDigits(eight)
	}
	for ; at < len(text) && '0' <= text[at] && text[at] <= '9'; at++ {
		digits = digits*10 + uint64(text[at]-'0')
	}
	return digits, at
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
