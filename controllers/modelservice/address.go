package modelservice

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// pollInterval is how often to look at an address if the user doesn't say.
const pollInterval = time.Minute

// volumeDirectory is where a follower has the volume of a claim.
const volumeDirectory = "/source"

// address is where spec.model says that models are to be looked for, and what a
// pod needs to look there. Credentials reach it from Secrets through the kubelet:
// the manager may not read Secrets.
type address struct {
	what spec.Follow
	// volume is what the pod mounts at mount; nil: nothing.
	volume *coreapply.VolumeApplyConfiguration
	mount  string
}

// addressOf is the address that spec.model names; nil: it names TrainingJobs.
func addressOf(service *v1alpha1.ModelService, registry spec.Repository) *address {
	source := service.Spec.Model
	registry.Name += "/" + service.Namespace + "/" + service.Name
	a := &address{what: spec.Follow{
		Name: service.Name, Repository: registry, NewContract: source.NewContract,
		EverySeconds: pollIntervalOf(source).Seconds(),
	}}
	switch {
	case source.OCI != nil:
		a.registryTag(source.OCI, registry)
	case source.HTTPS != nil:
		a.what.SourceName, a.what.HTTPS = source.HTTPS.Name(), source.HTTPS
		a.mountSecret(source.HTTPS.CredentialsSecret)
	case source.S3 != nil:
		a.what.SourceName, a.what.S3 = source.S3.Name(), source.S3
		a.mountSecret(source.S3.CredentialsSecret)
	case source.PersistentVolumeClaim != nil:
		claim := source.PersistentVolumeClaim
		a.what.SourceName, a.what.File = claim.Name(service.Namespace), path.Join(volumeDirectory, claim.Path)
		a.mount = volumeDirectory
		a.volume = coreapply.Volume().WithPersistentVolumeClaim(
			coreapply.PersistentVolumeClaimVolumeSource().WithClaimName(claim.ClaimName).WithReadOnly(true))
	default:
		return nil
	}
	return a
}

// pollIntervalOf is zero for what is to be looked at once: what the user says
// so of, and a digest, which never names anything else.
func pollIntervalOf(source v1alpha1.ModelSource) time.Duration {
	switch {
	case source.OCI != nil && strings.Contains(source.OCI.Reference, "@"):
		return 0
	case source.PollInterval != nil:
		return source.PollInterval.Duration
	}
	return pollInterval
}

func (a *address) registryTag(oci *v1alpha1.OCISource, registry spec.Repository) {
	name := repositoryOf(oci.Reference)
	a.what.SourceName, a.what.Repository = oci.Reference, reached(oci, name, registry)
	if _, digest, ok := strings.Cut(oci.Reference, "@"); ok {
		a.what.Tag = digest
		return
	}
	a.what.Tag = strings.TrimPrefix(oci.Reference, name+":")
}

// mountSecret shows a Secret as files. It is optional, so that the pod starts
// without it and says what is missing, and takes it when it comes.
func (a *address) mountSecret(secret *spec.SecretName) {
	if secret == nil {
		return
	}
	a.mount = spec.SourceCredentialsDirectory
	a.volume = coreapply.Volume().WithSecret(coreapply.SecretVolumeSource().WithSecretName(secret.Name).WithOptional(true))
}

// once tells whether the address is looked at only until there is a model.
func (a *address) once() bool { return a.what.EverySeconds == 0 }

// fingerprint changes with everything that the pod is told of the address, but
// for how often to look there.
func (a *address) fingerprint() string {
	what := a.what
	what.EverySeconds = 0
	encoded, err := json.Marshal([]any{what, a.volume})
	if err != nil {
		panic(err) // these are texts and numbers
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:6])
}

// reached tells how a repository is reached: as spec.model says of the one that
// it names, or as the registry that TrainingJobs publish to. What pods show to
// that one is shown to no other.
func reached(oci *v1alpha1.OCISource, name string, registry spec.Repository) spec.Repository {
	same := hostOf(name) == hostOf(registry.Name)
	if !same {
		registry = spec.Repository{}
	}
	registry.Name = name
	switch {
	case oci == nil || repositoryOf(oci.Reference) != name || (same && oci.CredentialsSecret == nil):
		return registry
	case oci.CredentialsSecret == nil:
		return spec.Repository{Name: name, PlainHTTP: oci.PlainHTTP}
	}
	return spec.Repository{Name: name, PlainHTTP: oci.PlainHTTP, CredentialsFile: spec.RegistryCredentialsFile}
}

// hostOf is the host[:port] of a repository.
func hostOf(repository string) string {
	host, _, _ := strings.Cut(repository, "/")
	return host
}

const pullCredentials = "pull-credentials"

// withPullCredentials shows a pod the credentials for the registry of spec.model.
func withPullCredentials(pod *coreapply.PodSpecApplyConfiguration, container *coreapply.ContainerApplyConfiguration, oci *v1alpha1.OCISource) {
	if oci == nil || oci.CredentialsSecret == nil {
		return
	}
	container.WithVolumeMounts(coreapply.VolumeMount().WithName(pullCredentials).WithMountPath(spec.RegistryCredentialsDirectory).WithReadOnly(true))
	pod.WithVolumes(coreapply.Volume().WithName(pullCredentials).WithSecret(coreapply.SecretVolumeSource().
		WithSecretName(oci.CredentialsSecret.Name).
		WithOptional(true).
		WithItems(coreapply.KeyToPath().WithKey(corev1.DockerConfigJsonKey).WithPath(path.Base(spec.RegistryCredentialsFile)))))
}

// resolveAddress tells which of the models that were found at an address to
// serve: the newest that a follower has opened and found fit.
//
//	what is known (first row that fits)          served             said
//	nobody looks, by the user's wish             as before          -, or Stopped if there was none
//	the follower found a model                   that one           -, or why it isn't what is there now
//	it says why it found none                    as before          that
//	it can't run                                 as before          FollowerFailing
//	the model is from there already              as before          -
//	anything else                                as before          Looking
func resolveAddress(service *v1alpha1.ModelService, at *address, l lookout) resolution {
	before := resolution{model: service.Status.Model, source: service.Status.Source}
	told := l.told
	switch {
	case !followerWanted(service, at):
		if before.model == nil {
			before.reason, before.message = v1alpha1.ReasonStopped, "spec.stopped is true; set it to false to start the service"
		}
	case told.Model != nil:
		before.model = v1alpha1.Published(told.Model)
		before.source = foundAt(service, at, told.Model.Digest)
		before.reason, before.message = failed(told.Failure)
	case told.Failure != nil:
		before.reason, before.message = failed(told.Failure)
	case l.trouble != "":
		before.reason, before.message = v1alpha1.ReasonFollowerFailing, l.trouble
	case !isFrom(service, at):
		before.reason, before.message = v1alpha1.ReasonLooking, l.progress
	}
	return before
}

func failed(failure *spec.Failure) (reason, message string) {
	if failure == nil {
		return "", ""
	}
	return failure.Reason, failure.Message
}

// foundAt keeps when the model was first seen, if it is the one of before.
func foundAt(service *v1alpha1.ModelService, at *address, digest string) *v1alpha1.SourceStatus {
	if isFrom(service, at) && service.Status.Model.Digest == digest {
		return service.Status.Source
	}
	return &v1alpha1.SourceStatus{Name: at.what.SourceName, Fingerprint: at.fingerprint()}
}

// isFrom tells whether the model of the status was found at that address.
func isFrom(service *v1alpha1.ModelService, at *address) bool {
	source := service.Status.Source
	return source != nil && service.Status.Model != nil && source.Fingerprint == at.fingerprint()
}

// followerWanted tells whether a pod has to look at the address: not while a
// digest is pinned or the service is stopped, nor again where it is to be looked
// once.
func followerWanted(service *v1alpha1.ModelService, at *address) bool {
	done := at.once() && isFrom(service, at)
	return !service.Spec.Stopped && service.Spec.Model.Digest == "" && !done
}
