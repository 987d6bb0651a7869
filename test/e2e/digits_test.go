package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/api/v1alpha1"
)

const samples = "../../config/samples"

// sampleJob is config/samples/trainingjob.yaml under another name.
func sampleJob(t *testing.T, namespace, name string) *v1alpha1.TrainingJob {
	t.Helper()
	job := &v1alpha1.TrainingJob{}
	readYAML(t, "trainingjob.yaml", job)
	job.Namespace, job.Name = namespace, name
	return job
}

func sampleService(t *testing.T, namespace string) *v1alpha1.ModelService {
	t.Helper()
	service := &v1alpha1.ModelService{}
	readYAML(t, "modelservice.yaml", service)
	service.Namespace = namespace
	return service
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(samples, file))
	if err == nil {
		err = yaml.UnmarshalStrict(content, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// digitsData is the sample's ConfigMap.
func digitsData(t *testing.T, namespace string) *corev1.ConfigMap {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(samples, "digits.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: namespace}, BinaryData: map[string][]byte{"digits.csv.gz": content}}
}

// digitRows are the pixels of the first n images.
func digitRows(t *testing.T, n int) [][]float64 {
	t.Helper()
	file, err := os.Open(filepath.Join(samples, "digits.csv.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	plain, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(plain).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rows := make([][]float64, n)
	for i, record := range records[1 : n+1] {
		for _, cell := range record[:64] {
			value, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			rows[i] = append(rows[i], value)
		}
	}
	return rows
}

// TestDigits is the whole way: samples applied, a model trained and published,
// predictions over the Service that agree with onnxruntime on the pushed
// files, and nothing left behind.
func TestDigits(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	create(t, digitsData(t, namespace))

	job := sampleJob(t, namespace, "digits")
	create(t, job)
	trained := jobReaches(t, job, v1alpha1.TrainingJobComplete, v1alpha1.ReasonPublished, "sha256:", time.Minute)
	t.Logf("TrainingJob: %.1f s from apply to Complete", trained.Seconds())
	if accuracy := job.Status.Metrics["ValidationAccuracy"]; accuracy < 0.95 {
		t.Errorf("validation accuracy is %v, want at least 0.95", accuracy)
	}
	hasEvent(t, job, v1alpha1.ReasonPublished, job.Status.Model.Digest)

	service := sampleService(t, namespace)
	create(t, service)
	rows := digitRows(t, 20)
	var v2 struct {
		ModelVersion string `json:"model_version"`
		Outputs      []struct {
			Name     string
			Datatype string
			Shape    []int
			Data     []float64
		}
	}
	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{20, 64}, "data": flatten(rows)}}}
	answered := eventually(t, "the first prediction", time.Minute, func(ctx context.Context) error {
		return calling.post(ctx, "http://digits/v2/models/digits/infer", request, &v2)
	})
	t.Logf("ModelService: %.1f s from apply to the first answered prediction", answered.Seconds())
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 10*time.Second)
	if v2.ModelVersion != job.Status.Model.ShortDigest {
		t.Errorf("version %s answered, want %s", v2.ModelVersion, job.Status.Model.ShortDigest)
	}

	var v1 struct{ Predictions [][]float64 }
	if err := calling.post(t.Context(), "http://digits/v1/models/digits:predict", map[string]any{"instances": rows}, &v1); err != nil {
		t.Fatal(err)
	}

	directory := pull(t, job)
	want := flatten(onnxAnswers(t, directory, rows))
	compare(t, "V2", v2.Outputs[0].Data, want)
	compare(t, "V1", flatten(v1.Predictions), want)
	t.Logf("%s", kubectl(t, "get", "trainingjobs,modelservices", "--namespace", namespace))

	remove(t, service)
	remove(t, job)
	for _, list := range []client.ObjectList{&batchv1.JobList{}, &appsv1.DeploymentList{}, &corev1.ServiceList{}, &corev1.ConfigMapList{}, &corev1.PodList{}} {
		eventually(t, fmt.Sprintf("%T to be empty after both resources were deleted", list), 2*time.Minute, func(ctx context.Context) error {
			if err := cluster.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{"app.kubernetes.io/managed-by": v1alpha1.FieldOwner}); err != nil {
				return err
			}
			if left := meta.LenList(list); left > 0 {
				return fmt.Errorf("%d are left", left)
			}
			return nil
		})
	}
}

// TestSameSeedGivesSameWeights trains twice and compares the files.
func TestSameSeedGivesSameWeights(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	create(t, digitsData(t, namespace))
	var weights [][]byte
	for _, name := range []string{"one", "two"} {
		job := sampleJob(t, namespace, name)
		create(t, job)
		jobReaches(t, job, v1alpha1.TrainingJobComplete, "", "", time.Minute)
		content, err := os.ReadFile(filepath.Join(pull(t, job), "model.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		weights = append(weights, content)
	}
	if !bytes.Equal(weights[0], weights[1]) {
		t.Error("the same seed gave other weights")
	}
}

// pull reads a published model from the registry, which is in the cluster.
func pull(t *testing.T, job *v1alpha1.TrainingJob) string {
	t.Helper()
	directory := filepath.Join(t.TempDir(), "model")
	if err := orasPull(t, job.Status.Model.Reference, job.Namespace, directory); err != nil {
		t.Fatal(err)
	}
	return directory
}

// reachable turns the name of a Service into its address.
func reachable(t *testing.T, host string) string {
	t.Helper()
	address, err := addressOf(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// addressOf is the address of a Service by its name: the cluster's names mean
// nothing outside of it.
func addressOf(ctx context.Context, host string) (string, error) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return "", err
	}
	parts := strings.Split(name, ".")
	var service corev1.Service
	if err := cluster.Get(ctx, client.ObjectKey{Namespace: parts[1], Name: parts[0]}, &service); err != nil {
		return "", err
	}
	return net.JoinHostPort(service.Spec.ClusterIP, port), nil
}

// onnxAnswers are onnxruntime's answers to the rows.
func onnxAnswers(t *testing.T, directory string, rows [][]float64) [][]float64 {
	t.Helper()
	python := os.Getenv("TRAINYARD_PYTHON")
	if python == "" {
		t.Fatal("TRAINYARD_PYTHON is not set to a Python that has onnxruntime: run make test-e2e")
	}
	input, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), python, "onnx_predict.py", filepath.Join(directory, "model.onnx"))
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		t.Fatalf("onnxruntime: %v", err)
	}
	var answers [][]float64
	if err := json.Unmarshal(output, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

func compare(t *testing.T, protocol string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d numbers, onnxruntime has %d", protocol, len(got), len(want))
	}
	worst := 0.0
	for i := range got {
		worst = max(worst, math.Abs(got[i]-want[i]))
	}
	if worst > 1e-5 {
		t.Errorf("%s: an answer is %g off onnxruntime's", protocol, worst)
	}
	t.Logf("%s: %d numbers, at most %.2g off onnxruntime's", protocol, len(got), worst)
}

func flatten(rows [][]float64) []float64 {
	var flat []float64
	for _, row := range rows {
		flat = append(flat, row...)
	}
	return flat
}
