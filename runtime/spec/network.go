package spec

// Network is a dense network: layers that are applied one after the other.
type Network struct {
	// inputs is the number of feature columns of the dataset. It may be left
	// out; when it is given, a dataset with another number of feature columns is
	// refused. Example: 64.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Inputs int32 `json:"inputs,omitempty"`

	// layers are applied in this order. The last layer that has units gives the
	// predictions: for classes, one unit for each class and Softmax (or, for two
	// classes, 1 unit and Sigmoid); for numbers, 1 unit and Linear. Example:
	// [{units: 32, activation: ReLU}, {units: 10, activation: Softmax}].
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +listType=atomic
	// +required
	Layers []Layer `json:"layers"`
}

// LayerType names a kind of layer.
//
// +kubebuilder:validation:Enum=Dense
type LayerType string

// The kinds of layer.
const (
	Dense LayerType = "Dense"
)

// Layer is one layer of a network.
//
// +kubebuilder:validation:XValidation:rule="has(self.units) && self.units > 0",message="a Dense layer needs units: the number of its outputs, for example units: 32"
type Layer struct {
	// type is the kind of layer. Dense (the default) computes
	// activation(x*W + b).
	//
	// +kubebuilder:default=Dense
	// +optional
	Type LayerType `json:"type,omitempty"`

	// units is the number of outputs of a Dense layer. Example: 32.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Units int32 `json:"units,omitempty"`

	// activation is the function that is applied to the outputs of a Dense
	// layer. Default: Linear, which changes nothing. Softmax belongs into the
	// last layer, where it makes probabilities that sum to one.
	//
	// +kubebuilder:default=Linear
	// +optional
	Activation Activation `json:"activation,omitempty"`
}

// Activation names the function that is applied to a layer's outputs.
//
// +kubebuilder:validation:Enum=Linear;ReLU;LeakyReLU;ELU;GELU;Sigmoid;Tanh;Softmax
type Activation string

// The activations, with Keras's formulas.
const (
	// Linear is x.
	Linear Activation = "Linear"
	// ReLU is max(0, x).
	ReLU Activation = "ReLU"
	// LeakyReLU is x for x > 0 and 0.2x below.
	LeakyReLU Activation = "LeakyReLU"
	// ELU is x for x > 0 and exp(x)-1 below.
	ELU Activation = "ELU"
	// GELU is x*Phi(x), with the exact normal distribution function.
	GELU Activation = "GELU"
	// Sigmoid is 1/(1+exp(-x)).
	Sigmoid Activation = "Sigmoid"
	// Tanh is the hyperbolic tangent.
	Tanh Activation = "Tanh"
	// Softmax is exp(x_i)/sum_j exp(x_j) over the outputs of one row.
	Softmax Activation = "Softmax"
)
