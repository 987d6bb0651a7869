package trainingjob

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

var errDead = errors.New("the manager is dead")

// mortal is the API server as seen by a manager that dies at one of its writes,
// before or after the API server has carried it out.
type mortal struct {
	write int // that is its last, from 1
	after bool

	writes int
	dead   bool
}

// on carries out a write, if the manager lives to see it.
func (m *mortal) on(do func() error) error {
	if m.dead {
		return errDead
	}
	m.writes++
	if m.writes != m.write {
		return do()
	}
	m.dead = true
	if m.after {
		_ = do() // whatever came of it, nobody hears of it
	}
	return errDead
}

func (m *mortal) client(to client.WithWatch) client.Client {
	read := func(do func() error) error {
		if m.dead {
			return errDead
		}
		return do()
	}
	return interceptor.NewClient(to, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
			return read(func() error { return c.Get(ctx, key, object, options...) })
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return read(func() error { return c.List(ctx, list, options...) })
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.CreateOption) error {
			return m.on(func() error { return c.Create(ctx, object, options...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, object client.Object, patch client.Patch, options ...client.PatchOption) error {
			return m.on(func() error { return c.Patch(ctx, object, patch, options...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			return m.on(func() error { return c.Delete(ctx, object, options...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, object client.Object, options ...client.SubResourceUpdateOption) error {
			return m.on(func() error { return c.SubResource(sub).Update(ctx, object, options...) })
		},
	})
}

// life is a run with all that may happen to it: what the world does, and how
// the TrainingJob stands once the manager has seen it.
func life(t *testing.T) []turn {
	running := pod("", corev1.PodRunning)
	model := func(digit string) corev1.Pod {
		return ended("", 0, "Completed", result(t, spec.Result{Model: modelOf(digit), Metrics: map[string]float64{"Accuracy": 0.5}}))
	}
	suspend := func(b *bench, value bool) {
		job := b.read()
		job.Spec.Suspend = value
		if err := server.Client.Update(b.t.Context(), job); err != nil {
			b.t.Fatal(err)
		}
	}
	return []turn{
		{"applied", func(b *bench) {
			job := sample(b.namespace)
			job.Spec.TTLSecondsAfterFinished = new(int32(60))
			job.Spec.Workers = 2 // which has a Service, too
			b.create(job)
		}, v1alpha1.StatePending, false},
		{"trains", func(b *bench) { b.play("digits-1", running) }, v1alpha1.StateTraining, false},
		{"crashed", func(b *bench) { b.play("digits-1", ended("", 2, "Error", "")) }, v1alpha1.StateRetrying, false},
		{"suspended", func(b *bench) { suspend(b, true) }, v1alpha1.StateSuspended, true},
		{"resumed", func(b *bench) { suspend(b, false) }, v1alpha1.StateRetrying, false},
		{"trains again, in two pods", func(b *bench) { b.play("digits-2", running); b.play("digits-3", running) }, v1alpha1.StateTraining, false},
		{"both publish", func(b *bench) { b.play("digits-3", model("b")); b.play("digits-2", model("a")) }, v1alpha1.StateComplete, false},
	}
}

type turn struct {
	name      string
	happens   func(*bench)
	state     string
	suspended bool // is the Job
}

// TestCrashAtEveryWrite stops the manager before and after each of its writes
// in a run's life, and starts another in its place. Whenever that was, there is
// one Job, one model, and a status that is true.
func TestCrashAtEveryWrite(t *testing.T) {
	unharmed := &mortal{}
	live(t, unharmed)
	if unharmed.writes < 10 {
		t.Fatalf("a run's life has only %d writes", unharmed.writes)
	}
	for write := 1; write <= unharmed.writes; write++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, after it: %v", write, after), func(t *testing.T) {
				t.Parallel()
				m := &mortal{write: write, after: after}
				live(t, m)
				if !m.dead {
					t.Error("the manager lived for ever")
				}
			})
		}
	}
}

func live(t *testing.T, m *mortal) {
	b := newBench(t)
	b.createData()
	clock := time.Now()
	b.Now = func() time.Time { return clock }
	heir := b.Client
	b.Client, b.Reader = m.client(server.Client), m.client(server.Client)
	// settle lets the manager look until nothing changes any more. If it dies, its
	// heir takes over.
	settle := func(seen func()) {
		for before := ""; ; {
			_, err := b.Reconcile(t.Context(), b.read())
			if err != nil && !m.dead {
				t.Fatal(err)
			}
			if err != nil {
				b.Client, b.Reader = heir, server.Client
			}
			seen()
			now := b.read().ResourceVersion
			if made := b.job(); made != nil {
				now += made.ResourceVersion
			}
			if now == before && err == nil {
				return
			}
			before = now
		}
	}

	var made *batchv1.Job
	for _, turn := range life(t) {
		turn.happens(b)
		settle(func() { neverTwo(b, &made, turn) })
		job := b.read()
		if job.Status.State != turn.state {
			t.Fatalf("%s: the state is %s, want %s", turn.name, job.Status.State, turn.state)
		}
		if made == nil || *made.Spec.Suspend != turn.suspended {
			t.Fatalf("%s: the Job is %+v", turn.name, made)
		}
	}
	if job := b.read(); job.Status.Model == nil || job.Status.Model.Digest != modelOf("a").Digest {
		t.Errorf("the model is %+v", job.Status.Model)
	}
	clock = clock.Add(time.Hour)
	expires(b, m, heir)
}

// neverTwo checks what has to be true at any moment: one Job for ever, and a
// model when, and only when, it is said to be there.
func neverTwo(b *bench, made **batchv1.Job, now turn) {
	b.t.Helper()
	var jobs batchv1.JobList
	if err := server.Client.List(b.t.Context(), &jobs, client.InNamespace(b.namespace)); err != nil {
		b.t.Fatal(err)
	}
	if len(jobs.Items) > 1 || *made != nil && (len(jobs.Items) == 0 || jobs.Items[0].UID != (*made).UID) {
		b.t.Fatalf("%s: there are %d Jobs, and not the first one alone", now.name, len(jobs.Items))
	}
	if len(jobs.Items) == 1 {
		*made = &jobs.Items[0]
	}
	status := b.read().Status
	complete := status.State == v1alpha1.StateComplete
	if complete != (status.Model != nil) || complete != (status.CompletionTime != nil) || complete && now.state != v1alpha1.StateComplete {
		b.t.Fatalf("%s: the status is %+v", now.name, status)
	}
	if status.Model != nil && (status.Model.Digest != modelOf("a").Digest || status.Metrics["Accuracy"] != 0.5) {
		b.t.Fatalf("%s: half a model, or another: %+v", now.name, status)
	}
}

// expires lets the time of the TrainingJob come.
func expires(b *bench, m *mortal, heir client.Client) {
	b.t.Helper()
	for range 3 {
		job := &v1alpha1.TrainingJob{}
		err := server.Client.Get(b.t.Context(), client.ObjectKey{Namespace: b.namespace, Name: "digits"}, job)
		if apierrors.IsNotFound(err) {
			return
		}
		if err != nil {
			b.t.Fatal(err)
		}
		if _, err := b.Reconcile(b.t.Context(), job); err != nil {
			if !m.dead {
				b.t.Fatal(err)
			}
			b.Client, b.Reader = heir, server.Client
		}
	}
	b.t.Error("the TrainingJob is still there after its ttlSecondsAfterFinished")
}
