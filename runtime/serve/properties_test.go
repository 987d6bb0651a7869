package serve

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// TestAnyMatrixIsReadInAnyLayout writes random rows in every way that the
// protocols have, as the standard library writes JSON, and reads them back.
func TestAnyMatrixIsReadInAnyLayout(t *testing.T) {
	s := irisServer(t, nil)
	v, err := s.models.acquire("iris", "")
	if err != nil {
		t.Fatal(err)
	}
	defer v.release()
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		n := 1 + random.IntN(9)
		flat := make([]float32, n*4)
		for i := range flat {
			flat[i] = float32(random.NormFloat64()) * 1e3
		}
		for layout, body := range layouts(n, flat) {
			c := predictV1
			if layout[0] == '2' {
				c = inferV2
			}
			b := new(buffers)
			b.body = marshaled(t, body, random.IntN(2) == 0)
			if err := c(t.Context(), v, 10, b); err != nil || !slices.Equal(b.x, flat) {
				t.Fatalf("%s: %s\nread as %v, %v", layout, b.body, b.x, err)
			}
		}
	}
}

// layouts are the bodies that mean the same n rows.
func layouts(n int, flat []float32) map[string]any {
	type object = map[string]any
	nested, named, columns := [][]float32{}, []object{}, object{}
	for row := range slices.Chunk(flat, 4) {
		nested = append(nested, row)
		o := object{}
		for i, c := range irisColumns {
			o[c] = row[i]
			column, _ := columns[c].([]float32)
			columns[c] = append(column, row[i])
		}
		named = append(named, o)
	}
	tensors := []object{}
	for c, values := range columns {
		tensors = append(tensors, object{"name": c, "datatype": "FP32", "shape": []int{n}, "data": values})
	}
	tensor := func(data any) object {
		return object{"inputs": []object{{"name": "x", "datatype": "FP64", "shape": []int{n, 4}, "data": data}}}
	}
	return map[string]any{
		"1 rows":       object{"instances": nested},
		"1 named rows": object{"instances": named},
		"1 columns":    object{"inputs": columns},
		"1 tensor":     object{"inputs": object{"x": nested}},
		"2 flat":       tensor(flat),
		"2 nested":     tensor(nested),
		"2 columns":    object{"inputs": tensors},
	}
}

func marshaled(t *testing.T, v any, indented bool) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if !indented {
		return body
	}
	var b bytes.Buffer
	if err := json.Indent(&b, body, "\t", "  "); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestNoVersionIsUsedAfterItsEnd loads, unloads and uses at random and at once:
// whoever holds a version finds it open, and in the end every one is closed.
func TestNoVersionIsUsedAfterItsEnd(t *testing.T) {
	c := newCatalog()
	letters := []string{"a", "b", "c", "d"}
	for i, letter := range letters[:3] { // "d" fails
		c.set(digest(letter), constant(float32(i)), nil)
	}
	s := newServer(testOptions(), c.Open)
	h := s.Handler()
	var used atomic.Int64
	var wait sync.WaitGroup
	for worker := range 6 {
		random := rand.New(rand.NewPCG(5, uint64(worker)))
		wait.Go(func() {
			for range 300 {
				switch name := []string{"one", "two"}[random.IntN(2)]; random.IntN(8) {
				case 0:
					_ = s.Models().Unload(t.Context(), name, "")
				case 1, 2:
					_ = s.Models().Load(t.Context(), served(name, letters[random.IntN(4)]))
				default:
					v, err := s.models.acquire(name, "")
					if err != nil {
						continue
					}
					used.Add(1)
					if c.opened(v.model.Digest) < 1 {
						t.Errorf("%s is closed, but in use", v.model.Digest)
					}
					v.release()
					call(h, http.MethodPost, "/v2/repository/index", "")
				}
			}
		})
	}
	wait.Wait()
	s.Models().Close()
	for _, letter := range letters {
		if n := c.opened(digest(letter)); n != 0 {
			t.Errorf("%d versions of %s are open after the end", n, letter)
		}
	}
	if used.Load() == 0 {
		t.Error("no version was used")
	}
}

func TestMessagesStayShort(t *testing.T) {
	names := slices.Repeat([]string{"x"}, 1000)
	if got := few(names); len(got) > 100 {
		t.Errorf("got %s", got)
	}
	if got := clipped(string(bytes.Repeat([]byte("é"), 1000))); len(got) > 50 || !json.Valid(quoted(nil, got)) {
		t.Errorf("got %s", got)
	}
}
