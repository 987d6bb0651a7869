// Package model keeps a trained network in a directory of three files:
//
//   - model.onnx: the graph, as every ONNX runtime reads it. Its weights are ONNX
//     external data that points into
//   - model.safetensors: every weight, so that it can be mapped into memory
//     without a copy, and read by every safetensors library;
//   - model.json: the [Metadata], readable by people.
//
// [Open] also reads dense ONNX models that other programs exported: see its
// comment for what it understands.
package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"trainyard.dev/trainyard/runtime/nn"
)

// The files of a model.
const (
	graphFile    = "model.onnx"
	weightsFile  = "model.safetensors"
	metadataFile = "model.json"
)

// Model is a network and what is known about it.
type Model struct {
	Network  *nn.Network
	Metadata Metadata

	files *files // that the weights are mapped from
}

// Write writes m's three files to dir, which is made if it is not there. The
// same model gives the same bytes. A failure can leave some of the files behind.
func Write(dir string, m *Model) error {
	if err := m.Network.Validate(); err != nil {
		return fmt.Errorf("writing model: %w", err)
	}
	if err := m.Metadata.validate(m.Network); err != nil {
		return fmt.Errorf("writing model: %w", err)
	}
	metadata, err := m.Metadata.encode()
	if err != nil {
		return err
	}
	tensors := inFileOrder(networkTensors(m.Network))
	header := layOut(tensors)
	graph, err := encodeGraph(m, tensors)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		writeTensors(filepath.Join(dir, weightsFile), header, tensors),
		writeFile(filepath.Join(dir, metadataFile), metadata),
		writeFile(filepath.Join(dir, graphFile), graph),
	)
}

// Open reads the model in dir. The weights are mapped, not copied, where the
// files allow it: they must not be changed while the model is open, and the
// network must not be used after [Model.Close].
//
// model.onnx may come from any program: a chain of Gemm, MatMul, Add, Sub, Mul,
// Div, BatchNormalization, Relu, LeakyRelu, Elu, Gelu, Sigmoid, Tanh, Softmax,
// of scikit-learn's Scaler, LinearRegressor and LinearClassifier, and of what
// changes nothing in it, with weights in the file or beside it. An error names
// the node or the tensor that does not fit. Without model.json, the metadata
// holds only the graph's name and a classifier's labels.
func Open(dir string) (*Model, error) {
	files, err := openFiles(dir)
	if err != nil {
		return nil, fmt.Errorf("opening model: %w", err)
	}
	m, err := open(files)
	if err != nil {
		files.Close()
		return nil, fmt.Errorf("opening model %s: %w", dir, err)
	}
	return m, nil
}

func open(files *files) (*Model, error) {
	graph, err := readGraph(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", graphFile, err)
	}
	network, err := graph.network(files)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", graphFile, err)
	}
	metadata, err := readMetadata(files, graph.metadata(network))
	if err == nil {
		err = metadata.validate(network)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", metadataFile, err)
	}
	return &Model{Network: network, Metadata: metadata, files: files}, nil
}

// Close unmaps the weights of a model that was opened. It may be called twice.
func (m *Model) Close() error {
	if m.files == nil {
		return nil
	}
	return m.files.Close()
}

// writeFile writes data and waits until the disk has it.
func writeFile(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}
