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

	// layers are applied in this order. The last one makes the predictions and
	// is a Dense layer: for classes, one unit for each class and Softmax (or, for
	// two classes, 1 unit and Sigmoid); for numbers, 1 unit and Linear. Example:
	// [{units: 32, activation: ReLU}, {type: Dropout, rate: 0.2}, {units: 10,
	// activation: Softmax}].
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || self[self.size() - 1].type == 'Dense'",message="the last layer makes the predictions: it has to be a Dense layer, for example {units: 10, activation: Softmax}"
	// +listType=atomic
	// +required
	Layers []Layer `json:"layers"`
}

// LayerType names a kind of layer.
//
// +kubebuilder:validation:Enum=Dense;Dropout;BatchNormalization
type LayerType string

// The kinds of layer.
const (
	// Dense computes activation(x*W + b).
	Dense LayerType = "Dense"
	// Dropout sets inputs to zero at random while training.
	Dropout LayerType = "Dropout"
	// BatchNormalization brings each input to mean 0 and variance 1, and then
	// scales and shifts it by what it learned.
	BatchNormalization LayerType = "BatchNormalization"
)

// Layer is one layer of a network.
//
// +kubebuilder:validation:XValidation:rule="self.type != 'Dense' || has(self.units)",message="a Dense layer needs units: the number of its outputs, for example units: 32"
// +kubebuilder:validation:XValidation:rule="self.type == 'Dense' || !(has(self.units) || has(self.activation) || has(self.alpha) || has(self.initializer) || has(self.bias) || has(self.regularization))",message="units, activation, alpha, initializer, bias and regularization belong to a Dense layer: leave them out, or set type: Dense"
// +kubebuilder:validation:XValidation:rule="self.type != 'Dropout' || has(self.rate)",message="a Dropout layer needs rate: the part of its inputs to drop, for example rate: 0.2"
// +kubebuilder:validation:XValidation:rule="self.type == 'Dropout' || !has(self.rate)",message="rate belongs to a Dropout layer: leave it out, or set type: Dropout"
// +kubebuilder:validation:XValidation:rule="self.type == 'BatchNormalization' || !(has(self.momentum) || has(self.epsilon))",message="momentum and epsilon belong to a BatchNormalization layer: leave them out, or set type: BatchNormalization"
// +kubebuilder:validation:XValidation:rule="!has(self.alpha) || (has(self.activation) && self.activation in ['LeakyReLU', 'ELU'])",message="alpha belongs to activation LeakyReLU or ELU: leave it out, or set one of them"
type Layer struct {
	// type is the kind of layer. Dense (the default) computes activation(x*W +
	// b). Dropout sets inputs to zero at random while training, against
	// overfitting. BatchNormalization brings each input to mean 0 and variance 1,
	// over the batch while training and with moving averages afterwards.
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
	// +optional
	Activation Activation `json:"activation,omitempty"`

	// alpha is the slope below 0 of LeakyReLU (default: 0.2), or the scale below
	// 0 of ELU (default: 1). Example: 0.01.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	Alpha float64 `json:"alpha,omitempty"`

	// initializer draws the first weights of a Dense layer. Default:
	// GlorotUniform. HeNormal and HeUniform suit ReLU and its relatives.
	//
	// +optional
	Initializer Initializer `json:"initializer,omitempty"`

	// bias says whether a Dense layer adds a trained number to each output.
	// Default: true. Before a BatchNormalization it is of no use.
	//
	// +optional
	Bias *bool `json:"bias,omitempty"`

	// regularization is a penalty on the weights of this Dense layer, in addition
	// to training.regularization. Example: {l2: 0.001}.
	//
	// +optional
	Regularization Penalty `json:"regularization,omitzero"`

	// rate is the part of its inputs that a Dropout layer sets to zero, at least
	// 0 and below 1; the others are scaled up by 1/(1 - rate). Example: 0.2.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Rate float64 `json:"rate,omitempty"`

	// momentum says how slowly the averages of a BatchNormalization layer move:
	// average = momentum*average + (1 - momentum)*batch, in each step. Above 0
	// and below 1. Default: 0.99; runs of few steps want less, such as 0.9.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Momentum float64 `json:"momentum,omitempty"`

	// epsilon is added to the variance by a BatchNormalization layer, so that it
	// never divides by zero. Default: 0.001.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	Epsilon float64 `json:"epsilon,omitempty"`
}

// Initializer names how first weights are drawn.
//
// +kubebuilder:validation:Enum=GlorotUniform;GlorotNormal;HeUniform;HeNormal
type Initializer string

// The initializers, with Keras's formulas. Of a layer with in inputs and out
// outputs, the weights have the variance 2/(in + out) (Glorot) or 2/in (He).
const (
	GlorotUniform Initializer = "GlorotUniform"
	GlorotNormal  Initializer = "GlorotNormal"
	HeUniform     Initializer = "HeUniform"
	HeNormal      Initializer = "HeNormal"
)

// Penalty on the weights w of Dense layers (not on their biases) is added to
// the loss: l1*sum(|w|) + l2*sum(w^2).
type Penalty struct {
	// l1 is the factor of the sum of the weights' magnitudes. It drives weights
	// to 0. Example: 0.0001.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	L1 float64 `json:"l1,omitempty"`

	// l2 is the factor of the sum of the weights' squares. It keeps weights
	// small. Example: 0.001.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	L2 float64 `json:"l2,omitempty"`
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
	// LeakyReLU is x for x > 0 and alpha*x below.
	LeakyReLU Activation = "LeakyReLU"
	// ELU is x for x > 0 and alpha*(exp(x)-1) below.
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
