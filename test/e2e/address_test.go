package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
	"trainyard.dev/trainyard/test/outside"
)

// Models that others exported. All take four inputs; the first two give three
// outputs, the third two.
const (
	ofKeras     = "keras-relu-softmax"
	ofTorch     = "torchscript-relu-softmax"
	twoOutputs  = "torchscript-double"
	convolution = "torchscript-unsupported-convolution"
)

func exportedFile(t *testing.T, name, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../runtime/model/testdata/exported", name, file))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func exported(t *testing.T, name string) []byte { return exportedFile(t, name, "model.onnx") }

// nodeAddress is one at which pods reach this machine.
func nodeAddress(t *testing.T) string {
	t.Helper()
	var nodes corev1.NodeList
	if err := cluster.List(t.Context(), &nodes); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes.Items {
		for _, address := range node.Status.Addresses {
			if address.Type == corev1.NodeInternalIP {
				return address.Address
			}
		}
	}
	t.Fatal("no node has an address")
	return ""
}

// irisService looks at its address every second.
func irisService(namespace string, source v1alpha1.ModelSource) *v1alpha1.ModelService {
	source.PollInterval = &metav1.Duration{Duration: time.Second}
	return &v1alpha1.ModelService{
		ObjectMeta: metav1.ObjectMeta{Name: "iris", Namespace: namespace},
		Spec:       v1alpha1.ModelServiceSpec{Model: source},
	}
}

func createSecret(t *testing.T, namespace, name string, kind corev1.SecretType, data map[string][]byte) *spec.SecretName {
	t.Helper()
	create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Type: kind, Data: data})
	return &spec.SecretName{Name: name}
}

func progressReaches(t *testing.T, service *v1alpha1.ModelService, reason, message string, limit time.Duration) {
	t.Helper()
	reaches(t, service, func() []metav1.Condition { return service.Status.Conditions },
		metav1.Condition{Type: v1alpha1.ModelServiceProgressing, Status: metav1.ConditionFalse, Reason: reason, Message: message}, limit)
}

// servesAs waits until the service answers as the framework answered that
// exported a model, and returns the digest.
func servesAs(t *testing.T, calling caller, service *v1alpha1.ModelService, name string) string {
	t.Helper()
	var expected struct{ Inputs, Outputs [][]float64 }
	if err := json.Unmarshal(exportedFile(t, name, "expected.json"), &expected); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, "the service to answer as "+name, time.Minute, func(ctx context.Context) error {
		var answer struct{ Predictions [][]float64 }
		if err := calling.post(ctx, "http://iris/v1/models/iris:predict", map[string]any{"instances": expected.Inputs}, &answer); err != nil {
			return err
		}
		for i, row := range expected.Outputs {
			for k, want := range row {
				if len(answer.Predictions) != len(expected.Outputs) || len(answer.Predictions[i]) != len(row) || math.Abs(answer.Predictions[i][k]-want) > 1e-5 {
					return fmt.Errorf("answered %v, want %v", answer.Predictions, expected.Outputs)
				}
			}
		}
		return nil
	})
	progressReaches(t, service, v1alpha1.ReasonStable, "", 30*time.Second)
	t.Logf("answers as %s after %.1f s: %s from %s", name, took.Seconds(), service.Status.Model.Reference, service.Status.Source.Name)
	return service.Status.Model.Digest
}

// irisRequest is asked again and again while models change.
func irisRequest() map[string]any {
	return map[string]any{"instances": [][]float64{{5.1, 3.5, 1.4, 0.2}}}
}

// TestModelFromBucket serves an ONNX file of a bucket, takes another one inside
// the same pod while a client asks without a pause, and refuses what can't be
// served.
func TestModelFromBucket(t *testing.T) {
	t.Parallel()
	buckets, namespace := outside.StartBuckets(t, nodeAddress(t)), newNamespace(t)
	calling := newCaller(t, namespace)
	buckets.Put(t, "iris.onnx", exported(t, ofKeras))
	service := irisService(namespace, v1alpha1.ModelSource{S3: &spec.S3Source{
		Bucket: "data", Key: "iris.onnx", Endpoint: buckets.Endpoint, PlainHTTP: true, CredentialsSecret: &spec.SecretName{Name: "keys"}}})
	create(t, service)
	serviceReaches(t, service, metav1.ConditionFalse, spec.ReasonSourceRefused, "Secret keys, which credentialsSecret names, has to be there", time.Minute)
	hasEvent(t, service, spec.ReasonSourceRefused, "Secret keys")
	// The kubelet looks for a Secret that was missing when it next looks at the
	// pod, which can take more than a minute.
	createSecret(t, namespace, "keys", corev1.SecretTypeOpaque, map[string][]byte{
		spec.AccessKeyKey: []byte(outside.AccessKey), spec.SecretKeyKey: []byte(outside.SecretKey)})
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", 4*time.Minute)
	first := servesAs(t, calling, service, ofKeras)

	before := uidsOf(t, service)
	asking, err := calling.keepAsking(t.Context(), 2, "http://iris/v1/models/iris:predict", irisRequest())
	if err != nil {
		t.Fatal(err)
	}
	buckets.Put(t, "iris.onnx", exported(t, ofTorch))
	second := servesAs(t, calling, service, ofTorch)
	for _, bad := range []struct {
		file            []byte
		reason, message string
	}{
		{exported(t, twoOutputs), spec.ReasonContractBroken, "it gives 2 outputs, not 3"},
		{exported(t, convolution), spec.ReasonModelInvalid, "(Conv): this operator is not supported"},
		{[]byte("<html>moved</html>"), spec.ReasonModelInvalid, "it is not an ONNX model"},
	} {
		buckets.Put(t, "iris.onnx", bad.file)
		progressReaches(t, service, bad.reason, bad.message, time.Minute)
		hasEvent(t, service, bad.reason, bad.message)
	}
	buckets.Remove(t, "iris.onnx")
	progressReaches(t, service, spec.ReasonSourceRefused, `there is no object "iris.onnx" in the bucket`, time.Minute)
	if service.Status.Model.Digest != second {
		t.Errorf("serves %s, want still %s", service.Status.Model.Digest, second)
	}
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Second)
	pin(t, service, first)
	servesDigest(t, calling, first)
	noneFailed(t, asking)
	if after := uidsOf(t, service); len(before) != 1 || len(after) != 1 || before[0] != after[0] {
		t.Errorf("there were pods %v and there are %v: a model came with another pod", before, after)
	}
	t.Logf("%s", kubectl(t, "get", "modelservices,pods", "--namespace", namespace))
}

func uidsOf(t *testing.T, service *v1alpha1.ModelService) []types.UID {
	t.Helper()
	var uids []types.UID
	for _, pod := range podsOf(t, modelServicePods(service), service.Namespace) {
		uids = append(uids, pod.UID)
	}
	return uids
}

func pin(t *testing.T, service *v1alpha1.ModelService, digest string) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec": {"model": {"digest": %q}}}`, digest))
	if err := cluster.Patch(t.Context(), service, patch); err != nil {
		t.Fatal(err)
	}
}

func servesDigest(t *testing.T, calling caller, digest string) {
	t.Helper()
	request := map[string]any{"inputs": []any{map[string]any{"name": "inputs", "datatype": "FP32", "shape": []int{1, 4}, "data": irisRequest()["instances"]}}}
	eventually(t, "the service to answer with "+digest, 30*time.Second, func(ctx context.Context) error {
		var answer struct {
			ModelVersion string `json:"model_version"`
		}
		if err := calling.post(ctx, "http://iris/v2/models/iris/infer", request, &answer); err != nil {
			return err
		}
		if want := (spec.ServedModel{Digest: digest}).Version(); answer.ModelVersion != want {
			return fmt.Errorf("version %s answered, want %s", answer.ModelVersion, want)
		}
		return nil
	})
}

// TestModelFromWeb serves an ONNX file of a web server that has a certificate of
// its own authority and asks for a token. While the file stays, it is sent once.
func TestModelFromWeb(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	web := startWeb(t, nodeAddress(t))
	web.put(exported(t, ofKeras))
	secret := createSecret(t, namespace, "web", corev1.SecretTypeOpaque, map[string][]byte{spec.TokenKey: []byte("t0ken"), spec.AuthorityKey: web.authority})
	service := irisService(namespace, v1alpha1.ModelSource{HTTPS: &spec.HTTPSSource{URL: web.url + "/iris.onnx?signature=hidden", CredentialsSecret: secret}})
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	servesAs(t, calling, service, ofKeras)
	eventually(t, "the follower to have asked ten times", time.Minute, func(context.Context) error {
		if asked, sent := web.counts(); asked < 10 || sent != 1 {
			return fmt.Errorf("it asked %d times, and the file was sent %d times", asked, sent)
		}
		return nil
	})
	web.put(exported(t, ofTorch))
	servesAs(t, calling, service, ofTorch)
	asked, sent := web.counts()
	t.Logf("asked %d times, the file was sent %d times", asked, sent)
	if sent != 2 {
		t.Errorf("two files were sent %d times", sent)
	}
	web.put(nil)
	progressReaches(t, service, spec.ReasonSourceRefused, "there is no such file on the server (404 Not Found); check the url", time.Minute)
}

// webFile is a web server with one file.
type webFile struct {
	url       string
	authority []byte

	mutex       sync.Mutex
	content     []byte
	version     int
	asked, sent int
}

func (w *webFile) put(content []byte) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.content = content
	w.version++
}

func (w *webFile) counts() (asked, sent int) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.asked, w.sent
}

func (w *webFile) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	tag := fmt.Sprintf(`"v%d"`, w.version)
	switch {
	case request.Header.Get("Authorization") != "Bearer t0ken":
		http.Error(answer, "who are you?", http.StatusUnauthorized)
		return
	case w.content == nil:
		http.NotFound(answer, request)
		return
	}
	w.asked++
	if request.Header.Get("If-None-Match") != tag {
		w.sent++
	}
	answer.Header().Set("ETag", tag)
	http.ServeContent(answer, request, "", time.Time{}, bytes.NewReader(w.content))
}

func startWeb(t *testing.T, host string) *webFile {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	web := &webFile{authority: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: web, ErrorLog: log.New(io.Discard, "", 0)},
		TLS: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	web.url = server.URL
	return web
}

// TestModelFromClaim serves an ONNX file of a volume from zero, and takes the one
// that another pod puts in its place.
func TestModelFromClaim(t *testing.T) {
	t.Parallel()
	namespace := newNamespace(t)
	calling := newCaller(t, namespace)
	service := irisService(namespace, v1alpha1.ModelSource{PersistentVolumeClaim: &spec.ClaimReference{ClaimName: "models", Path: "production/iris.onnx"}})
	// The time of stabilization counts too: no service goes to zero before it is as
	// old as that.
	service.Spec.Autoscaling = v1alpha1.Autoscaling{MinReplicas: new(int32(0)),
		IdleTime: &metav1.Duration{Duration: 2 * time.Second}, StabilizationTime: &metav1.Duration{Duration: 2 * time.Second}}
	create(t, service)
	serviceReaches(t, service, metav1.ConditionFalse, v1alpha1.ReasonFollowerFailing, `persistentvolumeclaim "models" not found`, time.Minute)
	writeClaim(t, namespace, "models", "busybox mkdir -p /data/production")
	serviceReaches(t, service, metav1.ConditionFalse, spec.ReasonSourceRefused, "PersistentVolumeClaim "+namespace+"/models, path production/iris.onnx: there is no such file", 2*time.Minute)
	write := func(name string) {
		writeVolume(t, namespace, "models", fmt.Sprintf("echo %s | busybox base64 -d > /data/production/new && busybox mv /data/production/new /data/production/iris.onnx",
			base64.StdEncoding.EncodeToString(exported(t, name))))
	}
	write(ofKeras)
	servesAs(t, calling, service, ofKeras)
	wantsNone(t, service)
	write(ofTorch)
	servesAs(t, calling, service, ofTorch)
}

// TestModelFromRegistry follows a tag of a registry that asks for a password,
// which moves while clients ask two pods without a pause.
func TestModelFromRegistry(t *testing.T) {
	t.Parallel()
	registry, namespace := outside.StartRegistry(t, nodeAddress(t)), newNamespace(t)
	calling := newCaller(t, namespace)
	config := outside.DockerConfig(registry, outside.SecretKey)
	file := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	repository := spec.Repository{Name: registry + "/team/iris", PlainHTTP: true, CredentialsFile: file}
	point := func(name string) string {
		digest := pushExported(t, repository, name)
		if err := outside.Tag(t.Context(), repository.Name, digest, "production"); err != nil {
			t.Fatal(err)
		}
		return digest
	}
	first := point(ofKeras)
	secret := createSecret(t, namespace, "registry", corev1.SecretTypeDockerConfigJson, map[string][]byte{corev1.DockerConfigJsonKey: config})
	service := irisService(namespace, v1alpha1.ModelSource{OCI: &v1alpha1.OCISource{Reference: repository.Name + ":production", CredentialsSecret: secret, PlainHTTP: true}})
	service.Spec.Autoscaling.MinReplicas = new(int32(2))
	create(t, service)
	serviceReaches(t, service, metav1.ConditionTrue, v1alpha1.ReasonServing, "", time.Minute)
	if got := servesAs(t, calling, service, ofKeras); got != first {
		t.Errorf("serves %s, want %s", got, first)
	}
	before := uidsOf(t, service)
	asking, err := calling.keepAsking(t.Context(), 2, "http://iris/v1/models/iris:predict", irisRequest())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{ofTorch, ofKeras, ofTorch} {
		digest := point(name)
		took := eventually(t, "both pods to have "+digest, time.Minute, func(ctx context.Context) error {
			if err := cluster.Get(ctx, client.ObjectKeyFromObject(service), service); err != nil {
				return err
			}
			if versions := service.Status.Versions; len(versions) != 1 || versions[0].Version != (spec.ServedModel{Digest: digest}).Version() || versions[0].Pods != 2 {
				return fmt.Errorf("they have %+v", versions)
			}
			return nil
		})
		t.Logf("both pods have the tag's new model after %.1f s", took.Seconds())
	}
	point(twoOutputs)
	progressReaches(t, service, spec.ReasonContractBroken, "it gives 2 outputs, not 3", time.Minute)
	noneFailed(t, asking)
	slices.Sort(before)
	if after := slices.Sorted(slices.Values(uidsOf(t, service))); len(before) != 2 || !slices.Equal(before, after) {
		t.Errorf("there were pods %v and there are %v", before, after)
	}
	t.Logf("%s", kubectl(t, "get", "modelservices,pods", "--namespace", namespace))
}

func pushExported(t *testing.T, repository spec.Repository, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), exported(t, name), 0o600); err != nil {
		t.Fatal(err)
	}
	pushed, err := store.Push(t.Context(), repository, dir)
	if err != nil {
		t.Fatal(err)
	}
	return pushed.Digest
}
