package dataset

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

func write(t testing.TB, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func gzipped(data string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(data)) // a buffer takes everything
	_ = w.Close()
	return b.String()
}

func mustRead(t *testing.T, data string, o Options) *Set {
	t.Helper()
	set, err := Read(t.Context(), write(t, data), o)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func labelled(label string, features ...string) Options {
	return Options{Dataset: spec.Dataset{Label: label, Features: features}, SourceName: "the source"}
}

const flowers = "length,width,species\n1,2,rose\n3,4.5,iris\n-5,6e2,rose\n"

func TestReadForms(t *testing.T) {
	want := &Set{
		Columns: []string{"length", "width"}, Label: "species", Classes: []string{"iris", "rose"},
		Train: Part{X: general(3, 2, []float32{1, 2, 3, 4.5, -5, 600}), Y: []float32{1, 0, 1}},
	}
	for name, data := range map[string]string{
		"plain":         flowers,
		"gzip":          gzipped(flowers),
		"two gzips":     gzipped(flowers[:30]) + gzipped(flowers[30:]),
		"CRLF":          strings.ReplaceAll(flowers, "\n", "\r\n"),
		"BOM":           "\xef\xbb\xbf" + flowers,
		"BOM in gzip":   gzipped("\xef\xbb\xbf" + flowers),
		"no last LF":    strings.TrimSuffix(flowers, "\n"),
		"spaces":        strings.ReplaceAll(flowers, ",", " , "),
		"empty lines":   strings.ReplaceAll(flowers, "\n", "\n\n"),
		"quoted":        strings.ReplaceAll(flowers, "rose", `"rose"`),
		"quoted header": strings.Replace(flowers, "length", `"length"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			o := labelled("species")
			o.Target = Classes
			got := mustRead(t, data, o)
			sum := sha256.Sum256([]byte(data))
			if digest := "sha256:" + hex.EncodeToString(sum[:]); got.Digest != digest {
				t.Errorf("digest %s, want %s", got.Digest, digest)
			}
			got.Digest, got.Validation = "", Part{}
			if diff := cmp.Diff(want, got, values); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadNoHeader(t *testing.T) {
	o := labelled("2", "1", "0")
	o.Header = new(bool)
	got := mustRead(t, "1,2,3\n4,5,6\n", o)
	if diff := cmp.Diff([]string{"1", "0"}, got.Columns); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Part{X: general(2, 2, []float32{2, 1, 5, 4}), Y: []float32{3, 6}}, got.Train, values); diff != "" {
		t.Error(diff)
	}
}

func TestReadByPosition(t *testing.T) {
	// "1" is a name here, so it is not a position; "2" is no name.
	got := mustRead(t, "1,b,c\n10,20,30\n", Options{Dataset: spec.Dataset{Label: "b", Features: []string{"1"}}})
	if got.Label != "b" || got.Train.X.Data[0] != 10 {
		t.Errorf("got label %q, X %v", got.Label, got.Train.X.Data)
	}
	got = mustRead(t, "a,b,c\n10,20,30\n", labelled("2"))
	if got.Label != "c" || got.Train.Y[0] != 30 {
		t.Errorf("got label %q, Y %v", got.Label, got.Train.Y)
	}
}

func TestClassOrder(t *testing.T) {
	for _, test := range []struct {
		labels string
		want   []string
	}{
		{"10 9 1 0 10", []string{"0", "1", "9", "10"}},
		{"1.0 -2 1 0.5", []string{"-2", "0.5", "1", "1.0"}},
		{"10 9 x", []string{"10", "9", "x"}},
		{"inf 2 1", []string{"1", "2", "inf"}},
		{"Zebra apple", []string{"Zebra", "apple"}},
	} {
		var data strings.Builder
		data.WriteString("x,y\n")
		labels := strings.Fields(test.labels)
		for i, label := range labels {
			fmt.Fprintf(&data, "%d,%s\n", i, label)
		}
		o := labelled("y")
		o.Target = Classes
		got := mustRead(t, data.String(), o)
		if diff := cmp.Diff(test.want, got.Classes); diff != "" {
			t.Errorf("%s: %s", test.labels, diff)
		}
		for i, y := range got.Train.Y {
			if got.Classes[int(y)] != labels[i] {
				t.Errorf("%s: row %d became %q", test.labels, i, got.Classes[int(y)])
			}
		}
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	long := strings.Repeat("x", 2000)
	for name, test := range map[string]struct {
		data   string
		change func(*Options)
		want   string // the whole message, or its beginning if it ends in "..."
	}{
		"empty":       {data: "", want: `the source: the file is empty; it needs a row of column names and rows of values`},
		"empty gzip":  {data: gzipped(""), want: `the source: the file is empty; it needs a row of column names and rows of values`},
		"header only": {data: "x,y\n", want: `the source: the file has a header and no rows of values below it`},
		"garbage gzip": {data: "\x1f\x8bgarbage, certainly",
			want: `the source: the gzip data is damaged: 0 rows could be read before; store the file again`},
		"short gzip": {data: "\x1f\x8b", want: `the source: the gzip data ends in the middle: 0 rows...`},
		"no column": {data: "age,hight,sexe\n1,2,3\n", change: func(o *Options) { o.Label = "height" },
			want: `the source: label: there is no column "height"; did you mean "hight"? The columns are "age", "hight", "sexe"`},
		"nothing alike": {data: "a,b\n1,2\n", change: func(o *Options) { o.Label = "species" },
			want: `the source: label: there is no column "species". The columns are "a", "b"`},
		"position too large": {data: "a,b\n1,2\n", change: func(o *Options) { o.Label = "2" },
			want: `the source: label: there is no column "2". The columns are "a", "b"`},
		"many columns": {data: strings.Join(strings.Split(strings.Repeat("ab", 12), ""), "") + ",c1,c2,c3,c4,c5,c6,c7,c8,c9,c10,c11,c12,c13\n",
			want: `the source: label: there is no column "y". The columns are "abababababababababababab", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10", "c11" and 2 more`},
		"semicolons": {data: "x;y\n1;2\n",
			want: `the source: label: there is no column "y". The columns are "x;y"; the cells seem to be separated by semicolons: save the file with commas`},
		"duplicate columns": {data: "x,y,x\n1,2,3\n",
			want: `the source: row 1: columns 0 and 2 (counted from 0) are both named "x" in the header; give each its own name`},
		"data as header": {data: "0,0,1\n1,2,3\n", change: func(o *Options) { o.Label = "2" },
			want: `the source: row 1: columns 0 and 1 (counted from 0) are both named "0" in the header; give each its own name; the first row ("0") looks like data: if the file has no header, set header: false, else use the columns' names`},
		"iris without header": {data: "5.1,3.5,setosa\n", change: func(o *Options) { o.Label = "2" },
			want: `the source: label: there is no column named "2"; the first row ("5.1") looks like data: if the file has no header, set header: false, else use the columns' names`},
		"duplicate features": {data: "x,y\n1,2\n", change: func(o *Options) { o.Features = []string{"x", "0"} },
			want: `the source: features: column "x" is listed twice (as "x" and "0")`},
		"label among features": {data: "x,y\n1,2\n", change: func(o *Options) { o.Features = []string{"x", "y"} },
			want: `the source: features: "y" is the label, which is what is to be predicted; remove it from the features`},
		"only a label":     {data: "y\n1\n", want: `the source: the only column is the label "y"; a network needs at least one feature column`},
		"index column":     {data: ",x,y\n0,1,2\n", want: `the source: column 0 (counted from 0) has no name in the header; give it one, or list the features without it`},
		"header not UTF-8": {data: "x\xff,y\n0,1\n", want: `the source: row 1: the name of column 0 (counted from 0), "x\xff", is not UTF-8; save the file as UTF-8`},
		"ragged":           {data: "x,y\n1,2\n\n1,2,3\n", want: `the source: row 4: it has 3 cells, but the first row has 2; every row needs the same number (a cell with a comma in it must be quoted)`},
		"ragged by 1":      {data: "x,y\n1\n", want: `the source: row 2: it has 1 cell, but...`},
		"text":             {data: "x,y\n1,2\nblue,3\n", want: `the source: row 3, column "x": "blue" is not a number; write it as 12.5 or 1e-3, list the column in oneHot if its values name categories, or leave the row or the column out`},
		"missing":          {data: "x,y\n ,3\n", want: `the source: row 2, column "x": the value is missing; fill it in, leave the row or the column out, or set missing: {policy: DropRow} or {policy: Mean}`},
		"NaN":              {data: "x,y\nnan,3\n", want: `the source: row 2, column "x": the value is missing; fill it in...`},
		"Inf":              {data: "x,y\n-Inf,3\n", want: `the source: row 2, column "x": "-Inf" is not a finite number...`},
		"too large":        {data: "x,y\n1e39,3\n", want: `the source: row 2, column "x": "1e39" is too large: 32-bit numbers end at 3.4e38`},
		"after a cell of two lines": {data: "x,y,z\n1,2,\"a\nb\"\nx,3,\n", change: func(o *Options) { o.Features = []string{"x"} },
			want: `the source: row 4, column "x": "x" is not a number...`},
		"text label":    {data: "x,y\n1,rose\n", want: `the source: row 2, column "y": "rose" is not a number; write it as 12.5 or 1e-3, or leave the row or the column out. It is the label, and the loss is for numbers; for classes use the loss CategoricalCrossentropy or BinaryCrossentropy`},
		"missing class": {data: "x,y\n1,\n", change: classes2, want: `the source: row 2, column "y": the label is missing; fill it in, leave the row out, or set missing: {policy: DropRow}`},
		"NaN class":     {data: "x,y\n1,NaN\n", change: classes2, want: `the source: row 2, column "y": the label is missing; fill it in, leave the row out, or set missing: {policy: DropRow}`},
		"one class":     {data: "x,y\n1,a\n1,a\n", change: classes2, want: `the source: column "y": every row has the same label "a"; there is nothing to learn`},
		"long class":    {data: "x,y\n1," + long + "\n", change: classes2, want: `the source: row 2, column "y": the label "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx..." has more than 1024 bytes; is it the right column?`},
		"Latin-1 class": {data: "x,y\n1,caf\xe9\n", change: classes2, want: `the source: row 2, column "y": the label "caf\xe9" is not UTF-8; save the file as UTF-8`},
		"class of one": {data: "x,y\n1,a\n2,b\n3,a\n", change: func(o *Options) { classes2(o); o.ValidationFraction = 0.5 },
			want: `the source: row 3, column "y": class "b" has only this row, so it cannot be both trained and validated on; add rows, remove this one, or set validationFraction to 0`},
		"row of one": {data: "x,y\n1,2\n", change: func(o *Options) { o.ValidationFraction = 0.5 },
			want: `the source: the table has only 1 row, so it cannot be split by validationFraction 0.5; add rows, or set it to 0`},
		"many numeric classes": {data: "x,y\n" + numberedRows(1001), change: classes2,
			want: `the source: row 1002, column "y": the label has more than 1000 different numbers, too many for classes; to predict a number, use a loss for numbers (MeanSquaredError, MeanAbsoluteError, Huber)`},
		"many text classes": {data: "x,y\n0,a\n" + numberedRows(10000), change: classes2,
			want: `the source: row 10002, column "y": the label has more than 10000 different values, too many for classes; is it the right column?`},
		"range": {data: "x,y\n3e38,1\n-3e38,1\n", change: func(o *Options) { o.Scaling = spec.MinMaxScaling },
			want: `the source: column "x": the values range from -3...`},
		"fraction":        {data: flowers, change: func(o *Options) { o.ValidationFraction = 1 }, want: `the source: validationFraction is 1; it must be at least 0 and below 1`},
		"format":          {data: flowers, change: func(o *Options) { o.Format = "ARFF" }, want: `the source: format "ARFF" is not known; use CSV, NPY, NPZ or Parquet`},
		"scaling":         {data: "x,y\n1,2\n", change: func(o *Options) { o.Scaling = "Log" }, want: `the source: scaling "Log" is not known; use None, Standard or MinMax`},
		"bare quote":      {data: "x,y\n1,2\n1\",2\n", want: `the source: row 3: a quote stands within a cell that does not start with one...`},
		"open quote":      {data: "x,y\n\"1,2\n1,2\n", want: `the source: row 2: a quoted cell...`},
		"text behind":     {data: "x,y\n\"1\"2,2\n1,2\n", want: `the source: row 2: a quoted cell is not closed, or is followed by more text...`},
		"endless line":    {data: gzipped("x,y\n" + strings.Repeat("1", maxRowBytes+2*readSize)), want: `the source: a row is longer than 32 MiB; is a line end or a closing quote missing?`},
		"text as Parquet": {data: flowers, change: as(spec.Parquet), want: `the source: this is not a Parquet file; is it text? Then set format: CSV`},
		"NPY as Parquet":  {data: npyMagic, change: as(spec.Parquet), want: `the source: this is not a Parquet file, but seems to be NPY; set format: NPY`},
		"gzip as NPY":     {data: gzipped(npyMagic), change: as(spec.NPY), want: `the source: this is not a NPY file, but a gzip file; only CSV may be compressed with it`},
		"empty NPY":       {data: "", change: as(spec.NPY), want: `the source: the file is empty`},
		"web page":        {data: "<!DOCTYPE html>", want: `the source: this is a web page, not CSV...`},
		"no such oneHot": {data: "color,y\nred,1\n", change: func(o *Options) { o.OneHot = []string{"colour"} },
			want: `the source: oneHot: there is no column "colour"; did you mean "color"? The columns are "color", "y"`},
		"oneHot label": {data: "color,y\nred,1\n", change: func(o *Options) { o.OneHot = []string{"y"} },
			want: `the source: oneHot: column "y" is not a feature; add it to features, or remove it from oneHot`},
		"many categories": {data: "y,x\n" + numberedRows(1001), change: func(o *Options) { o.OneHot = []string{"x"} },
			want: `the source: row 1002, column "x": the feature has more than 1000 different values, too many for oneHot...`},
		"oneHot name taken": {data: "a,a=1,y\n1,2,3\n", change: func(o *Options) { o.OneHot = []string{"a"} },
			want: `the source: two columns would have the name "a=1", one of them from oneHot; rename one`},
		"unknown policy": {data: flowers, change: func(o *Options) { o.Missing = &spec.Missing{Policy: "Median"} },
			want: `the source: missing.policy "Median" is not known; use DropRow, Mean or Constant`},
		"infinite filler": {data: flowers, change: func(o *Options) { o.Missing = &spec.Missing{Policy: spec.FillConstant, Value: 1e300} },
			want: `the source: missing.value: 1e+300 is too large: 32-bit numbers end at 3.4e38`},
		"all rows dropped": {data: "x,y\n,1\n2,?\n", change: func(o *Options) { o.Missing = &spec.Missing{Policy: spec.DropRow} },
			want: `the source: every row misses a value, so missing.policy DropRow leaves none; leave columns out, or use another policy`},
		"nothing to average": {data: "x,y\n,1\n", change: func(o *Options) { o.Missing = &spec.Missing{Policy: spec.FillMean} },
			want: `the source: column "x": the value is missing in every row that is trained on...`},
		"label not filled": {data: "x,y\n1,\n", change: func(o *Options) { o.Missing = &spec.Missing{Policy: spec.FillMean} },
			want: `the source: row 2, column "y": the label is missing; fill it in...`},
		"spreadsheet": {data: "PK\x03\x04...", want: `the source: this is a ZIP file, a spreadsheet or a NPZ file, not CSV; save it as CSV (UTF-8), plain or compressed with gzip, or name its format`},
		"UTF-16":      {data: "\xff\xfex\x00", want: `the source: this is UTF-16 text, not CSV...`},
		"gzip twice":  {data: gzipped(gzipped(flowers)), want: `the source: this is a file that was compressed with gzip twice, not CSV...`},
	} {
		t.Run(name, func(t *testing.T) {
			o := labelled("y")
			if test.change != nil {
				test.change(&o)
			}
			_, err := Read(t.Context(), write(t, test.data), o)
			if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) {
				t.Fatalf("got %v, want an InvalidError", err)
			}
			if start, ok := strings.CutSuffix(test.want, "..."); ok && strings.HasPrefix(err.Error(), start) {
				return
			}
			if err.Error() != test.want {
				t.Errorf("got  %s\nwant %s", err, test.want)
			}
		})
	}
}

func as(f spec.Format) func(*Options) { return func(o *Options) { o.Format = f } }

func classes2(o *Options) { o.Target = Classes }

func numberedRows(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "0,%d\n", i)
	}
	return b.String()
}

// Wherever a compressed file is cut or damaged, the answer is an error that
// says how far reading came, and never a shorter table.
func TestDamagedGzip(t *testing.T) {
	whole := gzipped("x,y\n" + numberedRows(2000))
	for cut := 2; cut < len(whole); cut += 97 {
		_, err := Read(t.Context(), write(t, whole[:cut]), labelled("y"))
		if err == nil || !strings.Contains(err.Error(), "the gzip data ends in the middle: ") {
			t.Fatalf("cut at %d of %d: %v", cut, len(whole), err)
		}
	}
	_, err := Read(t.Context(), write(t, whole[:len(whole)/2]), labelled("y"))
	if strings.Contains(err.Error(), "0 rows could") && !strings.Contains(err.Error(), "00 rows could") {
		t.Errorf("half a file: %v", err)
	}
	damaged := []byte(whole)
	damaged[len(damaged)-6] ^= 1 // the checksum
	_, err = Read(t.Context(), write(t, string(damaged)), labelled("y"))
	if want := "the source: the gzip data is damaged: 2000 rows could be read before; store the file again"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestReadFailures(t *testing.T) {
	for path, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"): "the source: there is no such file; check the path",
		write(t, "x,y\n1,2\n") + "/below":  "the source: there is no such file; check the path",
		t.TempDir():                        "the source: this is a folder; name a file in it",
		"/dev/null":                        "the source: this is not a regular file",
		"s3://bucket/key":                  "the source: the dataset's source says nothing of how to fetch it; set source.https or source.s3",
	} {
		_, err := Read(t.Context(), path, labelled("y"))
		if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Read(ctx, write(t, flowers), labelled("species"))
	if invalid := (*InvalidError)(nil); !errors.Is(err, context.Canceled) || errors.As(err, &invalid) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestFetches reads tables from a web server: what it refuses is wrong input.
func TestFetches(t *testing.T) {
	_, err := Read(t.Context(), "https://h/iris.csv", Options{
		Dataset:    spec.Dataset{Source: spec.DatasetSource{HTTPS: &spec.HTTPSSource{URL: "http://h/iris.csv"}}},
		SourceName: "the source",
	})
	if invalid := (*InvalidError)(nil); !errors.As(err, &invalid) || !strings.HasPrefix(err.Error(), "the source: the url has to be") {
		t.Errorf("got %v", err)
	}
}

// endingContext ends after it was asked so many times.
type endingContext struct {
	context.Context
	left int
}

func (c *endingContext) Err() error {
	if c.left--; c.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

func TestCancelWhileReading(t *testing.T) {
	ctx := &endingContext{Context: context.Background(), left: 2}
	_, err := Read(ctx, write(t, "x,y\n"+strings.Repeat("1,2\n", 1<<20)), labelled("y"))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
