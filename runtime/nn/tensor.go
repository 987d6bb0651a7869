package nn

import "fmt"

// Tensor is one of the number arrays that make up a network.
type Tensor struct {
	// Name is unique in its network: "layers.0.weight".
	Name string
	// Value is the tensor itself, row-major.
	Value []float32
}

// Tensors returns all that training changes in the network, in the order of the
// layers: what a [Trainer] calls its parameters, and the moving averages of
// BatchNormalization layers, which the optimizer does not know. Copying their
// values out and back in brings a network back to where it was. The weights of
// Dense layers must have no gaps between their rows.
func (n *Network) Tensors() []Tensor {
	var tensors []Tensor
	for i, l := range n.Layers {
		add := func(name string, value []float32) {
			tensors = append(tensors, Tensor{Name: fmt.Sprintf("layers.%d.%s", i, name), Value: value})
		}
		switch l := l.(type) {
		case *Dense:
			add("weight", l.Weight.Data[:l.Weight.Rows*l.Weight.Cols])
			if l.Bias != nil {
				add("bias", l.Bias)
			}
		case *BatchNormalization:
			add("gamma", l.Gamma)
			add("beta", l.Beta)
			add("mean", l.Mean)
			add("variance", l.Variance)
		}
	}
	return tensors
}
