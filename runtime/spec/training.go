package spec

import "strings"

// Training is the recipe: what to minimize, how, and for how long.
//
// +kubebuilder:validation:XValidation:rule="!has(self.metrics) || self.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy'] || !self.metrics.exists(m, m in ['Accuracy', 'TopKAccuracy', 'Precision', 'Recall', 'F1', 'AUC'])",message="metric Accuracy needs a loss for classes (CategoricalCrossentropy or BinaryCrossentropy), and so do TopKAccuracy, Precision, Recall, F1 and AUC; for numbers use MAE, RMSE or R2"
// +kubebuilder:validation:XValidation:rule="!has(self.metrics) || !(self.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy']) || !self.metrics.exists(m, m in ['MAE', 'RMSE', 'R2'])",message="the metrics MAE, RMSE and R2 need a loss for numbers (MeanSquaredError, MeanAbsoluteError, Huber or LeastSquares); for classes use Accuracy, Precision, Recall, F1 or AUC"
// +kubebuilder:validation:XValidation:rule="!has(self.metrics) || !('TopKAccuracy' in self.metrics) || self.loss == 'CategoricalCrossentropy'",message="metric TopKAccuracy needs loss CategoricalCrossentropy: with two classes, the right one is always among the first two; use Accuracy"
// +kubebuilder:validation:XValidation:rule="!has(self.topK) || (has(self.metrics) && 'TopKAccuracy' in self.metrics)",message="topK belongs to the metric TopKAccuracy: add it to metrics, or leave topK out"
// +kubebuilder:validation:XValidation:rule="!has(self.regularization) || !has(self.regularization.lambda) || self.loss == 'LeastSquares'",message="regularization.lambda belongs to loss LeastSquares; with another loss use l2, which is added as l2*sum(w^2)"
// +kubebuilder:validation:XValidation:rule="!has(self.fullBatch) || !self.fullBatch || !has(self.batchSize) || self.batchSize == 32",message="fullBatch takes all rows in every step: leave batchSize out, or fullBatch"
// +kubebuilder:validation:XValidation:rule="!(has(self.classWeights) || has(self.balanceClasses)) || self.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy']",message="classWeights and balanceClasses need a loss for classes (CategoricalCrossentropy or BinaryCrossentropy): leave them out"
// +kubebuilder:validation:XValidation:rule="!has(self.classWeights) || !has(self.balanceClasses) || !self.balanceClasses",message="balanceClasses sets the weights of all classes: leave classWeights out, or balanceClasses"
// +kubebuilder:validation:XValidation:rule="!has(self.earlyStopping) || self.earlyStopping.monitor in ['Loss', 'ValidationLoss'] || (has(self.metrics) && self.metrics.exists(m, self.earlyStopping.monitor in [m, 'Validation' + m]))",message="earlyStopping.monitor names a metric that is not measured: add it to metrics, or monitor ValidationLoss"
type Training struct {
	// loss is what training makes small. For classes: CategoricalCrossentropy
	// (last layer Softmax, one unit a class) or BinaryCrossentropy (last layer
	// Sigmoid, 1 unit). For numbers: MeanSquaredError, MeanAbsoluteError, Huber,
	// or LeastSquares, which is 1/(2m) * sum((h-y)^2) over m rows and takes
	// regularization.lambda.
	//
	// +required
	Loss Loss `json:"loss"`

	// optimizer turns gradients into steps. Default: Adam with its defaults.
	// Example: {name: Adam, learningRate: 0.001}.
	//
	// +kubebuilder:default={name: Adam}
	// +optional
	Optimizer Optimizer `json:"optimizer,omitzero"`

	// regularization is a penalty on the weights of all Dense layers, not on
	// their biases. Example: {l2: 0.001}.
	//
	// +optional
	Regularization Regularization `json:"regularization,omitzero"`

	// metrics are measured after every epoch on the training rows and, as
	// Validation<name>, on the validation rows. For classes: Accuracy,
	// TopKAccuracy, Precision, Recall, F1, AUC (with more than two classes, the
	// last four are means over the classes). For numbers: MAE, RMSE, R2. Example:
	// [Accuracy, F1].
	//
	// +kubebuilder:validation:MaxItems=16
	// +listType=set
	// +optional
	Metrics []Metric `json:"metrics,omitempty"`

	// topK is how many of the most probable classes TopKAccuracy looks at.
	// Default: 5.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	TopK int32 `json:"topK,omitempty"`

	// epochs is how often training goes through all training rows. Default: 10.
	//
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Epochs int32 `json:"epochs,omitempty"`

	// earlyStopping ends training before the last epoch when it has stopped
	// getting better, and publishes the best weights. Example: {monitor:
	// ValidationLoss, patience: 5}. Default: all epochs run, and the last weights
	// are published.
	//
	// +optional
	EarlyStopping *EarlyStopping `json:"earlyStopping,omitempty"`

	// batchSize is how many rows one step looks at. Default: 32.
	//
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000000
	// +optional
	BatchSize int32 `json:"batchSize,omitempty"`

	// fullBatch lets every step look at all training rows, so that an epoch is
	// one step. Default: false.
	//
	// +optional
	FullBatch bool `json:"fullBatch,omitempty"`

	// classWeights say how much the loss of a row of a class counts, by the
	// class's label. Classes that are not named count 1. Example: {fraud: 20}.
	//
	// +kubebuilder:validation:MaxProperties=1000
	// +optional
	ClassWeights map[string]ClassWeight `json:"classWeights,omitempty"`

	// balanceClasses lets all classes count the same, however many rows they
	// have: a row counts rows/(classes * rows of its class). Default: false.
	//
	// +optional
	BalanceClasses bool `json:"balanceClasses,omitempty"`

	// seed starts the random numbers: initial weights, the choice of validation
	// rows, the order of the batches, and dropout. The same seed on the same data
	// gives the same weights, bit for bit. Default: 0.
	//
	// +optional
	Seed int64 `json:"seed,omitempty"`
}

// Loss names a loss function.
//
// +kubebuilder:validation:Enum=MeanSquaredError;MeanAbsoluteError;Huber;LeastSquares;BinaryCrossentropy;CategoricalCrossentropy
type Loss string

// The losses, with Keras's formulas: the mean over a batch's rows and outputs.
// LeastSquares is the mean over the rows of (h-y)^2/2.
const (
	MeanSquaredError        Loss = "MeanSquaredError"
	MeanAbsoluteError       Loss = "MeanAbsoluteError"
	Huber                   Loss = "Huber"
	LeastSquares            Loss = "LeastSquares"
	BinaryCrossentropy      Loss = "BinaryCrossentropy"
	CategoricalCrossentropy Loss = "CategoricalCrossentropy"
)

// ForClasses tells whether the loss compares classes rather than numbers.
func (l Loss) ForClasses() bool {
	return l == CategoricalCrossentropy || l == BinaryCrossentropy
}

// Regularization is a penalty on the weights of all Dense layers.
type Regularization struct {
	Penalty `json:",inline"`

	// lambda, with loss LeastSquares, adds lambda/(2m) * sum(w^2) to the loss,
	// where m is the number of training rows. Example: 1.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	Lambda float64 `json:"lambda,omitempty"`
}

// Metric names a measure of how good predictions are.
//
// +kubebuilder:validation:Enum=Accuracy;TopKAccuracy;Precision;Recall;F1;AUC;MAE;RMSE;R2
// +kubebuilder:validation:MaxLength=20
type Metric string

// The metrics: of classes, and of numbers.
const (
	Accuracy     Metric = "Accuracy"
	TopKAccuracy Metric = "TopKAccuracy"
	Precision    Metric = "Precision"
	Recall       Metric = "Recall"
	F1           Metric = "F1"
	AUC          Metric = "AUC"

	MAE  Metric = "MAE"
	RMSE Metric = "RMSE"
	R2   Metric = "R2"
)

// ClassWeight is how much the loss of a row of a class counts.
//
// +kubebuilder:validation:Minimum=0
type ClassWeight float64

// EarlyStopping ends training when a measure has stopped getting better.
type EarlyStopping struct {
	// monitor is the measure to watch, after every epoch: Loss, a metric of
	// metrics, or one of them on the validation rows, such as
	// ValidationAccuracy. Default: ValidationLoss.
	//
	// +kubebuilder:default=ValidationLoss
	// +optional
	Monitor Monitor `json:"monitor,omitempty"`

	// patience is how many epochs in a row may be no better than the best before
	// training stops. Default: 5.
	//
	// +kubebuilder:default=5
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Patience int32 `json:"patience,omitempty"`

	// minDelta is by how much an epoch has to be better than the best to count as
	// better: by more than this. Default: 0. Example: 0.001.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	MinDelta float64 `json:"minDelta,omitempty"`

	// restoreBestWeights says whether the weights of the best epoch are
	// published, with that epoch's metrics, rather than those of the last epoch.
	// Default: true.
	//
	// +kubebuilder:default=true
	// +optional
	RestoreBestWeights *bool `json:"restoreBestWeights,omitempty"`
}

// Monitor names a measure: Loss or a [Metric], as it is for the training rows,
// and with Validation before it for the validation rows.
//
// +kubebuilder:validation:Enum=Loss;Accuracy;TopKAccuracy;Precision;Recall;F1;AUC;MAE;RMSE;R2;ValidationLoss;ValidationAccuracy;ValidationTopKAccuracy;ValidationPrecision;ValidationRecall;ValidationF1;ValidationAUC;ValidationMAE;ValidationRMSE;ValidationR2
// +kubebuilder:validation:MaxLength=30
type Monitor string

// The measures that every run has.
const (
	MonitorLoss           Monitor = "Loss"
	MonitorValidationLoss Monitor = "ValidationLoss"
)

// Validation returns what is measured, and whether on the validation rows.
func (m Monitor) Validation() (name string, validation bool) {
	return strings.CutPrefix(string(m), "Validation")
}
