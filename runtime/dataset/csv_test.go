package dataset

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

// numberedRow is a row and where it starts.
type numberedRow struct {
	Line  int
	Cells []string
}

// byLibrary is what encoding/csv makes of text.
func byLibrary(text string) ([]numberedRow, bool) {
	reader := newCSVReader(text)
	var rows []numberedRow
	for {
		row, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return rows, true
		}
		if err != nil {
			return rows, false
		}
		line, _ := reader.FieldPos(0)
		rows = append(rows, numberedRow{line, slices.Clone(row)})
	}
}

// byChunks is what chunks of that size make of text.
func byChunks(text string, size int) ([]numberedRow, bool) {
	chunks := newChunks(strings.NewReader(text), size)
	var rows []numberedRow
	for {
		c, err := chunks.next()
		if errors.Is(err, io.EOF) {
			return rows, true
		}
		if err != nil {
			return rows, false
		}
		if !strings.Contains(c.text, `"`) {
			if err := plainRows(c.text, c.line, func(r *row) error {
				rows = append(rows, numberedRow{r.line, cellsOf(r)})
				return nil
			}); err != nil {
				return rows, false
			}
			continue
		}
		err = quotedRows(c.text, c.line, func(row []string, line int) error {
			rows = append(rows, numberedRow{line, slices.Clone(row)})
			return nil
		})
		if err != nil {
			return rows, false
		}
	}
}

func cellsOf(r *row) []string {
	var cells []string
	for i := range r.width() {
		cells = append(cells, r.cell(i))
	}
	return cells
}

var csvSeeds = []string{
	"", "\n", "\r\n", "\r", "a", "a\r", "a,b\r\n1,2\r\n", "a,b\n\n\n1,2", "\ra,b\n", "a\r\r\n", ",\n,,\n", "\"a\nb\",c\n1,2\n3,4\n",
	"a,\"b\"\"c\"\n", "a,b\"c\n1,2\n", "\"a\n1,2\n", "1,2\n\"x\",\"y\n\n\"\r\n3,4\n", " \n", "a\x00b,\xff\n",
}

// FuzzCSV compares the rows with those of encoding/csv, whatever the text and
// wherever it is cut.
func FuzzCSV(f *testing.F) {
	for i, seed := range csvSeeds {
		f.Add(seed, uint8(i))
	}
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		want, whole := byLibrary(text)
		got, ok := byChunks(text, 1+int(size))
		if whole != ok {
			t.Fatalf("encoding/csv reads it to the end: %v; chunks of %d: %v", whole, 1+int(size), ok)
		}
		// In text that is wrong, it is only sure that the rows before are the same.
		if !whole {
			n := min(len(want), len(got))
			want, got = want[:n], got[:n]
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

// FuzzDecimal compares bits with strconv's.
func FuzzDecimal(f *testing.F) {
	for _, seed := range []string{"0", "-0", "1", "-1.5", ".5", "5.", ".", "-", "", "1e3", "+1", "16777217", "1.00000017881393432617187499", "0.000000000000001", "999999999999999", "123456789.123456", "1..2", "1_0", "0x1", "12345678", "-0.0960824", ".", "./", "1e-05", "1.234567890123456789e+00", "1e22", "1e", "e5", "3.5e38", "1e-45", "-.5", "5.\r"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { checkDecimal(t, text) })
}

// checkDecimal reads text alone, and among others.
func checkDecimal(t *testing.T, text string) {
	t.Helper()
	if v, ok := parseDecimal(text); ok {
		checkBits(t, text, v)
	}
	const before, between, behind = "7,-88888.88,9.99,1,", ",1.5,-2.25,3.125,", "\n1.5,-2.25\n3,4.125\n"
	checkCells(t, before+text+between+text+behind)
}

// readers cut text into cells.
var readers = map[string]func(c *cells, text string, at int){
	"read":        (*cells).read, // which has other instructions in some builds
	"readPlainly": (*cells).readPlainly,
}

// checkCells cuts text, which ends with a line end.
func checkCells(t *testing.T, text string) {
	t.Helper()
	var starts, rowEnds []uint32
	for i := range text {
		if i == 0 || text[i-1] == ',' || text[i-1] == '\n' {
			starts = append(starts, uint32(i))
		}
		if text[i] == '\n' {
			rowEnds = append(rowEnds, uint32(len(starts)))
		}
	}
	starts = append(starts, uint32(len(text)))
	for name, read := range readers {
		c := newCells(len(starts) + slack)
		read(c, text, 0)
		if !slices.Equal(c.starts, starts) || !slices.Equal(c.rowEnds, rowEnds) {
			t.Fatalf("%s: the cells of %q start at %d, not %d, and its rows end at %d, not %d", name, text, c.starts, starts, c.rowEnds, rowEnds)
		}
		for i, v := range c.numbers {
			if !slices.Contains(c.odd, uint32(i)) {
				checkBits(t, text[starts[i]:starts[i+1]-1], v)
			}
		}
		if !slices.IsSorted(c.odd) || len(slices.Compact(slices.Clone(c.odd))) != len(c.odd) || len(c.odd) > len(c.numbers) {
			t.Fatalf("%s: of %q, these are odd: %d", name, text, c.odd)
		}
	}
}

// FuzzCells cuts all kinds of text, from any place and into few and many cells.
func FuzzCells(f *testing.F) {
	for _, seed := range csvSeeds {
		f.Add(seed)
	}
	for _, seed := range []string{
		",,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,,", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
		"123456789012345,1234567890123456,.12345678901234,-.1234567890123,-12345678901234.,1.2345678901234\n.,-.,-,--1,1-2,1.2.3,\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { checkCells(t, text+"\n") })
}

// What is usual takes no more care, wherever it stands.
func TestUsualCellsAreNotOdd(t *testing.T) {
	const row = "0,-0,1,-1.5,0.123456,-0.123456,12345678,-12345678,1234.5678,.5,-.5,0.5\n"
	text := strings.Repeat(row, 100)
	for name, read := range readers {
		c := newCells(cellsAtOnce)
		read(c, text, len(row))
		for _, i := range c.odd {
			if start, end := int(c.starts[i]), int(c.starts[i+1]); end < len(text)-len(row) {
				t.Errorf("%s: %q is odd", name, text[start:end])
			}
		}
		if len(c.numbers) < 90*strings.Count(row, ",") {
			t.Errorf("%s: there are %d cells only", name, len(c.numbers))
		}
	}
}

// Wherever reading stops for want of room, it goes on from there.
func TestRowsOfAllWidths(t *testing.T) {
	for _, width := range []int{1, 2, 3, 63, 64, 65, 1000, cellsAtOnce - 1, cellsAtOnce, cellsAtOnce + 1, 3 * cellsAtOnce} {
		var text strings.Builder
		for i := range 3*cellsAtOnce/width + 5 {
			for j := range width {
				fmt.Fprintf(&text, "%d.%d%s", i, j, string(",\n"[(j+1)/width]))
			}
		}
		rows := 0
		err := plainRows(text.String(), 1, func(r *row) error {
			if r.width() != width || r.line != rows+1 {
				t.Fatalf("row %d has %d cells instead of %d and line %d", rows, r.width(), width, r.line)
			}
			for i := range width {
				if want := fmt.Sprintf("%d.%d", rows, i); r.cell(i) != want {
					t.Fatalf("row %d has the cell %q, not %q", rows, r.cell(i), want)
				}
				if !slices.Contains(r.odd, uint32(r.first+i)) {
					checkBits(t, r.cell(i), r.numbers[i])
				}
			}
			rows++
			return nil
		})
		if err != nil || rows != 3*cellsAtOnce/width+5 {
			t.Errorf("of width %d, there are %d rows (%v)", width, rows, err)
		}
	}
}

func checkBits(t *testing.T, text string, got float32) {
	t.Helper()
	want, err := strconv.ParseFloat(text, 32)
	if err != nil || math.Float32bits(float32(want)) != math.Float32bits(got) {
		t.Fatalf("%q gave %x, strconv %x %v", text, math.Float32bits(got), math.Float32bits(float32(want)), err)
	}
}

// Decimals close to the middle of two float32 are the hard ones.
func TestDecimalNearMiddles(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200000 {
		low := math.Float32frombits(random.Uint32() &^ (1 << 31))
		if low < 1e-8 || low > 1e12 {
			low = random.Float32() * 100
		}
		middle := (float64(low) + float64(math.Nextafter32(low, math.MaxFloat32))) / 2
		checkDecimal(t, strconv.FormatFloat(middle, 'f', 2+random.IntN(13), 64))
		checkDecimal(t, strconv.FormatFloat(float64(low), 'f', random.IntN(14), 64))
		checkDecimal(t, strconv.FormatFloat(-middle, 'e', random.IntN(19), 64))
	}
}

// TestCSVAcrossChunks reads a table that is much larger than a chunk: the
// matrices are those of a reader without chunks.
func TestCSVAcrossChunks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var data bytes.Buffer
	data.WriteString("x,\"a\nname\",color,y\n")
	for i := range 60000 {
		text := fmt.Sprintf("%.3f,%d,c%d,k%d", random.NormFloat64(), i, random.IntN(50), random.IntN(7))
		if random.IntN(100) == 0 {
			text = fmt.Sprintf("%.3f,%d,\"c%d\",\"k%d\"\r\n", random.NormFloat64(), i, random.IntN(50), random.IntN(7))
		}
		data.WriteString(text + "\n")
	}
	o := labelled("y")
	o.Target, o.OneHot = Classes, []string{"color"}
	set := mustRead(t, data.String(), o)
	reader := csv.NewReader(strings.NewReader(data.String()))
	all, err := reader.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if set.Train.X.Rows != len(all)-1 || len(set.Columns) != 52 {
		t.Fatalf("%d rows, %d columns", set.Train.X.Rows, len(set.Columns))
	}
	for i, row := range all[1:] {
		x := set.Train.X.Data[i*52 : (i+1)*52]
		v, _ := strconv.ParseFloat(row[0], 32)
		hot := slices.Index(set.Columns, "color="+row[2])
		if x[0] != float32(v) || x[1] != float32(i) || x[hot] != 1 || set.Classes[int(set.Train.Y[i])] != row[3] {
			t.Fatalf("row %d is %v, class %v", i, x, set.Train.Y[i])
		}
	}
}

// The first thing that is wrong is told, with its line, in whichever chunk.
func TestCSVErrorsAcrossChunks(t *testing.T) {
	rows := strings.Repeat("1,2\n", 300000) // more than a chunk
	for _, test := range []struct{ data, want string }{
		{"x,y\n" + rows + "oops,2\n" + rows + "1,2,3\n", `row 300002, column "x": "oops" is not a number`},
		{"x,y\n" + rows + "1,2,3\n" + rows + "oops,2\n", `row 300002: it has 3 cells`},
		{"x,y\n" + rows + "\"1\n\",2\n" + rows + "oops,2\n", `row 600004, column "x"`},
		{"x,y\n" + rows + "\"1\n,2\n" + rows, `row 300002: a quoted cell that starts in this row is not closed`},
		{"x,y\n" + rows + "1\",2\n" + rows, `row 300002: a quote stands within a cell`},
	} {
		_, err := Read(t.Context(), write(t, test.data), labelled("y"))
		if err == nil || !strings.HasPrefix(err.Error(), "the source: "+test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

// FuzzPlainRows compares the fast way of a row into a table with the other one.
func FuzzPlainRows(f *testing.F) {
	for _, seed := range []string{"1,2,3", "1,,3", ",,", "1,2", "1,2,3,4", "-.5,x,2.", "1,2,", "1,nan,3", "1, 2,3", "1e3,a,5", "-,2,3", "1,2,3\n4,5,6\n", "1.5,-0.25,123456.78,4,5\n1e3,12345678.9,,4,5\n.5,7,nan,-8,9"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	// Columns that are put together, and columns that can't be.
	layouts := []columns{
		{features: []int{2, 0}, labels: []int{1}},
		{features: []int{0, 1, 2}, labels: []int{3}},
		{features: []int{3, 4, 0}, labels: []int{1}},
	}
	f.Fuzz(func(t *testing.T, text string, isClass bool) {
		if strings.ContainsAny(text, "\"") {
			return
		}
		for _, c := range layouts {
			c.names, c.oneHot, c.labelName = []string{"a", "b", "c"}[:len(c.features)], make([]bool, len(c.features)), "y"
			checkPlainRows(t, text, isClass, c)
		}
	})
}

func checkPlainRows(t *testing.T, text string, isClass bool, c columns) {
	t.Helper()
	target := Numbers
	if isClass {
		target = Classes
	}
	width := 1 + slices.Max(c.positions())
	// Usual decimals are read only where there is text on both sides.
	others := strings.Repeat(strings.Repeat("1,", width-1)+"1\n", 3)
	text = others + text + "\n" + others
	tables := [2]*table{}
	var errs [2]error
	for i := range tables {
		tables[i] = newTable(c, Options{Target: target, Dataset: spec.Dataset{Missing: &spec.Missing{Policy: spec.FillConstant}}})
		rows := newCSVColumns(tables[i], width)
		errs[i] = plainRows(text, 1, func(r *row) error {
			if i == 1 {
				return rows.addRow(cellsOf(r), r.line)
			}
			return rows.addPlain(r)
		})
	}
	if fmt.Sprint(errs[0]) != fmt.Sprint(errs[1]) {
		t.Fatalf("%v, %v", errs[0], errs[1])
	}
	if errs[0] == nil && fmt.Sprint(tables[0].values.tail, tables[0].labels.tail) != fmt.Sprint(tables[1].values.tail, tables[1].labels.tail) {
		t.Fatalf("%v %v, %v %v", tables[0].values.tail, tables[0].labels.tail, tables[1].values.tail, tables[1].labels.tail)
	}
}

func BenchmarkReadCSV(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	var data bytes.Buffer
	data.WriteString("y")
	for i := range 20 {
		fmt.Fprintf(&data, ",f%d", i)
	}
	for range 50000 {
		fmt.Fprintf(&data, "\n%d", random.IntN(10))
		for range 20 {
			fmt.Fprintf(&data, ",%.4f", random.NormFloat64())
		}
	}
	path := write(b, data.String())
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	for b.Loop() {
		if _, err := Read(b.Context(), path, Options{Dataset: spec.Dataset{Label: "y"}, Target: Classes}); err != nil {
			b.Fatal(err)
		}
	}
}
