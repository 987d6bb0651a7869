package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"trainyard.dev/trainyard/runtime/spec"
)

// clients ask at once where the peak is sought.
const clients = 32

// digitsJSON: one row of the digits network, V2 in JSON.
func (b *bench) digitsJSON() error {
	m := b.models["digits"]
	body := jsonRequest(m.inputs)
	ask := func(s *side) (load, error) {
		if err := s.check(m.Name, body); err != nil {
			return load{}, err
		}
		return generator{b.dir, clients, 0}.post(s.infer(m.Name), body, 0)
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
	if err != nil {
		return err
	}
	for _, name := range []string{"kserve", "mlserver", "fastapi"} {
		theirs, err := b.ofPeer(name, m, ask)
		print("digits-json", peak, name, theirs, err, " target=20")
	}
	return nil
}

// half: the same at half of the peak, and how long the server had to wait for its
// core meanwhile, since other programs were there: that is in every latency, too.
func (b *bench) half() error {
	m := b.models["digits"]
	body := jsonRequest(m.inputs)
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	defer s.stop()
	peak, err := generator{b.dir, clients, 0}.post(s.infer(m.Name), body, 0)
	if err != nil {
		return err
	}
	const pause = 2 * time.Millisecond
	before, err := s.waited()
	if err != nil {
		return err
	}
	half, err := generator{b.dir, max(1, int(peak.rate/2*pause.Seconds())), pause}.post(s.infer(m.Name), body, 0)
	if err != nil {
		return err
	}
	after, err := s.waited()
	fmt.Printf("BENCH serve/digits-json-half ours=%s target=1ms waited-for-core=%.1f%%\n",
		half, 100*(after-before).Seconds()/(warmUp+duration).Seconds())
	return err
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
	asked, err := generator{b.dir, clients, 0}.post(s.infer(m.Name), jsonRequest(m.inputs), 0)
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
		if _, err := callOnce(s.grpc, message(m.Name, 1, m.inputs)); err != nil {
			return load{}, err
		}
		return generator{b.dir, clients, 0}.call(s.grpc, message(m.Name, 1, m.inputs), 4)
	}
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	json, err := generator{b.dir, clients, 0}.post(s.infer(m.Name), jsonRequest(m.inputs), 0)
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

// rows64: 64 rows at once in binary form, beside onnxruntime that computes them
// in its own process without any protocol. Rates are rows a second.
func (b *bench) rows64() error {
	const rows = 64
	m := b.models["medium"]
	s, err := b.ours(serverCore, []spec.ServedModel{m.ServedModel})
	if err != nil {
		return err
	}
	body, head := binaryRequest(rows, m.inputs)
	ours, err := generator{b.dir, 4, 0}.post(s.infer(m.Name), body, head)
	s.stop()
	if err != nil {
		return err
	}
	ours.rate *= rows
	floor, err := b.session(m, rows)
	print("rows64-binary", ours, "onnxruntime-in-process", floor, err, " target=1 unit=rows")
	return nil
}

// session measures onnxruntime's own time for rows, on the server's core.
func (b *bench) session(m *served, rows int) (load, error) {
	c := exec.Command("taskset", "-c", serverCore, filepath.Join(b.peers, "fastapi", "bin", "python"), "bench/serve/peers/session.py",
		filepath.Join(m.dir, "model.onnx"), strconv.Itoa(rows), strconv.Itoa(m.inputs), fmt.Sprint(duration.Seconds()))
	c.Stderr = os.Stderr
	output, err := c.Output()
	if err != nil {
		return load{}, fmt.Errorf("onnxruntime: %w", err)
	}
	var told struct{ Rate, P99 float64 }
	err = json.Unmarshal(output, &told)
	return load{told.Rate, time.Duration(told.P99 * float64(time.Second))}, err
}

// batching: 64 clients with one row each, of a network of 21 million weights,
// with batching and without, on all cores.
func (b *bench) batching() error {
	m := b.models["wide"]
	body, head := binaryRequest(1, m.inputs)
	var rates [2]load
	for i, size := range []string{"64", "0"} {
		s, err := b.ours(serverCore+","+loadCore, []spec.ServedModel{m.ServedModel}, "--max-batch-size="+size)
		if err != nil {
			return err
		}
		rates[i], err = generator{b.dir, 64, 0}.post(s.infer(m.Name), body, head)
		s.stop()
		if err != nil {
			return err
		}
	}
	print("batching", rates[0], "ours-without-batching", rates[1], nil, " target=3")
	return nil
}
