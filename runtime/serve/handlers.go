package serve

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// codec answers the request in b.body and leaves the answer in b.answer.
type codec func(ctx context.Context, v *version, mostRows int, b *buffers) error

func (s *Server) infer(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, "v2", inferV2)
}

func (s *Server) predict(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, "v1", predictV1)
}

// answer does what is common to the protocols: counting, reading, finding the
// model, and writing.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, protocol string, c codec) {
	began := time.Now()
	s.predictions.begin()
	defer s.predictions.end()
	b := takeBuffers()
	defer b.giveBack()
	traced := s.traces.begin(r.Context(), r.Header.Get, protocol, r.PathValue("model"))
	served, err := s.read(w, r, c, b)
	traced.end(served, &b.phases, err)
	code := http.StatusOK
	if served != nil {
		w.Header()[versionHeader] = served.header
	}
	if err == nil {
		writeAnswer(w, b)
	} else {
		code = writeError(w, err)
	}
	s.metrics.answered(served, protocol, strconv.Itoa(code), time.Since(began))
}

// read reads the body and leaves the answer in b.
func (s *Server) read(w http.ResponseWriter, r *http.Request, c codec, b *buffers) (*version, error) {
	body := &charged{Reader: http.MaxBytesReader(w, r.Body, s.options.BodyBytes), budget: &s.bodies}
	defer body.giveBack()
	if err := readBody(r, body, s.options.BodyBytes, b); err != nil {
		return nil, err
	}
	return s.compute(r.Context(), r.PathValue("model"), r.PathValue("version"), c, b)
}

// compute leaves the answer to a body that was read in b: a slow client keeps no
// model from being closed. The version that it returns, nil if there is none, may
// be closed: it is for telling who answered.
func (s *Server) compute(ctx context.Context, model, which string, c codec, b *buffers) (*version, error) {
	v, err := s.models.acquire(model, which)
	if err != nil {
		return nil, err
	}
	defer v.release()
	b.phases = phases{began: time.Now()}
	err = c(ctx, v, s.options.Rows, b)
	v.statistics.answered(&b.phases, time.Now(), err)
	return v, err
}

func (s *Server) alive(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]bool{"live": true})
}

// readiness is the answer to a question whether something is ready.
type readiness struct {
	Name  string `json:"name,omitempty"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"`
}

func (s *Server) serverReady(w http.ResponseWriter, _ *http.Request) {
	writeReadiness(w, "", s.ready())
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	v, err := s.models.look(name, r.PathValue("version"))
	if err == nil {
		v.release()
	}
	writeReadiness(w, name, err)
}

func writeReadiness(w http.ResponseWriter, name string, err error) {
	if err == nil {
		writeJSON(w, http.StatusOK, readiness{Name: name, Ready: true})
		return
	}
	p := asProblem(err)
	setRetryAfter(w, p)
	writeJSON(w, p.status, readiness{Name: name, Error: p.message})
}

func (s *Server) serverMetadata(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Name       string   `json:"name"`
		Version    string   `json:"version"`
		Extensions []string `json:"extensions"`
	}{serverName, codeVersion(), extensions})
}

const serverName = "trainyard"

// extensions of the protocol that the server has.
var extensions = []string{"binary_tensor_data", "model_configuration", "model_repository", "statistics"}

// platform is what the protocol calls the kind of a model.
const platform = "trainyard_onnx"

// modelMetadata is the protocol's description of a model, with the columns and
// classes as parameters.
type modelMetadata struct {
	Name       string           `json:"name"`
	Versions   []string         `json:"versions"`
	Platform   string           `json:"platform"`
	Inputs     []tensorMetadata `json:"inputs"`
	Outputs    []tensorMetadata `json:"outputs"`
	Parameters modelParameters  `json:"parameters"`
}

type modelParameters struct {
	Columns []string `json:"columns,omitempty"`
	Classes []string `json:"classes,omitempty"`
}

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request) {
	v, err := s.models.look(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	defer v.release()
	writeJSON(w, http.StatusOK, v.metadata(s.models.versions(v.model.Name)))
}

// metadata describes a version, among those that answer under its name.
func (v *version) metadata(versions []string) modelMetadata {
	outputs := []tensorMetadata{{outputName, "FP32", []int64{-1, int64(v.outputs)}}}
	if len(v.classes) != 0 {
		outputs = append(outputs, tensorMetadata{labelName, "BYTES", []int64{-1}})
	}
	return modelMetadata{
		Name:       v.model.Name,
		Versions:   versions,
		Platform:   platform,
		Inputs:     []tensorMetadata{{inputName, "FP32", []int64{-1, int64(v.features)}}},
		Outputs:    outputs,
		Parameters: modelParameters{Columns: v.columns, Classes: v.classes},
	}
}

func (s *Server) listModels(w http.ResponseWriter, _ *http.Request) {
	names := []string{}
	for _, m := range s.models.Index() {
		if len(names) == 0 || names[len(names)-1] != m.Name {
			names = append(names, m.Name)
		}
	}
	writeJSON(w, http.StatusOK, map[string][]string{"models": names})
}

// modelStatus is V1's GET of a model: whether it is ready, never an error for
// a model that there is.
func (s *Server) modelStatus(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("model")
	v, err := s.models.look(name, "")
	if err == nil {
		v.release()
		writeReadiness(w, name, nil)
		return
	}
	writeReadiness(w, name, err)
}
