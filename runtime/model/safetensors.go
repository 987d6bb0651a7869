package model

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/blas/blas32"

	"trainyard.dev/trainyard/runtime/nn"
)

// A safetensors file is the length of a header (8 bytes, little-endian), the
// header (a JSON object of name -> dtype, shape, data_offsets), and the data,
// without gaps. Offsets count from the end of the header.

const (
	headerStart    = 8
	maxHeaderBytes = 100 << 20 // the format's own limit
	floatType      = "F32"
)

// tensor is an array that is to be written.
type tensor struct {
	name   string
	matrix blas32.General
	vector bool  // it has one dimension
	offset int64 // in the file
}

func (t *tensor) shape() []int64 {
	if t.vector {
		return []int64{int64(t.matrix.Cols)}
	}
	return []int64{int64(t.matrix.Rows), int64(t.matrix.Cols)}
}

func (t *tensor) bytes() int64 { return 4 * int64(t.matrix.Rows) * int64(t.matrix.Cols) }

// networkTensors returns every weight in the order of the layers. The names are
// those of torch modules in a ModuleList called layers.
func networkTensors(n *nn.Network) []*tensor {
	var tensors []*tensor
	for i, layer := range n.Layers {
		prefix := "layers." + strconv.Itoa(i) + "."
		vector := func(name string, v []float32) {
			m := blas32.General{Rows: 1, Cols: len(v), Stride: len(v), Data: v}
			tensors = append(tensors, &tensor{name: prefix + name, matrix: m, vector: true})
		}
		switch l := layer.(type) {
		case *nn.Dense:
			tensors = append(tensors, &tensor{name: prefix + "weight", matrix: l.Weight})
			if l.Bias != nil {
				vector("bias", l.Bias)
			}
		case *nn.BatchNormalization:
			vector("weight", l.Gamma)
			vector("bias", l.Beta)
			vector("running_mean", l.Mean)
			vector("running_var", l.Variance)
		case *nn.Normalization:
			vector("mean", l.Mean)
			vector("scale", l.Scale)
		}
	}
	return tensors
}

// alignment of the data, for the processor's vectors.
const alignment = 64

// inFileOrder puts tensors of round sizes first. The format has no gaps, so this
// is what aligns them. Aligned as they were in training, weights give the same
// bits: gonum's kernels sum in an order that depends on the alignment.
func inFileOrder(tensors []*tensor) []*tensor {
	roundness := func(t *tensor) int {
		return min(bits.TrailingZeros64(uint64(t.bytes())), bits.TrailingZeros(alignment))
	}
	return slices.SortedStableFunc(slices.Values(tensors), func(a, b *tensor) int { return roundness(b) - roundness(a) })
}

// layOut gives every tensor its offset, in this order, and returns the header
// that says so, with its length, padded with spaces so that the data is aligned.
func layOut(tensors []*tensor) []byte {
	var header bytes.Buffer
	header.WriteByte('{')
	end := int64(0)
	for i, t := range tensors {
		if i > 0 {
			header.WriteByte(',')
		}
		t.offset = end
		end += t.bytes()
		shape, _ := json.Marshal(t.shape()) // integers always marshal
		fmt.Fprintf(&header, `%q:{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}`, t.name, floatType, shape, t.offset, end)
	}
	header.WriteByte('}')
	for (headerStart+header.Len())%alignment != 0 {
		header.WriteByte(' ')
	}
	for _, t := range tensors {
		t.offset += int64(headerStart + header.Len())
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(header.Len())), header.Bytes()...)
}

// writeTensors streams header and tensors to a file.
func writeTensors(path string, header []byte, tensors []*tensor) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	_, _ = w.Write(header) // the writer keeps its first error for Flush
	for _, t := range tensors {
		m := t.matrix
		for i := range m.Rows {
			_, _ = w.Write(floatBytes(m.Data[i*m.Stride : i*m.Stride+m.Cols]))
		}
	}
	return errors.Join(w.Flush(), file.Sync(), file.Close())
}

// tensorPlace is where a tensor lies in a file.
type tensorPlace struct {
	name       string
	shape      []int64
	begin, end int64
}

// parseSafetensors checks a file's header and returns its tensors by name.
func parseSafetensors(data []byte) (map[string]tensorPlace, error) {
	if len(data) < headerStart {
		return nil, fmt.Errorf("it has %d bytes, too few for the length of a header", len(data))
	}
	length := binary.LittleEndian.Uint64(data)
	if length > maxHeaderBytes || length > uint64(len(data)-headerStart) {
		return nil, fmt.Errorf("offset 0: the header's length is %d, but the file has %d bytes (and a header %d at most)", length, len(data), maxHeaderBytes)
	}
	dataStart := headerStart + int64(length)
	places, err := parseHeader(data[headerStart:dataStart], dataStart)
	if err != nil {
		return nil, err
	}
	if err := checkPlaces(places, dataStart, int64(len(data))); err != nil {
		return nil, err
	}
	byName := make(map[string]tensorPlace, len(places))
	for _, p := range places {
		byName[p.name] = p
	}
	if len(byName) != len(places) {
		return nil, errors.New("the header names a tensor twice")
	}
	return byName, nil
}

func parseHeader(header []byte, dataStart int64) ([]tensorPlace, error) {
	decoder := json.NewDecoder(bytes.NewReader(header))
	at := func(err error) error { return fmt.Errorf("offset %d: %w", headerStart+decoder.InputOffset(), err) }
	if first, err := decoder.Token(); err != nil || first != json.Delim('{') {
		return nil, at(errors.New("the header is not a JSON object"))
	}
	var places []tensorPlace
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, at(err)
		}
		name, _ := token.(string) // a key of an object always is one
		if name == "__metadata__" {
			var skipped json.RawMessage
			err = decoder.Decode(&skipped)
		} else {
			var place tensorPlace
			place, err = parsePlace(decoder, name, dataStart)
			places = append(places, place)
		}
		if err != nil {
			return nil, at(err)
		}
	}
	if _, err := decoder.Token(); err != nil {
		return nil, at(err)
	}
	if rest := header[decoder.InputOffset():]; strings.TrimSpace(string(rest)) != "" {
		return nil, at(errors.New("there is more after the header's end"))
	}
	return places, nil
}

func parsePlace(decoder *json.Decoder, name string, dataStart int64) (tensorPlace, error) {
	var entry struct {
		Dtype   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	if err := decoder.Decode(&entry); err != nil {
		return tensorPlace{}, fmt.Errorf("tensor %.80q: %w", name, err)
	}
	p := tensorPlace{name: name, shape: entry.Shape, begin: entry.Offsets[0], end: entry.Offsets[1]}
	if entry.Dtype != floatType {
		return p, fmt.Errorf("tensor %.80q has dtype %.20q; only %s can be read", name, entry.Dtype, floatType)
	}
	if p.begin < 0 || p.end < p.begin || p.end > 1<<62 {
		return p, fmt.Errorf("tensor %.80q has data_offsets [%d, %d], which is no range", name, p.begin, p.end)
	}
	count, err := elements(p.shape)
	if err != nil {
		return p, fmt.Errorf("tensor %.80q: %w", name, err)
	}
	if p.end-p.begin != 4*count {
		return p, fmt.Errorf("tensor %.80q of shape %v has %d bytes (data_offsets [%d, %d]); it needs %d", name, p.shape, p.end-p.begin, p.begin, p.end, 4*count)
	}
	p.begin += dataStart
	p.end += dataStart
	return p, nil
}

// checkPlaces makes sure that the tensors fill the data, without overlaps.
func checkPlaces(places []tensorPlace, dataStart, fileSize int64) error {
	slices.SortStableFunc(places, func(a, b tensorPlace) int { return int(min(max(a.begin-b.begin, -1), 1)) })
	end, before := dataStart, "the header"
	for _, p := range places {
		if p.begin != end {
			return fmt.Errorf("tensor %.80q starts at offset %d, but %.80s ends at %d", p.name, p.begin, before, end)
		}
		if p.end > fileSize {
			return fmt.Errorf("tensor %.80q ends at offset %d, but the file has %d bytes; it was cut off", p.name, p.end, fileSize)
		}
		end, before = p.end, "tensor "+strconv.Quote(p.name)
	}
	if end != fileSize {
		return fmt.Errorf("%.80s ends at offset %d, but the file has %d bytes", before, end, fileSize)
	}
	return nil
}

// elements is the product of a shape. No shape that memory can hold overflows.
func elements(shape []int64) (int64, error) {
	const most = 1 << 40
	count := int64(1)
	for _, d := range shape {
		if d < 0 || d > most {
			return 0, fmt.Errorf("shape %v cannot be", abridged(shape))
		}
		if d > 0 && count > most/d {
			return 0, fmt.Errorf("shape %v has too many elements", abridged(shape))
		}
		count *= d
	}
	return count, nil
}

func abridged(shape []int64) []int64 { return shape[:min(len(shape), 8)] }
