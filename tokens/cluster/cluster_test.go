package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/runtime/spec"
	"trainyard.dev/trainyard/runtime/store"
	"trainyard.dev/trainyard/test/apiserver"
	"trainyard.dev/trainyard/tokens"
)

var server apiserver.Server

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m, &server)) }

// decode reads the objects of a kind from a file of config/registry.
func decode[T any](t *testing.T, file, kind string) []T {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../../config/registry", file))
	if err != nil {
		t.Fatal(err)
	}
	var found []T
	for document := range strings.SplitSeq(string(content), "\n---\n") {
		var head metav1.TypeMeta
		var object T
		if err := errors.Join(yaml.Unmarshal([]byte(document), &head), yaml.Unmarshal([]byte(document), &object)); err != nil {
			t.Fatal(err)
		}
		if head.Kind == kind {
			found = append(found, object)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d objects of kind %s", file, len(found), kind)
	}
	return found
}

// asManager reaches the API server as a ServiceAccount that has what
// config/registry gives to the manager, and nothing else.
func asManager(t *testing.T, namespace string) client.Client {
	t.Helper()
	role := decode[rbacv1.Role](t, "tokens.yaml", "Role")[0]
	clusterRole := decode[rbacv1.ClusterRole](t, "tokens.yaml", "ClusterRole")[0]
	role.Namespace, clusterRole.Name = namespace, namespace
	subject := []rbacv1.Subject{{Kind: "ServiceAccount", Name: "manager", Namespace: namespace}}
	for _, object := range []client.Object{
		&role, &clusterRole,
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "manager", Namespace: namespace}, RoleRef: rbacv1.RoleRef{Kind: "Role", Name: role.Name}, Subjects: subject},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: namespace}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: clusterRole.Name}, Subjects: subject},
	} {
		if err := server.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
	config := rest.CopyConfig(server.Config)
	config.Impersonate.UserName = "system:serviceaccount:" + namespace + ":manager"
	config.Impersonate.Groups = []string{"system:serviceaccounts", "system:authenticated"}
	c, err := client.New(config, client.Options{Scheme: apiserver.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// tokenOf asks the API server for a token of a namespace's ServiceAccount, as the
// kubelet does for a pod.
func tokenOf(t *testing.T, namespace, audience string) string {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default", Namespace: namespace}}
	if err := server.Client.Create(t.Context(), account); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	request := &authenticationv1.TokenRequest{}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	if err := server.Client.SubResource("token").Create(t.Context(), account, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

func secretIn(t *testing.T, namespace string) *corev1.Secret {
	t.Helper()
	secret := decode[corev1.Secret](t, "tokens.yaml", "Secret")[0]
	secret.Namespace = namespace
	if err := server.Client.Create(t.Context(), &secret); err != nil {
		t.Fatal(err)
	}
	return &secret
}

// TestReview shows the API server real tokens.
func TestReview(t *testing.T) {
	namespace := server.Namespace(t)
	review := Review(asManager(t, namespace), spec.RegistryAudience)
	user, err := review(t.Context(), tokenOf(t, namespace, spec.RegistryAudience))
	if want := "system:serviceaccount:" + namespace + ":default"; err != nil || user != want {
		t.Errorf("a pod's token is %q's, %v; want %q", user, err, want)
	}
	for name, token := range map[string]string{
		"a token for the API server": tokenOf(t, namespace, ""), "a token for another audience": tokenOf(t, namespace, "vault"), "no token": "nonsense",
	} {
		invalid := (*tokens.InvalidError)(nil)
		if user, err := review(t.Context(), token); !errors.As(err, &invalid) || user != "" {
			t.Errorf("%s is %q's: %v", name, user, err)
		}
	}
	nobody, err := client.New(&rest.Config{Host: "127.0.0.1:1"}, client.Options{Scheme: apiserver.Scheme(), Mapper: server.Client.RESTMapper()})
	if err != nil {
		t.Fatal(err)
	}
	invalid := (*tokens.InvalidError)(nil)
	if _, err := Review(nobody, spec.RegistryAudience)(t.Context(), "any"); err == nil || errors.As(err, &invalid) {
		t.Errorf("an API server that does not answer makes a token invalid: %v", err)
	}
}

// TestManagersShareKeys lets several managers begin at once.
func TestManagersShareKeys(t *testing.T) {
	namespace := server.Namespace(t)
	manager, secret := asManager(t, namespace), client.ObjectKeyFromObject(secretIn(t, namespace))
	rings := make(chan *tokens.KeyRing, 4)
	for range cap(rings) {
		go func() {
			ring, err := AwaitKeys(t.Context(), manager, secret, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Error(err)
			}
			rings <- ring
		}()
	}
	var kept corev1.Secret
	for range cap(rings) {
		encoded, err := (<-rings).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Client.Get(t.Context(), secret, &kept); err != nil {
			t.Fatal(err)
		}
		if string(kept.Data[tokens.CurrentKey]) != string(encoded[tokens.CurrentKey]) {
			t.Error("a manager signs with a key that is not kept")
		}
	}
}

func TestMissingSecretIsSaid(t *testing.T) {
	namespace := server.Namespace(t)
	_, err := openKeys(t.Context(), asManager(t, namespace), client.ObjectKey{Namespace: namespace, Name: "registry-tokens"})
	if err == nil || !strings.Contains(err.Error(), "there is no Secret "+namespace+"/registry-tokens; apply config/registry") {
		t.Errorf("it is said: %v", err)
	}
}

// service issues tokens as the manager does.
func service(c client.Client, namespace, address string) *Server {
	return &Server{
		Address: address, Client: c, Secret: client.ObjectKey{Namespace: namespace, Name: "registry-tokens"},
		Service: &tokens.Service{
			Issuer: &tokens.Issuer{Name: tokens.IssuerName, Service: spec.RegistryAudience}, Prefix: "models",
			Review: Review(c, spec.RegistryAudience), Now: time.Now, Log: slog.New(slog.DiscardHandler),
		},
	}
}

func run(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Start(ctx) }()
	await(t, "the token service to be ready", func() error { return s.Ready(nil) })
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func await(t *testing.T, what string, check func() error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		last = check()
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waited 30 s for %s; last seen: %v", what, last)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// startRegistry runs CNCF Distribution with the configuration of config/registry;
// only addresses and paths are the test's.
func startRegistry(t *testing.T, realm, trusted string) (address string) {
	t.Helper()
	program := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "..", "registry")
	content, err := os.ReadFile("../../config/registry/config.yml")
	if err != nil {
		t.Fatal(err)
	}
	address = freeAddress(t)
	configuration := strings.NewReplacer(
		"/var/lib/registry", t.TempDir(), "addr: :5000", "addr: "+address,
		"http://registry-tokens.trainyard-system.svc/token", realm, "/etc/registry-tokens/trusted.json", trusted,
	).Replace(string(content))
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(program, "serve", file)
	command.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	said := new(bytes.Buffer)
	command.Stderr = said
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			t.Logf("the registry said:\n%s", said)
		}
	})
	await(t, "the registry to answer without a token where its probes ask", func() error {
		response, err := http.Get("http://" + address + "/")
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	})
	return address
}

// model is a folder that could be one.
func model(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRegistry is the whole way with the real registry and the real API server:
// what a pod does with its token, and what is refused.
func TestRegistry(t *testing.T) {
	operator, red, blue := server.Namespace(t), server.Namespace(t), server.Namespace(t)
	secret := secretIn(t, operator)
	address, manager := freeAddress(t), asManager(t, operator)
	stop := run(t, service(manager, operator, address))
	if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(secret), secret); err != nil {
		t.Fatal(err)
	}
	trusted := filepath.Join(t.TempDir(), "trusted.json")
	if err := os.WriteFile(trusted, secret.Data[tokens.TrustedKeys], 0o600); err != nil {
		t.Fatal(err)
	}
	registry := startRegistry(t, "http://"+address+"/token", trusted)

	tokenFile := filepath.Join(t.TempDir(), "token")
	show := func(token string) {
		if err := os.WriteFile(tokenFile, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	repository := func(namespace string) spec.Repository {
		return spec.Repository{Name: registry + "/models/" + namespace + "/digits", PlainHTTP: true, TokenFile: tokenFile}
	}
	show(tokenOf(t, red, spec.RegistryAudience))
	if err := store.Ping(t.Context(), repository(red)); err != nil {
		t.Errorf("asking whether it may: %v", err)
	}
	// More than a piece, so that the token is needed for a resumable upload too.
	pushed, err := store.Push(t.Context(), repository(red), model(t, strings.Repeat("0123456789abcdef", 2<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Pull(t.Context(), repository(red), pushed.Digest, filepath.Join(t.TempDir(), "model")); err != nil {
		t.Errorf("pulling what was pushed: %v", err)
	}
	if err := store.PushCheckpoint(t.Context(), repository(red), "checkpoint", model(t, "state")); err != nil {
		t.Errorf("keeping a checkpoint: %v", err)
	}
	if err := store.DeleteCheckpoint(t.Context(), repository(red), "checkpoint"); err != nil {
		t.Errorf("deleting a checkpoint: %v", err)
	}

	other := fmt.Sprintf("403 Forbidden: denied: system:serviceaccount:%s:default may use only repositories below models/%s/, and asks for models/%s/digits", blue, blue, red)
	for _, test := range []struct{ name, token, want string }{
		{"another namespace", tokenOf(t, blue, spec.RegistryAudience), other},
		{"the token for the API server", tokenOf(t, red, ""), "401 Unauthorized: unauthorized: the password is not a valid token of a ServiceAccount for the audience registry.trainyard.dev"},
		{"nonsense", "nonsense", "401 Unauthorized: unauthorized: the password is not a valid token"},
		{"an empty token", "", "401 Unauthorized: unauthorized: there is no password"},
	} {
		show(test.token)
		if err := store.Pull(t.Context(), repository(red), pushed.Digest, filepath.Join(t.TempDir(), "model")); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: pulling ends in %v, want ...%q...", test.name, err, test.want)
		}
		if _, err := store.Push(t.Context(), repository(red), model(t, test.name)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: pushing ends in %v, want ...%q...", test.name, err, test.want)
		}
	}

	// Whoever asks for a blob of another namespace to be mounted gets it only by
	// sending it.
	show(tokenOf(t, blue, spec.RegistryAudience))
	layer := layerOf(t, registry, repository(red), tokenOf(t, red, spec.RegistryAudience), address, pushed.Digest)
	token := fetchToken(t, address, tokenOf(t, blue, spec.RegistryAudience), "repository:models/"+blue+"/digits:pull,push", "repository:models/"+red+"/digits:pull")
	mount := fmt.Sprintf("http://%s/v2/models/%s/digits/blobs/uploads/?mount=%s&from=models/%s/digits", registry, blue, layer, red)
	if status, _ := call(t, http.MethodPost, mount, token); status != http.StatusUnauthorized {
		t.Errorf("mounting another namespace's blob is answered with %d", status)
	}
	if status, _ := call(t, http.MethodGet, "http://"+registry+"/v2/_catalog", token); status != http.StatusUnauthorized {
		t.Errorf("listing all repositories is answered with %d", status)
	}

	// Away, it is named, and what has to be mended; back, all is well.
	stop()
	show(tokenOf(t, red, spec.RegistryAudience))
	var unreachable *store.UnreachableError
	err = store.Pull(t.Context(), repository(red), pushed.Digest, filepath.Join(t.TempDir(), "model"))
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "it wants a token from "+address+", and there: nothing listens there") {
		t.Errorf("without the token service, pulling ends in %v", err)
	}
	// It is another manager, which finds the keys.
	stop = run(t, service(manager, operator, address))
	defer stop()
	if err := store.Pull(t.Context(), repository(red), pushed.Digest, filepath.Join(t.TempDir(), "model")); err != nil {
		t.Errorf("with the token service back, pulling ends in %v", err)
	}
}

func fetchToken(t *testing.T, address, password string, scopes ...string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/token?scope="+strings.Join(scopes, "&scope="), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.SetBasicAuth("anybody", password)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct{ Token string }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Token == "" {
		t.Fatalf("asking for a token is answered with %s: %v", response.Status, err)
	}
	return answer.Token
}

// layerOf returns the digest of a model's first file.
func layerOf(t *testing.T, registry string, repository spec.Repository, password, address, digest string) string {
	t.Helper()
	name := strings.TrimPrefix(repository.Name, registry+"/")
	token := fetchToken(t, address, password, "repository:"+name+":pull")
	status, body := call(t, http.MethodGet, "http://"+registry+"/v2/"+name+"/manifests/"+digest, token)
	var manifest struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal(body, &manifest); err != nil || len(manifest.Layers) == 0 {
		t.Fatalf("reading the manifest is answered with %d %s: %v", status, body, err)
	}
	return manifest.Layers[0].Digest
}

func call(t *testing.T, method, url, token string) (int, []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, body
}
