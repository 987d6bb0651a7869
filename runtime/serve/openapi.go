package serve

import (
	_ "embed" // the document
	"net/http"
)

// openAPI describes what [Server.Handler] answers.
//
//go:embed openapi.json
var openAPI []byte

func (s *Server) openAPI(w http.ResponseWriter, _ *http.Request) {
	writeBody(w, http.StatusOK, openAPI)
}
