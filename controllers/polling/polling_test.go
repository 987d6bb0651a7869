package polling

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
)

func object(name string) ctrl.Request {
	return ctrl.Request{NamespacedName: types.NamespacedName{Namespace: "ns", Name: name}}
}

// bench is a poller whose rounds take as long as the question says.
type bench struct {
	*Poller[time.Duration, time.Time]
	queue workqueue.TypedRateLimitingInterface[ctrl.Request]
}

func newBench(t *testing.T) bench {
	b := bench{
		Poller: &Poller[time.Duration, time.Time]{Every: 2 * time.Second, Round: func(_ context.Context, takes time.Duration) time.Time {
			time.Sleep(takes)
			return time.Now()
		}},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[ctrl.Request]()),
	}
	t.Cleanup(b.queue.ShutDown)
	if err := b.Start(t.Context(), b.queue); err != nil {
		t.Fatal(err)
	}
	return b
}

// woken is the object that is to be reconciled next, and after what time.
func (b bench) woken() (ctrl.Request, time.Duration) {
	began := time.Now()
	next, _ := b.queue.Get()
	b.queue.Done(next)
	return next, time.Since(began)
}

func TestRoundsFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		if b.Ask(object("a"), "pod", time.Second) {
			t.Error("answers are current before anyone was asked")
		}
		for i, want := range []time.Duration{time.Second, 2 * time.Second, 2 * time.Second} {
			began := time.Now()
			if _, after := b.woken(); after != want {
				t.Errorf("round %d was over after %s, want %s", i, after, want)
			}
			heard := b.Latest(object("a"))
			if now := time.Now(); heard.Answers != now || heard.At != now.Add(-time.Second) {
				t.Errorf("round %d, begun after %s, says that it was asked at %s", i, now.Sub(began), heard.At)
			}
			if !b.Ask(object("a"), "pod", time.Second) {
				t.Error("answers to the same subject are not current")
			}
		}
	})
}

// A pass that comes in between, as for a pod that changed, plans no more rounds.
func TestAskedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for range 10 {
			b.Ask(object("a"), "", 0)
			time.Sleep(100 * time.Millisecond)
		}
		if _, after := b.woken(); after != time.Second {
			t.Errorf("the first round of nobody was over after %s more, want 1s", after)
		}
		b.Ask(object("a"), "", 0)
		if _, after := b.woken(); after != 2*time.Second {
			t.Errorf("the next one after %s, want 2s", after)
		}
	})
}

// Who is new is asked at once, or as soon as a round that goes on is over.
func TestAnotherSubjectIsAskedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Ask(object("a"), "one", time.Second)
		time.Sleep(500 * time.Millisecond)
		b.Ask(object("a"), "one,two", time.Second)
		if _, after := b.woken(); after != 500*time.Millisecond {
			t.Errorf("the first round was over after %s more", after)
		}
		if b.Ask(object("a"), "one,two", time.Second) {
			t.Error("answers of one are current for two")
		}
		if _, after := b.woken(); after != time.Second {
			t.Errorf("two were asked after %s, want at once, for a second", after)
		}
		if !b.Ask(object("a"), "one,two", time.Second) {
			t.Error("answers are not current after two were asked")
		}
		time.Sleep(200 * time.Millisecond)
		b.Ask(object("a"), "three", 0)
		if _, after := b.woken(); after != 0 {
			t.Errorf("the third was asked after %s", after)
		}
		b.Ask(object("a"), "three", 0)
		if _, after := b.woken(); after != 2*time.Second {
			t.Errorf("the plan of before was kept: a round after %s", after)
		}
	})
}

// The silent hold up nobody else.
func TestSilentPodsHoldUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range 100 {
			b.Ask(object(fmt.Sprint("silent-", i)), "pod", time.Hour)
		}
		b.Ask(object("a"), "pod", time.Millisecond)
		if next, after := b.woken(); next != object("a") || after != time.Millisecond {
			t.Errorf("%s was reconciled after %s", next, after)
		}
		time.Sleep(time.Hour) // each of them has had its round, and ends
	})
}

// What nobody asks about any more is not asked again, and forgotten.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.Ask(object("gone"), "pod", 0)
		b.woken()
		for range 70 {
			b.Ask(object("a"), "pod", 0)
			if next, _ := b.woken(); next != object("a") {
				t.Fatalf("%s was asked about", next)
			}
		}
		if heard := b.Latest(object("gone")); heard != (Heard[time.Time]{}) || len(b.topics) != 1 {
			t.Errorf("%+v is remembered of it, and %d objects", heard, len(b.topics))
		}
	})
}

// Nobody is asked when the manager has stopped, or is not the leader any more.
func TestStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		life, stop := context.WithCancel(t.Context())
		if err := b.Start(life, b.queue); err != nil {
			t.Fatal(err)
		}
		b.Ask(object("a"), "", 0)
		stop()
		time.Sleep(time.Minute)
		if b.queue.Len() != 0 {
			t.Error("a round was made after the end")
		}
	})
}
