package train

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"trainyard.dev/trainyard/runtime/spec"
)

// MessageLimit is how many bytes of a termination message Kubernetes keeps.
const MessageLimit = 4096

// TerminationMessage returns the result as JSON of at most MessageLimit bytes.
// If it is longer, the log loses its beginning, then the failure's message its
// end, and then the progress and the metrics are left out.
func TerminationMessage(r spec.Result) ([]byte, error) {
	message, err := json.Marshal(r)
	over := func() int { return len(message) - MessageLimit }
	for err == nil && over() > 0 && r.Log != "" {
		r.Log = withoutBeginning(r.Log, over())
		message, err = json.Marshal(r)
	}
	if err == nil && over() > 0 && r.Failure != nil {
		r.Failure = &spec.Failure{Reason: r.Failure.Reason, Message: shortened(r.Failure.Message, over())}
		message, err = json.Marshal(r)
	}
	if err == nil && over() > 0 {
		r.Progress, r.Metrics = nil, nil
		message, err = json.Marshal(r)
	}
	return message, err
}

// withoutBeginning returns the last whole lines of a log that is to be shorter
// by some bytes.
func withoutBeginning(log string, by int) string {
	_, rest, _ := strings.Cut(log[min(by, len(log))-1:], "\n")
	return rest
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
