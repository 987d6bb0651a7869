package nn

// Peers are the trainers that train the same network on the same batches, of
// which each looks at its share of the rows.
type Peers interface {
	// Add replaces each number by the sum of all trainers' numbers in its place.
	// All call it in the same order with slices of the same lengths, and get the
	// same bits.
	Add(parts ...[]float32)
	// AddDoubles is Add for float64.
	AddDoubles(parts ...[]float64)
}

// split says which rows of a batch a trainer looks at.
type split struct {
	peers         Peers // nil: there are none
	worker, of    int
	from, to, all int // rows of the batch at hand
}

// Split makes t one of several trainers that compute the gradients of a batch
// together: number worker, from 0, of so many. Each is given the whole batch and
// looks at rows worker*rows/of to (worker+1)*rows/of of it. The gradients are
// then those that one trainer would compute, but for the order in which rows are
// added up: BatchNormalization normalizes over the whole batch, and Dropout drops
// what it would drop for one.
func (t *Trainer) Split(worker, of int, peers Peers) {
	t.split.worker, t.split.of, t.split.peers = worker, of, peers
}

// take chooses the rows of a batch.
func (s *split) take(rows int) {
	s.from, s.to, s.all = 0, rows, rows
	if s.peers != nil {
		s.from, s.to = s.worker*rows/s.of, (s.worker+1)*rows/s.of
	}
}
