// Package spec is the JSON contract between the controllers and the runtime
// pods: what a trainer is told ([Train]), what it reports while it runs
// ([Progress]) and when it ends ([Result]), and what a server loads ([Serve]).
//
// The recipe types ([Network], [Dataset], [Training]) are the same Go types
// that users write in a TrainingJob, so nothing is converted on the way. Their
// comments are therefore what `kubectl explain` prints. The package depends on
// the standard library only: both sides can import it, and neither drags the
// other's dependencies along.
//
// +kubebuilder:object:generate=true
package spec
