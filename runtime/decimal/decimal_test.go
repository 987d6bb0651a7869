package decimal

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// TestFloat32IsThatOfStrconv compares with strconv, which has no doubt, on
// numbers of all lengths, and on those near the middle of two float32.
func TestFloat32IsThatOfStrconv(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	certain := 0
	check := func(digits uint64, power int) {
		v, ok := Float32(digits, power)
		if !ok {
			return
		}
		certain++
		text := strconv.FormatUint(digits, 10) + "e" + strconv.Itoa(power)
		want, err := strconv.ParseFloat(text, 32)
		if err != nil || math.Float32bits(v) != math.Float32bits(float32(want)) {
			t.Fatalf("%s: got %v, want %v, %v", text, v, want, err)
		}
	}
	for range 300_000 {
		digits := random.Uint64() >> random.IntN(64)
		check(digits, random.IntN(60)-30)
		// The middle between a float32 and the next has 25 bits.
		middle := uint64(1<<24|random.IntN(1<<24))<<1 | 1
		check(middle<<random.IntN(30), 0)
		check(middle*1_000_000+uint64(random.IntN(3))-1, -6)
	}
	if certain < 300_000 {
		t.Errorf("only %d numbers were certain", certain)
	}
}

func TestFloat32LeavesToStrconvWhatItCannotTell(t *testing.T) {
	for _, c := range []struct {
		digits uint64
		power  int
	}{{1, 23}, {1, -23}, {1, -40}, {16777217, 0}, {math.MaxUint64, 22}} {
		if v, ok := Float32(c.digits, c.power); ok {
			t.Errorf("%de%d: certain of %v", c.digits, c.power, v)
		}
	}
	if v, ok := Float32(0, -22); !ok || v != 0 {
		t.Errorf("got %v, %v for 0", v, ok)
	}
}
