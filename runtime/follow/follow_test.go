package follow

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"trainyard.dev/trainyard/runtime/model"
	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
	"trainyard.dev/trainyard/test/outside"
)

// exported are models that Keras and PyTorch exported: two that take four inputs
// and give three outputs, one that gives two, and one that is no dense network.
const (
	keras       = "keras-relu-softmax"
	torch       = "torchscript-relu-softmax"
	twoOutputs  = "torchscript-double"
	convolution = "torchscript-unsupported-convolution"
)

func exported(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../model/testdata/exported", name, graphFile))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// fiveInputs is the folder of a model that takes five inputs and gives three
// outputs.
func fiveInputs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	network := &nn.Network{Inputs: 5, Layers: []nn.Layer{nn.NewDense(5, 3, nn.Activation{})}}
	if err := model.Write(dir, &model.Model{Network: network}); err != nil {
		t.Fatal(err)
	}
	return dir
}

// place is where a follower looks and publishes.
type place struct {
	t          *testing.T
	repository spec.Repository
	serving    spec.Serve
	secret     string
}

// newPlace has a registry of its own for what is published.
func newPlace(t *testing.T) *place {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return &place{
		t: t, secret: t.TempDir(),
		repository: spec.Repository{Name: strings.TrimPrefix(server.URL, "http://") + "/models/ns/iris", PlainHTTP: true},
	}
}

func (p *place) write(key, value string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.secret, key), []byte(value), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) follower(what spec.Follow) *Follower {
	what.Name = "iris"
	if what.Repository.Name == "" {
		what.Repository = p.repository
	}
	return New(what, Options{
		Directory: p.t.TempDir(), CredentialsDirectory: p.secret, Log: slog.New(slog.DiscardHandler),
		Serving: func() (spec.Serve, error) { return p.serving, nil },
	})
}

// looks has the follower look once, and expects a model, and a failure of that
// reason that says that; "" is none.
func (p *place) looks(f *Follower, digest, reason, message string) spec.Followed {
	p.t.Helper()
	_ = f.look(p.t.Context()) // the report says it
	report := f.Report()
	found, failure := "", spec.Failure{}
	if report.Model != nil {
		found = report.Model.Digest
	}
	if report.Failure != nil {
		failure = *report.Failure
	}
	if (digest != "any" && found != digest) || (digest == "any" && found == "") || failure.Reason != reason || !strings.Contains(failure.Message, message) {
		p.t.Fatalf("got model %q, %s: %q; want %q, %s: ...%q...", found, failure.Reason, failure.Message, digest, reason, message)
	}
	if report.Activity != "" {
		p.t.Errorf("it still %s", report.Activity)
	}
	return report
}

// pulls expects that the digest is a model whose graph is that file.
func (p *place) pulls(digest string, file []byte) {
	p.t.Helper()
	dir := filepath.Join(p.t.TempDir(), "model")
	if err := store.Pull(p.t.Context(), p.repository, digest, dir); err != nil {
		p.t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, graphFile))
	if err != nil || string(got) != string(file) {
		p.t.Errorf("the model's graph has %d bytes, and not those of the file, which has %d; %v", len(got), len(file), err)
	}
}

func TestBucket(t *testing.T) {
	server := outside.StartBuckets(t, "127.0.0.1")
	p := newPlace(t)
	s3 := func(key string) spec.Follow {
		return spec.Follow{SourceName: "s3://data/" + key, S3: &spec.S3Source{
			Bucket: "data", Key: key, Endpoint: server.Endpoint, PlainHTTP: true, CredentialsSecret: &spec.SecretName{Name: "keys"}}}
	}
	f := p.follower(s3("iris.onnx"))
	p.looks(f, "", spec.ReasonSourceRefused, "Secret keys, which credentialsSecret names, has to be there, with the keys accessKey and secretKey")
	p.write("accessKey", outside.AccessKey)
	p.write("secretKey", "wrong")
	p.looks(f, "", spec.ReasonSourceRefused, "the secretKey of spec.model.s3.credentialsSecret doesn't belong to its accessKey")
	p.write("secretKey", outside.SecretKey)
	p.looks(f, "", spec.ReasonSourceRefused, `s3://data/iris.onnx: there is no object "iris.onnx" in the bucket; check spec.model.s3.key`)

	server.Put(t, "iris.onnx", exported(t, keras))
	first := p.looks(f, "any", "", "").Model
	p.pulls(first.Digest, exported(t, keras))
	if first.Parameters == 0 || first.Bytes != int64(len(exported(t, keras))) || first.Reference != p.repository.Name+":"+first.Digest[7:19] {
		t.Errorf("found %+v", first)
	}
	p.looks(f, first.Digest, "", "")

	alone, err := os.ReadFile(filepath.Join(fiveInputs(t), graphFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("what can't be served leaves the model before", func(t *testing.T) {
		for _, test := range []struct {
			file            []byte
			reason, message string
		}{
			{[]byte("<html>moved</html>"), spec.ReasonModelInvalid, "what is at s3://data/iris.onnx can't be served: model.onnx: it is not an ONNX model"},
			{exported(t, convolution), spec.ReasonModelInvalid, "(Conv): this operator is not supported"},
			{exported(t, twoOutputs), spec.ReasonContractBroken, "it doesn't fit the model that is served: it gives 2 outputs, not 3. If those who call the service know, set spec.model.newContract"},
			{alone, spec.ReasonModelInvalid, "model.safetensors"},
			{nil, spec.ReasonModelInvalid, "it is not an ONNX model: it has no graph"},
		} {
			server.Put(t, "iris.onnx", test.file)
			p.looks(f, first.Digest, test.reason, test.message)
			// Nothing is fetched or judged again.
			p.looks(f, first.Digest, test.reason, test.message)
		}
		server.Remove(t, "iris.onnx")
		p.looks(f, first.Digest, spec.ReasonSourceRefused, "there is no object")
	})
	server.Put(t, "iris.onnx", exported(t, torch))
	second := p.looks(f, "any", "", "").Model
	p.pulls(second.Digest, exported(t, torch))
	server.Put(t, "iris.onnx", exported(t, keras))
	p.looks(f, first.Digest, "", "")
}

// TestRestart has a follower start beside a model that is served already.
func TestRestart(t *testing.T) {
	p := newPlace(t)
	file := filepath.Join(t.TempDir(), "iris.onnx")
	at := spec.Follow{SourceName: "PersistentVolumeClaim ns/models, path iris.onnx", File: file}
	replace(t, file, exported(t, keras))
	first := p.looks(p.follower(at), "any", "", "").Model
	p.serving = spec.Serve{Signature: first.Signature}

	p.looks(p.follower(at), first.Digest, "", "")
	replace(t, file, exported(t, twoOutputs))
	p.looks(p.follower(at), "", spec.ReasonContractBroken, "it gives 2 outputs, not 3")
	at.NewContract = true
	p.looks(p.follower(at), "any", "", "")

	// A model of which nothing is known binds nobody.
	at.NewContract, p.serving.Signature = false, nil
	p.looks(p.follower(at), "any", "", "")
}

// replace puts a file in the place of another in one step.
func replace(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", content, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

func TestClaim(t *testing.T) {
	p := newPlace(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "iris.onnx")
	f := p.follower(spec.Follow{SourceName: "PersistentVolumeClaim ns/models, path iris.onnx", File: file})
	p.looks(f, "", spec.ReasonSourceRefused, "PersistentVolumeClaim ns/models, path iris.onnx: there is no such file; check spec.model.persistentVolumeClaim.path")
	replace(t, file, exported(t, keras))
	first := p.looks(f, "any", "", "").Model
	p.looks(f, first.Digest, "", "")
	replace(t, file, exported(t, torch))
	second := p.looks(f, "any", "", "").Model
	if second.Digest == first.Digest {
		t.Error("another file was not noticed")
	}
	p.pulls(second.Digest, exported(t, torch))
	p.looks(p.follower(spec.Follow{File: dir}), "", spec.ReasonSourceRefused, "this is a folder")

	f.what.Repository.Name = "127.0.0.1:1/models/ns/iris"
	f.source.(*localFile).repository.Name = "127.0.0.1:1/models/ns/iris"
	replace(t, file, exported(t, keras))
	p.looks(f, second.Digest, spec.ReasonRegistryUnavailable, "can't be published: pushing the model: registry 127.0.0.1:1 does not answer")
	f.source.(*localFile).repository = p.repository
	p.looks(f, first.Digest, "", "")
}

func pemOf(server *httptest.Server) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

func TestWeb(t *testing.T) {
	p := newPlace(t)
	content, sent := exported(t, keras), 0
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Modified-Since") == "" {
			sent++
		}
		http.ServeContent(w, r, "", time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC), strings.NewReader(string(content)))
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	at := spec.Follow{SourceName: server.URL + "/iris.onnx", HTTPS: &spec.HTTPSSource{URL: server.URL + "/iris.onnx", CredentialsSecret: &spec.SecretName{Name: "web"}}}
	p.write("token", "secret")
	p.looks(p.follower(at), "", spec.ReasonSourceRefused, "the server's certificate is not trusted")
	p.write("ca.crt", pemOf(server))
	first := p.looks(p.follower(at), "any", "", "").Model
	// The same file is the same model, whenever and by whomever it is found.
	p.looks(p.follower(at), first.Digest, "", "")
	at.HTTPS.SHA256 = strings.Repeat("0", 64)
	f := p.follower(at)
	sent = 0
	for range 3 {
		p.looks(f, "", spec.ReasonSourceRefused, "but spec.model.https.sha256 is 000")
	}
	if sent != 1 {
		t.Errorf("a file that isn't the one that was meant was sent %d times", sent)
	}
}

func TestTag(t *testing.T) {
	p := newPlace(t)
	host := outside.StartRegistry(t, "127.0.0.1")
	p.repository = spec.Repository{Name: host + "/team/iris", PlainHTTP: true, CredentialsFile: filepath.Join(p.secret, "config.json")}
	at := spec.Follow{SourceName: host + "/team/iris:production", Tag: "production"}
	f := p.follower(at)
	p.looks(f, "", spec.ReasonSourceRefused, "credentialsSecret doesn't give them: there is no Secret of that name")
	p.write("config.json", "{}")
	p.looks(f, "", spec.ReasonSourceRefused, "it holds none for this registry")
	p.write("config.json", string(outside.DockerConfig(host, "wrong")))
	p.looks(f, "", spec.ReasonSourceRefused, "registry refused")
	p.write("config.json", string(outside.DockerConfig(host, outside.SecretKey)))
	p.looks(f, "", spec.ReasonSourceRefused, "production is not in repository "+host+"/team/iris")

	open := at
	open.Repository = spec.Repository{Name: host + "/team/iris", PlainHTTP: true}
	p.looks(p.follower(open), "", spec.ReasonSourceRefused, "name a Secret with credentials in spec.model.oci.credentialsSecret")

	first, second := tagged(t, p.repository, exported(t, keras)), tagged(t, p.repository, exported(t, torch))
	point(t, p.repository, first)
	found := p.looks(f, first, "", "").Model
	if found.Reference != host+"/team/iris:production" || found.Bytes != int64(len(exported(t, keras))) || found.Parameters == 0 {
		t.Errorf("found %+v", found)
	}
	point(t, p.repository, second)
	p.looks(f, second, "", "")
	other, err := store.Push(t.Context(), p.repository, fiveInputs(t))
	if err != nil {
		t.Fatal(err)
	}
	point(t, p.repository, other.Digest)
	p.looks(f, second, spec.ReasonContractBroken, "it takes 5 inputs, not 4")
	point(t, p.repository, first)
	p.looks(f, first, "", "")

	at.Tag = second
	if found := p.looks(p.follower(at), second, "", "").Model; found.Reference != host+"/team/iris@"+second {
		t.Errorf("found %+v", found)
	}
	at.Tag = "sha256:" + strings.Repeat("0", 64)
	p.looks(p.follower(at), "", spec.ReasonSourceRefused, "is not in repository")
}

// tagged pushes a model of one file, under the tag that Push gives it.
func tagged(t *testing.T, repository spec.Repository, graph []byte) (digest string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, graphFile), graph, 0o600); err != nil {
		t.Fatal(err)
	}
	pushed, err := store.Push(t.Context(), repository, dir)
	if err != nil {
		t.Fatal(err)
	}
	return pushed.Digest
}

// point makes the tag production name what is in the repository under a digest.
func point(t *testing.T, repository spec.Repository, digest string) {
	t.Helper()
	if err := outside.Tag(t.Context(), repository.Name, digest, "production"); err != nil {
		t.Fatal(err)
	}
}

// TestRun looks again and again, sooner after a failure, and tells it over HTTP.
func TestRun(t *testing.T) {
	p := newPlace(t)
	file := filepath.Join(t.TempDir(), "iris.onnx")
	f := p.follower(spec.Follow{SourceName: "the file", File: file, EverySeconds: 0.01})
	server := httptest.NewServer(f.Handler())
	defer server.Close()
	told := func() spec.Followed {
		response, err := http.Get(server.URL + "/followed")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		var report spec.Followed
		if err := json.NewDecoder(response.Body).Decode(&report); err != nil {
			t.Fatal(err)
		}
		return report
	}
	if report := told(); report.Activity != "looks at the file" || report.Failure != nil {
		t.Errorf("before it looked it says %+v", report)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(t.Context())
	}()
	until(t, "a failure", func() bool { return told().Failure != nil })
	replace(t, file, exported(t, keras))
	until(t, "a model", func() bool { return told().Model != nil && told().Failure == nil })
}

func until(t *testing.T, what string, seen func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !seen(); {
		if time.Now().After(deadline) {
			t.Fatalf("no sight of %s for 20 s", what)
		}
		time.Sleep(5 * time.Millisecond) // between two looks
	}
}
