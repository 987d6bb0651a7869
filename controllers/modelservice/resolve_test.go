package modelservice

import (
	"reflect"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// trained is a TrainingJob that published a model at some minute.
func trained(name, digit string, minute int, accuracy float64) v1alpha1.TrainingJob {
	at := metav1.NewTime(time.Unix(int64(60*minute), 0))
	return v1alpha1.TrainingJob{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     v1alpha1.TrainingJobStatus{Model: published(digit), CompletionTime: &at, Metrics: map[string]float64{"ValidationAccuracy": accuracy}},
	}
}

func TestResolve(t *testing.T) {
	named := v1alpha1.ModelSource{TrainingJob: &v1alpha1.TrainingJobReference{Name: "training"}}
	newest := v1alpha1.ModelSource{TrainingJobs: &v1alpha1.TrainingJobSelection{Selector: metav1.LabelSelector{MatchLabels: map[string]string{"model": "iris"}}}}
	good := newest
	good.TrainingJobs = newest.TrainingJobs.DeepCopy()
	good.TrainingJobs.Require = &v1alpha1.MetricRequirement{Metric: "ValidationAccuracy", AtLeast: new(0.95)}
	low := *good.DeepCopy()
	low.TrainingJobs.Require = &v1alpha1.MetricRequirement{Metric: "ValidationLoss", AtMost: new(0.1)}
	at := func(source v1alpha1.ModelSource, digit string) v1alpha1.ModelSource {
		source.Digest = published(digit).Digest
		return source
	}
	running := v1alpha1.TrainingJob{ObjectMeta: metav1.ObjectMeta{Name: "running"}}
	for _, test := range []struct {
		name            string
		source          v1alpha1.ModelSource
		before          string
		jobs            []v1alpha1.TrainingJob
		model           string
		reason, message string
	}{
		{"one, by name", named, "", []v1alpha1.TrainingJob{trained("training", "a", 1, 0.9)}, "a", "", ""},
		{"none of that name", named, "b", nil, "b", v1alpha1.ReasonTrainingJobMissing, "there is no TrainingJob ns/training"},
		{"the newest wins", newest, "", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.9), trained("y", "b", 3, 0.8), trained("z", "c", 2, 0.9)}, "b", "", ""},
		{"a run under way changes nothing", newest, "a", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.9), running}, "a", "", ""},
		{"the newest that is good enough", good, "", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.97), trained("y", "b", 3, 0.9)}, "a", "", ""},
		{"none is good enough", good, "c", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.91), trained("y", "b", 3, 0.9)}, "c", v1alpha1.ReasonModelNotGoodEnough, "of TrainingJob y, has ValidationAccuracy 0.9, and spec.model requires at least 0.95"},
		{"none has the metric", low, "", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.91)}, "", v1alpha1.ReasonModelNotGoodEnough, "has no metric ValidationLoss; it has ValidationAccuracy"},
		{"none is selected", newest, "", nil, "", v1alpha1.ReasonTrainingJobMissing, "with labels model=iris"},
		{"none has published", newest, "", []v1alpha1.TrainingJob{running}, "", v1alpha1.ReasonTrainingJobRunning, "waiting for the first model"},
		{"pinned to one of several", at(newest, "a"), "", []v1alpha1.TrainingJob{trained("x", "a", 1, 0.9), trained("y", "b", 3, 0.9)}, "a", "", ""},
		{"pinned to what is served", at(named, "a"), "a", nil, "a", "", ""},
		{"pinned to one whose job is gone", at(named, "c"), "a", []v1alpha1.TrainingJob{trained("training", "b", 1, 0.9)}, "c", "", ""},
		{"pinned, and nothing is known", at(named, "c"), "", nil, "", v1alpha1.ReasonTrainingJobMissing, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			service := &v1alpha1.ModelService{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: "ns"}, Spec: v1alpha1.ModelServiceSpec{Model: test.source}}
			if test.before != "" {
				service.Status.Model = published(test.before)
			}
			got := resolve(service, test.jobs, nil, lookout{})
			want := ""
			if test.model != "" {
				want = published(test.model).Digest
			}
			switch {
			case (got.model == nil) != (want == ""), got.model != nil && got.model.Digest != want:
				t.Errorf("the model is %+v, want %s", got.model, want)
			case got.reason != test.reason || !strings.Contains(got.message, test.message):
				t.Errorf("got %s, %q; want %s, ...%q...", got.reason, got.message, test.reason, test.message)
			case got.model != nil && repositoryOf(got.model.Reference) != "registry:5000/models/ns/digits":
				t.Errorf("it is looked for in %s", got.model.Reference)
			}
		})
	}
}

// TestUnderContract has a model come after another that is served.
func TestUnderContract(t *testing.T) {
	four, five := spec.NewSignature(4, 3, nil, nil), spec.NewSignature(5, 3, nil, nil)
	of := func(digit string, signature *spec.Signature) *v1alpha1.PublishedModel {
		model := published(digit)
		model.Signature = signature
		return model
	}
	for _, test := range []struct {
		name          string
		before, found *v1alpha1.PublishedModel
		newContract   bool
		model         *v1alpha1.PublishedModel
		message       string
	}{
		{"the first", nil, of("a", four), false, of("a", four), ""},
		{"one that fits", of("a", four), of("b", four), false, of("b", four), ""},
		{"one that doesn't", of("a", four), of("b", five), false, of("a", four), "model registry:5000/models/ns/digits:b is not served, and aaaaaaaaaaaa is, as it doesn't fit: it takes 5 inputs, not 4. If those who call the service know, set spec.model.newContract to true"},
		{"clients know", of("a", four), of("b", five), true, of("b", five), ""},
		{"what is served has become known", of("a", nil), of("a", four), false, of("a", four), ""},
		{"what was served isn't known", of("a", nil), of("b", five), false, of("b", five), ""},
		{"what comes isn't known", of("a", four), of("b", nil), false, of("b", four), ""},
		{"what comes isn't known, and clients know", of("a", four), of("b", nil), true, of("b", nil), ""},
		{"nothing comes", of("a", four), nil, false, nil, ""},
	} {
		service := &v1alpha1.ModelService{Status: v1alpha1.ModelServiceStatus{Model: test.before}}
		service.Spec.Model.NewContract = test.newContract
		got := underContract(service, resolution{model: test.found})
		if !reflect.DeepEqual(got.model, test.model) || !strings.HasPrefix(got.message, test.message) || (got.reason == spec.ReasonContractBroken) != (test.message != "") {
			t.Errorf("%s: got %+v, %s, %q", test.name, got.model, got.reason, got.message)
		}
	}
}
