package remote

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// object is bytes at the other end, which can be read from any offset.
type object interface {
	// open starts to read at offset from, if the bytes are still of that version
	// (else, or if they can't be read from there, at 0).
	open(ctx context.Context, from int64, version string) (*part, error)
}

// part is an object's bytes from an offset to the end.
type part struct {
	body io.ReadCloser
	from int64
	// version changes with the bytes. Empty if the server does not tell: then
	// nothing can be taken up in the middle.
	version string
	// state is what is told of all of the object's bytes.
	state Version
}

// errChanged says that the bytes are not those of the version that was asked for.
var errChanged = errors.New("changed at the other end while it was read")

// errStalled says that nothing came for too long.
var errStalled = errors.New("no byte came for a while")

// download brings an object into a file.
type download struct {
	object object
	file   *os.File
	// delays are the pauses between attempts, and attempts how many may fail in a
	// row without worthwhile bytes in between.
	delays   *backoff.ExponentialBackOff
	attempts int
	// stall is how long a connection may be silent, and notice after how long that
	// is told.
	stall, notice time.Duration
	// trouble is told by any goroutine what is wrong, and nil when it is over.
	trouble func(error)

	size    int64 // of the file so far
	version string
	now     Version // of the bytes in the file
}

// worthwhile is how many bytes make an attempt count as progress. Without it,
// a server that sends a byte at a time would keep a run for ever.
const worthwhile = 1 << 20

func newDownload(o object, file *os.File) *download {
	delays := backoff.NewExponentialBackOff()
	delays.MaxInterval = 10 * time.Second
	return &download{object: o, file: file, delays: delays, attempts: 6, stall: time.Minute, notice: 5 * time.Second, trouble: func(error) {}}
}

// run goes on until all bytes are there or there is no point in going on.
func (d *download) run(ctx context.Context) error {
	for failures := 0; ; {
		before := d.size
		err := d.attempt(ctx)
		var passing *UnavailableError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !errors.As(err, &passing):
			return err
		}
		if d.size-before >= worthwhile {
			failures = 0
			d.delays.Reset()
		}
		if failures++; failures >= d.attempts {
			return err
		}
		d.trouble(err)
		if err := wait(ctx, d.delays.NextBackOff()); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// attempt reads as much as one connection gives.
func (d *download) attempt(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watchdog := time.AfterFunc(d.stall, func() { cancel(errStalled) })
	defer watchdog.Stop()
	silent := time.AfterFunc(d.notice, func() {
		d.trouble(&UnavailableError{Problem: networkProblem(errStalled), Err: errStalled})
	})
	defer silent.Stop()

	from := d.size
	if d.version == "" {
		from = 0
	}
	p, err := d.object.open(ctx, from, d.version)
	if errors.Is(err, errChanged) {
		d.version = ""
		return &UnavailableError{Problem: "it " + errChanged.Error() + "; wait until it is complete", Err: err}
	}
	if errors.Is(err, ErrUnchanged) {
		return ErrUnchanged
	}
	if err != nil {
		return explain(ctx, err)
	}
	defer p.body.Close()
	if err := d.startAt(p); err != nil {
		return err
	}
	return d.copy(ctx, p.body, watchdog, silent)
}

// startAt makes the file end where the part starts.
func (d *download) startAt(p *part) error {
	d.size, d.version = p.from, p.version
	if p.from == 0 {
		d.now = p.state
	}
	if err := d.file.Truncate(d.size); err != nil {
		return err
	}
	_, err := d.file.Seek(d.size, io.SeekStart)
	return err
}

func (d *download) copy(ctx context.Context, body io.Reader, watchdog, silent *time.Timer) error {
	buffer := make([]byte, 256<<10)
	silent.Reset(d.notice)
	d.trouble(nil)
	for {
		n, err := body.Read(buffer)
		watchdog.Reset(d.stall)
		if !silent.Reset(d.notice) && n > 0 {
			d.trouble(nil)
		}
		written, writing := d.file.Write(buffer[:n])
		d.size += int64(written)
		switch {
		case writing != nil:
			return full(writing)
		case errors.Is(err, io.EOF) && ctx.Err() == nil:
			// After the watchdog broke the connection, an end is no end: it can be
			// the server's answer to that.
			return nil
		case err != nil:
			return explain(ctx, err)
		}
	}
}
