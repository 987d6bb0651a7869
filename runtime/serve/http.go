package serve

import (
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
)

// methods are the handlers of a path.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h(w, r)
		return
	}
	m.refuse(w, r)
}

func (m methods) refuse(w http.ResponseWriter, r *http.Request) {
	allowed := strings.Join(slices.Sorted(maps.Keys(m)), ", ")
	w.Header().Set("Allow", allowed)
	writeError(w, &problem{
		status:  http.StatusMethodNotAllowed,
		message: "method " + clipped(r.Method) + " is not allowed on " + clipped(r.URL.Path) + "; use " + allowed,
	})
}

// predictVerb ends the paths of V1's predictions.
const predictVerb = ":predict"

// routes serves paths, and errors as JSON where there is none. Patterns are
// those of [http.ServeMux], without methods, and beside a path there may be one
// with [predictVerb] after it.
func routes(paths map[string]methods) http.Handler {
	mux := http.NewServeMux()
	for path, m := range paths {
		if verb, ok := paths[path+predictVerb]; ok {
			mux.Handle(path, withVerb(m, verb))
		} else if !strings.HasSuffix(path, predictVerb) {
			mux.Handle(path, m)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, notFound("there is nothing at %s", clipped(r.URL.Path)))
	})
	return mux
}

// withVerb tells /models/{model} and /models/{model}:predict apart, which
// [http.ServeMux] cannot.
func withVerb(plain, verb methods) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutSuffix(r.PathValue("model"), predictVerb)
		if !ok {
			plain.ServeHTTP(w, r)
			return
		}
		r.SetPathValue("model", name)
		verb.ServeHTTP(w, r)
	})
}

// readBody reads a body of JSON, and of binary tensors after it, into b.
// Body is r's, within its limits.
func readBody(r *http.Request, body io.Reader, most int64, b *buffers) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return &problem{status: http.StatusUnsupportedMediaType, message: "the body has Content-Encoding " + clipped(e) + "; send it as it is"}
	}
	if r.ContentLength > most {
		return bodyTooLarge(most)
	}
	header := r.Header.Get(binaryHeader)
	err := b.receive(body, int(r.ContentLength), tensorsAt(header))
	if _, over := errors.AsType[*http.MaxBytesError](err); over {
		return bodyTooLarge(most)
	}
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if err != nil {
		return invalid("reading the body: %v", err)
	}
	return b.split(header)
}

func bodyTooLarge(most int64) error {
	return tooLarge("the body is larger than %d bytes; send several requests", most)
}

// writeJSON answers with a value of ours.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written as JSON"}`)
	}
	writeBody(w, status, body)
}

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	writeAll(w, status, body)
}

// versionHeader tells in an answer which version gave it. V1 has no other place
// for it.
const versionHeader = "Model-Version"

// writeAnswer answers what a codec left in b.
func writeAnswer(w http.ResponseWriter, b *buffers) {
	if b.answerHead == 0 {
		writeBody(w, http.StatusOK, b.answer)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set(binaryHeader, strconv.Itoa(b.answerHead))
	writeAll(w, http.StatusOK, b.answer)
}

func writeAll(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	// A client that is gone is told nothing.
	_, _ = w.Write(body)
}

// writeError answers {"error": ...} and returns the status.
func writeError(w http.ResponseWriter, err error) int {
	p := asProblem(err)
	setRetryAfter(w, p)
	writeBody(w, p.status, p.body())
	return p.status
}

func setRetryAfter(w http.ResponseWriter, p *problem) {
	if p.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(p.retrySeconds(), 10))
	}
}

// readJSON reads a small body of ours into v.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		return invalid("reading the body: %v", err)
	}
	return decode(body, v)
}
