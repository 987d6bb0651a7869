package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// clients ask at once where the peak is sought.
const clients = 32

// turns has each side of a comparison in turns.
const turns = 3

// clients returns a generator of so many, who ask as fast as they can.
func (b *bench) clients(n int) generator {
	return generator{dir: b.dir, fortio: b.fortio, connections: n}
}

// digitsJSON: one row of the digits network, V2 in JSON.
func (b *bench) digitsJSON() error {
	m := b.models["digits"]
	body := jsonRequest(m.inputs)
	ask := func(s *side) (load, error) {
		if err := s.check(m.Name, body); err != nil {
			return load{}, err
		}
		return b.clients(clients).post(s.infer(m.Name), body, 0)
	}
	ours, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	peak, err := ask(ours)
	if err != nil {
		return errors.Join(err, b.giveUp(ours))
	}
	ours.stop()
	for _, name := range []string{"kserve", "mlserver", "fastapi"} {
		theirs, err := b.ofPeer(name, m, ask)
		print("digits-json", peak, name, theirs, err, " target=20")
	}
	return nil
}

// half: the same at half of the peak, spread evenly.
func (b *bench) half() error { return b.atHalf("digits-json-half", generator.evenly, " target=1ms") }

// bursts: the same at half of the peak, in the bursts of wrk's pauses.
func (b *bench) bursts() error { return b.atHalf("digits-json-bursts", generator.inBursts, "") }

// atHalf measures at half of the peak, in turns with a bare server that takes as
// long for a request: what that cannot do, the machine and the load generator
// cannot. Told is also for how long our server had to wait for its core, since
// other programs were there: that is in every latency, too.
func (b *bench) atHalf(name string, ask func(g generator, rate float64, url string, body []byte) (load, error), more string) error {
	m := b.models["digits"]
	body := jsonRequest(m.inputs)
	ours, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	defer ours.stop()
	peak, err := b.peak(ours, m, body)
	if err != nil {
		return err
	}
	bare, err := b.floorFor(peak, m, body)
	if err != nil {
		return err
	}
	defer bare.stop()
	var rounds [2][turns]load
	waited := time.Duration(0)
	for turn := range turns {
		before, err := ours.waited()
		if err != nil {
			return err
		}
		if rounds[0][turn], err = ask(b.clients(0), peak.rate/2, ours.infer(m.Name), body); err != nil {
			return err
		}
		after, err := ours.waited()
		if err != nil {
			return err
		}
		waited += after - before
		if rounds[1][turn], err = ask(b.clients(0), peak.rate/2, bare.infer(m.Name), body); err != nil {
			return err
		}
	}
	fmt.Printf("BENCH serve/%s ours=%s floor=%s peak=%.0f%s waited-for-core=%.1f%%\n", name,
		middle(rounds[0][:]), middle(rounds[1][:]), peak.rate, more, 100*waited.Seconds()/(turns*(warmUp+duration).Seconds()))
	return nil
}

// middle returns the load with the median of the latencies.
func middle(all []load) load {
	slices.SortFunc(all, func(a, b load) int { return cmp.Compare(a.p99, b.p99) })
	return all[len(all)/2]
}

// peak is the fastest of three loads: other programs on the machine only take from
// it, and half of too little would be an easy load.
func (b *bench) peak(s *side, m *served, body []byte) (load, error) {
	var fastest load
	for range 3 {
		l, err := b.clients(clients).post(s.infer(m.Name), body, 0)
		if err != nil {
			return load{}, err
		}
		if l.rate > fastest.rate {
			fastest = l
		}
	}
	return fastest, nil
}

// floorFor starts a bare server with the peak of another: it spends the time that
// it has left for a request.
func (b *bench) floorFor(peak load, m *served, body []byte) (*side, error) {
	s, err := b.bare(0)
	if err != nil {
		return nil, err
	}
	alone, err := b.peak(s, m, body)
	s.stop()
	if err != nil {
		return nil, err
	}
	return b.bare(time.Duration(max(0, 1/peak.rate-1/alone.rate) * float64(time.Second)))
}

func (b *bench) giveUp(s *side) error {
	s.stop()
	return fmt.Errorf("see %s", s.log)
}

func (b *bench) ofPeer(name string, m *served, ask func(*side) (load, error)) (load, error) {
	s, err := b.peer(name, m)
	if err != nil {
		return load{}, err
	}
	defer s.stop()
	return ask(s)
}

// swap: other versions take the place of one another while clients ask as fast as
// they can. A request that fails fails the measurement.
func (b *bench) swap() error {
	m := b.models["digits"]
	other, err := b.registry.push(context.Background(), filepath.Join(b.dir, "digits-2"), "digits-2", []int{m.inputs, 64, 32, 10})
	if err != nil {
		return err
	}
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	defer s.stop()
	ctx, cancel := context.WithCancel(context.Background())
	swaps, swapped := 0, make(chan error, 1)
	go func() {
		for ctx.Err() == nil {
			next := other.ServedModel
			if swaps%2 == 1 {
				next = m.ServedModel
			}
			next.Name = m.Name
			if err := s.load(next); err != nil {
				swapped <- err
				return
			}
			swaps++
		}
		swapped <- nil
	}()
	asked, err := b.clients(clients).post(s.infer(m.Name), jsonRequest(m.inputs), 0)
	cancel()
	if err := errors.Join(err, <-swapped); err != nil {
		return err
	}
	fmt.Printf("BENCH serve/swap ours=%s swaps=%d failed=0\n", asked, swaps)
	return nil
}

// digitsGRPC: the same over gRPC with raw contents, beside our own JSON.
func (b *bench) digitsGRPC() error {
	m := b.models["digits"]
	call := func(s *side) (load, error) {
		if err := callOnce(s.grpc, message(m.Name, m.inputs)); err != nil {
			return load{}, err
		}
		return b.clients(clients).call(s.grpc, message(m.Name, m.inputs), 4)
	}
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	json, err := b.clients(clients).post(s.infer(m.Name), jsonRequest(m.inputs), 0)
	if err != nil {
		return errors.Join(err, b.giveUp(s))
	}
	ours, err := call(s)
	if err != nil {
		return errors.Join(err, b.giveUp(s))
	}
	s.stop()
	print("digits-grpc", ours, "ours-json", json, nil, " target=1.5")
	for _, name := range []string{"kserve", "mlserver"} {
		theirs, err := b.ofPeer(name, m, call)
		print("digits-grpc", ours, name, theirs, err, "")
	}
	return nil
}

// rows64Images: 64 images of digits at once in binary form.
func (b *bench) rows64Images() error {
	numbers, err := digitImages(rowsAtOnce)
	if err != nil {
		return err
	}
	return b.rows64("rows64-binary", numbers, " target=1")
}

// rows64Dense: the same with numbers of which none is 0.
func (b *bench) rows64Dense() error {
	random := rand.New(rand.NewPCG(1, 2))
	numbers := make([]float32, rowsAtOnce*b.models["medium"].inputs)
	for k := range numbers {
		numbers[k] = 0.01 + random.Float32()
	}
	return b.rows64("rows64-dense", numbers, "")
}

const rowsAtOnce = 64

// rows64 asks with rows of numbers, in turns with onnxruntime, which computes the
// same ones in its own process without any protocol. Rates are rows a second; those
// with the median are told.
func (b *bench) rows64(name string, numbers []float32, more string) error {
	m := b.models["medium"]
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	defer s.stop()
	body, head := binaryRequest(rowsAtOnce, numbers)
	var rounds [2][]load
	for range turns {
		ours, err := b.clients(4).post(s.infer(m.Name), body, head)
		if err != nil {
			return err
		}
		ours.rate *= rowsAtOnce
		rounds[0] = append(rounds[0], ours)
		theirs, err := b.session(m, numbers)
		if err != nil {
			print(name, ours, "onnxruntime-in-process", theirs, err, "")
			return nil
		}
		rounds[1] = append(rounds[1], theirs)
	}
	print(name, middleRate(rounds[0]), "onnxruntime-in-process", middleRate(rounds[1]), nil, more+" unit=rows")
	return nil
}

// middleRate returns the load with the median of the rates.
func middleRate(all []load) load {
	slices.SortFunc(all, func(a, b load) int { return cmp.Compare(a.rate, b.rate) })
	return all[len(all)/2]
}

// session measures onnxruntime's own time for rows of numbers, on the server's core.
func (b *bench) session(m *served, numbers []float32) (load, error) {
	data := filepath.Join(b.dir, "rows")
	if err := os.WriteFile(data, rawTensor(numbers), 0o600); err != nil {
		return load{}, err
	}
	c := exec.Command("taskset", "-c", serverCore, filepath.Join(b.peers, "fastapi", "bin", "python"), "bench/serve/peers/session.py",
		filepath.Join(m.dir, "model.onnx"), data, strconv.Itoa(m.inputs), fmt.Sprint(duration.Seconds()))
	c.Stderr = os.Stderr
	output, err := c.Output()
	if err != nil {
		return load{}, fmt.Errorf("onnxruntime: %w", err)
	}
	var told struct{ Rate, P99 float64 }
	err = json.Unmarshal(output, &told)
	return load{rate: told.Rate, p99: time.Duration(told.P99 * float64(time.Second))}, err
}

// batching: 64 clients with one row each, of a network of 21 million weights,
// with batching and without, on all cores.
func (b *bench) batching() error {
	m := b.models["wide"]
	body, head := binaryRequest(1, pixels(m.inputs))
	var rates [2]load
	for i, size := range []string{"64", "0"} {
		s, err := b.ours(serverCore+","+loadCore, []spec.ServedModel{m.ServedModel}, "--max-batch-size="+size)
		if err != nil {
			return err
		}
		rates[i], err = b.clients(64).post(s.infer(m.Name), body, head)
		s.stop()
		if err != nil {
			return err
		}
	}
	print("batching", rates[0], "ours-without-batching", rates[1], nil, " target=3")
	return nil
}
