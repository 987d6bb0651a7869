package nn

import (
	"runtime"
	"sync"
	"sync/atomic"
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
	next   atomic.Int64   // part that nobody has taken
	undone sync.WaitGroup // parts
	users  atomic.Int64   // that may still look at the job
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
	j.task, j.parts = t, int64(parts)
	j.next.Store(0)
	j.undone.Add(parts)
	j.users.Store(int64(helpers) + 1)
	for range helpers {
		select {
		case calls <- j:
		default: // all are called already
			j.leave()
		}
	}
	j.work()
	j.undone.Wait()
	j.leave()
}

func worker() {
	for j := range calls {
		j.work()
		j.leave()
	}
}

func (j *job) work() {
	for {
		part := j.next.Add(1) - 1
		if part >= j.parts {
			return
		}
		j.task.do(int(part))
		j.undone.Done()
	}
}

// leave gives the job back when everybody has left it.
func (j *job) leave() {
	if j.users.Add(-1) == 0 {
		j.task = nil
		jobs.put(j)
	}
}
