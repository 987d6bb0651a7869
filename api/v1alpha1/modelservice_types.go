package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/runtime/spec"
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
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Scale-Reason",type=string,JSONPath=`.status.replicas.reason`
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

	// autoscaling bounds the number of pods. Example: {minReplicas: 0,
	// maxReplicas: 5}.
	//
	// +kubebuilder:default={}
	// +optional
	Autoscaling Autoscaling `json:"autoscaling,omitzero"`

	// batching computes the rows of requests that come at the same time together.
	// That only happens for networks that gain by it: those of some 4 million
	// weights and more. Example: {maxBatchSize: 128, maxDelay: 5ms}.
	//
	// +optional
	Batching *Batching `json:"batching,omitempty"`

	// resources of each server pod. Default: requests of 100m CPU and 64Mi
	// memory, without limits. Example: {requests: {cpu: 500m}, limits: {memory:
	// 256Mi}}.
	//
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`

	// podTemplate adds to the server pods. Example: {nodeSelector: {disktype:
	// ssd}, labels: {team: vision}}.
	//
	// +optional
	PodTemplate PodTemplate `json:"podTemplate,omitzero"`

	// stopped parks the service: it has no pods, and requests are refused with
	// that reason, until it is false again. Default: false.
	//
	// +optional
	Stopped bool `json:"stopped,omitempty"`
}

// ModelSource is where the model comes from: exactly one of trainingJob,
// trainingJobs, oci, https, s3 and persistentVolumeClaim.
//
// A TrainingJob is followed as soon as it publishes. The other four are
// addresses, at which a pod in the service's namespace looks every pollInterval;
// what it finds there it opens, and checks that it takes and gives what the model
// does that is served, before any server hears of it. An ONNX file is pushed to
// the cluster's registry, so that it has a digest and can't change.
//
// +kubebuilder:validation:XValidation:rule="[has(self.trainingJob), has(self.trainingJobs), has(self.oci), has(self.https), has(self.s3), has(self.persistentVolumeClaim)].exists_one(given, given)",message="name a source for the model, exactly one of trainingJob, trainingJobs, oci, https, s3 and persistentVolumeClaim, for example trainingJob: {name: iris}"
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || !(has(self.trainingJob) || has(self.trainingJobs))",message="pollInterval is for addresses: oci, https, s3 and persistentVolumeClaim; a TrainingJob is followed as soon as it publishes"
// +kubebuilder:validation:XValidation:rule="!has(self.pollInterval) || duration(self.pollInterval) == duration('0s') || (duration(self.pollInterval) >= duration('1s') && duration(self.pollInterval) <= duration('24h'))",message="pollInterval must be from 1s to 24h, or 0s to look once"
type ModelSource struct {
	// trainingJob serves the model that a TrainingJob of the same namespace
	// published. The service waits until there is one.
	//
	// +optional
	TrainingJob *TrainingJobReference `json:"trainingJob,omitempty"`

	// trainingJobs serves the newest model that any of several TrainingJobs
	// published. Example: {selector: {matchLabels: {model: iris}}, require:
	// {metric: ValidationAccuracy, atLeast: 0.95}}.
	//
	// +optional
	TrainingJobs *TrainingJobSelection `json:"trainingJobs,omitempty"`

	// oci serves a model in an OCI registry: one that a TrainingJob published, or
	// any artifact whose layers are titled model.onnx and, if there are, the files
	// beside it. A tag is followed. Example: {reference:
	// registry.example.com/models/iris:production}.
	//
	// +optional
	OCI *OCISource `json:"oci,omitempty"`

	// https serves an ONNX file on a web server. Example: {url:
	// https://models.example.com/iris.onnx}.
	//
	// +optional
	HTTPS *spec.HTTPSSource `json:"https,omitempty"`

	// s3 serves an ONNX file in a bucket, at Amazon or at any other server that
	// speaks its protocol. Example: {bucket: models, key: iris.onnx, region:
	// eu-central-1, credentialsSecret: {name: s3}}.
	//
	// +optional
	S3 *spec.S3Source `json:"s3,omitempty"`

	// persistentVolumeClaim serves an ONNX file on a volume, which is mounted
	// read-only. Write a new file under another name first and rename it, so that
	// half of it is never read. Example: {claimName: models, path:
	// production/iris.onnx}.
	//
	// +optional
	PersistentVolumeClaim *spec.ClaimReference `json:"persistentVolumeClaim,omitempty"`

	// pollInterval is how often to look whether there is another model at an
	// address, from 1s to 24h. Looking costs a request that transfers nothing, if
	// nothing changed. With 0s, the address is looked at once, and again only when
	// spec.model changes; then no pod stays behind to look, which lets go of a
	// volume that others need. Default: 1m. Example: 10m.
	//
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	PollInterval *metav1.Duration `json:"pollInterval,omitempty"`

	// newContract admits a model even if its inputs or outputs aren't those of the
	// one that is served. Without it, such a model is refused, as those who call
	// the service don't know of it. Default: false.
	//
	// +optional
	NewContract bool `json:"newContract,omitempty"`

	// digest pins the model: this one is served, whatever else is published.
	// Taking it out follows the newest again. Its TrainingJob may be gone, if
	// another of the same name, or the model served before, tells the
	// repository. Example: sha256:95296a93d48a... as in status.model.digest.
	//
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	// +optional
	Digest string `json:"digest,omitempty"`
}

// Batching bounds the rows of several requests that are computed together.
//
// +kubebuilder:validation:XValidation:rule="!has(self.maxDelay) || (duration(self.maxDelay) >= duration('0s') && duration(self.maxDelay) <= duration('1s'))",message="maxDelay must be from 0s to 1s"
type Batching struct {
	// maxBatchSize is the most rows that are computed together. 0 turns batching
	// off. Default: 64.
	//
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=256
	// +optional
	MaxBatchSize *int32 `json:"maxBatchSize,omitempty"`

	// maxDelay is the longest that a request waits for others. Only the first
	// one after a crowd has left waits that long; without load, nobody waits.
	// From 0s to 1s. Default: 1ms. Example: 5ms.
	//
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(us|ms|s))+$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	MaxDelay *metav1.Duration `json:"maxDelay,omitempty"`
}

// OCISource names a model in an OCI registry.
type OCISource struct {
	// reference is registry/repository with a tag, which is followed, or with a
	// digest, which never changes. Example:
	// registry.example.com/models/iris:production.
	//
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$') && (self.contains('@') || self.matches(':[^/]*$'))",message="reference must be registry/repository:tag or registry/repository@sha256:..., for example registry.example.com/models/iris:production"
	// +required
	Reference string `json:"reference"`

	// credentialsSecret names a Secret of type kubernetes.io/dockerconfigjson in
	// the same namespace. Default: none, and for the registry that TrainingJobs
	// publish to, what the pod itself may read. Make one with: kubectl create
	// secret docker-registry NAME --docker-server=registry.example.com
	// --docker-username=... --docker-password=....
	//
	// +optional
	CredentialsSecret *spec.SecretName `json:"credentialsSecret,omitempty"`

	// plainHTTP is for registries that don't speak TLS. Default: false.
	//
	// +optional
	PlainHTTP bool `json:"plainHTTP,omitempty"`
}

// TrainingJobSelection picks the newest model among those of several
// TrainingJobs.
type TrainingJobSelection struct {
	// selector matches the labels of TrainingJobs of the same namespace. Example:
	// {matchLabels: {model: iris}}.
	//
	// +required
	Selector metav1.LabelSelector `json:"selector"`

	// require passes over models that aren't good enough. Default: any will do.
	// Example: {metric: ValidationAccuracy, atLeast: 0.95}.
	//
	// +optional
	Require *MetricRequirement `json:"require,omitempty"`
}

// MetricRequirement bounds a metric of a model.
//
// +kubebuilder:validation:XValidation:rule="has(self.atLeast) || has(self.atMost)",message="say what the metric must be: atLeast, atMost or both"
type MetricRequirement struct {
	// metric is one of the TrainingJob's status.metrics. Example:
	// ValidationLoss.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +required
	Metric string `json:"metric"`

	// atLeast is the smallest value that is good enough. Example: 0.95.
	//
	// +optional
	AtLeast *float64 `json:"atLeast,omitempty"`

	// atMost is the largest value that is good enough. Example: 0.2.
	//
	// +optional
	AtMost *float64 `json:"atMost,omitempty"`
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

// ScalingMetric is what the number of pods follows.
//
// +kubebuilder:validation:Enum=Concurrency;RequestsPerSecond;CPU
type ScalingMetric string

// What the number of pods may follow.
const (
	// MetricConcurrency is how many requests are being answered at a time.
	MetricConcurrency ScalingMetric = "Concurrency"
	// MetricRequestsPerSecond is how many requests come in a second.
	MetricRequestsPerSecond ScalingMetric = "RequestsPerSecond"
	// MetricCPU is how much of their requested CPU the pods use. A standard
	// HorizontalPodAutoscaler decides then.
	MetricCPU ScalingMetric = "CPU"
)

// Autoscaling bounds the number of pods and says when there are enough.
//
// +kubebuilder:validation:XValidation:rule="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",message="minReplicas must not be above maxReplicas"
// +kubebuilder:validation:XValidation:rule="!has(self.metric) || self.metric != 'CPU' || !has(self.minReplicas) || self.minReplicas > 0",message="a service that scales by CPU can't scale to zero, as pods that aren't there use none: set minReplicas to 1, or metric to Concurrency"
// +kubebuilder:validation:XValidation:rule="!has(self.idleTime) || (duration(self.idleTime) >= duration('1s') && duration(self.idleTime) <= duration('24h'))",message="idleTime must be from 1s to 24h"
// +kubebuilder:validation:XValidation:rule="!has(self.stabilizationTime) || (duration(self.stabilizationTime) >= duration('1s') && duration(self.stabilizationTime) <= duration('1h'))",message="stabilizationTime must be from 1s to 1h"
type Autoscaling struct {
	// minReplicas is the least number of pods. With 0, a service that nobody
	// asks has no pods; a request that comes then starts one, and waits for it.
	// Default: 1.
	//
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=0
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

	// metric is what the number of pods follows: Concurrency, the requests that
	// are being answered at a time; RequestsPerSecond; or CPU, for which a
	// HorizontalPodAutoscaler is made, and the cluster needs metrics-server.
	// Default: Concurrency.
	//
	// +kubebuilder:default=Concurrency
	// +optional
	Metric ScalingMetric `json:"metric,omitempty"`

	// targetConcurrency is how many requests one pod should be answering at a
	// time, on average: past 70% of it pods are added; with fewer, removed.
	// Default: 10.
	//
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	TargetConcurrency *int32 `json:"targetConcurrency,omitempty"`

	// targetRequestsPerSecond is how many requests one pod should answer in a
	// second, if metric is RequestsPerSecond: past 70% of it pods are added.
	// Default: 200.
	//
	// +kubebuilder:default=200
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	TargetRequestsPerSecond *int32 `json:"targetRequestsPerSecond,omitempty"`

	// targetCPUPercent is how much of their requested CPU the pods should use, if
	// metric is CPU. Default: 80.
	//
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	TargetCPUPercent *int32 `json:"targetCPUPercent,omitempty"`

	// idleTime is for how long nobody may have asked before the last pod goes,
	// if minReplicas is 0. From 1s to 24h. Default: 1m. Example: 10m.
	//
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	IdleTime *metav1.Duration `json:"idleTime,omitempty"`

	// stabilizationTime is what load is averaged over, and for how long fewer
	// pods must have been enough before some go. Ten times that fast, pods are
	// added when load doubles. From 1s to 1h. Default: 1m. Example: 5m.
	//
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
	// +kubebuilder:validation:MaxLength=32
	// +optional
	StabilizationTime *metav1.Duration `json:"stabilizationTime,omitempty"`
}

// ModelServiceStatus is how a ModelService does.
type ModelServiceStatus struct {
	// observedGeneration is the metadata.generation that this status speaks of.
	//
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// conditions: Ready is true when the URL answers predictions, or would after
	// a pod was started for the request;
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

	// source is the address where model was found, if spec.model names one.
	//
	// +optional
	Source *SourceStatus `json:"source,omitempty"`

	// versions tells which pods hold which model, while there are pods.
	//
	// +listType=map
	// +listMapKey=version
	// +optional
	Versions []VersionStatus `json:"versions,omitempty"`

	// replicas counts pods.
	//
	// +optional
	Replicas *ReplicaStatus `json:"replicas,omitempty"`

	// gateway is where the gateway's pods listen for this service while it has
	// no pods of its own.
	//
	// +optional
	Gateway *GatewayPorts `json:"gateway,omitempty"`

	// coldStart is how the last start from no pods went.
	//
	// +optional
	ColdStart *ColdStart `json:"coldStart,omitempty"`
}

// SourceStatus is an address where a model was found.
type SourceStatus struct {
	// name of the address. Example: s3://models/iris.onnx at minio.storage:9000.
	//
	// +required
	Name string `json:"name"`

	// found is when the model was first seen there.
	//
	// +required
	Found metav1.Time `json:"found"`

	// fingerprint tells whether spec.model still asks for this address in the same
	// way.
	//
	// +required
	Fingerprint string `json:"fingerprint"`
}

// VersionStatus is a model and those who have it.
type VersionStatus struct {
	// version is the short form of the model's digest.
	//
	// +required
	Version string `json:"version"`

	// pods is how many ready pods answer with it.
	//
	// +required
	Pods int32 `json:"pods"`
}

// GatewayPorts are the ports that the gateway's pods have for one service.
type GatewayPorts struct {
	// http is for V1 and V2 over REST.
	//
	// +required
	HTTP int32 `json:"http"`

	// grpc is for V2 over gRPC.
	//
	// +required
	GRPC int32 `json:"grpc"`
}

// ColdStart is one start of a service from no pods.
type ColdStart struct {
	// time is when the first pod answered.
	//
	// +required
	Time metav1.Time `json:"time"`

	// took is how long that was after the request that started it. Example:
	// 1.243s.
	//
	// +kubebuilder:validation:Type=string
	// +required
	Took metav1.Duration `json:"took"`
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

	// reason is why the last decision was for that many, in one word: Minimum,
	// Load, Burst, Maximum, Idle, Kept, Woken, CPU or Stopped.
	//
	// +optional
	Reason string `json:"reason,omitempty"`

	// message says the reason with the load that led to it.
	//
	// +optional
	Message string `json:"message,omitempty"`

	// decided is when the number last changed.
	//
	// +optional
	Decided *metav1.Time `json:"decided,omitempty"`
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
	// ReasonModelNotGoodEnough: models are there, and none meets spec.model's
	// requirement.
	ReasonModelNotGoodEnough = "ModelNotGoodEnough"
	// ReasonLooking: the pod that looks at an address for a model has not told of
	// one yet.
	ReasonLooking = "Looking"
	// ReasonFollowerFailing: the pod that looks at an address for models can't
	// start or doesn't stay up.
	ReasonFollowerFailing = "FollowerFailing"
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
	// ReasonAsleep: there is no pod, and the next request starts one.
	ReasonAsleep = "Asleep"
	// ReasonStopped: the spec parks the service.
	ReasonStopped = "Stopped"
	// ReasonGatewayMissing: there is no pod, and no gateway that would start one.
	ReasonGatewayMissing = "GatewayMissing"
	// ReasonAPIServerFailing: the API server can't make an object that the service
	// needs, as when no address is left for a Service.
	ReasonAPIServerFailing = "APIServerFailing"
	// ReasonPortsExhausted: the gateway has no ports left.
	ReasonPortsExhausted = "PortsExhausted"
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
