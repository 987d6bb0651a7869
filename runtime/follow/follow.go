// Package follow looks at an address for models: an ONNX file on a web server, in
// a bucket or on a volume, or a tag in an OCI registry. What it finds there it
// opens and holds against the model that is served, as a server would, and only
// what passes does it tell of. An ONNX file is pushed to the registry first, so
// that everyone else only knows models by their digest.
//
// While nothing changes at the address, looking transfers nothing.
package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"trainyard.dev/trainyard/runtime/serve"
	"trainyard.dev/trainyard/runtime/spec"
)

// Options are what a follower finds in its pod.
type Options struct {
	// Directory is for what is fetched. The follower has it for itself.
	Directory string
	// CredentialsDirectory holds the keys of the source's Secret as files.
	CredentialsDirectory string
	// Serving tells which models are served now; it may be none.
	Serving func() (spec.Serve, error)
	Log     *slog.Logger
}

// Follower looks at one address. Its report may be asked for by any number of
// goroutines.
type Follower struct {
	what    spec.Follow
	options Options
	source  source
	delays  *backoff.ExponentialBackOff
	// settled is what was said of what the source had last.
	settled spec.Followed
	// contract is the signature of the newest model that was found good; nil: none
	// yet since the follower started.
	contract *spec.Signature

	mutex  sync.Mutex
	report spec.Followed
}

// source is where models come from.
type source interface {
	// fetch brings into dir what there is now, and returns what to call when it
	// has been judged for good; with an error, nil if that isn't about what is
	// there. If there is what was judged last, the error is errUnchanged.
	fetch(ctx context.Context, dir string) (judged func(), err error)
	// publish makes what is in dir known under a digest.
	publish(ctx context.Context, dir string) (spec.Model, error)
}

// errUnchanged says that there is what was judged last.
var errUnchanged = errors.New("unchanged")

// firstPause is how soon a failure is followed by another try. Pauses grow from
// there to the interval.
const firstPause = 2 * time.Second

// New makes a follower of one address.
func New(what spec.Follow, o Options) *Follower {
	f := &Follower{what: what, options: o, delays: backoff.NewExponentialBackOff()}
	f.source = sourceOf(what, o)
	f.delays.InitialInterval = min(firstPause, f.interval())
	f.delays.MaxInterval = f.interval()
	f.delays.Reset()
	f.does("looks at " + what.SourceName)
	return f
}

// onceInterval bounds the pauses of a follower that is to look once, until it
// has seen something.
const onceInterval = time.Minute

func (f *Follower) interval() time.Duration {
	if f.what.EverySeconds == 0 {
		return onceInterval
	}
	return time.Duration(f.what.EverySeconds * float64(time.Second))
}

// Report is what the follower knows now.
func (f *Follower) Report() spec.Followed {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.report
}

func (f *Follower) does(activity string) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.report.Activity = activity
}

func (f *Follower) tell(report spec.Followed) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.report = report
}

// Run looks again and again until its context ends.
func (f *Follower) Run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(f.pause(f.look(ctx))):
		}
	}
}

// pause is until when to wait after a look. Followers that began together
// spread: each takes up to a tenth off.
func (f *Follower) pause(passing error) time.Duration {
	if passing != nil {
		return f.delays.NextBackOff()
	}
	f.delays.Reset()
	return f.interval() - time.Duration(rand.Float64()*float64(f.interval())/10)
}

// look looks once. The error is one that may pass sooner than the source
// changes.
func (f *Follower) look(ctx context.Context) error {
	judged, found, err := f.judge(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, errUnchanged) {
		f.tell(f.settled)
		return nil
	}
	report := spec.Followed{Model: f.settled.Model}
	if err != nil {
		report.Failure = failureOf(f.what, err)
		f.options.Log.Warn("No new model", "source", f.what.SourceName, "reason", report.Failure.Reason, "error", report.Failure.Message)
	} else {
		report.Model = &found
		f.options.Log.Info("Model is found", "source", f.what.SourceName, "reference", found.Reference, "digest", found.Digest)
	}
	if judged == nil {
		f.tell(report)
		return err
	}
	judged()
	f.settled = report
	f.tell(report)
	return nil
}

// judge fetches what there is, and finds a model in it or says why there is none.
// With judged, the verdict holds until there is something else.
func (f *Follower) judge(ctx context.Context) (judged func(), found spec.Model, err error) {
	dir := filepath.Join(f.options.Directory, "found")
	if err := os.RemoveAll(dir); err != nil {
		return nil, found, err
	}
	defer os.RemoveAll(dir)
	settle, err := f.source.fetch(ctx, dir)
	if err != nil {
		return settle, found, err
	}
	f.does("opens what is at " + f.what.SourceName)
	signature, parameters, err := serve.Inspect(dir)
	if err != nil {
		return settle, found, &unfitError{spec.ReasonModelInvalid, err}
	}
	contract, err := f.contractNow()
	if err != nil {
		return nil, found, err
	}
	if err := admit(contract, signature); err != nil {
		return settle, found, err
	}
	f.does("publishes what is at " + f.what.SourceName)
	if found, err = f.source.publish(ctx, dir); err != nil {
		return nil, found, err
	}
	found.Parameters, found.Signature = parameters, signature
	f.contract = signature
	return settle, found, nil
}

// unfitError is about what is at the address, not about the way there.
type unfitError struct {
	reason string
	error
}

func (e *unfitError) Unwrap() error { return e.error }

func admit(contract, signature *spec.Signature) error {
	if contract == nil {
		return nil
	}
	if err := contract.Admits(signature); err != nil {
		return &unfitError{spec.ReasonContractBroken, fmt.Errorf("it doesn't fit the model that is served: %w", err)}
	}
	return nil
}

// contractNow is what a new model has to fit: the newest that was found good, or
// what is served. Nil: anything will do, as far as is known.
func (f *Follower) contractNow() (*spec.Signature, error) {
	switch {
	case f.what.NewContract:
		return nil, nil
	case f.contract != nil:
		return f.contract, nil
	}
	serving, err := f.options.Serving()
	return serving.Signature, err
}

// Handler answers GET /followed.
func (f *Follower) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /followed", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(f.Report()) // whoever asked may be gone
	})
	return mux
}
