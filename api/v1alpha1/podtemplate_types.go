package v1alpha1

import corev1 "k8s.io/api/core/v1"

// PodTemplate is what a user adds to the pods that the operator makes. What the
// operator sets itself wins: its labels, and its environment variables.
type PodTemplate struct {
	// labels that the pods have beside the operator's. Example: {team: vision}.
	//
	// +optional
	Labels map[string]string `json:"labels,omitempty"`

	// annotations of the pods. Example: {sidecar.istio.io/inject: "false"}.
	//
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`

	// nodeSelector names labels that a node must have to run the pods. Example:
	// {disktype: ssd}.
	//
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// tolerations let the pods run on nodes with matching taints. Example: [{key:
	// training, operator: Exists}].
	//
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// affinity says near what, and far from what, the pods should run. It is the
	// affinity of a pod: see kubectl explain pod.spec.affinity. The API server
	// checks it when the pods are asked for.
	//
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:validation:Type=object
	// +kubebuilder:pruning:PreserveUnknownFields
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// priorityClassName is the PriorityClass of the pods. Example: batch.
	//
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// serviceAccountName is the ServiceAccount of the pods. They need none, and
	// are given no token of it; a registry or a cloud may know them by it.
	// Default: default.
	//
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`

	// imagePullSecrets are the Secrets with which the pods' image is pulled.
	// Example: [{name: registry}].
	//
	// +listType=atomic
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`

	// env are environment variables of the pods' container. Example: [{name:
	// HTTPS_PROXY, value: "http://proxy:3128"}].
	//
	// +listType=atomic
	// +optional
	Env []corev1.EnvVar `json:"env,omitempty"`
}
