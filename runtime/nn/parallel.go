package nn

import (
	"runtime"
	"sync"
)

// task is work in parts that any goroutines may do, in any order.
type task interface {
	do(part int)
}

// assignment is a part of a task that a worker was given.
type assignment struct {
	task task
	part int
	done *sync.WaitGroup
}

var (
	startWorkers sync.Once
	// work takes parts to idle workers. It has no buffer: a part that nobody
	// waits for is done by the sender.
	work  = make(chan assignment)
	waits = make(spares[sync.WaitGroup], 16)
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

// parallel does all parts of t, with the help of idle workers. Waking one takes
// a few microseconds, so a part should be some ten times that.
func parallel(t task, parts int) {
	if parts == 1 || runtime.GOMAXPROCS(0) == 1 {
		for i := range parts {
			t.do(i)
		}
		return
	}
	startWorkers.Do(func() {
		for range runtime.GOMAXPROCS(0) - 1 {
			go worker()
		}
	})
	done := waits.take()
	for i := range parts {
		done.Add(1)
		select {
		case work <- assignment{t, i, done}:
		default:
			t.do(i)
			done.Done()
		}
	}
	done.Wait()
	waits.put(done)
}

func worker() {
	for a := range work {
		a.task.do(a.part)
		a.done.Done()
	}
}
