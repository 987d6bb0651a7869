package serve

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// randomWeights are of up to 12 versions, of all magnitudes.
func randomWeights(random *rand.Rand) []int {
	weights := make([]int, 1+random.IntN(12))
	for i := range weights {
		weights[i] = random.IntN([]int{1, 2, 10, 100, 1000}[random.IntN(5)])
	}
	return weights
}

func TestSharesAreTheWeightsRounded(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		weights := randomWeights(random)
		shares, err := thousandths(weights)
		if err != nil {
			if !strings.Contains(err.Error(), "less than a thousandth") {
				t.Fatalf("%v: %v", weights, err)
			}
			continue
		}
		sum, all := 0, 0
		for i := range weights {
			sum, all = sum+shares[i], all+weights[i]
		}
		if sum != 1000 {
			t.Fatalf("%v: shares %v add up to %d", weights, shares, sum)
		}
		for i, w := range weights {
			if off := shares[i]*all - 1000*w; all > 0 && (off <= -all || off >= all || w == 0 && shares[i] != 0) {
				t.Fatalf("%v: share %d is %d", weights, i, shares[i])
			}
		}
	}
}

// TestEveryWindowIsExact checks both promises of turns, for any weights.
func TestEveryWindowIsExact(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2_000 {
		shares, err := thousandths(randomWeights(random))
		if err != nil {
			continue
		}
		order := turns(shares)
		at := func(n int) uint16 { return order[n%len(order)] }
		had, window := make([]int, len(shares)), make([]int, len(shares))
		for n := range 3000 {
			had[at(n)]++
			window[at(n)]++
			if n < 1000 {
				for i, w := range shares {
					if low := w * (n + 1) / 1000; had[i] < low || had[i] > low+1 || had[i] > low && w*(n+1)%1000 == 0 {
						t.Fatalf("%v: after %d turns, %d has had %d", shares, n+1, i, had[i])
					}
				}
				continue
			}
			window[at(n-1000)]--
			if !slices.Equal(window, shares) {
				t.Fatalf("%v: the 1,000 turns up to %d are shared as %v", shares, n, window)
			}
		}
	}
}

func TestImpossibleWeights(t *testing.T) {
	for _, c := range []struct {
		weights []int
		want    string
	}{
		{[]int{90, -1}, "[1] has weight -1"},
		{[]int{1 << 40}, "must be from 0 to 1000000"},
		{[]int{1, 2000}, "[0] has weight 1 of 2001 in all, which is less than a thousandth"},
	} {
		if _, err := thousandths(c.weights); !strings.Contains(text(err), c.want) {
			t.Errorf("%v: got %v", c.weights, err)
		}
	}
}

func weighted(letter string, weight int) spec.ServedModel {
	m := served("one", letter)
	m.Weight = weight
	return m
}

// TestRequestsAreSharedByWeight asks from several goroutines at once: of every
// thousand requests, each version answers its share, and the answer says which.
func TestRequestsAreSharedByWeight(t *testing.T) {
	c := newCatalog()
	for i, letter := range []string{"a", "b", "c"} {
		c.set(digest(letter), constant(float32(i)), nil)
	}
	s := oneServer(t, c)
	mustLoad(t, s, weighted("a", 899), weighted("b", 101), weighted("c", 0))
	h := s.Handler()
	counts := map[string]int{}
	var mu sync.Mutex
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 500 {
				got := call(h, "POST", "/v1/models/one:predict", `{"instances":[[0]]}`)
				call(h, "GET", "/v2/models/one", "") // takes nobody's turn
				mu.Lock()
				counts[got.header.Get(versionHeader)+got.body]++
				mu.Unlock()
			}
		})
	}
	clients.Wait()
	want := map[string]int{`aaaaaaaaaaaa{"predictions":[[0]]}`: 2 * 899, `bbbbbbbbbbbb{"predictions":[[1]]}`: 2 * 101}
	if len(counts) != len(want) {
		t.Fatalf("got %v", counts)
	}
	for answer, n := range want {
		if counts[answer] != n {
			t.Errorf("%s: %d of 2000, want %d", answer, counts[answer], n)
		}
	}
	if got := call(h, "POST", "/v2/models/one/versions/cccccccccccc/infer", oneRow); !strings.Contains(got.body, `"model_version":"cccccccccccc","outputs":[{"name":"outputs","datatype":"FP32","shape":[1,1],"data":[2]}]`) {
		t.Errorf("a version without a share, by its name: got %s", got.body)
	}
}
