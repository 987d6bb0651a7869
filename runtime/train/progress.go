package train

import (
	"sync"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// Monitor holds how far a run is. Any goroutine may ask at any time. Its zero
// value is ready for use.
type Monitor struct {
	mutex    sync.Mutex
	progress spec.Progress
}

// Progress returns the latest progress: the zero value before the run starts.
// Its map is not to be changed.
func (m *Monitor) Progress() spec.Progress {
	if m == nil {
		return spec.Progress{}
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return m.progress
}

func (m *Monitor) change(how func(*spec.Progress)) {
	if m == nil {
		return
	}
	m.mutex.Lock()
	defer m.mutex.Unlock()
	how(&m.progress)
}

// does tells what the run does from now on; nothing while it trains.
func (m *Monitor) does(activity string) {
	m.change(func(p *spec.Progress) { p.Activity = activity })
}

// warn tells what a person should look at while the run goes on or waits; ""
// takes it back.
func (m *Monitor) warn(warning string) {
	m.change(func(p *spec.Progress) { p.Warning = warning })
}

// needs tells how much memory the run takes.
func (m *Monitor) needs(bytes float64) {
	m.change(func(p *spec.Progress) { p.MemoryBytes = int64(bytes) })
}

// report tells the monitor where f is.
func (f *fit) report() {
	rows, batch, epochs := int64(f.set.Train.X.Rows), int64(batchRows(f.job.Training, f.set)), f.job.Training.Epochs
	seen := min(f.Step*batch, rows)
	p := &spec.Progress{
		Epoch:            f.Epoch,
		Epochs:           epochs,
		Step:             f.Step,
		Steps:            (rows + batch - 1) / batch,
		Metrics:          f.metrics,
		SamplesPerSecond: f.pace.perSecond(),
	}
	if loss := f.Loss / float64(seen); isFinite(loss) {
		p.Loss = loss
	}
	if f.stopping != nil {
		p.BestEpoch, p.StoppedEarly = f.stopping.BestEpoch, f.Over && f.Epoch < epochs
	}
	if p.SamplesPerSecond > 0 && !f.Over {
		p.SecondsLeft = float64(rows*int64(epochs-f.Epoch)+rows-seen) / p.SamplesPerSecond
	}
	f.monitor.change(func(before *spec.Progress) {
		p.Activity, p.Warning, p.MemoryBytes = before.Activity, before.Warning, before.MemoryBytes
		*before = *p
	})
}

// pace is how fast a run goes.
type pace struct {
	started, now, reported time.Time
	samples                int64
}

// reportEvery is how old a progress report may be.
const reportEvery = 100 * time.Millisecond

func (p *pace) start(now time.Time) { p.started, p.now = now, now }

// add counts samples and tells whether it is time for a report.
func (p *pace) add(samples int, now time.Time) bool {
	p.samples += int64(samples)
	p.now = now
	due := now.Sub(p.reported) >= reportEvery
	if due {
		p.reported = now
	}
	return due
}

// perSecond is the mean over the run so far, measuring included.
func (p *pace) perSecond() float64 {
	seconds := p.now.Sub(p.started).Seconds()
	if seconds <= 0 {
		return 0
	}
	return float64(p.samples) / seconds
}
