package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"trainyard.dev/trainyard/hack/cluster/internal/host"
	"trainyard.dev/trainyard/hack/cluster/internal/process"
)

// state is what a later run has to know of the one that started the cluster.
type state struct {
	Key       string            `json:"key"`
	Config    string            `json:"config"` // digest
	ProxyMode string            `json:"proxyMode"`
	Started   time.Time         `json:"started"`
	Ready     bool              `json:"ready"` // the start came to its end
	Processes []process.Process `json:"processes"`
	Sysctls   []host.Sysctl     `json:"sysctls"` // to set when the cluster goes
}

var stateFile = path("state.json")

func loadState() (*state, error) {
	content, err := os.ReadFile(stateFile)
	if err != nil {
		return nil, err
	}
	st := &state{}
	if err := json.Unmarshal(content, st); err != nil {
		return nil, fmt.Errorf("reading %s: %w", stateFile, err)
	}
	return st, nil
}

// save replaces the file at once, so that a run that is killed leaves a whole one.
func (s *state) save() error {
	content, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	temporary := stateFile + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return fmt.Errorf("recording the state: %w", err)
	}
	return os.Rename(temporary, stateFile)
}

// start runs a component and records it.
func (s *state) start(c component) error {
	p, err := process.Start(c.name, program(c.name), c.args, logFile(c.name))
	if err != nil {
		return err
	}
	s.Processes = append(s.Processes, p)
	return s.save()
}

// ended names the first component that no longer runs.
func (s *state) ended() (name string, ok bool) {
	for _, p := range s.Processes {
		if !p.Alive() {
			return p.Name, true
		}
	}
	return "", false
}
