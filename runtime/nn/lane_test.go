package nn

import (
	"math"
	"testing"
)

// TestLanesAgree compares a batch in lanes with the same batch in one piece.
func TestLanesAgree(t *testing.T) {
	for name, loss := range map[string]Loss{
		"classes": CategoricalCrossentropy{}, "numbers": LeastSquares{Lambda: 3}, "pairs": BinaryCrossentropy{},
	} {
		t.Run(name, func(t *testing.T) {
			const rows = laneCount*blockRows + 3*blockRows + 17
			r := random(5)
			n := &Network{Inputs: 5, Layers: []Layer{
				&Normalization{Mean: []float32{1, 2, 3, 4, 5}, Scale: []float32{1, .5, 1, 2, 1}},
				NewDense(5, 7, Activation{Kind: ReLU}), NewDense(7, 3, Activation{Kind: loss.activation()}),
			}}
			n.Initialize(GlorotUniform, r)
			x, y, weights := randomMatrix(rows, 5, r), randomTargets(loss, rows, 3, r), make([]float32, rows)
			for i := range weights {
				weights[i] = r.Float32()
			}
			lanes, err := NewTrainer(n, loss, rows, r)
			if err != nil {
				t.Fatal(err)
			}
			if len(lanes.lanes) != laneCount {
				t.Fatalf("%d lanes for %d rows, want %d", len(lanes.lanes), rows, laneCount)
			}
			whole, err := NewTrainer(n, loss, 1, r)
			if err != nil {
				t.Fatal(err)
			}
			whole.lanes = []*lane{newLane(whole.network, rows, r, &whole.split)}
			whole.parameters = whole.lanes[0].parameters

			// A batch may be smaller than what there is room for, down to a row.
			for _, some := range []int{rows, 2*blockRows + 1, 5, 1} {
				b := batch{x, y, weights}.rows(0, some, loss.targets(3))
				got, want := lanes.Gradients(b.x, b.y, b.weights), whole.Gradients(b.x, b.y, b.weights)
				if math.Abs(got-want) > 1e-6*math.Abs(want) {
					t.Errorf("%d rows: loss is %v in lanes, %v in one piece", some, got, want)
				}
				for i, p := range whole.Parameters() {
					for j, want := range p.Gradient {
						if got := lanes.Parameters()[i].Gradient[j]; math.Abs(float64(got-want)) > 1e-4*(.1+math.Abs(float64(want))) {
							t.Fatalf("%d rows: gradient of %s[%d] is %v in lanes, %v in one piece", some, p.Name, j, got, want)
						}
					}
				}
			}
		})
	}
}

// TestLanesNameTheLayer that an infinite number came from, though the rows that
// brought it are among the first of many.
func TestLanesNameTheLayer(t *testing.T) {
	const rows = laneCount * blockRows * 2
	r := random(5)
	n := &Network{Inputs: 2, Layers: []Layer{NewDense(2, 2, Activation{Kind: ReLU}), NewDense(2, 1, Activation{})}}
	n.Initialize(HeUniform, r)
	trainer, err := NewTrainer(n, LeastSquares{}, rows, r)
	if err != nil {
		t.Fatal(err)
	}
	x := randomMatrix(rows, 2, r)
	x.Data[0] = float32(math.NaN())
	if loss := trainer.Gradients(x, make([]float32, rows), nil); loss == loss {
		t.Errorf("the loss is %v, want NaN", loss)
	}
	if got, want := trainer.NonFinite(), "the output of layers[0] (Dense)"; got != want {
		t.Errorf("NonFinite() is %q, want %q", got, want)
	}
}
