package serve

import (
	"net/http"
	"strings"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// TestContractKeepsTheOldVersion loads a version that clients could not use:
// the one before goes on, the reason can be read, and who insists gets it.
func TestContractKeepsTheOldVersion(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("b"), irisNetwork(), nil)
	s := oneServer(t, c)
	mustLoad(t, s, served("one", "a"))
	body := `{"repository":{"name":"registry.example/models"},"digest":"` + digest("b") + `"`
	got := call(s.Operations(), "POST", "/v2/repository/models/one/load", body+"}")
	const reason = "version bbbbbbbbbbbb does not fit version aaaaaaaaaaaa, whose clients it would get: it takes 4 inputs, not 1; if they know, load it with newContract"
	if got.code != http.StatusUnprocessableEntity || !strings.Contains(got.body, reason) {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if c.opened(digest("b")) != 0 {
		t.Error("the refused version is open")
	}
	if got := call(s.Handler(), "POST", "/v2/models/one/infer", oneRow); got.code != http.StatusOK || got.header.Get(versionHeader) != "aaaaaaaaaaaa" {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if index := s.Models().Index(); len(index) != 2 || index[1].State != spec.StateUnavailable || index[1].Reason != reason {
		t.Errorf("got %v", index)
	}
	if got := call(s.Operations(), "POST", "/v2/repository/models/one/load", body+`,"newContract":true}`); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if index := s.Models().Index(); len(index) != 1 || index[0].Digest != digest("b") {
		t.Errorf("got %v", index)
	}
}

// TestVersionsFitEachOther loads two at once that do not.
func TestVersionsFitEachOther(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("b"), irisNetwork(), nil)
	s := oneServer(t, c)
	if err := s.Models().Load(t.Context(), weighted("a", 1), weighted("b", 1)); !strings.Contains(text(err), "it takes 4 inputs, not 1") {
		t.Errorf("got %v", err)
	}
	// What fits is kept for the next attempt, and closed when it is called off.
	if c.opened(digest("a")) != 1 {
		t.Error("the version that fits was closed")
	}
	if err := s.Models().Unload(t.Context(), "one", ""); err != nil {
		t.Fatal(err)
	}
	await(t, "it is closed", func() bool { return c.opened(digest("a")) == 0 })
}

// TestVersionsComeAndGo changes which versions answer, over the operations
// port: what stays is not opened again.
func TestVersionsComeAndGo(t *testing.T) {
	c := newCatalog()
	for _, letter := range []string{"a", "b", "c"} {
		c.set(digest(letter), constant(1), nil)
	}
	s := oneServer(t, c)
	version := func(letter, weight string) string {
		return `{"repository":{"name":"registry.example/models"},"digest":"` + digest(letter) + `","weight":` + weight + `}`
	}
	load := func(versions ...string) answer {
		return call(s.Operations(), "POST", "/v2/repository/models/one/load", `{"versions":[`+strings.Join(versions, ",")+`]}`)
	}
	if got := load(version("a", "90"), version("b", "10")); got.code != http.StatusOK || !strings.Contains(got.body, `"weight":90`) {
		t.Fatalf("got %d %s", got.code, got.body)
	}
	if got := call(s.Handler(), "GET", "/v2/models/one", ""); !strings.Contains(got.body, `"versions":["aaaaaaaaaaaa","bbbbbbbbbbbb"]`) {
		t.Errorf("got %s", got.body)
	}
	if got := load(version("b", "50"), version("c", "50")); got.code != http.StatusOK {
		t.Fatalf("got %d %s", got.code, got.body)
	}
	// A load has ended when the new versions answer; what they replace is closed
	// after that.
	await(t, "a is closed", func() bool { return c.opened(digest("a")) == 0 })
	if c.tried(digest("b")) != 1 {
		t.Errorf("b was opened %d times", c.tried(digest("b")))
	}
	if got := call(s.Operations(), "POST", "/v2/repository/models/one/unload", `{"digest":"`+digest("a")+`"}`); got.code != http.StatusNotFound || !strings.Contains(got.body, "it has bbbbbbbbbbbb, cccccccccccc") {
		t.Errorf("got %d %s", got.code, got.body)
	}
	if got := call(s.Operations(), "POST", "/v2/repository/models/one/unload", `{"digest":"`+digest("c")+`"}`); got.code != http.StatusOK {
		t.Errorf("got %d %s", got.code, got.body)
	}
	await(t, "c is closed", func() bool { return c.opened(digest("c")) == 0 })
	if index := s.Models().Index(); len(index) != 1 || index[0].Digest != digest("b") {
		t.Errorf("got %v", index)
	}
	for body, want := range map[string]string{
		`{"versions":[` + version("a", "1") + `,` + version("a", "2") + `]}`:            "versions[1]: model one has version aaaaaaaaaaaa twice",
		`{"digest":"` + digest("a") + `","versions":[` + version("a", "1") + `]}`:       "send one of the two",
		`{"versions":[` + version("a", "-1") + `]}`:                                     "versions[0] has weight -1",
		`{"versions":[{"name":"two","digest":"` + digest("a") + `"}]}`:                  "the path is of model one, but the body of model two",
		`{"versions":[` + version("a", "1") + `,` + version("b", "999999") + `]}`:       "less than a thousandth",
		`{"versions":[{"repository":{"name":"registry.example/m"},"digest":"latest"}]}`: `the digest of model one is \"latest\"`,
		`{"versions":` + `[{"digest":"` + digest("a") + `"}]}`:                          "model one has no repository",
	} {
		if got := call(s.Operations(), "POST", "/v2/repository/models/one/load", body); got.code != http.StatusBadRequest || !strings.Contains(got.body, want) {
			t.Errorf("%s: got %d %s, want %s", body, got.code, got.body, want)
		}
	}
}
