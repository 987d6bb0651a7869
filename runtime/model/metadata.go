package model

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"trainyard.dev/trainyard/runtime/nn"
	"trainyard.dev/trainyard/runtime/spec"
)

// Metadata is what is known about a model besides its network.
type Metadata struct {
	Name string `json:"name,omitempty"`
	// Inputs are the names of the columns that go in, in order. Nil: not known.
	Inputs []string `json:"inputs,omitempty"`
	// Label is the name of the column that is predicted.
	Label string `json:"label,omitempty"`
	// Classes are the labels of the outputs, in order; for a network with one
	// output, the labels of an answer near 0 and near 1. Nil: the outputs are
	// numbers, or not known.
	Classes []string `json:"classes,omitempty"`
	// Metrics are those of the end of training, by name.
	Metrics map[string]float64 `json:"metrics,omitempty"`
	// DatasetDigest is "sha256:..." of the dataset's bytes.
	DatasetDigest string       `json:"datasetDigest,omitempty"`
	Seed          int64        `json:"seed,omitempty"`
	Lineage       spec.Lineage `json:"lineage,omitzero"`
	// CodeVersion is that of the trainer.
	CodeVersion string  `json:"codeVersion,omitempty"`
	Golden      *Golden `json:"golden,omitempty"`
}

// Golden is a few recorded rows in the dataset's own units and the answers to
// them, to check that a server computes what the trainer computed.
type Golden struct {
	Inputs  [][]float32 `json:"inputs"`
	Outputs [][]float32 `json:"outputs"`
}

// maxMetadataBytes bounds what is read: a million columns with their names fit.
const maxMetadataBytes = 64 << 20

// metadata is what a graph says about its network.
func (g *graph) metadata(n *nn.Network) Metadata {
	m := Metadata{Name: g.name}
	if len(g.classes) == max(2, n.Outputs()) {
		m.Classes = g.classes
	}
	return m
}

func readMetadata(files *files, otherwise Metadata) (Metadata, error) {
	data, err := files.read(metadataFile, maxMetadataBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise, nil
	}
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := json.Unmarshal(data, &m); err != nil {
		return Metadata{}, describeJSON(err)
	}
	return m, nil
}

func describeJSON(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("byte %d: %w", syntax.Offset, err)
	}
	return err
}

func (m *Metadata) encode() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(m); err != nil {
		return nil, fmt.Errorf("writing %s: %w", metadataFile, err)
	}
	return b.Bytes(), nil
}

// validate checks that the metadata fits the network.
func (m *Metadata) validate(n *nn.Network) error {
	outputs := n.Outputs()
	if m.Inputs != nil && len(m.Inputs) != n.Inputs {
		return fmt.Errorf("inputs has %d names, but the network has %d inputs", len(m.Inputs), n.Inputs)
	}
	if m.Classes != nil && len(m.Classes) != max(2, outputs) {
		return fmt.Errorf("classes has %d labels, but the network has %d outputs", len(m.Classes), outputs)
	}
	if m.Golden == nil {
		return nil
	}
	if len(m.Golden.Inputs) != len(m.Golden.Outputs) {
		return fmt.Errorf("golden has %d inputs and %d outputs; it needs the same number of each", len(m.Golden.Inputs), len(m.Golden.Outputs))
	}
	for i, row := range m.Golden.Inputs {
		if len(row) != n.Inputs || len(m.Golden.Outputs[i]) != outputs {
			return fmt.Errorf("golden row %d has %d inputs and %d outputs, but the network has %d and %d", i, len(row), len(m.Golden.Outputs[i]), n.Inputs, outputs)
		}
	}
	return nil
}
