package spec

// Training is the recipe: what to minimize, how, and for how long.
//
// +kubebuilder:validation:XValidation:rule="!has(self.metrics) || self.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy'] || !('Accuracy' in self.metrics)",message="metric Accuracy needs a loss for classes (CategoricalCrossentropy or BinaryCrossentropy); for numbers use MAE, RMSE or R2"
type Training struct {
	// loss is what training makes small. For classes: CategoricalCrossentropy
	// (last layer Softmax, one unit a class) or BinaryCrossentropy (last layer
	// Sigmoid, 1 unit). For numbers: MeanSquaredError, MeanAbsoluteError, Huber.
	//
	// +required
	Loss Loss `json:"loss"`

	// optimizer turns gradients into steps. Default: Adam with its defaults.
	// Example: {name: Adam, learningRate: 0.001}.
	//
	// +kubebuilder:default={name: Adam}
	// +optional
	Optimizer Optimizer `json:"optimizer,omitzero"`

	// metrics are measured after every epoch on the training rows and, as
	// Validation<name>, on the validation rows. Example: [Accuracy].
	//
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	// +optional
	Metrics []Metric `json:"metrics,omitempty"`

	// epochs is how often training goes through all training rows. Default: 10.
	//
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Epochs int32 `json:"epochs,omitempty"`

	// batchSize is how many rows one step looks at. Default: 32.
	//
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	// +optional
	BatchSize int32 `json:"batchSize,omitempty"`

	// seed starts the random numbers: initial weights, the choice of validation
	// rows and the order of the batches. The same seed on the same data gives the
	// same weights, bit for bit. Default: 0.
	//
	// +optional
	Seed int64 `json:"seed,omitempty"`
}

// Loss names a loss function.
//
// +kubebuilder:validation:Enum=MeanSquaredError;MeanAbsoluteError;Huber;BinaryCrossentropy;CategoricalCrossentropy
type Loss string

// The losses, with Keras's formulas: the mean over a batch's rows and outputs.
const (
	MeanSquaredError        Loss = "MeanSquaredError"
	MeanAbsoluteError       Loss = "MeanAbsoluteError"
	Huber                   Loss = "Huber"
	BinaryCrossentropy      Loss = "BinaryCrossentropy"
	CategoricalCrossentropy Loss = "CategoricalCrossentropy"
)

// ForClasses tells whether the loss compares classes rather than numbers.
func (l Loss) ForClasses() bool {
	return l == CategoricalCrossentropy || l == BinaryCrossentropy
}

// Optimizer is a rule that turns gradients into steps.
type Optimizer struct {
	// name of the rule. Default: Adam.
	//
	// +kubebuilder:default=Adam
	// +optional
	Name OptimizerName `json:"name,omitempty"`

	// learningRate is the size of the steps. Default: 0.001 for Adam and
	// RMSprop, 0.01 for SGD (plain gradient descent). Example: 0.01.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	LearningRate float64 `json:"learningRate,omitempty"`
}

// OptimizerName names an optimizer.
//
// +kubebuilder:validation:Enum=SGD;RMSprop;Adam
type OptimizerName string

// The optimizers, with Keras's formulas and defaults.
const (
	SGD     OptimizerName = "SGD"
	RMSprop OptimizerName = "RMSprop"
	Adam    OptimizerName = "Adam"
)

// Metric names a measure of how good predictions are.
//
// +kubebuilder:validation:Enum=Accuracy;MAE;RMSE;R2
type Metric string

// The metrics.
const (
	Accuracy Metric = "Accuracy"
	MAE      Metric = "MAE"
	RMSE     Metric = "RMSE"
	R2       Metric = "R2"
)
