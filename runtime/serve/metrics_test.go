package serve

import (
	"strings"
	"testing"
	"time"
)

// TestSeriesOfTheGoneAreForgotten replaces one model and unloads another: their
// series stay for a while, and those of what is served for ever.
func TestSeriesOfTheGoneAreForgotten(t *testing.T) {
	c := newCatalog()
	for _, letter := range []string{"a", "b", "c"} {
		c.set(digest(letter), constant(1), nil)
	}
	s := newServer(testOptions(), c.Open)
	t.Cleanup(s.Models().Close)
	h := s.Handler()
	load := func(name, letter string) {
		t.Helper()
		if err := s.Models().Load(t.Context(), served(name, letter)); err != nil {
			t.Fatal(err)
		}
		call(h, "POST", "/v2/models/"+name+"/infer", v2("FP32", "[1]", "[1]"))
	}
	load("kept", "a")
	load("kept", "b")
	load("kept", "a") // gone, and back
	load("unloaded", "c")
	if err := s.Models().Unload(t.Context(), "unloaded", ""); err != nil {
		t.Fatal(err)
	}
	const (
		kept       = `requests_total{code="200",model="kept",protocol="v2",version="aaaaaaaaaaaa"} 2`
		replaced   = `model="kept",protocol="v2",version="bbbbbbbbbbbb"`
		unloaded   = `model="unloaded"`
		ofKeptName = `duration_seconds_count{model="kept",protocol="v2",version="aaaaaaaaaaaa"} 2`
	)
	show := func() string { return call(s.Operations(), "GET", "/metrics", "").body }
	for _, want := range []string{kept, replaced, unloaded, ofKeptName} {
		if !strings.Contains(show(), want) {
			t.Errorf("at once: there is no %s", want)
		}
	}
	s.metrics.forget(time.Now().Add(seriesKept + time.Second))
	text := show()
	for _, want := range []string{kept, ofKeptName} {
		if !strings.Contains(text, want) {
			t.Errorf("later: there is no %s", want)
		}
	}
	for _, not := range []string{replaced, unloaded} {
		if strings.Contains(text, not) {
			t.Errorf("later: there is %s", not)
		}
	}
	if len(s.metrics.gone) != 0 {
		t.Errorf("the server remembers %v", s.metrics.gone)
	}
}
