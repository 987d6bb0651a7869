// Package nn computes with dense neural networks in float32: what a network
// answers, and how its weights change so that it answers better.
//
// The parts do not know more of each other than they need:
//
//   - [Network] is layers with their weights, and nothing else. It answers
//     through Predict, with a [Workspace] that holds the intermediate results;
//     one that is Frozen does so faster.
//   - [Trainer] holds the activations and gradients of one network for batches
//     up to one size, and computes a [Loss] and its gradients.
//   - [Optimizer] turns gradients into steps and keeps its state, a list of
//     plain float32 slices, for a checkpoint.
//   - [Schedule] gives the learning rate of a step.
//
// Matrices are [blas32.General], one row a sample. Neither Predict nor a
// training step allocates memory. Formulas and defaults are Keras 3's, so that
// a recipe means here what it means there.
//
// # Determinism
//
// The same numbers in give the same bits out, from run to run and for every
// GOMAXPROCS: large products and sums are cut into parts by their shape alone,
// and which goroutine computes a part does not matter. Random numbers come from
// [rand.PCG] sources that the caller seeds and can marshal. Another processor
// or another BLAS may round differently: with the build tag openblas, OpenBLAS
// and the element-wise loops use the vector instructions that there are.
package nn
