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

// load answers when what is asked for is READY, or with the reason why the
// first attempt failed; attempts go on.
func (s *Server) load(w http.ResponseWriter, r *http.Request) {
	var request spec.LoadRequest
	if err := readJSON(w, r, &request); err != nil {
		writeError(w, err)
		return
	}
	models, err := modelsOf(request, r.PathValue("model"))
	if err == nil {
		err = s.models.Load(r.Context(), models...)
	}
	if err != nil {
		writeError(w, loadProblem(r.PathValue("model"), err))
		return
	}
	states := make([]spec.ModelStatus, len(models))
	for i, model := range models {
		states[i] = stateOf(model, spec.StateReady)
	}
	if len(request.Versions) == 0 {
		writeJSON(w, http.StatusOK, states[0])
		return
	}
	writeJSON(w, http.StatusOK, states)
}

// modelsOf returns the versions that a request asks for, under the path's name.
func modelsOf(request spec.LoadRequest, name string) ([]spec.ServedModel, error) {
	models := request.Versions
	switch {
	case len(models) == 0:
		models = []spec.ServedModel{request.ServedModel}
	case request.ServedModel != spec.ServedModel{}:
		return nil, invalid(`the request has "versions" and, beside them, a version of its own; send one of the two`)
	}
	for i := range models {
		if models[i].Name == "" {
			models[i].Name = name
		}
		if models[i].Name != name {
			return nil, invalid("the path is of model %s, but the body of model %s", clipped(name), clipped(models[i].Name))
		}
	}
	return models, nil
}

func (s *Server) unload(w http.ResponseWriter, r *http.Request) {
	var request spec.UnloadRequest
	if r.ContentLength != 0 {
		if err := readJSON(w, r, &request); err != nil {
			writeError(w, err)
			return
		}
	}
	if err := s.models.Unload(r.Context(), r.PathValue("model"), request.Digest); err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}
