// Package polling asks pods for what only they know, apart from the passes of a
// controller that decide by their answers. A pod that is silent holds up nobody
// but those who ask it: a pass reads what was answered last, and when that was
// asked, and is woken when there is something newer.
package polling

import (
	"context"
	"maps"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Poller asks one question for each of a controller's objects, again and again.
// It is a source of the controller's requests: after each round of a question,
// its object is reconciled, and has to be asked about again in that pass. An
// object that is not, as it is gone, is forgotten.
type Poller[Question, Answers any] struct {
	// Round asks a question, and returns when everyone has answered or had the
	// time to. Those of different objects run at the same time.
	Round func(ctx context.Context, question Question) Answers
	// Every is the time from the beginning of a round to that of the next.
	Every time.Duration
	// Now is the clock, and After calls a function when some time has passed, as
	// [time.AfterFunc] does; nil: those of package time.
	Now   func() time.Time
	After func(wait time.Duration, call func())

	mutex  sync.Mutex
	life   context.Context //nolint:containedctx // rounds outlive the passes that ask for them
	queue  workqueue.TypedRateLimitingInterface[reconcile.Request]
	topics map[reconcile.Request]*topic[Question, Answers]
	swept  time.Time
}

// topic is a question and what came of it.
type topic[Question, Answers any] struct {
	question Question
	// subject tells the question apart from others; about is the one of the last
	// round.
	subject, about string
	// began is when the last round began, whose answers are there if it is not
	// asking any more.
	began  time.Time
	asking bool
	// plans counts the rounds that were planned. Only the last of them is made.
	plans   int
	planned bool

	latest Heard[Answers]
}

// Heard is what was answered, and when that was asked. It is zero before there
// are answers.
type Heard[Answers any] struct {
	Answers Answers
	At      time.Time
}

// Start makes the poller a source of requests.
func (p *Poller[Question, Answers]) Start(ctx context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.life, p.queue = ctx, queue
	return nil
}

// Latest is what was answered last about an object.
func (p *Poller[Question, Answers]) Latest(object reconcile.Request) Heard[Answers] {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	if t := p.topics[object]; t != nil {
		return t.latest
	}
	return Heard[Answers]{}
}

// Ask has a question asked about an object once more: at once, if its subject is
// another than in the last round, as when there is a new pod; else when its time
// has come. It tells whether the latest answers are to that subject, which is
// the empty one before the first round.
func (p *Poller[Question, Answers]) Ask(object reconcile.Request, subject string, question Question) (current bool) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	t := p.topics[object]
	if t == nil {
		t = &topic[Question, Answers]{began: p.now()}
		if p.topics == nil {
			p.topics = map[reconcile.Request]*topic[Question, Answers]{}
		}
		p.topics[object] = t
	}
	t.question, t.subject = question, subject
	if !t.asking {
		p.plan(object, t)
	}
	return !t.asking && t.about == t.subject
}

// memory is for how long an object is remembered that nobody asks about.
const memory = time.Minute

// sweep forgets, from time to time, what nobody asks about.
func (p *Poller[Question, Answers]) sweep(now time.Time) {
	if now.Sub(p.swept) < memory {
		return
	}
	p.swept = now
	maps.DeleteFunc(p.topics, func(_ reconcile.Request, t *topic[Question, Answers]) bool {
		return !t.planned && !t.asking && now.Sub(t.began) > memory
	})
}

func (p *Poller[Question, Answers]) plan(object reconcile.Request, t *topic[Question, Answers]) {
	wait := max(0, p.Every-p.now().Sub(t.began))
	switch {
	case t.about != t.subject:
		wait = 0
	case t.planned:
		return
	}
	t.plans++
	t.planned = true
	plan := t.plans
	p.after(wait, func() { p.round(object, t, plan) })
}

// round asks, unless there is a newer plan.
func (p *Poller[Question, Answers]) round(object reconcile.Request, t *topic[Question, Answers], plan int) {
	p.mutex.Lock()
	life, question := p.life, t.question
	if t.plans != plan || t.asking || life.Err() != nil {
		p.mutex.Unlock()
		return
	}
	t.began, t.about, t.asking, t.planned = p.now(), t.subject, true, false
	p.sweep(t.began)
	p.mutex.Unlock()

	answers := p.Round(life, question)

	p.mutex.Lock()
	defer p.mutex.Unlock()
	t.asking = false
	t.latest = Heard[Answers]{Answers: answers, At: t.began}
	p.queue.Add(object)
}

func (p *Poller[Question, Answers]) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

func (p *Poller[Question, Answers]) after(wait time.Duration, call func()) {
	if p.After == nil {
		time.AfterFunc(wait, call)
		return
	}
	p.After(wait, call)
}
