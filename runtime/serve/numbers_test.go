package serve

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestNumbersSurviveTheRoundTrip(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	want := []float32{0, 1, -1, math.MaxFloat32, math.SmallestNonzeroFloat32, 16777216, 0.1, 1e6, 1e-5, 1e21, -1e22}
	for len(want) < 5000 {
		v := math.Float32frombits(random.Uint32())
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			want = append(want, v)
		}
	}
	text := appendList(nil, want)
	if !json.Valid(text) {
		t.Fatal("the numbers are not JSON")
	}
	got, err := appendNumbers(nil, text, float32s, []int{len(want)})
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("numbers changed on the way: %v", err)
	}
}

func TestLabelIsTheLikeliestClass(t *testing.T) {
	three := signature{classes: []string{"a", "b", "c"}}
	two := signature{classes: []string{"no", "yes"}}
	for _, c := range []struct {
		s    signature
		row  []float32
		want string
	}{
		{three, []float32{0.1, 0.7, 0.2}, "b"},
		{three, []float32{0.5, 0.5, 0}, "a"},
		{two, []float32{0.49}, "no"},
		{two, []float32{0.5}, "yes"},
		{two, []float32{0.4, 0.6}, "yes"},
	} {
		if got := c.s.label(c.row); got != c.want {
			t.Errorf("label(%v) = %s, want %s", c.row, got, c.want)
		}
	}
}

func TestSignatureNamesWhatDoesNotFit(t *testing.T) {
	for _, c := range []struct {
		features, outputs int
		columns, classes  []string
		want              string
	}{
		{2, 1, []string{"a", "b"}, nil, ""},
		{2, 1, nil, []string{"no", "yes"}, ""},
		{2, 3, nil, []string{"a", "b", "c"}, ""},
		{2, 1, []string{"a"}, nil, "the model names 1 input columns, but its network takes 2"},
		{2, 1, []string{"a", "a"}, nil, `the model names two input columns "a"`},
		{2, 3, nil, []string{"a", "b"}, "the model names 2 classes, but its network has 3 outputs"},
	} {
		_, err := newSignature(c.features, c.outputs, c.columns, c.classes)
		if got := text(err); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
