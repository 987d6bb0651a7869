package train

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"trainyard.dev/trainyard/runtime/nn"
)

// A checkpoint is a file of
//
//	magic, the version of the format
//	the length of the state, 4 bytes, little endian
//	the state: a checkpointState as JSON
//	the tensors' numbers one after the other, float32, little endian
//	the SHA-256 of all before
//
// It takes the place of the one before at once: it is written beside it, synced,
// and renamed.
const (
	checkpointMagic   = "trainyard checkpoint 1\n"
	checkpointFile    = "checkpoint"
	checkpointPartial = "checkpoint.partial"
	// maxState is how long a state may claim to be.
	maxState = 1 << 20
)

// A damagedError says that a checkpoint cannot be trusted.
type damagedError struct{ problem string }

func (e *damagedError) Error() string { return "the checkpoint is damaged: " + e.problem }

// errOtherRun says that a checkpoint belongs to another recipe or dataset.
var errOtherRun = errors.New("the checkpoint belongs to another run: TrainingJob, recipe or dataset are not the same")

// writeCheckpoint leaves a checkpoint in dir, or the one that was there.
func writeCheckpoint(dir string, s checkpointState, tensors []nn.Tensor) (err error) {
	partial := filepath.Join(dir, checkpointPartial)
	file, err := os.Create(partial)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			// Best effort: the next checkpoint starts it anew anyway.
			_ = os.Remove(partial)
		}
	}()
	if err := errors.Join(encodeCheckpoint(file, s, tensors), file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(partial, filepath.Join(dir, checkpointFile)); err != nil {
		return err
	}
	return syncDirectory(dir)
}

func syncDirectory(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func encodeCheckpoint(to io.Writer, s checkpointState, tensors []nn.Tensor) error {
	state, err := json.Marshal(s)
	if err != nil {
		return err
	}
	hash, buffered := sha256.New(), bufio.NewWriterSize(to, 1<<16)
	w := io.MultiWriter(buffered, hash)
	head := binary.LittleEndian.AppendUint32([]byte(checkpointMagic), uint32(len(state)))
	if _, err := w.Write(append(head, state...)); err != nil {
		return err
	}
	if err := writeTensors(w, tensors); err != nil {
		return err
	}
	if _, err := buffered.Write(hash.Sum(nil)); err != nil {
		return err
	}
	return buffered.Flush()
}

// chunk is how many numbers are written or read at once.
const chunk = 1 << 14

func writeTensors(w io.Writer, tensors []nn.Tensor) error {
	buffer := make([]byte, 0, 4*chunk)
	for _, t := range tensors {
		for values := range slices.Chunk(t.Value, chunk) {
			bytes, err := binary.Append(buffer, binary.LittleEndian, values)
			if err != nil {
				return err
			}
			if _, err := w.Write(bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// readCheckpoint reads dir's checkpoint of a run into tensors. Its errors are
// [fs.ErrNotExist], a [damagedError], errOtherRun, or a failure to read; after
// any of the last kind, tensors may hold anything.
func readCheckpoint(dir, run string, tensors []nn.Tensor) (checkpointState, error) {
	file, err := os.Open(filepath.Join(dir, checkpointFile))
	if err != nil {
		return checkpointState{}, err
	}
	defer file.Close()
	return decodeCheckpoint(file, run, tensors)
}

// decodeCheckpoint reads twice: it looks at nothing that it has not verified.
func decodeCheckpoint(from io.ReadSeeker, run string, tensors []nn.Tensor) (checkpointState, error) {
	var s checkpointState
	size, err := verify(from)
	if err != nil {
		return s, err
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return s, err
	}
	r := bufio.NewReader(io.LimitReader(from, size))
	if err := readState(r, &s); err != nil {
		return s, err
	}
	if s.Run != run {
		return s, errOtherRun
	}
	return s, readTensors(r, tensors)
}

// verify compares checksums and returns how many bytes stand before the
// checksum.
func verify(from io.ReadSeeker) (int64, error) {
	end, err := from.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	size := end - sha256.Size
	if size < int64(len(checkpointMagic)) {
		return 0, &damagedError{fmt.Sprintf("it has %d bytes", end)}
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	hash, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(hash, from, size); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(from, want); err != nil {
		return 0, err
	}
	if got := hash.Sum(nil); !bytes.Equal(got, want) {
		return 0, &damagedError{fmt.Sprintf("its checksum is %x, but its content has %x", want[:6], got[:6])}
	}
	return size, nil
}

func readState(r io.Reader, s *checkpointState) error {
	head := make([]byte, len(checkpointMagic)+4)
	if _, err := io.ReadFull(r, head); err != nil || !bytes.HasPrefix(head, []byte(checkpointMagic)) {
		return &damagedError{fmt.Sprintf("it does not start with %q", checkpointMagic)}
	}
	length := binary.LittleEndian.Uint32(head[len(checkpointMagic):])
	if length > maxState {
		return &damagedError{fmt.Sprintf("its state has %d bytes", length)}
	}
	state := make([]byte, length)
	if _, err := io.ReadFull(r, state); err != nil {
		return &damagedError{"its state is cut off"}
	}
	if err := json.Unmarshal(state, s); err != nil {
		return &damagedError{fmt.Sprintf("its state cannot be read: %v", err)}
	}
	return nil
}

func readTensors(r *bufio.Reader, tensors []nn.Tensor) error {
	buffer := make([]byte, 4*chunk)
	for _, t := range tensors {
		for values := range slices.Chunk(t.Value, chunk) {
			bytes := buffer[:4*len(values)]
			if _, err := io.ReadFull(r, bytes); err != nil {
				return &damagedError{"its numbers are cut off in " + t.Name}
			}
			if _, err := binary.Decode(bytes, binary.LittleEndian, values); err != nil {
				return err
			}
		}
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return &damagedError{"something follows its numbers"}
	}
	return nil
}
