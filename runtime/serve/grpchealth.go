package serve

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// health is the standard health service: the server is healthy when it is
// ready. Nothing is pushed into it, so it cannot be out of date.
type health struct{ *Server }

// watchInterval is how late a watcher may learn of a change.
const watchInterval = time.Second

// healthServices are those that there is something to say about. The empty one
// is the server.
var healthServices = []string{"", inference.GRPCInferenceService_ServiceDesc.ServiceName}

func (h *health) of(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	switch {
	case service != healthServices[0] && service != healthServices[1]:
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	case h.ready() != nil:
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return grpc_health_v1.HealthCheckResponse_SERVING
}

// Check implements [grpc_health_v1.HealthServer].
func (h *health) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	is := h.of(r.GetService())
	if is == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, notFound("there is no service %q; there is %s", clipped(r.GetService()), healthServices[1])
	}
	return &grpc_health_v1.HealthCheckResponse{Status: is}, nil
}

// List implements [grpc_health_v1.HealthServer].
func (h *health) List(context.Context, *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	all := map[string]*grpc_health_v1.HealthCheckResponse{}
	for _, service := range healthServices {
		all[service] = &grpc_health_v1.HealthCheckResponse{Status: h.of(service)}
	}
	return &grpc_health_v1.HealthListResponse{Statuses: all}, nil
}

// Watch implements [grpc_health_v1.HealthServer]: it tells every change, until
// the client leaves or the server shuts down.
func (h *health) Watch(r *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	told := grpc_health_v1.HealthCheckResponse_UNKNOWN
	for {
		if is := h.of(r.GetService()); is != told {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: is}); err != nil {
				return err
			}
			told = is
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-h.shutdown:
			return status.Error(codes.Unavailable, "the server shuts down")
		case <-tick.C:
		}
	}
}
