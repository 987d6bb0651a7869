//go:build !race

package scaling

// traces is how many are generated.
const traces = 800_000
