package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// flushTimeout bounds how long the end of the server waits for the last spans
// to be sent.
const flushTimeout = 3 * time.Second

// tracer returns what sends spans to OTEL_EXPORTER_OTLP_ENDPOINT, and what sends
// the last ones; without an endpoint, nil. OpenTelemetry's other variables hold
// as its SDK reads them: OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER and so on.
func tracer(ctx context.Context, log *slog.Logger) (trace.Tracer, func(), error) {
	if first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT") == "" {
		return nil, func() {}, nil
	}
	if p := first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); p != "" && p != "http/protobuf" {
		return nil, nil, usageError{fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL is %s; the server speaks http/protobuf, on port 4318 of most collectors", p)}
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces were not sent", "error", err) }))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("sending traces: %w", err)}
	}
	// What the environment says comes last, and so wins.
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "trainyard-server")),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, nil, usageError{fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err)}
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	flush := func() {
		bounded, cancel := context.WithTimeout(context.Background(), flushTimeout)
		defer cancel()
		if err := provider.Shutdown(bounded); err != nil {
			log.Warn("the last traces were not sent", "error", err)
		}
	}
	return provider.Tracer("trainyard.dev/trainyard/runtime/serve"), flush, nil
}

// first returns the first of the environment's variables that is set.
func first(variables ...string) string {
	for _, v := range variables {
		if text := os.Getenv(v); text != "" {
			return text
		}
	}
	return ""
}
