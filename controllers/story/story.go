// Package story tells people what happens to a resource: each turn as an Event
// and in the log, in the words that its condition has.
package story

import (
	"context"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// Turn is one thing that happened.
type Turn struct {
	// Kind is corev1.EventTypeNormal, or EventTypeWarning for what a person has
	// to look at.
	Kind string
	// Reason is the condition's, in CamelCase.
	Reason string
	// Action is what the operator was doing: a verb.
	Action string
	// Message is the condition's.
	Message string
}

// maxNote is how many bytes of a message the API server takes in an Event. It
// refuses an Event with more, and nobody would hear of the turn.
const maxNote = 1024

// Tell tells the turns, in order.
func Tell(ctx context.Context, recorder events.EventRecorder, about runtime.Object, turns ...Turn) {
	for _, turn := range turns {
		log.FromContext(ctx).Info(turn.Message, "reason", turn.Reason)
		recorder.Eventf(about, nil, turn.Kind, turn.Reason, turn.Action, "%s", shortened(turn.Message))
	}
}

// shortened cuts a message between two characters.
func shortened(message string) string {
	const ellipsis = "..."
	if len(message) <= maxNote {
		return message
	}
	cut := maxNote - len(ellipsis)
	for !utf8.RuneStart(message[cut]) {
		cut--
	}
	return message[:cut] + ellipsis
}
