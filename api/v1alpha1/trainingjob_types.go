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
// +kubebuilder:printcolumn:name="Epoch",type=string,JSONPath=`.status.progress.summary`
// +kubebuilder:printcolumn:name="Loss",type=number,JSONPath=`.status.progress.loss`
// +kubebuilder:printcolumn:name="Accuracy",type=number,JSONPath=`.status.progress.accuracy`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.status.model.shortDigest`
// +kubebuilder:printcolumn:name="Reference",type=string,JSONPath=`.status.model.reference`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Progressing")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52",message="metadata.name of a TrainingJob may have 52 characters at most: its pods' names are longer by a suffix"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.workers) || self.spec.workers == 1 || self.metadata.name.matches('^[a-z][-a-z0-9]*$')",message="metadata.name of a TrainingJob with workers becomes the name of a Service: begin it with a letter, and use small letters, digits and - in it"
type TrainingJob struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says what to train, on what, and how. Once the TrainingJob exists,
	// only spec.suspend can be changed.
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
// +kubebuilder:validation:XValidation:rule="self.network == oldSelf.network && self.dataset == oldSelf.dataset && self.training == oldSelf.training && has(self.activeDeadlineSeconds) == has(oldSelf.activeDeadlineSeconds) && (!has(self.activeDeadlineSeconds) || self.activeDeadlineSeconds == oldSelf.activeDeadlineSeconds) && has(self.backoffLimit) == has(oldSelf.backoffLimit) && (!has(self.backoffLimit) || self.backoffLimit == oldSelf.backoffLimit) && has(self.ttlSecondsAfterFinished) == has(oldSelf.ttlSecondsAfterFinished) && (!has(self.ttlSecondsAfterFinished) || self.ttlSecondsAfterFinished == oldSelf.ttlSecondsAfterFinished) && has(self.checkpoint) == has(oldSelf.checkpoint) && (!has(self.checkpoint) || self.checkpoint == oldSelf.checkpoint) && has(self.resources) == has(oldSelf.resources) && (!has(self.resources) || self.resources == oldSelf.resources) && has(self.podTemplate) == has(oldSelf.podTemplate) && (!has(self.podTemplate) || self.podTemplate == oldSelf.podTemplate) && has(self.workers) == has(oldSelf.workers) && (!has(self.workers) || self.workers == oldSelf.workers)",message="a TrainingJob's spec can't be changed, but for suspend, because its model is known by what made it: create another TrainingJob, or delete this one and apply it again"
// +kubebuilder:validation:XValidation:rule="self.training.loss != 'CategoricalCrossentropy' || (has(self.network.layers[self.network.layers.size() - 1].activation) && self.network.layers[self.network.layers.size() - 1].activation == 'Softmax')",message="loss CategoricalCrossentropy compares probabilities of classes: the last layer needs activation: Softmax, and one unit for each class"
// +kubebuilder:validation:XValidation:rule="!has(self.dataset.labels) || self.training.loss == 'CategoricalCrossentropy'",message="dataset.labels are the columns of one-hot classes, which need loss CategoricalCrossentropy; with another loss, set dataset.label to the one column to predict"
// +kubebuilder:validation:XValidation:rule="self.training.loss != 'BinaryCrossentropy' || (has(self.network.layers[self.network.layers.size() - 1].activation) && self.network.layers[self.network.layers.size() - 1].activation == 'Sigmoid' && self.network.layers[self.network.layers.size() - 1].units == 1)",message="loss BinaryCrossentropy compares one probability: the last layer needs units: 1 and activation: Sigmoid"
// +kubebuilder:validation:XValidation:rule="self.training.loss in ['CategoricalCrossentropy', 'BinaryCrossentropy'] || (has(self.network.layers[self.network.layers.size() - 1].units) && self.network.layers[self.network.layers.size() - 1].units == 1)",message="a loss for numbers compares one number: the last layer needs units: 1"
// +kubebuilder:validation:XValidation:rule="!has(self.training.earlyStopping) || !self.training.earlyStopping.monitor.startsWith('Validation') || (has(self.dataset.validationFraction) && self.dataset.validationFraction > 0.0)",message="earlyStopping looks at rows that are kept out of training: set dataset.validationFraction, for example 0.2, or monitor Loss"
// +kubebuilder:validation:XValidation:rule="!has(self.workers) || self.workers == 1 || (has(self.training.fullBatch) && self.training.fullBatch) || !has(self.training.batchSize) || self.training.batchSize >= self.workers",message="the workers share the rows of each batch, and there are more workers than rows: raise training.batchSize, or lower workers"
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

	// suspend stops the run: its pod is told to keep a checkpoint and is deleted.
	// When suspend is false again, another pod goes on from there. It is the only
	// field that may be changed. Default: false. Change it with: kubectl patch
	// tj digits --type=merge --patch '{"spec": {"suspend": true}}'.
	//
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// activeDeadlineSeconds is how long the run may take, from its start or from
	// when it was last resumed, with all its attempts. A run that takes longer
	// fails. Default: no limit. Example: 3600.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	ActiveDeadlineSeconds *int64 `json:"activeDeadlineSeconds,omitempty"`

	// backoffLimit is how often a run that crashed is tried again before the
	// TrainingJob fails. Wrong input is never tried again, and an interruption
	// (eviction, node drain) doesn't count. Of several workers, each that crashes
	// counts, so what makes all of them fail counts for each. Default: 3.
	//
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	BackoffLimit *int32 `json:"backoffLimit,omitempty"`

	// ttlSecondsAfterFinished is how long after its end, good or bad, the
	// TrainingJob is deleted, with its Job and pods. Its model stays in the
	// registry. Default: it stays until somebody deletes it. Example: 86400.
	//
	// +kubebuilder:validation:Minimum=0
	// +optional
	TTLSecondsAfterFinished *int32 `json:"ttlSecondsAfterFinished,omitempty"`

	// checkpoint says where and how often the run keeps its state, from which it
	// goes on after it was suspended, evicted, drained from its node or killed.
	// The model is the same, bit for bit, as that of a run that was left alone.
	// Default: in the model registry, every 5 minutes and when the pod is asked to
	// stop. Example: {persistentVolumeClaim: {claimName: scratch}, everySeconds: 30}.
	//
	// +optional
	Checkpoint Checkpoint `json:"checkpoint,omitzero"`

	// workers is how many pods train together. They share the rows of each batch,
	// so that the model is the one that a single pod makes, up to rounding: 1e-5.
	// Each pod reads the whole dataset and has all of spec.resources. When one is
	// lost, all go on from the last checkpoint as soon as there is another in its
	// place. Networks gain whose steps take much longer than adding up their
	// gradients over the network does. Default: 1. Example: 4.
	//
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	// +optional
	Workers int32 `json:"workers,omitempty"`

	// resources of each pod that trains. Default: requests of 100m CPU and 128Mi
	// memory, without limits. Example: {requests: {cpu: "2"}, limits: {memory:
	// 1Gi}}.
	//
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// podTemplate is what the pod that trains has beside what the operator gives
	// it. Example: {nodeSelector: {disktype: ssd}, priorityClassName: batch}.
	//
	// +optional
	PodTemplate PodTemplate `json:"podTemplate,omitzero"`
}

// Checkpoint says where and how often a run keeps its state. A checkpoint is
// used by the TrainingJob that wrote it and by no other, and is deleted when
// the model is published.
type Checkpoint struct {
	// persistentVolumeClaim keeps checkpoints on a volume. Default: they are kept
	// in the model registry, in the repository of the TrainingJob's models.
	//
	// +optional
	PersistentVolumeClaim *CheckpointClaim `json:"persistentVolumeClaim,omitempty"`

	// everySeconds is the time between two checkpoints. Default: 60 on a volume,
	// 300 in the registry. Example: 30.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	EverySeconds int32 `json:"everySeconds,omitempty"`

	// everySteps is the number of steps between two checkpoints; a step is a
	// batch. Where both are given, whichever comes first counts. Example: 1000.
	//
	// +kubebuilder:validation:Minimum=1
	// +optional
	EverySteps int64 `json:"everySteps,omitempty"`
}

// CheckpointClaim is a place on the volume of a PersistentVolumeClaim.
//
// +kubebuilder:validation:XValidation:rule="!has(self.path) || !self.path.startsWith('/') && !self.path.split('/').exists(part, part == '..')",message="path is counted from the volume's root and stays inside it: write it without a leading / and without .. in it, for example checkpoints"
type CheckpointClaim struct {
	// claimName is the name of a PersistentVolumeClaim in the TrainingJob's
	// namespace. Several TrainingJobs may use the same.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	ClaimName string `json:"claimName"`

	// path of a folder on the volume, which is made if it isn't there. Each
	// TrainingJob has a folder of its own in it. Default: the volume's root.
	// Example: checkpoints.
	//
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Path string `json:"path,omitempty"`
}

// TrainingJobStatus is what became of a TrainingJob.
type TrainingJobStatus struct {
	// observedGeneration is the metadata.generation that this status speaks of.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Progressing is true while the run is under way and says what
	// it does or waits for; Suspended is true while it is held back, and says by
	// what; Complete is true when the model is published; Failed is true when
	// there will be none, and says why.
	//
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// state sums the conditions up in a word, for people: Suspended, Queued,
	// Pending, Training, Retrying, Complete or Failed. Programs should read the
	// conditions.
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

	// lastFailure is the attempt that failed last, also when a later one
	// succeeded.
	//
	// +optional
	LastFailure *AttemptFailure `json:"lastFailure,omitempty"`
}

// AttemptFailure is a pod that failed.
type AttemptFailure struct {
	// pod is the name of the pod. It may be gone.
	//
	// +required
	Pod string `json:"pod"`

	// reason in a word, such as DatasetInvalid, OutOfMemory or Interrupted.
	//
	// +required
	Reason string `json:"reason"`

	// message says what happened and what to do.
	//
	// +optional
	Message string `json:"message,omitempty"`

	// exitCode of the trainer: 10 for input that will fail again, 143 when it was
	// asked to stop, 137 when it was killed. It is missing when the pod ended
	// without one.
	//
	// +optional
	ExitCode *int32 `json:"exitCode,omitempty"`

	// time when the pod ended.
	//
	// +optional
	Time *metav1.Time `json:"time,omitempty"`

	// lastLog are the last lines that the trainer logged.
	//
	// +optional
	LastLog string `json:"lastLog,omitempty"`
}

// TrainingProgress is where a run stands.
type TrainingProgress struct {
	// summary is the epoch and the epochs in all, as 3/10, for people.
	//
	// +optional
	Summary string `json:"summary,omitempty"`

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

	// accuracy is the metric ValidationAccuracy or, where no rows are kept out of
	// training, Accuracy; for people. It is missing when neither is measured.
	//
	// +optional
	Accuracy *float64 `json:"accuracy,omitempty"`

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

	// memory is the estimate of what the run needs, from the sizes of table and
	// network, as 310Mi.
	//
	// +optional
	Memory string `json:"memory,omitempty"`
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

	// signature is what clients rely on: another model takes the place of this one
	// only if it fits, or if spec.model.newContract of the ModelService says that
	// clients know.
	//
	// +optional
	Signature *spec.Signature `json:"signature,omitempty"`
}

// Published is a model that a pod pushed, or found.
func Published(model *spec.Model) *PublishedModel {
	return &PublishedModel{
		Reference:   model.Reference,
		Digest:      model.Digest,
		ShortDigest: spec.ServedModel{Digest: model.Digest}.Version(),
		Bytes:       model.Bytes,
		Parameters:  model.Parameters,
		Signature:   model.Signature.DeepCopy(),
	}
}

// Conditions of a TrainingJob.
const (
	// TrainingJobProgressing is true while the run is under way.
	TrainingJobProgressing = "Progressing"
	// TrainingJobSuspended is true while the run is held back.
	TrainingJobSuspended = "Suspended"
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
	// ReasonCheckpointClaimMissing: the claim for checkpoints isn't there; the run
	// waits.
	ReasonCheckpointClaimMissing = "CheckpointClaimMissing"
	// ReasonSuspended: spec.suspend, or somebody else, holds the run back.
	ReasonSuspended = "Suspended"
	// ReasonQueued: Kueue hasn't admitted the run, or has taken it back.
	ReasonQueued = "Queued"
	// ReasonDeadlineExceeded: the run took longer than activeDeadlineSeconds.
	ReasonDeadlineExceeded = "DeadlineExceeded"
	// ReasonResultLost: the pod ended well and was deleted before it was read.
	ReasonResultLost = "ResultLost"
	// ReasonExpired: ttlSecondsAfterFinished has passed.
	ReasonExpired = "Expired"
	// ReasonNameTaken: an object of the needed name belongs to somebody else.
	ReasonNameTaken = "NameTaken"
	// ReasonPodPending: the pod exists and doesn't run yet.
	ReasonPodPending = "PodPending"
	// ReasonTraining: the pod trains.
	ReasonTraining = "Training"
	// ReasonHindered: the pod runs, and waits for something, or goes on without.
	ReasonHindered = "Hindered"
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
	StateSuspended = "Suspended"
	StateQueued    = "Queued"
	StatePending   = "Pending"
	StateTraining  = "Training"
	StateRetrying  = "Retrying"
	StateComplete  = "Complete"
	StateFailed    = "Failed"
)

// TrainingJobList is a list of TrainingJobs.
//
// +kubebuilder:object:root=true
type TrainingJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrainingJob `json:"items"`
}
