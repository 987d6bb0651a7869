package serve

import (
	"net/http"

	"trainyard.dev/trainyard/runtime/spec"
)

func (s *Server) stats(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Stats())
}

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.models.Index())
}

// load takes a [spec.ServedModel] and answers when it is READY, or with the
// reason why the first attempt failed; attempts go on.
func (s *Server) load(w http.ResponseWriter, r *http.Request) {
	var model spec.ServedModel
	if err := readJSON(w, r, &model); err != nil {
		writeError(w, err)
		return
	}
	name := r.PathValue("model")
	if model.Name == "" {
		model.Name = name
	}
	if model.Name != name {
		writeError(w, invalid("the path is of model %s, but the body of model %s", clipped(name), clipped(model.Name)))
		return
	}
	if err := s.models.Load(r.Context(), model); err != nil {
		writeError(w, loadProblem(model, err))
		return
	}
	writeJSON(w, http.StatusOK, stateOf(model, spec.StateReady))
}

func (s *Server) unload(w http.ResponseWriter, r *http.Request) {
	if err := s.models.Unload(r.PathValue("model")); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}
