package train

import (
	"encoding/json"
	"unicode/utf8"

	"trainyard.dev/trainyard/runtime/spec"
)

// MessageLimit is how many bytes of a termination message Kubernetes keeps.
const MessageLimit = 4096

// TerminationMessage returns the result as JSON of at most MessageLimit bytes.
// If it is longer, the failure's message loses its end, and then the progress
// and the metrics are left out.
func TerminationMessage(r spec.Result) ([]byte, error) {
	message, err := json.Marshal(r)
	if over := len(message) - MessageLimit; err == nil && over > 0 && r.Failure != nil {
		r.Failure = &spec.Failure{Reason: r.Failure.Reason, Message: shortened(r.Failure.Message, over)}
		message, err = json.Marshal(r)
	}
	if err == nil && len(message) > MessageLimit {
		r.Progress, r.Metrics = nil, nil
		message, err = json.Marshal(r)
	}
	return message, err
}

// shortened returns s without its last by bytes or a few more. A byte of text
// takes at least a byte of JSON, so the JSON gets shorter by at least as much.
func shortened(s string, by int) string {
	const ellipsis = "..."
	end := max(0, len(s)-by-len(ellipsis))
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + ellipsis
}
