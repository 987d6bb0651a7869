// Package e2e tells the whole stories on a real cluster: what a user applies,
// and what they see. Run it with make test-e2e.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/test/apiserver"
)

var cluster client.Client

func TestMain(m *testing.M) {
	config, err := ctrl.GetConfig()
	if err == nil {
		config.QPS, config.Burst = 100, 200
		cluster, err = client.New(config, client.Options{Scheme: apiserver.Scheme()})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need a cluster with Trainyard in it: run make test-e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	if code == 0 && everyStory() {
		if err := checkPermissions(context.Background()); err != nil {
			fmt.Fprintf(os.Stderr, "the operator's permissions are not those that it needs:\n%v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// newNamespace makes a namespace in which only restricted pods may run, and
// removes it when the test is over.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	create(t, namespace)
	t.Cleanup(func() {
		if err := cluster.Delete(context.Background(), namespace); err != nil {
			t.Errorf("removing namespace %s: %v", namespace.Name, err)
		}
	})
	return namespace.Name
}

func create(t *testing.T, object client.Object) {
	t.Helper()
	if err := cluster.Create(t.Context(), object); err != nil {
		t.Fatalf("creating %T %s: %v", object, object.GetName(), err)
	}
}

func remove(t *testing.T, object client.Object) {
	t.Helper()
	if err := cluster.Delete(t.Context(), object, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
		t.Fatalf("deleting %T %s: %v", object, object.GetName(), err)
	}
}

// eventually waits until check is content, and tells how long that took. Past
// the limit it says what it waited for and what check saw last.
func eventually(t *testing.T, what string, limit time.Duration, check func(context.Context) error) time.Duration {
	t.Helper()
	started := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, limit, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waited %s for %s; last seen: %v", limit, what, last)
	}
	return time.Since(started)
}

// reaches waits until an object has a condition of that value, with reason and
// message as wanted.
func reaches(t *testing.T, object client.Object, conditions func() []metav1.Condition, want metav1.Condition, limit time.Duration) time.Duration {
	t.Helper()
	what := fmt.Sprintf("%T %s/%s to be %s=%s, %s, ...%q...", object, object.GetNamespace(), object.GetName(), want.Type, want.Status, want.Reason, want.Message)
	return eventually(t, what, limit, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		got := meta.FindStatusCondition(conditions(), want.Type)
		if got == nil {
			return fmt.Errorf("no condition %s yet; conditions are %+v", want.Type, conditions())
		}
		if got.Status != want.Status || (want.Reason != "" && got.Reason != want.Reason) || !strings.Contains(got.Message, want.Message) {
			return fmt.Errorf("%s=%s, %s, %q", got.Type, got.Status, got.Reason, got.Message)
		}
		return nil
	})
}

func jobReaches(t *testing.T, job *v1alpha1.TrainingJob, kind, reason, message string, limit time.Duration) time.Duration {
	t.Helper()
	return reaches(t, job, func() []metav1.Condition { return job.Status.Conditions },
		metav1.Condition{Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message}, limit)
}

func serviceReaches(t *testing.T, service *v1alpha1.ModelService, status metav1.ConditionStatus, reason, message string, limit time.Duration) time.Duration {
	t.Helper()
	return reaches(t, service, func() []metav1.Condition { return service.Status.Conditions },
		metav1.Condition{Type: v1alpha1.ModelServiceReady, Status: status, Reason: reason, Message: message}, limit)
}

// hasEvent waits for an Event about the object that says what a condition says.
func hasEvent(t *testing.T, object client.Object, reason, message string) {
	t.Helper()
	eventually(t, fmt.Sprintf("an Event %s about %s that says %q", reason, object.GetName(), message), 10*time.Second, func(ctx context.Context) error {
		var events corev1.EventList
		if err := cluster.List(ctx, &events, client.InNamespace(object.GetNamespace())); err != nil {
			return err
		}
		var seen []string
		for _, event := range events.Items {
			if event.InvolvedObject.UID != object.GetUID() {
				continue
			}
			if event.Reason == reason && strings.Contains(event.Message, message) {
				return nil
			}
			seen = append(seen, event.Reason+": "+event.Message)
		}
		return fmt.Errorf("Events: %q", seen)
	})
}

// kubectl runs kubectl on the cluster.
func kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	output, err := tryKubectl(t.Context(), "", arguments...)
	if err != nil {
		t.Fatal(err)
	}
	return output
}

func tryKubectl(ctx context.Context, stdin string, arguments ...string) (string, error) {
	program := []string{"kubectl"}
	if wrapper := os.Getenv("TRAINYARD_KUBECTL"); wrapper != "" {
		program = []string{wrapper, "kubectl"}
	}
	command := exec.CommandContext(ctx, program[0], append(program[1:], arguments...)...)
	var stdout, stderr bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("kubectl %.100s: %w: %s", strings.Join(arguments, " "), err, stderr.String())
	}
	return stdout.String(), nil
}

// caller is a pod from which services are called, as any program in the
// cluster would.
type caller struct{ namespace string }

func newCaller(t *testing.T, namespace string) caller {
	t.Helper()
	pod := callerPod(namespace, "caller")
	create(t, pod)
	eventually(t, "the calling pod to run", time.Minute, func(ctx context.Context) error {
		if err := cluster.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodRunning {
			return fmt.Errorf("phase %s, %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return nil
	})
	return caller{namespace}
}

// callerPod is a pod that waits, with the tools of busybox.
func callerPod(namespace, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken:  new(false),
			TerminationGracePeriodSeconds: new(int64(0)),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), FSGroup: new(int64(65532)),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "caller", Image: "busybox:1.35", Command: []string{"busybox", "sleep", "3600"},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}

// patience, in seconds, is for one request. It is short: a connection that is
// begun before the node knows of a new Service never comes through, and the
// next one does.
const patience = "2"

// post sends a JSON body from inside the cluster and decodes the answer.
func (c caller) post(ctx context.Context, url string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	output, err := c.exec(ctx, "busybox", "timeout", patience, "busybox", "wget", "-q", "-O", "-",
		"--header", "Content-Type: application/json", "--post-data", string(encoded), url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(output), answer)
}

func (c caller) exec(ctx context.Context, command ...string) (string, error) {
	return tryKubectl(ctx, "", append([]string{"exec", "--namespace", c.namespace, "caller", "--"}, command...)...)
}

// asking are clients inside the cluster that each post one request after the
// other.
type asking struct {
	caller caller
	done   chan askingResult
}

type askingResult struct {
	output string
	err    error
}

// keepAsking starts that many clients, which post the body again and again.
func (c caller) keepAsking(ctx context.Context, clients int, url string, body any) (asking, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return asking{}, err
	}
	const loop = `client() {
  asked=0 failed=0
  while [ ! -e /dev/shm/stop ]; do
    busybox timeout 5 busybox wget -q -O /dev/null --header "Content-Type: application/json" --post-data "$2" "$1" || failed=$((failed + 1))
    asked=$((asked + 1))
  done
  echo "$asked $failed"
}
for i in $(busybox seq "$3"); do client "$1" "$2" & done
wait`
	a := asking{c, make(chan askingResult, 1)}
	go func() {
		output, err := c.exec(ctx, "busybox", "sh", "-c", loop, "loop", url, string(encoded), strconv.Itoa(clients))
		a.done <- askingResult{output, err}
	}()
	return a, nil
}

// stop ends the asking, and tells how many requests there were and how many of
// them failed.
func (a asking) stop(ctx context.Context) (asked, failed int, err error) {
	if _, err := a.caller.exec(ctx, "busybox", "touch", "/dev/shm/stop"); err != nil {
		return 0, 0, err
	}
	result := <-a.done
	if result.err != nil {
		return 0, 0, result.err
	}
	for line := range strings.Lines(result.output) {
		var a, f int
		if _, err := fmt.Sscan(line, &a, &f); err != nil {
			return 0, 0, fmt.Errorf("reading %q: %w", line, err)
		}
		asked, failed = asked+a, failed+f
	}
	return asked, failed, nil
}
