package trainingjob

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// source is what a dataset's source means for the pod. Credentials reach it
// from Secrets through the kubelet: the manager may not read Secrets.
type source struct {
	// name is what messages call the source.
	name string
	// location is spec.Train's: a file in the pod, or a URL.
	location string
	// volume holds the file; nil for a source that the trainer fetches.
	volume *corev1.VolumeSource
	// env and envFrom hold the credentials.
	env     []corev1.EnvVar
	envFrom []corev1.EnvFromSource
}

func sourceOf(job *v1alpha1.TrainingJob) source {
	from := job.Spec.Dataset.Source
	switch {
	case from.ConfigMap != nil:
		return configMapSource(job.Namespace, from.ConfigMap)
	case from.Secret != nil:
		return secretSource(job.Namespace, from.Secret)
	case from.PersistentVolumeClaim != nil:
		return claimSource(job.Namespace, from.PersistentVolumeClaim)
	case from.HTTPS != nil:
		return httpsSource(from.HTTPS)
	}
	return s3Source(from.S3)
}

func configMapSource(namespace string, from *spec.KeyReference) source {
	return source{
		name:     fmt.Sprintf("ConfigMap %s/%s, key %s", namespace, from.Name, from.Key),
		location: datasetDirectory + "/" + from.Key,
		volume: &corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: from.Name},
			Items:                []corev1.KeyToPath{{Key: from.Key, Path: from.Key}},
		}},
	}
}

func secretSource(namespace string, from *spec.KeyReference) source {
	return source{
		name:     fmt.Sprintf("Secret %s/%s, key %s", namespace, from.Name, from.Key),
		location: datasetDirectory + "/" + from.Key,
		volume: &corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
			SecretName: from.Name,
			Items:      []corev1.KeyToPath{{Key: from.Key, Path: from.Key}},
		}},
	}
}

// claimSource mounts the whole volume: the kubelet would make a folder of a
// subPath that isn't there. As the volume is read-only, the kubelet doesn't
// hand its files over to the pod's group.
func claimSource(namespace string, from *spec.ClaimReference) source {
	return source{
		name:     from.Name(namespace),
		location: datasetDirectory + "/" + from.Path,
		volume: &corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{
			ClaimName: from.ClaimName,
			ReadOnly:  true,
		}},
	}
}

// httpsSource takes all keys of the Secret: which of them there are says how to
// authenticate. The kubelet reports a Secret that isn't there.
func httpsSource(from *spec.HTTPSSource) source {
	s := source{name: from.Name(), location: from.URL}
	if from.CredentialsSecret != nil {
		s.envFrom = []corev1.EnvFromSource{{
			Prefix:    spec.CredentialPrefix,
			SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: from.CredentialsSecret.Name}},
		}}
	}
	return s
}

func s3Source(from *spec.S3Source) source {
	s := source{name: from.Name(), location: from.Location()}
	if from.CredentialsSecret == nil {
		return s
	}
	for _, key := range []string{spec.AccessKeyKey, spec.SecretKeyKey, spec.AuthorityKey} {
		selector := &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: from.CredentialsSecret.Name}, Key: key}
		if key == spec.AuthorityKey {
			selector.Optional = new(true)
		}
		s.env = append(s.env, corev1.EnvVar{Name: spec.CredentialPrefix + key, ValueFrom: &corev1.EnvVarSource{SecretKeyRef: selector}})
	}
	return s
}

// findObstacle looks for what the run's pod would wait for in vain. What it may
// not read, Secrets, the kubelet tells of once there is a pod.
func (r *Reconciler) findObstacle(ctx context.Context, job *v1alpha1.TrainingJob) (obstacle, error) {
	if claim := job.Spec.Checkpoint.PersistentVolumeClaim; claim != nil {
		found, err := r.findClaim(ctx, job.Namespace, claim.ClaimName, "spec.checkpoint", v1alpha1.ReasonCheckpointClaimMissing)
		if err != nil || found.reason != "" {
			return found, err
		}
	}
	switch from := job.Spec.Dataset.Source; {
	case from.ConfigMap != nil:
		return r.findConfigMap(ctx, job.Namespace, from.ConfigMap)
	case from.PersistentVolumeClaim != nil:
		return r.findClaim(ctx, job.Namespace, from.PersistentVolumeClaim.ClaimName, "spec.dataset.source", v1alpha1.ReasonDatasetMissing)
	}
	return obstacle{}, nil
}

func (r *Reconciler) findConfigMap(ctx context.Context, namespace string, from *spec.KeyReference) (obstacle, error) {
	var configMap corev1.ConfigMap
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: from.Name}, &configMap)
	if apierrors.IsNotFound(err) {
		return obstacle{v1alpha1.ReasonDatasetMissing, fmt.Sprintf(
			"there is no ConfigMap %s/%s, which spec.dataset.source names; the run waits for it. Make it, for example with: kubectl create configmap %s --namespace %s --from-file=%s",
			namespace, from.Name, from.Name, namespace, from.Key)}, nil
	}
	if err != nil {
		return obstacle{}, fmt.Errorf("reading ConfigMap %s: %w", from.Name, err)
	}
	return missingKey(&configMap, from.Key), nil
}

func missingKey(configMap *corev1.ConfigMap, key string) obstacle {
	var keys []string
	for k := range configMap.Data {
		keys = append(keys, k)
	}
	for k := range configMap.BinaryData {
		keys = append(keys, k)
	}
	if slices.Contains(keys, key) {
		return obstacle{}
	}
	slices.Sort(keys)
	has := "it has none"
	if len(keys) > 0 {
		has = "it has " + strings.Join(keys[:min(len(keys), 10)], ", ")
	}
	return obstacle{v1alpha1.ReasonDatasetMissing, fmt.Sprintf(
		"ConfigMap %s/%s has no key %q, which spec.dataset.source names (%s); the run waits for it. Add the key, or apply a TrainingJob that names another",
		configMap.Namespace, configMap.Name, key, has)}
}

// findClaim doesn't wait for a claim to be bound: many are bound only when a
// pod uses them.
func (r *Reconciler) findClaim(ctx context.Context, namespace, name, field, reason string) (obstacle, error) {
	var claim corev1.PersistentVolumeClaim
	err := r.Reader.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &claim)
	switch {
	case apierrors.IsNotFound(err):
		return obstacle{reason, fmt.Sprintf(
			"there is no PersistentVolumeClaim %s/%s, which %s names; the run waits for it. Make it, or apply a TrainingJob that names another",
			namespace, name, field)}, nil
	case err != nil:
		return obstacle{}, fmt.Errorf("reading PersistentVolumeClaim %s: %w", name, err)
	case claim.Status.Phase == corev1.ClaimLost:
		return obstacle{reason, fmt.Sprintf(
			"PersistentVolumeClaim %s/%s, which %s names, has lost its volume %s; the run waits. Restore the volume, or apply a TrainingJob that names another claim",
			namespace, name, field, claim.Spec.VolumeName)}, nil
	}
	return obstacle{}, nil
}
