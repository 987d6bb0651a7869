package serve

import (
	"context"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/proto"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
	"trainyard.dev/trainyard/runtime/spec"
)

// grpcServer answers calls whose connections are those of [rpc], which has most of
// the limits.
func (s *Server) grpcServer() *grpc.Server {
	g := grpc.NewServer(
		grpc.ForceServerCodecV2(newBounded()),
		grpc.MaxRecvMsgSize(int(s.options.BodyBytes)),
		grpc.StatsHandler(&calls{s}),
		grpc.UnaryInterceptor(s.answerCall),
	)
	inference.RegisterGRPCInferenceServiceServer(g, &inferenceService{s})
	grpc_health_v1.RegisterHealthServer(g, &health{s})
	reflection.Register(g)
	return g
}

// answerCall turns errors, and panics as [net/http] does, into a status.
func (s *Server) answerCall(ctx context.Context, request any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			s.options.Log.Error("a call panicked", "method", info.FullMethod, "cause", cause, "stack", string(debug.Stack()))
			response, err = nil, statusOf(ctx, internal("the server failed; its log says how"))
		}
	}()
	response, err = h(ctx, request)
	return response, statusOf(ctx, err)
}

// inferenceService is the protocol's service.
type inferenceService struct{ *Server }

// ServerLive implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ServerLive(context.Context, *inference.ServerLiveRequest) (*inference.ServerLiveResponse, error) {
	return &inference.ServerLiveResponse{Live: true}, nil
}

// ServerReady implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ServerReady(context.Context, *inference.ServerReadyRequest) (*inference.ServerReadyResponse, error) {
	return &inference.ServerReadyResponse{Ready: s.ready() == nil}, nil
}

// ModelReady implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ModelReady(_ context.Context, r *inference.ModelReadyRequest) (*inference.ModelReadyResponse, error) {
	v, err := s.models.look(r.GetName(), r.GetVersion())
	if err == nil {
		v.release()
		return &inference.ModelReadyResponse{Ready: true}, nil
	}
	if asProblem(err).retryAfter > 0 {
		return &inference.ModelReadyResponse{}, nil
	}
	return nil, err
}

// ServerMetadata implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ServerMetadata(context.Context, *inference.ServerMetadataRequest) (*inference.ServerMetadataResponse, error) {
	return &inference.ServerMetadataResponse{Name: serverName, Version: codeVersion(), Extensions: extensions}, nil
}

// ModelMetadata implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ModelMetadata(_ context.Context, r *inference.ModelMetadataRequest) (*inference.ModelMetadataResponse, error) {
	v, err := s.models.look(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer v.release()
	m := v.metadata(s.models.versions(v.model.Name))
	return &inference.ModelMetadataResponse{
		Name:     m.Name,
		Versions: m.Versions,
		Platform: m.Platform,
		Inputs:   tensorMetadataOf(m.Inputs),
		Outputs:  tensorMetadataOf(m.Outputs),
	}, nil
}

func tensorMetadataOf(tensors []tensorMetadata) []*inference.ModelMetadataResponse_TensorMetadata {
	var all []*inference.ModelMetadataResponse_TensorMetadata
	for _, t := range tensors {
		all = append(all, &inference.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: t.Datatype, Shape: t.Shape})
	}
	return all
}

// RepositoryIndex implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) RepositoryIndex(_ context.Context, r *inference.RepositoryIndexRequest) (*inference.RepositoryIndexResponse, error) {
	index := &inference.RepositoryIndexResponse{}
	for _, m := range s.models.Index() {
		if m.State == spec.StateReady || !r.GetReady() {
			index.Models = append(index.Models, &inference.RepositoryIndexResponse_ModelIndex{Name: m.Name, Version: m.Version, State: m.State, Reason: m.Reason})
		}
	}
	return index, nil
}

// ModelConfig implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ModelConfig(_ context.Context, r *inference.ModelConfigRequest) (*inference.ModelConfigResponse, error) {
	v, err := s.models.look(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	defer v.release()
	return &inference.ModelConfigResponse{Config: v.config(s.options.Rows).message()}, nil
}

// ModelStatistics implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ModelStatistics(_ context.Context, r *inference.ModelStatisticsRequest) (*inference.ModelStatisticsResponse, error) {
	told, err := s.models.statistics(r.GetName(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	response := &inference.ModelStatisticsResponse{}
	for _, t := range told {
		response.ModelStats = append(response.ModelStats, t.message())
	}
	return response, nil
}

// ModelInfer implements [inference.GRPCInferenceServiceServer].
func (s *inferenceService) ModelInfer(ctx context.Context, r *inference.ModelInferRequest) (*inference.ModelInferResponse, error) {
	size := int64(proto.Size(r))
	if err := s.bodies.take(size); err != nil {
		return nil, err
	}
	defer s.bodies.giveBack(size)
	b := takeBuffers()
	defer b.giveBack()
	traced := s.beginCall(ctx, r.GetModelName())
	call := callOf(ctx)
	v, err := s.models.acquire(r.GetModelName(), r.GetModelVersion())
	var answer *inference.ModelInferResponse
	if err == nil {
		defer v.release()
		call.served = v
		answer, err = s.inferCall(ctx, v, r, b)
	}
	traced.end(call.served, &b.phases, err)
	return answer, err
}

// inferCall answers with a version.
func (s *Server) inferCall(ctx context.Context, v *version, r *inference.ModelInferRequest, b *buffers) (*inference.ModelInferResponse, error) {
	b.phases = phases{began: time.Now()}
	answer, err := inferGRPC(ctx, v, r, s.options.Rows, b)
	v.statistics.answered(&b.phases, time.Now(), err)
	return answer, err
}

// beginCall begins the span of a call, below that which its metadata names.
func (s *inferenceService) beginCall(ctx context.Context, model string) *span {
	if s.traces.tracer == nil {
		return nil
	}
	md, _ := metadata.FromIncomingContext(ctx)
	return s.traces.begin(ctx, func(name string) string {
		for _, value := range md.Get(name) {
			return value
		}
		return ""
	}, "grpc", model)
}
