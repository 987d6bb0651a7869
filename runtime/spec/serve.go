package spec

// Serve is what a server loads when it starts. The controller keeps it in the
// service's ConfigMap, as JSON under [ServeKey].
type Serve struct {
	// Models to load. Those of one name are versions of one model, which answer
	// side by side.
	Models []ServedModel `json:"models"`
	// Signature is what clients know, as a follower holds what it finds against it.
	// Nil: that isn't known.
	Signature *Signature `json:"signature,omitempty"`
}

// ServeKey is the ConfigMap's key, and so the name of the mounted file.
const ServeKey = "serve.json"

// ServedModel is a model under the name that clients call it by.
type ServedModel struct {
	// Name in /v2/models/{name} and /v1/models/{name}.
	Name string `json:"name"`
	// Repository and Digest say what to pull. The digest is the version.
	Repository Repository `json:"repository"`
	Digest     string     `json:"digest"`
	// Weight is this version's share of the requests that name no version, in
	// relation to the weights of the model's other versions, as in 90 and 10. A
	// version without one, beside others that have one, answers only those who
	// name it. If none has one, all have the same.
	Weight int `json:"weight,omitzero"`
	// NewContract admits the version even if its inputs and outputs don't fit
	// those of the version that answers now.
	NewContract bool `json:"newContract,omitzero"`
}

// LoadRequest is the body of POST /v2/repository/models/{model}/load: one
// version, or in its place several that shall answer side by side. They take
// the place of all that answered under the name before.
type LoadRequest struct {
	ServedModel
	// Versions, if there are any, are loaded in place of the ServedModel above.
	// Each may leave out its name.
	Versions []ServedModel `json:"versions,omitempty"`
}

// UnloadRequest is the body of POST /v2/repository/models/{model}/unload. It may
// be empty: then all versions go.
type UnloadRequest struct {
	// Digest of the one version that goes; the others stay, with their weights.
	Digest string `json:"digest,omitempty"`
}

// Version is the short form of the digest that clients see as the model's
// version: the first twelve hexadecimal digits.
func (m ServedModel) Version() string {
	const prefix = len("sha256:")
	if len(m.Digest) < prefix+12 {
		return m.Digest
	}
	return m.Digest[prefix : prefix+12]
}

// Ports of the runtime pods.
const (
	// ServePort answers predictions, and health.
	ServePort = 8080
	// GRPCPort answers predictions and health over gRPC.
	GRPCPort = 9000
	// OperationsPort is for the operator and for monitoring: /stats, /metrics
	// and the model repository. It is in no Service.
	OperationsPort = 8081
	// ProgressPort of a trainer answers /progress and /metrics.
	ProgressPort = 8080
)

// ModelStatus is an element of what a server answers to POST
// /v2/repository/index.
type ModelStatus struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	// Digest of what is loaded, or being loaded.
	Digest string `json:"digest,omitempty"`
	// State is READY, LOADING or UNAVAILABLE.
	State string `json:"state"`
	// Weight and NewContract as they were asked for.
	Weight      int  `json:"weight,omitzero"`
	NewContract bool `json:"newContract,omitzero"`
	// Reason says, for a model that is not READY, what went wrong last.
	Reason string `json:"reason,omitempty"`
}

// States of a model in a server.
const (
	StateReady       = "READY"
	StateLoading     = "LOADING"
	StateUnavailable = "UNAVAILABLE"
)

// Stats is what a server answers to GET /stats, for the scaler. All counts
// only grow while the process lives; Started tells processes apart.
type Stats struct {
	// Started is the process's start, in nanoseconds since 1970.
	Started int64 `json:"started"`
	// Requests that were answered, with whatever outcome.
	Requests int64 `json:"requests"`
	// InFlight is the number of requests that are being answered now.
	InFlight int64 `json:"inFlight"`
	// BusySeconds is the integral of InFlight over time: the difference of two
	// readings over the time between them is the average concurrency.
	BusySeconds float64 `json:"busySeconds"`
	// UptimeSeconds since Started.
	UptimeSeconds float64 `json:"uptimeSeconds"`
}
