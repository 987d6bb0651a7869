package modelservice

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// resolution is the model to serve, or why there is none.
type resolution struct {
	model *v1alpha1.PublishedModel
	// reason and message say what the service waits for. They can be set
	// beside a model: the one that was served before goes on being served.
	reason, message string
	// source is the address where model is from; nil: it is from a TrainingJob.
	source *v1alpha1.SourceStatus
}

// resolve tells which model to serve. jobs are the TrainingJobs that the spec
// names or selects, and lookout is what is known of the address that it names;
// what was served until now goes on being served while they have none.
func resolve(service *v1alpha1.ModelService, jobs []v1alpha1.TrainingJob, at *address, l lookout) resolution {
	var found resolution
	repository := ""
	switch selection := service.Spec.Model.TrainingJobs; {
	case at != nil:
		found, repository = resolveAddress(service, at, l), at.what.Repository.Name
	case selection != nil:
		found = resolveNewest(service, selection, jobs)
	default:
		found = resolveNamed(service, jobs)
	}
	if digest := service.Spec.Model.Digest; digest != "" {
		found = pinned(service, digest, found, jobs, repository)
	}
	return underContract(service, found)
}

// underContract keeps a model from clients whose requests it would refuse, or
// whose readers it would mislead, unless the spec says that they know. What isn't
// known of its signature, the servers that run find out.
func underContract(service *v1alpha1.ModelService, found resolution) resolution {
	before, source := service.Status.Model, service.Spec.Model
	if found.model == nil || before == nil || before.Signature == nil || before.Digest == found.model.Digest || source.NewContract {
		return found
	}
	if found.model.Signature == nil {
		found.model = found.model.DeepCopy()
		found.model.Signature = before.Signature
		return found
	}
	err := before.Signature.Admits(found.model.Signature)
	if err == nil {
		return found
	}
	return resolution{model: before, source: service.Status.Source, reason: spec.ReasonContractBroken, message: fmt.Sprintf(
		"model %s is not served, and %s is, as it doesn't fit: %v. If those who call the service know, set spec.model.newContract to true; if not, serve it by another ModelService",
		found.model.Reference, before.ShortDigest, err)}
}

// resolveNamed follows one TrainingJob.
func resolveNamed(service *v1alpha1.ModelService, jobs []v1alpha1.TrainingJob) resolution {
	name := service.Spec.Model.TrainingJob.Name
	before := service.Status.Model
	if len(jobs) == 0 {
		return resolution{model: before, reason: v1alpha1.ReasonTrainingJobMissing, message: fmt.Sprintf(
			"there is no TrainingJob %s/%s, which spec.model names; the service waits for it", service.Namespace, name)}
	}
	training := &jobs[0]
	switch {
	case training.Status.Model != nil:
		return resolution{model: training.Status.Model}
	case meta.IsStatusConditionTrue(training.Status.Conditions, v1alpha1.TrainingJobFailed):
		failed := meta.FindStatusCondition(training.Status.Conditions, v1alpha1.TrainingJobFailed)
		return resolution{model: before, reason: v1alpha1.ReasonTrainingJobFailed, message: fmt.Sprintf(
			"TrainingJob %s failed, so there is no model to serve: %s", name, failed.Message)}
	}
	return resolution{model: before, reason: v1alpha1.ReasonTrainingJobRunning, message: fmt.Sprintf(
		"waiting for the model of TrainingJob %s, which is %s", name, stateOf(training))}
}

// resolveNewest takes the newest model that is good enough.
func resolveNewest(service *v1alpha1.ModelService, selection *v1alpha1.TrainingJobSelection, jobs []v1alpha1.TrainingJob) resolution {
	before, selector := service.Status.Model, metav1.FormatLabelSelector(&selection.Selector)
	published := slices.DeleteFunc(slices.Clone(jobs), func(job v1alpha1.TrainingJob) bool { return job.Status.Model == nil })
	slices.SortFunc(published, newerFirst)
	for i := range published {
		if meets(selection.Require, published[i].Status.Metrics) {
			return resolution{model: published[i].Status.Model}
		}
	}
	switch {
	case len(jobs) == 0:
		return resolution{model: before, reason: v1alpha1.ReasonTrainingJobMissing, message: fmt.Sprintf(
			"there is no TrainingJob in namespace %s with labels %s; the service waits for one", service.Namespace, selector)}
	case len(published) == 0:
		return resolution{model: before, reason: v1alpha1.ReasonTrainingJobRunning, message: fmt.Sprintf(
			"waiting for the first model of the TrainingJobs with labels %s; there are %d", selector, len(jobs))}
	}
	return resolution{model: before, reason: v1alpha1.ReasonModelNotGoodEnough, message: fmt.Sprintf(
		"no model of the TrainingJobs with labels %s is good enough: %s", selector, shortcoming(*selection.Require, &published[0]))}
}

// newerFirst orders TrainingJobs by when they completed. Of the same second,
// the one that was made later is the newer.
func newerFirst(a, b v1alpha1.TrainingJob) int {
	return cmp.Or(
		ptr.Deref(b.Status.CompletionTime, metav1.Time{}).Compare(ptr.Deref(a.Status.CompletionTime, metav1.Time{}).Time),
		b.CreationTimestamp.Compare(a.CreationTimestamp.Time),
		cmp.Compare(b.Name, a.Name))
}

// meets tells whether a model is good enough. One that lacks the metric is not.
func meets(requirement *v1alpha1.MetricRequirement, metrics map[string]float64) bool {
	if requirement == nil {
		return true
	}
	value, measured := metrics[requirement.Metric]
	return measured &&
		(requirement.AtLeast == nil || value >= *requirement.AtLeast) &&
		(requirement.AtMost == nil || value <= *requirement.AtMost)
}

// shortcoming says what the newest model lacks.
func shortcoming(requirement v1alpha1.MetricRequirement, newest *v1alpha1.TrainingJob) string {
	value, measured := newest.Status.Metrics[requirement.Metric]
	if !measured {
		return fmt.Sprintf("the newest, of TrainingJob %s, has no metric %s; it has %s",
			newest.Name, requirement.Metric, strings.Join(slices.Sorted(maps.Keys(newest.Status.Metrics)), ", "))
	}
	wanted := ""
	if requirement.AtLeast != nil {
		wanted = fmt.Sprintf(" at least %g", *requirement.AtLeast)
	}
	if requirement.AtMost != nil {
		wanted += fmt.Sprintf(" at most %g", *requirement.AtMost)
	}
	return fmt.Sprintf("the newest, of TrainingJob %s, has %s %g, and spec.model requires%s", newest.Name, requirement.Metric, value, wanted)
}

// pinned serves one model whatever there is beside it. Where it is in the
// registry is told by the address, by the job that published it, by what was
// served before, or, as each job has a repository, by the model that would be
// served otherwise.
func pinned(service *v1alpha1.ModelService, digest string, found resolution, jobs []v1alpha1.TrainingJob, repository string) resolution {
	known := []*v1alpha1.PublishedModel{found.model, service.Status.Model}
	for i := range jobs {
		known = append(known, jobs[i].Status.Model)
	}
	for _, model := range known {
		if model == nil {
			continue
		}
		if model.Digest == digest {
			return resolution{model: model}
		}
		repository = cmp.Or(repository, repositoryOf(model.Reference))
	}
	if repository == "" {
		return found
	}
	short := strings.TrimPrefix(digest, "sha256:")[:12]
	return resolution{model: &v1alpha1.PublishedModel{Reference: repository + ":" + short, Digest: digest, ShortDigest: short}}
}

func stateOf(training *v1alpha1.TrainingJob) string {
	state := training.Status.State
	if state == "" {
		state = v1alpha1.StatePending
	}
	if condition := meta.FindStatusCondition(training.Status.Conditions, v1alpha1.TrainingJobProgressing); condition != nil && state != v1alpha1.StateTraining {
		return state + ": " + condition.Message
	}
	return state
}

// servedModel is the model as a server is told of it.
func servedModel(service *v1alpha1.ModelService, model *v1alpha1.PublishedModel, registry spec.Repository) spec.ServedModel {
	return spec.ServedModel{
		Name:        service.Name,
		Repository:  reached(service.Spec.Model.OCI, repositoryOf(model.Reference), registry),
		Digest:      model.Digest,
		NewContract: service.Spec.Model.NewContract,
	}
}

// repositoryOf is a reference without its tag and its digest. A port's colon
// stands before the last slash, a tag's after it.
func repositoryOf(reference string) string {
	reference, _, _ = strings.Cut(reference, "@")
	if colon := strings.LastIndex(reference, ":"); colon > strings.LastIndex(reference, "/") {
		return reference[:colon]
	}
	return reference
}
