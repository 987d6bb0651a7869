package serve

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// document is as much of openapi.json as the tests read.
type document struct {
	OpenAPI string
	Paths   map[string]map[string]json.RawMessage
}

func servedDocument(t *testing.T) (document, string) {
	t.Helper()
	got := call(irisServer(t, nil).Handler(), http.MethodGet, "/openapi.json", "")
	var d document
	if err := json.Unmarshal([]byte(got.body), &d); err != nil || got.code != http.StatusOK || !strings.HasPrefix(d.OpenAPI, "3.") {
		t.Fatalf("got %d %s: %v", got.code, got.body, err)
	}
	return d, got.body
}

func TestOpenAPIDescribesTheRoutes(t *testing.T) {
	d, _ := servedDocument(t)
	described := map[string]bool{}
	for path, item := range d.Paths {
		for member := range item {
			if member != "parameters" {
				described[strings.ToUpper(member)+" "+path] = true
			}
		}
	}
	routed := map[string]bool{}
	for path, m := range irisServer(t, nil).paths() {
		for method := range m {
			routed[method+" "+strings.TrimSuffix(path, "{$}")] = true
		}
	}
	if diff := cmp.Diff(routed, described); diff != "" {
		t.Errorf("openapi.json and the routes differ (-routes +openapi.json):\n%s", diff)
	}
}

// TestOpenAPIRefersToWhatIsThere follows every $ref, and finds every component
// used.
func TestOpenAPIRefersToWhatIsThere(t *testing.T) {
	_, text := servedDocument(t)
	var all map[string]any
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	referred := map[string]bool{}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				referred[ref] = true
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(all)
	there := map[string]bool{}
	for kind, components := range all["components"].(map[string]any) {
		for name := range components.(map[string]any) {
			there["#/components/"+kind+"/"+name] = true
		}
	}
	if diff := cmp.Diff(there, referred); diff != "" {
		t.Errorf("components and references differ (-components +references):\n%s", diff)
	}
}

func TestOpenAPIKnowsTheDatatypes(t *testing.T) {
	var d struct {
		Components struct {
			Schemas struct{ Datatype struct{ Enum []string } }
		}
	}
	_, text := servedDocument(t)
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"BYTES": true} // an output's
	for name := range datatypes {
		want[name] = true
	}
	got := map[string]bool{}
	for _, name := range d.Components.Schemas.Datatype.Enum {
		got[name] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
