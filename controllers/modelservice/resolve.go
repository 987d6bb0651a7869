package modelservice

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// resolution is the model to serve, or why there is none.
type resolution struct {
	model *v1alpha1.PublishedModel
	// reason and message say what the service waits for. They can be set
	// beside a model: the one that was served before goes on being served.
	reason, message string
}

// resolve tells which model to serve. training is the TrainingJob that the
// spec names, nil if there is none; before is what was served until now.
func resolve(service *v1alpha1.ModelService, training *v1alpha1.TrainingJob) resolution {
	name := service.Spec.Model.TrainingJob.Name
	before := service.Status.Model
	switch {
	case training == nil:
		return resolution{before, v1alpha1.ReasonTrainingJobMissing, fmt.Sprintf(
			"there is no TrainingJob %s/%s, which spec.model names; the service waits for it", service.Namespace, name)}
	case training.Status.Model != nil:
		return resolution{model: training.Status.Model}
	case meta.IsStatusConditionTrue(training.Status.Conditions, v1alpha1.TrainingJobFailed):
		failed := meta.FindStatusCondition(training.Status.Conditions, v1alpha1.TrainingJobFailed)
		return resolution{before, v1alpha1.ReasonTrainingJobFailed, fmt.Sprintf(
			"TrainingJob %s failed, so there is no model to serve: %s", name, failed.Message)}
	}
	return resolution{before, v1alpha1.ReasonTrainingJobRunning, fmt.Sprintf(
		"waiting for the model of TrainingJob %s, which is %s", name, stateOf(training))}
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
func servedModel(service *v1alpha1.ModelService, model *v1alpha1.PublishedModel, plainHTTP bool) spec.ServedModel {
	return spec.ServedModel{
		Name:       service.Name,
		Repository: spec.Repository{Name: repositoryOf(model.Reference), PlainHTTP: plainHTTP},
		Digest:     model.Digest,
	}
}

// repositoryOf is a reference without its tag. A port's colon stands before
// the last slash, a tag's after it.
func repositoryOf(reference string) string {
	if colon := strings.LastIndex(reference, ":"); colon > strings.LastIndex(reference, "/") {
		return reference[:colon]
	}
	return reference
}
