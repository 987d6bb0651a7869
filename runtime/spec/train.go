package spec

// TrainVariable is the environment variable in which a trainer finds its
// [Train], as JSON.
const TrainVariable = "TRAINYARD_TRAIN"

// Train is everything that a trainer needs to know.
type Train struct {
	// Name of the model.
	Name string `json:"name"`
	// Source is where the dataset's bytes are: the path of a file, or a URL
	// (https://, s3://) whose particulars are in Dataset.Source.
	Source string `json:"source"`
	// SourceName is what users call the source, for messages:
	// "ConfigMap default/digits, key digits.csv.gz".
	SourceName string   `json:"sourceName"`
	Dataset    Dataset  `json:"dataset"`
	Network    Network  `json:"network"`
	Training   Training `json:"training"`
	// Repository is where the model is pushed.
	Repository Repository `json:"repository"`
	// Lineage tells where the model comes from. It is stored with the model.
	Lineage Lineage `json:"lineage"`
	// Checkpoint says where the run keeps what it needs to go on after an
	// interruption. Nil: it starts from the beginning.
	Checkpoint *Checkpoint `json:"checkpoint,omitempty"`
	// Workers, if there are several, train together: each has this same Train,
	// and its own rank. Nil: there is one.
	Workers *Workers `json:"workers,omitempty"`
}

// Workers are the trainers of one run. Worker 0 leads: it alone keeps
// checkpoints, measures, and publishes the model.
type Workers struct {
	// Count is how many there are, 2 at least.
	Count int32 `json:"count"`
	// Leader is the host:port where worker 0 answers at [GroupPath].
	Leader string `json:"leader"`
}

// What a worker is told beside its [Train], in the environment.
const (
	// RankVariable holds the worker's rank. Kubernetes sets it in the pods of an
	// Indexed Job.
	RankVariable = "JOB_COMPLETION_INDEX"
	// AddressVariable holds the IP address at which the others reach the worker.
	AddressVariable = "TRAINYARD_ADDRESS"
)

// GroupPath is where worker 0 takes the reports of the others, beside /progress.
const GroupPath = "/group"

// Checkpoint says where and how often a run keeps its state: in a directory, or
// in the registry. It also does so when it is asked to stop and, in a directory,
// when training is over and the model is about to be pushed. With both
// intervals, whichever comes first counts; with none, it is a minute in a
// directory, and five in the registry.
type Checkpoint struct {
	// Directory is one run's own. It outlives the pod.
	Directory string `json:"directory,omitempty"`
	// Tag, without a directory, names the run's checkpoint in
	// [Train.Repository].
	Tag string `json:"tag,omitempty"`
	// EverySteps is the number of steps between two checkpoints.
	EverySteps int64 `json:"everySteps,omitempty"`
	// EverySeconds is the time between two checkpoints.
	EverySeconds float64 `json:"everySeconds,omitempty"`
}

// Repository is a place in an OCI registry.
type Repository struct {
	// Name is host[:port]/path, without tag or digest.
	Name string `json:"name"`
	// PlainHTTP is set for registries that do not speak TLS.
	PlainHTTP bool `json:"plainHTTP,omitempty"`
	// TokenFile holds the token of the pod's ServiceAccount that this registry
	// takes as a password. It is read whenever it is needed, as the kubelet
	// renews it. Empty: the registry asks for none.
	TokenFile string `json:"tokenFile,omitempty"`
	// CredentialsFile is a Docker configuration with credentials for this
	// registry. It need not be there until the registry asks for some.
	CredentialsFile string `json:"credentialsFile,omitempty"`
}

// What a pod needs to be known by a registry that takes the tokens of
// ServiceAccounts.
const (
	// RegistryAudience is whom such a token is meant for: it opens the registry,
	// and not the API server.
	RegistryAudience = "registry.trainyard.dev"
	// RegistryTokenDirectory and RegistryTokenKey are where it is in the pod.
	RegistryTokenDirectory = "/var/run/secrets/trainyard.dev/registry"
	RegistryTokenKey       = "token"
	// RegistryTokenSeconds is how long it is valid; it is renewed long before.
	RegistryTokenSeconds = 3600
)

// Lineage tells where a model comes from.
type Lineage struct {
	Namespace string `json:"namespace,omitempty"`
	Job       string `json:"job,omitempty"`
	UID       string `json:"uid,omitempty"`
}

// Exit codes of the trainer. The Job's pod failure policy tells by them what
// is worth another try.
const (
	// ExitInvalid says that the same input will fail again: no retry.
	ExitInvalid = 10
	// ExitInterrupted says that the trainer was asked to stop (128 + SIGTERM):
	// retry, and do not count it.
	ExitInterrupted = 143
)

// Progress is what a trainer answers to GET /progress.
type Progress struct {
	// Epoch is the one that runs or ended last, counted from 1; 0 before the
	// first.
	Epoch  int32 `json:"epoch"`
	Epochs int32 `json:"epochs"`
	// Step counts the batches of this epoch, from 1.
	Step  int64 `json:"step"`
	Steps int64 `json:"steps"`
	// Loss is the mean over the epoch's steps so far.
	Loss float64 `json:"loss"`
	// Metrics of the last epoch that was measured, by name: Accuracy,
	// ValidationAccuracy, ValidationLoss.
	Metrics          map[string]float64 `json:"metrics,omitempty"`
	SamplesPerSecond float64            `json:"samplesPerSecond"`
	// SecondsLeft is an estimate from the pace so far.
	SecondsLeft float64 `json:"secondsLeft"`
	// BestEpoch, with early stopping, is the best epoch so far; 0: none yet.
	BestEpoch int32 `json:"bestEpoch,omitempty"`
	// StoppedEarly tells that Epoch is the last one although more were asked
	// for.
	StoppedEarly bool `json:"stoppedEarly,omitempty"`
	// Activity is what the trainer does before and after training, as "reads
	// ConfigMap default/digits"; empty while it trains.
	Activity string `json:"activity,omitempty"`
	// Warning is what keeps the run waiting, or what it goes on in spite of, and
	// what to do about it; empty when all is well.
	Warning string `json:"warning,omitempty"`
	// MemoryBytes estimates what the run needs; 0 while that isn't known.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
}

// Result is what a trainer leaves as its termination message: at most 4096
// bytes of JSON, so sizes, digests and final metrics, never a history.
type Result struct {
	// Model is set when a model was published.
	Model         *Model `json:"model,omitempty"`
	DatasetDigest string `json:"datasetDigest,omitempty"`
	// Progress is where the run ended; Progress.StoppedEarly and Progress.Epoch
	// tell whether and where it stopped early.
	Progress *Progress `json:"progress,omitempty"`
	// Epoch is the one after which the published weights stood: with early
	// stopping, the best one.
	Epoch int32 `json:"epoch,omitempty"`
	// Metrics are those of the published weights.
	Metrics map[string]float64 `json:"metrics,omitempty"`
	// Failure is set when there is no model.
	Failure *Failure `json:"failure,omitempty"`
	// Log, beside a Failure, holds the last lines of the log, or as much of them
	// as there is room for.
	Log string `json:"log,omitempty"`
}

// Model points to a published model.
type Model struct {
	// Reference is repository:tag, for people.
	Reference string `json:"reference"`
	// Digest of the OCI manifest: what everyone follows.
	Digest string `json:"digest"`
	// Bytes is the size of all files of the model.
	Bytes int64 `json:"bytes"`
	// Parameters is the number of trained weights.
	Parameters int64 `json:"parameters"`
	// Signature is what clients rely on. Nil: that isn't known.
	Signature *Signature `json:"signature,omitempty"`
}

// Failure says why there is no model. Reason is CamelCase, as in a condition;
// Message names the thing, the place and what to do.
type Failure struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons of a [Failure].
const (
	ReasonDatasetInvalid      = "DatasetInvalid"
	ReasonDatasetUnavailable  = "DatasetUnavailable"
	ReasonNetworkInvalid      = "NetworkInvalid"
	ReasonDiverged            = "Diverged"
	ReasonRegistryUnavailable = "RegistryUnavailable"
	ReasonPushRefused         = "PushRefused"
	ReasonDiskFull            = "DiskFull"
	ReasonInterrupted         = "Interrupted"
	ReasonInternal            = "InternalError"
)
