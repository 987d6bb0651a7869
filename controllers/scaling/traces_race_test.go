//go:build race

package scaling

// traces is how many are generated. The race detector, which finds nothing in
// pure functions, makes each ten times as slow.
const traces = 50_000
