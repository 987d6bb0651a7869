package serve

import (
	"net/http"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// What the server tells about its models beyond the protocol's metadata: the
// configuration and statistics extensions, which perf_analyzer and tritonclient
// ask for. REST and gRPC answer the same.

// modelConfig is a model in the answer of the configuration extension.
type modelConfig struct {
	Name     string         `json:"name"`
	Platform string         `json:"platform"`
	Backend  string         `json:"backend"`
	Most     int            `json:"max_batch_size"`
	Inputs   []tensorConfig `json:"input"`
	Outputs  []tensorConfig `json:"output"`
	// Batching is there for models whose requests are batched.
	Batching *dynamicBatching `json:"dynamic_batching,omitempty"`
}

type tensorConfig struct {
	Name     string `json:"name"`
	DataType string `json:"data_type"`
	// Dims leaves out the first one, of rows.
	Dims []int64 `json:"dims"`
}

type dynamicBatching struct {
	Preferred []int32 `json:"preferred_batch_size"`
	DelayUs   int64   `json:"max_queue_delay_microseconds"`
}

// config describes a version of a server that takes so many rows.
func (v *version) config(mostRows int) modelConfig {
	c := modelConfig{
		Name:     v.model.Name,
		Platform: platform,
		Backend:  serverName,
		Most:     mostRows,
		Inputs:   []tensorConfig{{inputName, "TYPE_FP32", []int64{int64(v.features)}}},
		Outputs:  []tensorConfig{{outputName, "TYPE_FP32", []int64{int64(v.outputs)}}},
	}
	if len(v.classes) != 0 {
		c.Outputs = append(c.Outputs, tensorConfig{labelName, "TYPE_STRING", []int64{}})
	}
	if v.batcher != nil {
		c.Batching = &dynamicBatching{[]int32{int32(v.batcher.Rows)}, v.batcher.Delay.Microseconds()}
	}
	return c
}

func (s *Server) modelConfig(w http.ResponseWriter, r *http.Request) {
	v, err := s.models.look(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	defer v.release()
	writeJSON(w, http.StatusOK, v.config(s.options.Rows))
}

func (s *Server) modelStatistics(w http.ResponseWriter, r *http.Request) {
	told, err := s.models.statistics(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string][]modelStatistics{"model_stats": told})
}

func (c modelConfig) message() *inference.ModelConfig {
	m := &inference.ModelConfig{Name: c.Name, Platform: c.Platform, Backend: c.Backend, MaxBatchSize: int32(c.Most)}
	for _, t := range c.Inputs {
		m.Input = append(m.Input, &inference.ModelInput{Name: t.Name, DataType: inference.DataType(inference.DataType_value[t.DataType]), Dims: t.Dims})
	}
	for _, t := range c.Outputs {
		m.Output = append(m.Output, &inference.ModelOutput{Name: t.Name, DataType: inference.DataType(inference.DataType_value[t.DataType]), Dims: t.Dims})
	}
	if b := c.Batching; b != nil {
		m.DynamicBatching = &inference.ModelDynamicBatching{PreferredBatchSize: b.Preferred, MaxQueueDelayMicroseconds: uint64(b.DelayUs)}
	}
	return m
}

func (t modelStatistics) message() *inference.ModelStatistics {
	return &inference.ModelStatistics{
		Name:           t.Name,
		Version:        t.Version,
		LastInference:  uint64(t.LastInference),
		InferenceCount: uint64(t.InferenceCount),
		ExecutionCount: uint64(t.ExecutionCount),
		InferenceStats: &inference.InferStatistics{
			Success:       t.Inference.Success.message(),
			Fail:          t.Inference.Fail.message(),
			Queue:         t.Inference.Queue.message(),
			ComputeInput:  t.Inference.Input.message(),
			ComputeInfer:  t.Inference.Infer.message(),
			ComputeOutput: t.Inference.Output.message(),
		},
	}
}

func (d duration) message() *inference.StatisticDuration {
	return &inference.StatisticDuration{Count: uint64(d.Count), Ns: uint64(d.Ns)}
}
