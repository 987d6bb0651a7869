package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
)

// TestFollowsRetraining trains again under the same name while a client asks
// without a pause: the service takes the new model inside the same pods, and
// every request is answered.
func TestFollowsRetraining(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	create(t, digitsData(t, namespace))
	job := sampleJob(t, namespace, "digits")
	create(t, job)
	service := sampleService(t, namespace)
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	if err := cluster.Get(t.Context(), client.ObjectKeyFromObject(job), job); err != nil {
		t.Fatal(err)
	}
	before := podsOf(t, modelServicePods(service), namespace)

	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{1, 64}, "data": digitRows(t, 1)}}}
	asking, err := calling.keepAsking(t.Context(), 1, "http://digits/v2/models/digits/infer", request)
	if err != nil {
		t.Fatal(err)
	}
	first := job.Status.Model.ShortDigest
	remove(t, job)
	job = sampleJob(t, namespace, "digits")
	job.Spec.Training.Seed = 8
	create(t, job)
	jobReaches(t, job, v1alpha1.TrainingJobComplete, "", "", time.Minute)
	eventually(t, "the service to answer with the new model", 30*time.Second, func(ctx context.Context) error {
		var answer struct {
			ModelVersion string `json:"model_version"`
		}
		if err := calling.post(ctx, "http://digits/v2/models/digits/infer", request, &answer); err != nil {
			return err
		}
		if answer.ModelVersion != job.Status.Model.ShortDigest {
			return fmt.Errorf("version %s answered, want %s; the one before is %s", answer.ModelVersion, job.Status.Model.ShortDigest, first)
		}
		return nil
	})
	noneFailed(t, asking)

	after := podsOf(t, modelServicePods(service), namespace)
	if len(before) != 1 || len(after) != 1 || before[0].UID != after[0].UID {
		t.Errorf("there were %d pods and there are %d: the model came with another pod", len(before), len(after))
	}
}

func modelServicePods(service *v1alpha1.ModelService) client.MatchingLabels {
	return client.MatchingLabels{v1alpha1.ModelServiceLabel: service.Name}
}
