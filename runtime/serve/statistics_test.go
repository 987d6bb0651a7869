package serve

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"trainyard.dev/trainyard/runtime/serve/internal/inference"
)

// TestStatistics asks over all protocols and reads what was counted, over both.
func TestStatistics(t *testing.T) {
	s := irisServer(t, nil)
	h := s.Handler()
	call(h, "POST", "/v2/models/iris/infer", v2("FP32", "[2,4]", "[1,2,3,4,5,6,7,8]"))
	call(h, "POST", "/v1/models/iris:predict", `{"instances":[[1,2,3,4]]}`)
	call(h, "POST", "/v2/models/iris/infer", v2("FP32", "[2,3]", "[1,2,3,4,5,6]"))
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	if _, err := c.ModelInfer(t.Context(), one("FP32", &contents{Fp32Contents: []float32{1, 2, 3, 4}}, 4)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v2/models/stats", "/v2/models/iris/stats", "/v2/models/iris/versions/aaaaaaaaaaaa/stats"} {
		got := decoded[struct {
			All []modelStatistics `json:"model_stats"`
		}](t, call(h, "GET", path, "").body).All
		if len(got) != 1 || got[0].Name != "iris" || got[0].InferenceCount != 4 || got[0].ExecutionCount != 3 || got[0].LastInference == 0 ||
			got[0].Inference.Success.Count != 3 || got[0].Inference.Fail.Count != 1 || got[0].Inference.Input.Count != 3 {
			t.Errorf("%s: got %+v", path, got)
		}
		if i := got[0].Inference; i.Success.Ns < i.Queue.Ns+i.Input.Ns+i.Infer.Ns+i.Output.Ns || i.Infer.Ns == 0 {
			t.Errorf("%s: the phases are more than the whole: %+v", path, i)
		}
	}
	if got := call(h, "GET", "/v2/models/rose/stats", ""); got.code != 404 {
		t.Errorf("got %d %s", got.code, got.body)
	}
	told, err := c.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{Name: "iris"})
	if err != nil || told.GetModelStats()[0].GetInferenceCount() != 4 || told.GetModelStats()[0].GetInferenceStats().GetFail().GetCount() != 1 {
		t.Errorf("got %v, %v", told, err)
	}
	if _, err := c.ModelStatistics(t.Context(), &inference.ModelStatisticsRequest{Name: "rose"}); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestModelConfig(t *testing.T) {
	s := irisServer(t, nil)
	const want = `{"name":"iris","platform":"trainyard_onnx","backend":"trainyard","max_batch_size":10000,` +
		`"input":[{"name":"inputs","data_type":"TYPE_FP32","dims":[4]}],` +
		`"output":[{"name":"outputs","data_type":"TYPE_FP32","dims":[3]},{"name":"label","data_type":"TYPE_STRING","dims":[]}]}`
	if got := call(s.Handler(), "GET", "/v2/models/iris/config", ""); got.body != want {
		t.Errorf("got %s", got.body)
	}
	c := inference.NewGRPCInferenceServiceClient(dial(t, runToEnd(t, s).rpc))
	got, err := c.ModelConfig(t.Context(), &inference.ModelConfigRequest{Name: "iris"})
	if err != nil || got.GetConfig().GetInput()[0].GetDims()[0] != 4 || got.GetConfig().GetOutput()[1].GetDataType() != inference.DataType_TYPE_STRING {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestErrorsAreCountedByKind makes one of each kind.
func TestErrorsAreCountedByKind(t *testing.T) {
	s := irisServer(t, func(o *Options) { o.BodyBytes, o.Rows = 1<<10, 1 })
	h := s.Handler()
	call(h, "POST", "/v2/models/iris/infer", "{")
	call(h, "POST", "/v2/models/rose/infer", v2("FP32", "[4]", "[1,2,3,4]"))
	call(h, "POST", "/v2/models/iris/infer", strings.Repeat(" ", 2<<10))
	call(h, "POST", "/v2/models/iris/infer", v2("FP32", "[2,4]", "[1,2,3,4,5,6,7,8]"))
	shown := call(s.Operations(), "GET", "/metrics", "").body
	for _, want := range []string{
		`trainyard_server_errors_total{kind="invalid",model="iris",version="aaaaaaaaaaaa"} 1`,
		`trainyard_server_errors_total{kind="too_large",model="iris",version="aaaaaaaaaaaa"} 1`,
		`trainyard_server_errors_total{kind="too_large",model="",version=""} 1`,
		`trainyard_server_errors_total{kind="unknown",model="",version=""} 1`,
		`trainyard_server_model_memory_bytes{model="iris",version="aaaaaaaaaaaa"} 60`,
		`trainyard_server_model_requests_in_flight{model="iris",version="aaaaaaaaaaaa"} 0`,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("there is no %s", want)
		}
	}
}
