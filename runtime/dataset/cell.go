package dataset

import (
	"errors"
	"math"
	"strconv"
	"strings"
)

// cell is one value of a row: text, which may be a number, or a number.
type cell struct {
	text   string // valid until the next row
	number float64
	isText bool
}

func textCell(text string) cell { return cell{text: text, isText: true} }

// missingCell is a NaN, as in NumPy and pandas.
func missingCell() cell { return cell{number: math.NaN()} }

// exactIntegers is up to where float64 holds every integer.
const exactIntegers = 1 << 53

// integerCell keeps all digits, since an integer may name a class.
func integerCell(v int64) cell {
	if v > exactIntegers || v < -exactIntegers {
		return textCell(strconv.FormatInt(v, 10))
	}
	return cell{number: float64(v)}
}

func unsignedCell(v uint64) cell {
	if v > exactIntegers {
		return textCell(strconv.FormatUint(v, 10))
	}
	return cell{number: float64(v)}
}

// missing tells whether the cell holds no value.
func (c cell) missing() bool {
	if !c.isText {
		return math.IsNaN(c.number)
	}
	return isMissing(strings.TrimSpace(c.text))
}

func isMissing(text string) bool {
	if text == "" || text == "?" {
		return true
	}
	if len(text) > 4 { // most cells, and all long ones
		return false
	}
	switch strings.ToLower(text) {
	case "nan", "na", "n/a", "null":
		return true
	}
	return false
}

// name is the cell as the name of a class or category.
func (c cell) name() string {
	if c.isText {
		return strings.TrimSpace(c.text)
	}
	return strconv.FormatFloat(c.number, 'f', -1, 64)
}

// value reads a finite float32. The cell is not missing.
func (c cell) value() (float32, *InvalidError) {
	if !c.isText {
		return finite(c.number)
	}
	text := strings.TrimSpace(c.text)
	v, err := strconv.ParseFloat(text, 32)
	switch {
	case err == nil && !math.IsNaN(v) && !math.IsInf(v, 0):
		return float32(v), nil
	case err == nil:
		return 0, notFinite(quote(text))
	case errors.Is(err, strconv.ErrRange):
		return 0, tooLarge(quote(text))
	}
	return 0, invalidf("%s is not a number; write it as 12.5 or 1e-3, list the column in oneHot if its values name categories, or leave the row or the column out", quote(text))
}

func finite(v float64) (float32, *InvalidError) {
	if math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, notFinite(strconv.FormatFloat(v, 'g', -1, 64))
	}
	short := float32(v)
	if math.IsInf(float64(short), 0) {
		return 0, tooLarge(strconv.FormatFloat(v, 'g', -1, 64))
	}
	return short, nil
}

func notFinite(what string) *InvalidError {
	return invalidf("%s is not a finite number; fill it in, or leave the row or the column out", what)
}

func tooLarge(what string) *InvalidError {
	return invalidf("%s is too large: 32-bit numbers end at 3.4e38", what)
}

func missingValue() *InvalidError {
	return invalidf("the value is missing; fill it in, leave the row or the column out, or set missing: {policy: DropRow} or {policy: Mean}")
}
