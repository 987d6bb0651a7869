package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

func readFile(t *testing.T, name string, d spec.Dataset, target Target) (*Set, error) {
	t.Helper()
	d.Format = spec.Format(map[string]string{".npy": "NPY", ".npz": "NPZ", ".parquet": "Parquet"}[filepath.Ext(name)])
	return Read(t.Context(), filepath.Join("testdata", name), Options{Dataset: d, Target: target, SourceName: "the source", MemoryBytes: 1 << 20, TemporaryDir: t.TempDir()})
}

// TestForeignFiles reads what NumPy and Arrow wrote (see testdata/make.py).
func TestForeignFiles(t *testing.T) {
	for _, test := range []struct {
		file    string
		dataset spec.Dataset
		target  Target
		columns []string
		x, y    []float32
		classes []string
	}{
		{"f8.npy", spec.Dataset{Label: "2"}, Numbers, []string{"0", "1"}, []float32{0, .5, 1, 1.5, 2, 2.5}, []float32{-1, 0, 1}, nil},
		{"f8.npy", spec.Dataset{Label: "0", Features: []string{"2"}}, Classes, []string{"2"}, []float32{-1, 0, 1}, []float32{0, 1, 2}, []string{"0", "1", "2"}},
		{"f4-fortran.npy", spec.Dataset{Label: "0", Features: []string{"2", "1"}}, Numbers, []string{"2", "1"}, []float32{-1, .5, 0, 1.5, 1, 2.5}, []float32{0, 1, 2}, nil},
		{"f2.npy", spec.Dataset{Label: "2"}, Numbers, []string{"0", "1"}, []float32{0, .5, 1, 1.5, 2, 2.5}, []float32{-1, 0, 1}, nil},
		{"stored.npz", spec.Dataset{Label: "y"}, Classes, []string{"x[0]", "x[1]", "x[2]"}, []float32{0, .5, -1, 1, 1.5, 0, 2, 2.5, 1}, []float32{1, 0, 1}, []string{"iris", "rose"}},
		{"deflated.npz", spec.Dataset{Label: "y", Features: []string{"b", "x", "n"}}, Classes, []string{"b", "x[0]", "x[1]", "x[2]", "n"},
			[]float32{1, 0, .5, -1, 0, 0, 1, 1.5, 0, 1, 1, 2, 2.5, 1, 2}, []float32{1, 0, 1}, []string{"iris", "rose"}},
		{"deflated.npz", spec.Dataset{Label: "n", Features: []string{"x[1]", "y"}, OneHot: []string{"y"}}, Numbers, []string{"x[1]", "y=iris", "y=rose"},
			[]float32{.5, 0, 1, 1.5, 1, 0, 2.5, 0, 1}, []float32{0, 1, 2}, nil},
		{"images.npz", spec.Dataset{Label: "y", Features: []string{"images[0]", "images[11]"}}, Classes, []string{"images[0]", "images[11]"},
			[]float32{0, 255, 1, 0, 2, 1}, []float32{0, 1, 0}, []string{"1152921504606846976", "1152921504606846977"}},
		{"snappy.parquet", spec.Dataset{Label: "species", Features: []string{"c", "a", "half", "sure", "b"}}, Classes, []string{"c", "a", "half", "sure", "b"},
			[]float32{-1, 0, 1, 1, .5, 0, 1, 2, 0, 1.5, 1, 2, 3, 1, 2.5}, []float32{1, 0, 1}, []string{"iris", "rose"}},
		{"zstd.parquet", spec.Dataset{Label: "a", Features: []string{"b", "color"}, OneHot: []string{"color"}, Missing: &spec.Missing{Policy: spec.FillConstant}}, Numbers,
			[]string{"b", "color=blue", "color=red"}, []float32{.5, 0, 1, 1.5, 0, 0, 2.5, 1, 0}, []float32{0, 1, 2}, nil},
		{"gzip.parquet", spec.Dataset{Label: "a", Features: []string{"small", "c"}, Missing: &spec.Missing{Policy: spec.FillMean}}, Numbers,
			[]string{"small", "c"}, []float32{1, -1, 2, 0, 1.5, 1}, []float32{0, 1, 2}, nil},
	} {
		t.Run(test.file+" "+test.dataset.Label, func(t *testing.T) {
			got, err := readFile(t, test.file, test.dataset, test.target)
			if err != nil {
				t.Fatal(err)
			}
			want := &Set{
				Columns: test.columns, Label: test.dataset.Label, Classes: test.classes, Digest: got.Digest,
				Train:      Part{X: general(3, len(test.columns), test.x), Y: test.y},
				Validation: Part{X: general(0, len(test.columns), nil)},
			}
			if diff := cmp.Diff(want, got, values); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestForeignFilesSayWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		file    string
		dataset spec.Dataset
		want    string
	}{
		{"object.npy", spec.Dataset{Label: "0"}, `the source: the array has the type "|O"; it holds Python objects, which can't be read`},
		{"big-endian.npy", spec.Dataset{Label: "0"}, `the source: the array is big-endian (">f4"); save it with a.astype(`},
		{"fields.npy", spec.Dataset{Label: "0"}, `the source: the array has named fields; save its numbers as an array of one type`},
		{"f8.npy", spec.Dataset{Label: "y"}, `the source: label: there is no column "y". The columns are "0", "1", "2"`},
		{"stored.npz", spec.Dataset{Label: "x"}, `the source: label: "x" has 3 columns, but the label is one column, with the name or number of the class; if it is one-hot, with a column for each class, use labels: [x] instead`},
		{"stored.npz", spec.Dataset{Label: "y", Features: []string{"x", "x[1]"}}, `the source: features: column "x[1]" is listed twice (as "x" and "x[1]")`},
		{"stored.npz", spec.Dataset{Label: "x[0]"}, `the source: row 1, column "y": "rose" is not a number`},
		{"snappy.parquet", spec.Dataset{Label: "a", Features: []string{"when"}}, `the source: column "when": it has the type TIMESTAMP`},
		{"snappy.parquet", spec.Dataset{Label: "a", Features: []string{"list.list.element"}}, `the source: column "list.list.element": it holds lists`},
		{"snappy.parquet", spec.Dataset{Label: "a", Features: []string{"color"}}, `the source: row 1, column "color": "red" is not a number; write it as 12.5 or 1e-3, list the column in oneHot`},
		{"snappy.parquet", spec.Dataset{Label: "a", Features: []string{"small"}}, `the source: row 3, column "small": the value is missing`},
		{"snappy.parquet", spec.Dataset{Label: "smal"}, `the source: label: there is no column "smal"; did you mean "small"?`},
	} {
		_, err := readFile(t, test.file, test.dataset, Numbers)
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got  %v\nwant %s...", test.file, err, test.want)
		}
	}
}

// npy is an array of that header and those elements.
func npy(header string, elements ...float64) string {
	b := []byte(npyMagic + "\x01\x00")
	b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	b = append(b, header...)
	for _, v := range elements {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	}
	return string(b)
}

func npyHeader(shape string) string {
	return "{'descr': '<f8', 'fortran_order': False, 'shape': (" + shape + "), }"
}

func npz(t testing.TB, members map[string]string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, name := range []string{"a.npy", "b.npy", "readme"} {
		if text, ok := members[name]; ok {
			f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = f.Write([]byte(text)) // to a buffer
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestDamagedArrays(t *testing.T) {
	for _, test := range []struct{ data, want string }{
		{npy(npyHeader("2, 2"), 1, 2, 3), "the array ends in the middle: it should have 2 rows of 16 bytes, but there are only 24 bytes"},
		{npy(npyHeader("1, 2"), 1, 2, 3), "something follows the array"},
		{npy(npyHeader("4000000000000, 2"), 1), "the array ends in the middle"},
		{npy(npyHeader("1, 4000000000"), 1), "the array has the shape (1, 4000000000); rows may have between 1 and 1048576 numbers"},
		{npy(npyHeader("1, 99999, 99999, 99999"), 1), "rows may have between"},
		{npy(npyHeader("99999999999999999999999"), 1), "can't be"},
		{npy(npyHeader("2, 0")), "rows may have between"},
		{npy(npyHeader("0, 2")), "the table has no rows"},
		{npy(npyHeader(""), 1), "the array is a single value"},
		{npy(npyHeader("2,"), 1, 2), `the only column is the label "0"; a network needs at least one feature column`},
		{npy("{}"), "is not one of NPY"},
		{npy(strings.Replace(npyHeader("1"), "<f8", "<U9999999", 1)), "at most 32 MiB can be read"},
		{npy(strings.Replace(npyHeader("1"), "<f8", "<M8[ns]", 1)), `the array has the type "<M8[ns]"`},
		{npyMagic + "\x09\x00", "version 9 of the NPY format"},
		{npyMagic + "\x02\x00\xff\xff\xff\xff", "claims to have 4294967295 bytes"},
		{npyMagic + "\x01", "the array ends in the middle"},
		{npy(npyHeader("1, 2"), math.Inf(1), 1), `row 1, column "1": +Inf is not a finite number`},
		{npy(npyHeader("1, 2"), 1, 1e39), `column "1": 1e+39 is too large`},
	} {
		o := labelled("0")
		o.Format = spec.NPY
		if strings.Contains(test.want, `column "1"`) {
			test.data = npy(npyHeader("1, 2"), 1, map[bool]float64{true: 1e39, false: math.Inf(1)}[strings.Contains(test.want, "1e+39")])
		}
		_, err := Read(t.Context(), write(t, test.data), o)
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

func TestDamagedArchives(t *testing.T) {
	a, b := npy(npyHeader("2"), 1, 2), npy(npyHeader("3"), 1, 2, 3)
	whole := npz(t, map[string]string{"a.npy": a, "b.npy": a})
	harmed := []byte(whole)
	harmed[bytes.Index(harmed, []byte("\xf0\x3f"))]++ // within a number, past the shape
	for _, test := range []struct{ data, want string }{
		{npz(t, map[string]string{"a.npy": a, "b.npy": b}), `the arrays "a" and "b" have 2 and 3 rows`},
		{npz(t, map[string]string{"readme": "x"}), "there is no array in the ZIP file"},
		{npz(t, map[string]string{"a.npy": "x"}), `array "a": the array ends in the middle`},
		{npz(t, map[string]string{"a.npy": "not in the format"}), `array "a": the array is not in NPY format`},
		{whole[:len(whole)-30], "the ZIP file is damaged or not complete"},
		{string(harmed), "the ZIP file is damaged or not complete"},
	} {
		o := labelled("a")
		o.Format, o.Features = spec.NPZ, []string{"b"}
		_, err := Read(t.Context(), write(t, test.data), o)
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got  %v\nwant %s", err, test.want)
		}
	}
}

// Wherever a file is cut, or whichever byte is wrong, the answer is a table or
// an InvalidError.
func TestDamagedFiles(t *testing.T) {
	for _, test := range []struct{ file, label, feature string }{
		{"f4-fortran.npy", "0", "1"}, {"deflated.npz", "n", "x"}, {"stored.npz", "x[0]", "x[1]"},
		{"snappy.parquet", "a", "b"}, {"zstd.parquet", "a", "sure"}, {"gzip.parquet", "c", "half"},
	} {
		whole, err := os.ReadFile(filepath.Join("testdata", test.file))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), test.file)
		check := func(data []byte, what string, must bool) {
			t.Helper()
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			d := spec.Dataset{Label: test.label, Features: []string{test.feature}}
			d.Format = spec.Format(map[string]string{".npy": "NPY", ".npz": "NPZ", ".parquet": "Parquet"}[filepath.Ext(path)])
			_, err := Read(t.Context(), path, Options{Dataset: d, MemoryBytes: 1 << 20})
			if invalid := (*InvalidError)(nil); err == nil && must || err != nil && !errors.As(err, &invalid) {
				t.Fatalf("%s %s: %v", test.file, what, err)
			}
		}
		step := 1 + len(whole)/150 // the fuzz test goes further
		for cut := 0; cut < len(whole); cut += step {
			check(whole[:cut], fmt.Sprintf("cut at %d", cut), true)
		}
		for i := 0; i < len(whole); i += step {
			for _, wrong := range []byte{0xff, 0x01} {
				data := bytes.Clone(whole)
				data[i] ^= wrong
				check(data, fmt.Sprintf("with byte %d wrong", i), false)
			}
		}
	}
}

func TestCancelledArray(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, file := range []string{"f8.npy", "stored.npz", "zstd.parquet"} {
		o := labelled("0")
		o.Format = spec.Format(map[string]string{".npy": "NPY", ".npz": "NPZ", ".parquet": "Parquet"}[filepath.Ext(file)])
		if _, err := Read(ctx, filepath.Join("testdata", file), o); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// Whatever the bytes, reading gives a table whose parts fit together, or an
// InvalidError.
func FuzzFormats(f *testing.F) {
	formats := []spec.Format{spec.NPY, spec.NPZ, spec.Parquet}
	files, err := filepath.Glob("testdata/*.*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for i, label := range []string{"0", "y", "a"} {
			f.Add(data, uint8(i), label, "1")
			f.Add(data, uint8(i), label, "b")
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, format uint8, label, feature string) {
		set, err := Read(t.Context(), write(t, string(data)), Options{
			Dataset: spec.Dataset{Format: formats[int(format)%len(formats)], Label: label, Features: []string{feature}, Missing: &spec.Missing{Policy: spec.FillConstant}},
			Target:  Target(format >> 7), MemoryBytes: 1 << 20,
		})
		if err != nil {
			if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) {
				t.Fatalf("not an InvalidError: %v", err)
			}
			return
		}
		checkPart(t, set, set.Train)
	})
}
