package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ModelService is a name that programs in the cluster call for predictions:
// http://<name>.<namespace>, or http://<name> from the same namespace. It
// serves a model on as many pods as the load needs.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=msvc,categories=trainyard
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.status.url`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Replicas",type=string,JSONPath=`.status.replicas.summary`
// +kubebuilder:printcolumn:name="Model",type=string,JSONPath=`.status.model.shortDigest`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",message="metadata.name of a ModelService becomes a Service's name: lower-case letters, digits and '-', beginning with a letter, 52 characters at most"
type ModelService struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says what to serve, and on how many pods.
	//
	// +required
	Spec ModelServiceSpec `json:"spec"`

	// status is how the service does.
	//
	// +optional
	Status ModelServiceStatus `json:"status,omitzero"`
}

// ModelServiceSpec says what to serve, and on how many pods.
type ModelServiceSpec struct {
	// model is what to serve. Example: {trainingJob: {name: iris}}.
	//
	// +required
	Model ModelSource `json:"model"`

	// autoscaling bounds the number of pods. Example: {minReplicas: 1,
	// maxReplicas: 5}.
	//
	// +kubebuilder:default={}
	// +optional
	Autoscaling Autoscaling `json:"autoscaling,omitzero"`

	// resources of each server pod. Default: requests of 100m CPU and 64Mi
	// memory, without limits. Example: {requests: {cpu: 500m}, limits: {memory:
	// 256Mi}}.
	//
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
}

// ModelSource is where the model comes from: exactly one of its fields.
//
// +kubebuilder:validation:XValidation:rule="has(self.trainingJob)",message="name a source for the model, for example trainingJob: {name: iris}"
type ModelSource struct {
	// trainingJob serves the model that a TrainingJob of the same namespace
	// published. The service waits until there is one.
	//
	// +optional
	TrainingJob *TrainingJobReference `json:"trainingJob,omitempty"`
}

// TrainingJobReference names a TrainingJob of the same namespace.
type TrainingJobReference struct {
	// name of the TrainingJob.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +required
	Name string `json:"name"`
}

// Autoscaling bounds the number of pods and says when there are enough.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",message="minReplicas must not be above maxReplicas"
type Autoscaling struct {
	// minReplicas is the least number of pods. Default: 1.
	//
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	MinReplicas *int32 `json:"minReplicas,omitempty"`

	// maxReplicas is the greatest number of pods. Default: 10, or minReplicas if
	// that is more.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	MaxReplicas *int32 `json:"maxReplicas,omitempty"`

	// targetConcurrency is how many requests one pod should be answering at a
	// time, on average: with more, pods are added; with fewer, removed. Default:
	// 10.
	//
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	TargetConcurrency *int32 `json:"targetConcurrency,omitempty"`
}

// ModelServiceStatus is how a ModelService does.
type ModelServiceStatus struct {
	// observedGeneration is the metadata.generation that this status speaks of.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Ready is true when the URL answers predictions;
	// Progressing is true while the pods are being brought to what the spec
	// wants, and both say what they wait for.
	//
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// url answers predictions, from inside the cluster: POST
	// <url>/v2/models/<name>/infer or <url>/v1/models/<name>:predict.
	//
	// +optional
	URL string `json:"url,omitempty"`

	// model is what the pods are told to serve.
	//
	// +optional
	Model *PublishedModel `json:"model,omitempty"`

	// replicas counts pods.
	//
	// +optional
	Replicas *ReplicaStatus `json:"replicas,omitempty"`
}

// ReplicaStatus counts pods, and says why there are as many.
type ReplicaStatus struct {
	// desired is how many there should be.
	//
	// +required
	Desired int32 `json:"desired"`

	// ready is how many answer predictions.
	//
	// +required
	Ready int32 `json:"ready"`

	// summary is ready/desired, for people.
	//
	// +optional
	Summary string `json:"summary,omitempty"`

	// reason is why the last decision was for that many.
	//
	// +optional
	Reason string `json:"reason,omitempty"`
}

// Conditions of a ModelService.
const (
	// ModelServiceReady is true when the URL answers predictions.
	ModelServiceReady = "Ready"
	// ModelServiceProgressing is true while pods are being brought to what the
	// spec wants.
	ModelServiceProgressing = "Progressing"
)

// Reasons of a ModelService's conditions.
const (
	// ReasonTrainingJobMissing: there is no TrainingJob of that name.
	ReasonTrainingJobMissing = "TrainingJobMissing"
	// ReasonTrainingJobRunning: the TrainingJob hasn't published a model yet.
	ReasonTrainingJobRunning = "TrainingJobRunning"
	// ReasonTrainingJobFailed: the TrainingJob will publish no model.
	ReasonTrainingJobFailed = "TrainingJobFailed"
	// ReasonStarting: pods are starting.
	ReasonStarting = "Starting"
	// ReasonScaling: the number of pods is changing.
	ReasonScaling = "Scaling"
	// ReasonUpdating: pods are taking another model.
	ReasonUpdating = "Updating"
	// ReasonModelUnavailable: a pod can't load the model.
	ReasonModelUnavailable = "ModelUnavailable"
	// ReasonPodFailing: a pod can't start or doesn't stay up.
	ReasonPodFailing = "PodFailing"
	// ReasonServing: the URL answers.
	ReasonServing = "Serving"
	// ReasonStable: nothing is changing.
	ReasonStable = "Stable"
)

// ModelServiceList is a list of ModelServices.
//
// +kubebuilder:object:root=true
type ModelServiceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ModelService `json:"items"`
}
