package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/runtime/spec"
)

// TrainingJob trains a dense network once and publishes the outcome: an
// immutable model, known by its digest.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=tj,categories=trainyard
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Epoch",type=integer,JSONPath=`.status.progress.epoch`
// +kubebuilder:printcolumn:name="Loss",type=number,JSONPath=`.status.progress.loss`
// +kubebuilder:printcolumn:name="Accuracy",type=number,JSONPath=`.status.progress.metrics.ValidationAccuracy`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.status.model.reference`,priority=1
// +kubebuilder:printcolumn:name="Digest",type=string,JSONPath=`.status.model.shortDigest`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52",message="metadata.name of a TrainingJob may have 52 characters at most: its pods' names are longer by a suffix"
type TrainingJob struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says what to train, on what, and how. It can't be changed once the
	// TrainingJob exists.
	//
	// +required
	Spec TrainingJobSpec `json:"spec"`

	// status is what became of it.
	//
	// +optional
	Status TrainingJobStatus `json:"status,omitzero"`
}

// TrainingJobSpec says what to train, on what, and how.
//
// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a TrainingJob's spec can't be changed, because its model is known by what made it: create another TrainingJob, or delete this one and apply it again"
// +kubebuilder:validation:XValidation:rule="self.training.loss != 'CategoricalCrossentropy' || (has(self.network.layers[self.network.layers.size() - 1].activation) && self.network.layers[self.network.layers.size() - 1].activation == 'Softmax')",message="loss CategoricalCrossentropy compares probabilities of classes: the last layer needs activation: Softmax, and one unit for each class"
// +kubebuilder:validation:XValidation:rule="self.training.loss != 'BinaryCrossentropy' || (has(self.network.layers[self.network.layers.size() - 1].activation) && self.network.layers[self.network.layers.size() - 1].activation == 'Sigmoid' && self.network.layers[self.network.layers.size() - 1].units == 1)",message="loss BinaryCrossentropy compares one probability: the last layer needs units: 1 and activation: Sigmoid"
// +kubebuilder:validation:XValidation:rule="self.training.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy'] || (has(self.network.layers[self.network.layers.size() - 1].units) && self.network.layers[self.network.layers.size() - 1].units == 1)",message="a loss for numbers compares one number: the last layer needs units: 1"
// +kubebuilder:validation:XValidation:rule="!has(self.training.earlyStopping) || !self.training.earlyStopping.monitor.startsWith('Validation') || (has(self.dataset.validationFraction) && self.dataset.validationFraction > 0.0)",message="earlyStopping looks at rows that are kept out of training: set dataset.validationFraction, for example 0.2, or monitor Loss"
type TrainingJobSpec struct {
	// network describes the layers. Example: {layers: [{units: 32, activation:
	// ReLU}, {units: 10, activation: Softmax}]}.
	//
	// +required
	Network spec.Network `json:"network"`

	// dataset is the table to learn from, where it is, and how to read it. One
	// column is the label, which the network learns to predict; the others are
	// the features, which it sees. Example:
	//
	//	dataset:
	//	  source: {configMap: {name: iris, key: iris.csv}}
	//	  label: species           # a column of iris.csv
	//	  validationFraction: 0.2  # measured, but not trained on
	//	  scaling: Standard
	//
	// +required
	Dataset spec.Dataset `json:"dataset"`

	// training is the recipe. Example: {loss: CategoricalCrossentropy, epochs:
	// 10, metrics: [Accuracy]}.
	//
	// +required
	Training spec.Training `json:"training"`

	// backoffLimit is how often a run that crashed is tried again before the
	// TrainingJob fails. Wrong input is never tried again, and an interruption
	// (eviction, node drain) doesn't count. Default: 3.
	//
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`

	// resources of the pod that trains. Default: requests of 100m CPU and 128Mi
	// memory, without limits. Example: {requests: {cpu: "2"}, limits: {memory:
	// 1Gi}}.
	//
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
}

// TrainingJobStatus is what became of a TrainingJob.
type TrainingJobStatus struct {
	// observedGeneration is the metadata.generation that this status speaks of.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Progressing is true while the run is under way and says what
	// it does or waits for; Complete is true when the model is published; Failed
	// is true when there will be none, and says why.
	//
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// state sums the conditions up in a word, for people: Pending, Training,
	// Retrying, Complete or Failed. Programs should read the conditions.
	//
	// +optional
	State string `json:"state,omitempty"`

	// startTime is when the run's pod was first asked for.
	//
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// completionTime is when the run completed or failed.
	//
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// progress is where the run stands, or stood last.
	//
	// +optional
	Progress *TrainingProgress `json:"progress,omitempty"`

	// metrics of the published model: Loss, ValidationLoss, and each metric of
	// the spec as <Metric> and Validation<Metric>.
	//
	// +optional
	Metrics map[string]float64 `json:"metrics,omitempty"`

	// model is the published model. It is written once and never changes.
	//
	// +optional
	Model *PublishedModel `json:"model,omitempty"`

	// datasetDigest is the SHA-256 of the dataset's bytes that were read.
	//
	// +optional
	DatasetDigest string `json:"datasetDigest,omitempty"`
}

// TrainingProgress is where a run stands.
type TrainingProgress struct {
	// epoch that runs or ended last, counted from 1.
	//
	// +required
	Epoch int32 `json:"epoch"`

	// epochs in all.
	//
	// +required
	Epochs int32 `json:"epochs"`

	// loss is the mean over the epoch so far.
	//
	// +optional
	Loss *float64 `json:"loss,omitempty"`

	// metrics of the last epoch that was measured.
	//
	// +optional
	Metrics map[string]float64 `json:"metrics,omitempty"`

	// samplesPerSecond is the pace: rows trained on in a second.
	//
	// +optional
	SamplesPerSecond int64 `json:"samplesPerSecond,omitempty"`

	// bestEpoch is the epoch with the best value of what earlyStopping monitors.
	//
	// +optional
	BestEpoch int32 `json:"bestEpoch,omitempty"`

	// stoppedEarly is true when training ended before its last epoch, because
	// what earlyStopping monitors no longer got better.
	//
	// +optional
	StoppedEarly bool `json:"stoppedEarly,omitempty"`

	// remaining is the estimated time to the end, as 1m30s.
	//
	// +optional
	Remaining string `json:"remaining,omitempty"`
}

// PublishedModel points to a model in the registry.
type PublishedModel struct {
	// reference is repository:tag, for people and their tools.
	//
	// +required
	Reference string `json:"reference"`

	// digest of the model's OCI manifest: the pointer that everyone follows.
	//
	// +required
	Digest string `json:"digest"`

	// shortDigest is the digest's first twelve hexadecimal digits: the version
	// under which servers present the model.
	//
	// +required
	ShortDigest string `json:"shortDigest"`

	// bytes of all files of the model together.
	//
	// +optional
	Bytes int64 `json:"bytes,omitempty"`

	// parameters is the number of trained weights.
	//
	// +optional
	Parameters int64 `json:"parameters,omitempty"`
}

// Conditions of a TrainingJob.
const (
	// TrainingJobProgressing is true while the run is under way.
	TrainingJobProgressing = "Progressing"
	// TrainingJobComplete is true when the model is published.
	TrainingJobComplete = "Complete"
	// TrainingJobFailed is true when there will be no model.
	TrainingJobFailed = "Failed"
)

// Reasons of a TrainingJob's conditions, beside those that the trainer gives
// (see spec.Failure).
const (
	// ReasonDatasetMissing: the source of the dataset isn't there; the run waits.
	ReasonDatasetMissing = "DatasetMissing"
	// ReasonNameTaken: an object of the needed name belongs to somebody else.
	ReasonNameTaken = "NameTaken"
	// ReasonPodPending: the pod exists and doesn't run yet.
	ReasonPodPending = "PodPending"
	// ReasonTraining: the pod trains.
	ReasonTraining = "Training"
	// ReasonRetrying: an attempt failed, and another follows.
	ReasonRetrying = "Retrying"
	// ReasonPublished: the model is in the registry.
	ReasonPublished = "Published"
	// ReasonCrashed: the trainer ended without telling why.
	ReasonCrashed = "Crashed"
	// ReasonOutOfMemory: the trainer was killed for its memory.
	ReasonOutOfMemory = "OutOfMemory"
	// ReasonForbidden: the API server refused an object that the run needs.
	ReasonForbidden = "Forbidden"
)

// States of a TrainingJob.
const (
	StatePending  = "Pending"
	StateTraining = "Training"
	StateRetrying = "Retrying"
	StateComplete = "Complete"
	StateFailed   = "Failed"
)

// TrainingJobList is a list of TrainingJobs.
//
// +kubebuilder:object:root=true
type TrainingJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrainingJob `json:"items"`
}
