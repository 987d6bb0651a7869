package spec

// Optimizer is a rule that turns gradients into steps.
//
// +kubebuilder:validation:XValidation:rule="!has(self.momentum) || self.name in ['SGD', 'RMSprop']",message="momentum belongs to the optimizers SGD and RMSprop: leave it out (Adam has beta1), or choose one of them"
// +kubebuilder:validation:XValidation:rule="!has(self.nesterov) || self.name == 'SGD'",message="nesterov belongs to the optimizer SGD: leave it out, or set name: SGD"
// +kubebuilder:validation:XValidation:rule="!has(self.nesterov) || !self.nesterov || (has(self.momentum) && self.momentum > 0.0)",message="nesterov changes how momentum works: set momentum, too, for example momentum: 0.9"
// +kubebuilder:validation:XValidation:rule="!(has(self.rho) || has(self.centered)) || self.name == 'RMSprop'",message="rho and centered belong to the optimizer RMSprop: leave them out, or set name: RMSprop"
// +kubebuilder:validation:XValidation:rule="!(has(self.beta1) || has(self.beta2)) || self.name in ['Adam', 'AdamW']",message="beta1 and beta2 belong to the optimizers Adam and AdamW: leave them out, or choose one of them"
// +kubebuilder:validation:XValidation:rule="!has(self.epsilon) || self.name != 'SGD'",message="epsilon belongs to the optimizers RMSprop, Adam and AdamW: SGD divides by nothing, so leave it out"
// +kubebuilder:validation:XValidation:rule="!has(self.weightDecay) || self.name == 'AdamW'",message="weightDecay belongs to the optimizer AdamW: set name: AdamW, or use training.regularization: {l2: 0.001}"
// +kubebuilder:validation:XValidation:rule="(has(self.clipNorm) ? 1 : 0) + (has(self.globalClipNorm) ? 1 : 0) + (has(self.clipValue) ? 1 : 0) <= 1",message="gradients are clipped in one way: keep one of clipNorm, globalClipNorm and clipValue"
type Optimizer struct {
	// name of the rule. Default: Adam. SGD is plain gradient descent; AdamW is
	// Adam with weights that decay.
	//
	// +kubebuilder:default=Adam
	// +optional
	Name OptimizerName `json:"name,omitempty"`

	// learningRate is the size of the steps. Default: 0.001 for Adam, AdamW and
	// RMSprop, 0.01 for SGD. Example: 0.01.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	LearningRate float64 `json:"learningRate,omitempty"`

	// schedule changes the learning rate while training goes on. Default:
	// constant. Example: {name: Cosine, warmupSteps: 100}.
	//
	// +optional
	Schedule Schedule `json:"schedule,omitzero"`

	// momentum of SGD and RMSprop is the part of the last step that the next one
	// keeps, at least 0 and below 1. Default: 0. Example: 0.9.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Momentum float64 `json:"momentum,omitempty"`

	// nesterov lets SGD look ahead along its momentum. Default: false.
	//
	// +optional
	Nesterov bool `json:"nesterov,omitempty"`

	// rho says how slowly RMSprop's average of squared gradients moves, above 0
	// and below 1. Default: 0.9.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Rho float64 `json:"rho,omitempty"`

	// centered lets RMSprop divide by the gradient's standard deviation instead
	// of its magnitude. Default: false.
	//
	// +optional
	Centered bool `json:"centered,omitempty"`

	// beta1 says how slowly the average of gradients of Adam and AdamW moves, at
	// least 0 and below 1. Default: 0.9.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Beta1 *float64 `json:"beta1,omitempty"`

	// beta2 says how slowly the average of squared gradients of Adam and AdamW
	// moves, at least 0 and below 1. Default: 0.999.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +kubebuilder:validation:ExclusiveMaximum=true
	// +optional
	Beta2 *float64 `json:"beta2,omitempty"`

	// epsilon keeps RMSprop, Adam and AdamW from dividing by zero. Default:
	// 0.0000001.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	Epsilon float64 `json:"epsilon,omitempty"`

	// weightDecay of AdamW shrinks every weight by learningRate*weightDecay of
	// itself in each step. Default: 0.004.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	WeightDecay *float64 `json:"weightDecay,omitempty"`

	// clipNorm limits the Euclidean norm of each parameter's gradient (a
	// parameter is all weights, or all biases, of a layer). Example: 1.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	ClipNorm float64 `json:"clipNorm,omitempty"`

	// globalClipNorm limits the Euclidean norm of all gradients together.
	// Example: 1.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	GlobalClipNorm float64 `json:"globalClipNorm,omitempty"`

	// clipValue limits each number of the gradients to -clipValue..clipValue.
	// Example: 0.5.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +optional
	ClipValue float64 `json:"clipValue,omitempty"`
}

// OptimizerName names an optimizer.
//
// +kubebuilder:validation:Enum=SGD;RMSprop;Adam;AdamW
type OptimizerName string

// The optimizers, with Keras's formulas and defaults.
const (
	SGD     OptimizerName = "SGD"
	RMSprop OptimizerName = "RMSprop"
	Adam    OptimizerName = "Adam"
	AdamW   OptimizerName = "AdamW"
)

// Schedule changes the learning rate while training goes on. A step is one
// batch; an epoch has as many steps as it takes to go through all training
// rows: rows/batchSize, rounded up.
//
// +kubebuilder:validation:XValidation:rule="(self.name in ['Exponential', 'Step']) == has(self.decayRate)",message="the schedules Exponential and Step need decayRate, for example decayRate: 0.9, and the others have none"
// +kubebuilder:validation:XValidation:rule="self.name != 'Constant' || !has(self.decaySteps)",message="the schedule Constant changes nothing: leave decaySteps out, or choose Exponential, Step or Cosine"
// +kubebuilder:validation:XValidation:rule="self.name == 'Cosine' || !(has(self.warmupSteps) || has(self.alpha))",message="warmupSteps and alpha belong to the schedule Cosine: leave them out, or set name: Cosine"
type Schedule struct {
	// name of the schedule. With rate = learningRate in step s, counted from 0:
	// Constant is rate. Exponential is rate * decayRate^(s/decaySteps). Step is
	// the same with s/decaySteps rounded down: it changes every decaySteps steps
	// only. Cosine rises from 0 to rate in warmupSteps steps, and then falls along
	// half a cosine to rate*alpha in decaySteps steps.
	//
	// +required
	Name ScheduleName `json:"name"`

	// decayRate is the factor of Exponential and Step, above 0, 1 at most.
	// Example: 0.9.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:ExclusiveMinimum=true
	// +kubebuilder:validation:Maximum=1
	// +optional
	DecayRate float64 `json:"decayRate,omitempty"`

	// decaySteps is the time that one decay takes. Default: for Exponential and
	// Step, the steps of an epoch; for Cosine, all steps that are left after the
	// warm-up. Example: 1000.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	DecaySteps int64 `json:"decaySteps,omitempty"`

	// warmupSteps is how many steps Cosine takes to reach the learning rate.
	// Default: 0. Example: 100.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	WarmupSteps int64 `json:"warmupSteps,omitempty"`

	// alpha is the part of the learning rate at which Cosine ends, from 0 (the
	// default) to 1. Example: 0.01.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1
	// +optional
	Alpha float64 `json:"alpha,omitempty"`
}

// ScheduleName names a schedule of the learning rate.
//
// +kubebuilder:validation:Enum=Constant;Exponential;Step;Cosine
type ScheduleName string

// The schedules, with Keras's formulas.
const (
	ConstantSchedule    ScheduleName = "Constant"
	ExponentialSchedule ScheduleName = "Exponential"
	StepSchedule        ScheduleName = "Step"
	CosineSchedule      ScheduleName = "Cosine"
)
