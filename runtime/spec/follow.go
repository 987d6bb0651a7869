package spec

// FollowVariable is the environment variable in which a follower finds its
// [Follow], as JSON.
const FollowVariable = "TRAINYARD_FOLLOW"

// Follow says which address a follower watches for models.
type Follow struct {
	// Name of the model that is served, as clients call it.
	Name string `json:"name"`
	// SourceName is what users call the source, for messages:
	// "s3://models/iris.onnx".
	SourceName string `json:"sourceName"`

	// One of HTTPS, S3 and File is where an ONNX file is: File is a path in the
	// pod. Without any, it is Tag that is followed, in Repository.
	HTTPS *HTTPSSource `json:"https,omitempty"`
	S3    *S3Source    `json:"s3,omitempty"`
	File  string       `json:"file,omitempty"`
	// Tag of a model in Repository, or its digest.
	Tag string `json:"tag,omitempty"`

	// Repository is where an ONNX file is pushed as a model, or where the tag is.
	Repository Repository `json:"repository"`
	// EverySeconds is how often to look; 0: once.
	EverySeconds float64 `json:"everySeconds,omitempty"`
	// NewContract admits a model even if its inputs and outputs don't fit those of
	// the one that is served.
	NewContract bool `json:"newContract,omitempty"`
}

// Followed is what a follower answers to GET /followed.
type Followed struct {
	// Model is the newest that was found and can be served; nil: none yet.
	Model *Model `json:"model,omitempty"`
	// Failure says why what is at the address now is not Model.
	Failure *Failure `json:"failure,omitempty"`
	// Activity is what the follower does, as "fetches s3://models/iris.onnx";
	// empty while it waits until it looks again.
	Activity string `json:"activity,omitempty"`
}

// Reasons of the [Failure] of a [Followed], beside [ReasonRegistryUnavailable],
// [ReasonPushRefused], [ReasonDiskFull] and [ReasonInternal].
const (
	// ReasonSourceUnavailable: the address doesn't answer, which may pass.
	ReasonSourceUnavailable = "SourceUnavailable"
	// ReasonSourceRefused: the address answers, and doesn't give a model.
	ReasonSourceRefused = "SourceRefused"
	// ReasonModelInvalid: what is at the address can't be served.
	ReasonModelInvalid = "ModelInvalid"
	// ReasonContractBroken: the model's inputs or outputs aren't those that clients
	// know.
	ReasonContractBroken = "ContractBroken"
)

// Where a pod finds the keys of a source's credentialsSecret: as files in
// SourceCredentialsDirectory, or, for a registry, as a Docker configuration in
// RegistryCredentialsFile.
const (
	SourceCredentialsDirectory   = "/var/run/secrets/trainyard.dev/source"
	RegistryCredentialsDirectory = "/var/run/secrets/trainyard.dev/pull"
	RegistryCredentialsFile      = RegistryCredentialsDirectory + "/config.json"
)
