package nn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// task is work in parts that any goroutines may do, in any order.
type task interface {
	do(part int)
}

// job is a task that is being done. Whoever works at it takes the next part,
// until none is left.
type job struct {
	task   task
	parts  int64
	next   atomic.Int64  // part that nobody has taken
	undone atomic.Int64  // parts
	done   chan struct{} // has room for a word that none is undone
	users  atomic.Int64  // that may still look at the job
}

var (
	startWorkers sync.Once
	// calls are jobs that workers are asked to help with. A worker may come when
	// there is nothing left to do.
	calls chan *job
	jobs  = make(spares[job], 16)
)

// spares keeps what would otherwise be allocated for every use, since it
// escapes. Other than a sync.Pool it does not forget.
type spares[T any] chan *T

func (s spares[T]) take() *T {
	select {
	case x := <-s:
		return x
	default:
		return new(T)
	}
}

func (s spares[T]) put(x *T) {
	select {
	case s <- x:
	default:
	}
}

// parallel does all parts of t, with the help of other goroutines. Waking one
// takes some microseconds, so a part should be some ten times that.
func parallel(t task, parts int) {
	helpers := min(parts, runtime.GOMAXPROCS(0)) - 1
	if helpers < 1 {
		for i := range parts {
			t.do(i)
		}
		return
	}
	startWorkers.Do(func() {
		workers := runtime.GOMAXPROCS(0) - 1
		calls = make(chan *job, workers)
		for range workers {
			go worker()
		}
	})
	j := jobs.take()
	if j.done == nil {
		j.done = make(chan struct{}, 1)
	}
	j.task, j.parts = t, int64(parts)
	j.next.Store(0)
	j.undone.Store(j.parts)
	j.users.Store(int64(helpers) + 1)
	for range helpers {
		select {
		case calls <- j:
		default: // all are called already
			j.leave()
		}
	}
	j.work()
	soon(j.done)
	j.leave()
}

func worker() {
	for {
		j := soon(calls)
		j.work()
		j.leave()
	}
}

// patience is how long a worker looks for the next call, and a caller for the
// last worker, before it sleeps. Waking up costs some ten microseconds on both
// sides, and between two products of a step there are not many more.
const patience = 100 * time.Microsecond

// soon receives what is about to come.
func soon[T any](c <-chan T) T {
	const looks = 50 // which take a microsecond or less
	for start := time.Now(); time.Since(start) < patience; {
		for range looks {
			select {
			case v := <-c:
				return v
			default:
			}
		}
	}
	return <-c
}

func (j *job) work() {
	for {
		part := j.next.Add(1) - 1
		if part >= j.parts {
			return
		}
		j.task.do(int(part))
		if j.undone.Add(-1) == 0 {
			j.done <- struct{}{}
		}
	}
}

// leave gives the job back when everybody has left it.
func (j *job) leave() {
	if j.users.Add(-1) == 0 {
		j.task = nil
		jobs.put(j)
	}
}
