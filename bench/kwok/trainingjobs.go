package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/controllers/trainingjob"
)

const (
	// trainings are how many TrainingJobs are applied at once.
	trainings = 500
	// appliers are how many clients apply them.
	appliers = 20
	// settling is the time that what was begun has to end, before the writes of
	// an operator at rest are counted for the time of resting.
	settling = 10 * time.Second
	resting  = 30 * time.Second
)

// trainingJobs applies many TrainingJobs at once.
func trainingJobs(ctx context.Context, b *bench) error {
	const controller = "trainingjob"
	before, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := b.train(ctx, trainings); err != nil {
		return err
	}
	took := time.Since(began)
	after, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	writes, reads, err := b.requests("manager", began, time.Now())
	if err != nil {
		return err
	}
	now, peak, err := b.manager.memory()
	if err != nil {
		return err
	}
	report("trainingjobs", fmt.Sprintf("%d applied at once, all complete", trainings), "all complete after %.1f s", took.Seconds())
	report("trainingjobs-memory", "manager < 150 MB", "%d MiB at most, %d MiB then", peak, now)
	report("trainingjobs-reconcile", "p99 < 0.5 s", "%s", after.passes(before))
	report("trainingjobs-requests", "", "%.1f writes and %.1f reads a run: %s; %s",
		float64(writes.total())/trainings, float64(reads.total())/trainings, writes, reads)
	return b.rest(ctx, "trainingjobs-at-rest", controller)
}

// train applies TrainingJobs and waits until all are complete.
func (b *bench) train(ctx context.Context, count int) error {
	content, err := os.ReadFile("config/samples/digits.csv.gz")
	if err != nil {
		return err
	}
	data := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "digits", Namespace: namespace}, BinaryData: map[string][]byte{"digits.csv.gz": content}}
	if err := b.Create(ctx, data); err != nil {
		return err
	}
	sample := &v1alpha1.TrainingJob{}
	if content, err = os.ReadFile("config/samples/trainingjob.yaml"); err == nil {
		err = yaml.UnmarshalStrict(content, sample)
	}
	if err != nil {
		return err
	}
	err = inParallel(count, func(i int) error {
		job := sample.DeepCopy()
		job.Name, job.Namespace = fmt.Sprintf("run-%d", i), namespace
		return b.Create(ctx, job)
	})
	if err != nil {
		return fmt.Errorf("applying the TrainingJobs: %w", err)
	}
	return until(ctx, "all TrainingJobs to complete", 5*time.Minute, func(ctx context.Context) (bool, error) {
		var list v1alpha1.TrainingJobList
		if err := b.seen.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
			return false, err
		}
		complete := 0
		for i := range list.Items {
			switch job := &list.Items[i]; {
			case job.Status.State == v1alpha1.StateComplete:
				complete++
			case trainingjob.Finished(job):
				return false, fmt.Errorf("%s is %s: %+v", job.Name, job.Status.State, job.Status.Conditions)
			}
		}
		return complete == count, nil
	})
}

// inParallel does something for each number below count, with the bench's
// clients. It returns the first error.
func inParallel(count int, do func(int) error) error {
	numbers := make(chan int)
	failed := make(chan error, appliers)
	var group sync.WaitGroup
	for range appliers {
		group.Go(func() {
			for number := range numbers {
				if err := do(number); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for number := range count {
		numbers <- number
	}
	close(numbers)
	group.Wait()
	close(failed)
	return <-failed
}

// rest counts what an operator does that has nothing to do.
func (b *bench) rest(ctx context.Context, what, controller string) error {
	if err := wait(ctx, settling); err != nil {
		return err
	}
	before, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	if err := wait(ctx, resting); err != nil {
		return err
	}
	after, err := b.manager.read(ctx, controller)
	if err != nil {
		return err
	}
	writes, reads, err := b.requests("manager", before.at, after.at)
	if err != nil {
		return err
	}
	now, peak, err := b.manager.memory()
	if err != nil {
		return err
	}
	report(what, "no API writes", "in %s, writes: %s; reads: %s; %s; %d MiB now, %d MiB at most", resting, writes, reads, after.passes(before), now, peak)
	return b.profile(what)
}

func wait(ctx context.Context, duration time.Duration) error {
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
