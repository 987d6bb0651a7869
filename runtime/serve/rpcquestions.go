package serve

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// question is a method of one message each way that takes some microseconds:
// those of health, which clients and probes ask all day, and of metadata, which
// clients read before they predict.
type question struct {
	service any
	answer  grpc.MethodHandler
}

// questions are the methods, by their full names, that are answered as they are
// registered with grpc-go, but not by it.
func (s *Server) questions() map[string]*question {
	all := map[string]*question{}
	add := func(of *grpc.ServiceDesc, service any, names ...string) {
		for _, m := range of.Methods {
			if slices.Contains(names, m.MethodName) {
				all["/"+of.ServiceName+"/"+m.MethodName] = &question{service, m.Handler}
			}
		}
	}
	add(&inference.GRPCInferenceService_ServiceDesc, &inferenceService{s}, "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata")
	add(&grpc_health_v1.Health_ServiceDesc, &health{s}, "Check")
	return all
}

// errHandedOn ends the work on a call that is grpc-go's now.
var errHandedOn = errors.New("the call was handed on")

// tell answers a question.
func (c *rpcConnection) tell(s *rpcStream) {
	if c.late(s) {
		return
	}
	read := func(m any) error {
		if m, ok := m.(proto.Message); ok && c.decode(s, m) {
			return nil
		}
		return errHandedOn
	}
	answer, err := s.question.answer(s.question.service, context.Background(), read, c.rpc.answerCall)
	if errors.Is(err, errHandedOn) {
		return
	}
	b := takeBuffers()
	defer b.giveBack()
	if m, ok := answer.(proto.Message); ok && err == nil {
		b.reply, err = appendMessage(b.reply[:0], m)
	}
	c.reply(s, b.reply, err)
}
