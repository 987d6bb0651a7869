package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"trainyard.dev/trainyard/runtime/group"
	"trainyard.dev/trainyard/runtime/spec"
)

// Worker says which one of a run's workers a process is.
type Worker struct {
	// Rank is 0 to [spec.Workers.Count]-1.
	Rank int
	// Address is the IP address at which the others reach it.
	Address string
	// Collective is the path of the program that connects the workers.
	Collective string
	// Roll answers at [spec.GroupPath], if this is worker 0.
	Roll *group.Roll
}

// leads tells whether the worker keeps checkpoints, measures and publishes.
func (w *Worker) leads() bool { return w == nil || w.Rank == 0 }

// checkWorker finds what this process can't do for the job.
func checkWorker(job spec.Train, o Options) error {
	if job.Workers == nil {
		return nil
	}
	w := o.Worker
	if w == nil || w.Rank < 0 || w.Rank >= int(job.Workers.Count) {
		return invalidf(spec.ReasonInternal, "the run has %d workers, and the trainer isn't told which one it is", job.Workers.Count)
	}
	if _, err := os.Stat(w.Collective); err != nil {
		return invalidf(spec.ReasonInternal, "this trainer can't train with other workers, since it lacks the program that connects them (%w): take the runtime image that belongs to this version, or set spec.workers to 1", err)
	}
	return nil
}

// others are the other workers of a step, as nn sees them. Nil: there are none.
//
// With each sum, all learn whether one of them is asked to stop. That one makes
// the step to its end, like the others, so that a checkpoint can be kept.
type others struct {
	*group.Group
	asked  <-chan struct{} // closed when this worker is asked to stop
	asking [1]float32      // how many workers are
	parts  [][]float32
}

// Add implements [nn.Peers].
func (o *others) Add(parts ...[]float32) {
	o.asking[0] = 0
	select {
	case <-o.asked:
		o.asking[0] = 1
	default:
	}
	o.parts = append(append(o.parts[:0], parts...), o.asking[:])
	o.Group.Add(o.parts...)
}

// errLeaving says that a worker is asked to stop. The run is between two steps.
var errLeaving = errors.New("a worker was asked to stop")

// over tells, after a step, why there may not be another one.
func (o *others) over() error {
	if o != nil && o.asking[0] > 0 {
		o.part()
		return errLeaving
	}
	return nil
}

// part is called by all, when all have found the same and end for it. It returns
// when every one of them has: one that leaves sooner may take a sum along that
// another has not read yet, to whom it then seems lost.
func (o *others) part() {
	if o != nil {
		o.AddDoubles(make([]float64, 1))
	}
}

// lost tells why what was computed together is of no use.
func (o *others) lost() error {
	if o == nil {
		return nil
	}
	return o.Err()
}

// leader tells whether this worker measures.
func (o *others) leader() bool { return o == nil || o.Rank() == 0 }

// leave ends the group for all.
func (o *others) leave() {
	if o != nil {
		o.Close()
	}
}

// stopGrace is how long a worker that is asked to stop waits for the others to
// end their step, or for the end of a measurement.
const stopGrace = 5 * time.Second

// train goes through all epochs, alone or with others, and returns the run as it
// then stands: not f, if it had to start again.
func (f *fit) train(ctx context.Context, o Options, fresh func() (*fit, error)) (*fit, error) {
	if f.job.Workers == nil {
		o.Monitor.does("")
		return f, f.run(ctx)
	}
	for {
		err := f.trainTogether(ctx, o)
		if err == nil || ctx.Err() != nil || !again(err) {
			return f, err
		}
		if f.Over {
			o.Log.Info("Training is over; this worker stays until it is stopped, since it is needed if the model can't be published", "cause", err)
		} else {
			o.Log.Warn("The workers start again from the last checkpoint", "cause", err)
		}
		next, err := f.restarted(fresh)
		if err != nil {
			return f, err
		}
		f = next
	}
}

// again tells whether a new group of workers may get further.
func again(err error) bool {
	lost := (*group.LostError)(nil)
	return errors.As(err, &lost) || errors.Is(err, errLeaving)
}

// trainTogether goes through all epochs with a group of workers. The one that
// leads returns when training is over; its group lasts until f is closed. The
// others stay until they are stopped: if the model isn't published, they are
// needed again.
func (f *fit) trainTogether(ctx context.Context, o Options) error {
	if err := f.join(ctx, o); err != nil {
		return err
	}
	patient, cancel := extended(ctx, stopGrace)
	defer cancel()
	defer context.AfterFunc(patient, func() {
		f.others.GiveUp(errors.New("this worker was asked to stop, and the others don't end their step"))
	})()
	o.Monitor.does("")
	err := f.run(patient)
	if errors.Is(err, errLeaving) && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil || f.others.leader() {
		return err
	}
	o.Monitor.does("waits until worker 0 has published the model")
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.others.Lost():
		return f.others.lost()
	}
}

// join makes f part of a group, in which all go on from where the leader is.
func (f *fit) join(ctx context.Context, o Options) error {
	run, err := f.identity()
	if err != nil {
		return err
	}
	w := o.Worker
	m := group.Member{
		Rank: w.Rank, Size: int(f.job.Workers.Count), Address: w.Address, Run: run, Program: w.Collective,
		Waiting: func(whom string) { o.Monitor.does(fmt.Sprintf("waits for %s of %d", whom, f.job.Workers.Count)) },
	}
	var g *group.Group
	if w.leads() {
		g, err = w.Roll.Call(ctx, m)
	} else {
		g, err = group.Join(ctx, "http://"+f.job.Workers.Leader+spec.GroupPath, m)
	}
	if err != nil {
		return err
	}
	f.others = &others{Group: g, asked: ctx.Done()}
	f.trainer.Split(g.Rank(), g.Size(), f.others)
	return f.follow(run)
}

// follow brings f to where the leader is.
func (f *fit) follow(run string) error {
	state, err := f.state(run)
	if err != nil {
		return err
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	text = f.others.BroadcastBytes(text)
	for _, t := range f.tensors() {
		f.others.Broadcast(t.Value)
	}
	if err := f.others.lost(); err != nil || f.others.leader() {
		return err
	}
	state = checkpointState{}
	if err := json.Unmarshal(text, &state); err != nil {
		return fmt.Errorf("reading where worker 0 is: %w", err)
	}
	return f.resume(state)
}

// restarted leaves the group and returns the run as it is then: that of the
// leader where it was, if that is between two steps, and else as the last
// checkpoint has it.
func (f *fit) restarted(fresh func() (*fit, error)) (*fit, error) {
	if !f.inStep && f.others.leader() {
		f.keeper.save(f)
		f.close()
		f.others = nil
		return f, nil
	}
	f.close()
	next, err := fresh()
	if err != nil || f.keeper == nil {
		return next, err
	}
	if next, err = f.keeper.resumed(next, fresh); err != nil {
		return nil, err
	}
	next.keeper = f.keeper
	return next, nil
}

// hear returns what the leader has measured.
func (o *others) hear(measured map[string]float64) (map[string]float64, error) {
	if o == nil {
		return measured, nil
	}
	text, err := json.Marshal(measured)
	if err != nil {
		return nil, err
	}
	text = o.BroadcastBytes(text)
	if err := o.lost(); err != nil {
		return nil, err
	}
	measured = nil
	return measured, json.Unmarshal(text, &measured)
}
