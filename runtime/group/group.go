// Package group lets the processes that train one network, its workers, add up
// their numbers.
//
// The numbers go through [Gloo], in a program of its own, collective, which each
// worker starts and shares some memory with. So the trainer stays one static
// program, a worker can give up an operation at any moment, and whatever happens
// in Gloo is an error here and not the end of the process.
//
// A group lives as long as all of its workers. Worker 0 calls the [Roll]: the
// others report to it over HTTP, with a request that is answered when all are
// there and held open until the group ends. When one end of such a request goes,
// the group is lost, for all of them, and they report again.
//
// [Gloo]: https://github.com/pytorch/gloo
package group

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"unsafe"
)

// Member says which worker of a group a process is.
type Member struct {
	// Rank is the worker's number, of Size: 0 to Size-1.
	Rank, Size int
	// Address is where the others reach this worker: an IP address.
	Address string
	// Run is what all must agree on before they add anything up.
	Run string
	// Program is the path of collective.
	Program string
	// Waiting, unless it is nil, is told whom the worker waits for.
	Waiting func(whom string)
}

// LostError says that the group is not whole any more. Its workers may form it
// anew.
type LostError struct{ cause error }

// Error returns what happened.
func (e *LostError) Error() string { return "the group of workers broke up: " + e.cause.Error() }

// Unwrap returns what happened.
func (e *LostError) Unwrap() error { return e.cause }

// Memory is about how many bytes a member of a group takes.
const Memory = 2 * window

// window is how many bytes are added up at once: all that is shared with the
// collective.
const window = 16 << 20

// patience is how long, in seconds, an operation may take. It is long since it
// is the last resort: that a worker is gone is seen in its request to worker 0.
const patience = 24 * 60 * 60

// Group is a worker's side of a group that is whole. One goroutine at a time may
// use it. After the first error, which Err tells, operations do nothing.
type Group struct {
	rank, size int
	ctx        context.Context // done when the group is lost
	lose       context.CancelCauseFunc
	process    *exec.Cmd
	to         io.WriteCloser
	from       *bufio.Reader
	shared     []byte
	err        error
	leave      func() // ends the membership
}

// start starts the collective and returns the addresses that it has for each
// worker.
func start(m Member) (*Group, []string, error) {
	shared, file, err := share(window)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }() // the memory stays mapped
	g := &Group{rank: m.Rank, size: m.Size, shared: shared, leave: func() {}}
	g.ctx, g.lose = context.WithCancelCause(context.Background())
	g.process = exec.CommandContext(g.ctx, m.Program, strconv.Itoa(m.Rank), strconv.Itoa(m.Size), m.Address, strconv.Itoa(patience))
	g.process.ExtraFiles = []*os.File{file}
	g.process.Stderr = os.Stderr
	addresses, err := g.begin()
	if err != nil {
		g.Close()
		return nil, nil, err
	}
	return g, addresses, nil
}

func (g *Group) begin() ([]string, error) {
	to, err := g.process.StdinPipe()
	if err != nil {
		return nil, err
	}
	from, err := g.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.process.Start(); err != nil {
		return nil, fmt.Errorf("starting what connects the workers: %w", err)
	}
	g.to, g.from = to, bufio.NewReader(from)
	line, err := g.read()
	if err != nil {
		return nil, err
	}
	addresses := strings.Fields(line)
	if len(addresses) != g.size {
		return nil, fmt.Errorf("the worker has no address for the others: %s", line)
	}
	return addresses, nil
}

// connect takes the addresses that the others have for this worker.
func (g *Group) connect(addresses []string) error {
	g.do(strings.Join(addresses, " "))
	return g.err
}

// do sends a line to the collective and waits until it says ok.
func (g *Group) do(line string) {
	if g.err != nil {
		return
	}
	err := g.ask(line)
	if cause := context.Cause(g.ctx); cause != nil {
		err = cause
	}
	if err != nil {
		g.err = &LostError{err}
		g.lose(err)
	}
}

// ask returns what the collective answers that isn't ok.
func (g *Group) ask(line string) error {
	if _, err := io.WriteString(g.to, line+"\n"); err != nil {
		return err
	}
	answer, err := g.read()
	if err == nil && answer != "ok" {
		err = errors.New(answer)
	}
	return err
}

func (g *Group) read() (string, error) {
	line, err := g.from.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("what connects the workers has ended: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

// Rank returns the worker's number.
func (g *Group) Rank() int { return g.rank }

// Size returns the number of workers.
func (g *Group) Size() int { return g.size }

// Err returns the first error: a [LostError], or nil.
func (g *Group) Err() error {
	if cause := context.Cause(g.ctx); g.err == nil && cause != nil {
		g.err = &LostError{cause}
	}
	return g.err
}

// GiveUp breaks the group up, also while an operation goes on. Any goroutine may
// call it.
func (g *Group) GiveUp(cause error) { g.lose(cause) }

// Lost is closed when the group has broken up.
func (g *Group) Lost() <-chan struct{} { return g.ctx.Done() }

// Add replaces each number by the sum of all workers' numbers in its place. All
// workers give slices of the same lengths, and all get the same bits, which
// depend on nothing but the numbers and how many workers there are.
func (g *Group) Add(parts ...[]float32) { add(g, "sum32", parts) }

// AddDoubles is Add for float64.
func (g *Group) AddDoubles(parts ...[]float64) { add(g, "sum64", parts) }

// add takes as many numbers at once as the window holds, out of all slices.
func add[T float32 | float64](g *Group, operation string, parts [][]T) {
	if g.Err() != nil {
		return
	}
	room := numbers[T](g.shared)
	filled, first := 0, 0 // room[:filled] holds parts[first:], from an offset on
	offset := 0
	flush := func(end int) {
		if filled == 0 {
			return
		}
		g.do(operation + " " + strconv.Itoa(filled))
		taken := 0
		for i := first; i <= end && taken < filled; i++ {
			from := 0
			if i == first {
				from = offset
			}
			taken += copy(parts[i][from:], room[taken:filled])
		}
		filled = 0
	}
	for i, part := range parts {
		for from := 0; from < len(part); {
			if filled == 0 {
				first, offset = i, from
			}
			n := copy(room[filled:], part[from:])
			filled, from = filled+n, from+n
			if filled == len(room) {
				flush(i)
			}
		}
	}
	flush(len(parts) - 1)
}

// Broadcast replaces the other workers' numbers by those of worker 0.
func (g *Group) Broadcast(values []float32) {
	if g.Err() != nil {
		return
	}
	room := numbers[float32](g.shared)
	for part := range slices.Chunk(values, len(room)) {
		copy(room, part)
		g.do("broadcast " + strconv.Itoa(4*len(part)))
		copy(part, room)
	}
}

// BroadcastBytes returns what worker 0 gives.
func (g *Group) BroadcastBytes(given []byte) []byte {
	if g.Err() != nil {
		return nil
	}
	length := [8]byte{}
	binary.LittleEndian.PutUint64(length[:], uint64(len(given)))
	g.broadcast(length[:])
	if g.err != nil {
		return nil
	}
	if g.rank > 0 {
		given = make([]byte, binary.LittleEndian.Uint64(length[:]))
	}
	for part := range slices.Chunk(given, len(g.shared)) {
		g.broadcast(part)
	}
	return given
}

func (g *Group) broadcast(part []byte) {
	copy(g.shared, part)
	g.do("broadcast " + strconv.Itoa(len(part)))
	copy(part, g.shared)
}

// Close leaves the group, which ends it for all.
func (g *Group) Close() {
	if g.shared == nil {
		return
	}
	g.lose(errors.New("this worker left it"))
	g.leave()
	if g.to != nil {
		// What it ended with tells nothing: it was killed.
		_ = g.process.Wait()
	}
	// The only error is that it is not mapped.
	_ = unshare(g.shared)
	g.shared = nil
}

// numbers returns memory as numbers.
func numbers[T float32 | float64](memory []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(memory))), len(memory)/int(unsafe.Sizeof(zero)))
}
