package serve

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"

	"trainyard.dev/trainyard/runtime/spec"
)

// split is the versions that answer under one name, and how the requests that
// name no version are shared among them. Only its counter changes: other
// versions, or other weights, are another split.
type split struct {
	// models are what was asked for, in order, and versions what answers.
	models   []spec.ServedModel
	versions []*version
	// turns says whose turn it is, over and over, by place in versions.
	turns []uint16
	next  atomic.Uint64
}

// newSplit returns a split of models that [checkSet] has let pass. Each version
// comes with a use, which is the split's from then on.
func newSplit(models []spec.ServedModel, versions []*version) *split {
	// The only error is about weights, which were checked.
	shares, _ := thousandths(weightsOf(models))
	return &split{models: models, versions: versions, turns: turns(shares)}
}

// turn returns the version that answers the next request that names none.
func (s *split) turn() *version {
	n := s.next.Add(1) - 1
	return s.versions[s.turns[n%uint64(len(s.turns))]]
}

// version returns the one that is meant by its short form or digest, or nil. A
// nil split has none.
func (s *split) version(name string) *version {
	if s == nil {
		return nil
	}
	for i, m := range s.models {
		if is(m, name) {
			return s.versions[i]
		}
	}
	return nil
}

// main returns the version with the largest weight, the first of several.
func (s *split) main() *version {
	heaviest := slices.MaxFunc(s.models, func(a, b spec.ServedModel) int { return cmp.Compare(a.Weight, b.Weight) })
	return s.version(heaviest.Digest)
}

func (s *split) release() {
	if s == nil {
		return
	}
	for _, v := range s.versions {
		v.release()
	}
}

// without returns the models that are left without a version.
func (s *split) without(version string) []spec.ServedModel {
	return slices.DeleteFunc(slices.Clone(s.models), func(m spec.ServedModel) bool { return is(m, version) })
}

func weightsOf(models []spec.ServedModel) []int {
	weights := make([]int, len(models))
	for i, m := range models {
		weights[i] = m.Weight
	}
	return weights
}

// mostWeight keeps sums of weights far from overflow.
const mostWeight = 1_000_000

// thousandths returns the share of each weight in all of them, in thousandths.
// Shares add up to 1,000: what rounding down leaves over goes to those that
// lost most by it. If all weights are 0, they count as equal.
//
// The error continues a sentence that begins with the place of a weight that
// cannot be kept.
func thousandths(weights []int) ([]int, error) {
	sum := 0
	for i, w := range weights {
		if w < 0 || w > mostWeight {
			return nil, fmt.Errorf("[%d] has weight %d; it must be from 0 to %d", i, w, mostWeight)
		}
		sum += w
	}
	if sum == 0 {
		weights, sum = slices.Repeat([]int{1}, len(weights)), len(weights)
	}
	shares, left := make([]int, len(weights)), 1000
	byLoss := make([]int, len(weights))
	for i, w := range weights {
		shares[i], byLoss[i] = 1000*w/sum, i
		left -= shares[i]
	}
	slices.SortStableFunc(byLoss, func(a, b int) int {
		return cmp.Compare(1000*weights[b]%sum, 1000*weights[a]%sum)
	})
	for _, i := range byLoss[:left] {
		shares[i]++
	}
	for i, w := range weights {
		if w > 0 && shares[i] == 0 {
			return nil, fmt.Errorf("[%d] has weight %d of %d in all, which is less than a thousandth", i, w, sum)
		}
	}
	return shares, nil
}

// turns returns a sequence that, repeated, gives each place i its share of every
// 1,000 turns in a row, exactly, and spreads them evenly: after t turns each has
// had its part of t, rounded up or down. Shares add up to 1,000.
//
// It is the earliest deadline first of Tijdeman's chairman assignment: the k-th
// turn of a share w is due after k*1000/w turns and may not be had before
// (k-1)*1000/w.
func turns(shares []int) []uint16 {
	divisor := 0
	for _, w := range shares {
		divisor = gcd(w, divisor)
	}
	period := 1000 / divisor
	had := make([]int, len(shares))
	order := make([]uint16, period)
	for t := range order {
		order[t] = uint16(mostUrgent(shares, had, t))
		had[order[t]]++
	}
	return order
}

// mostUrgent returns whose turn t is, from 0, when each has had so many.
func mostUrgent(shares, had []int, t int) int {
	best, due := -1, 0
	for i, w := range shares {
		if w == 0 || had[i]*1000 >= w*(t+1) {
			continue
		}
		if end := ((had[i]+1)*1000 + w - 1) / w; best < 0 || end < due {
			best, due = i, end
		}
	}
	return best
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
