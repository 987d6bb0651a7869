package serve

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trainyard.dev/trainyard/runtime/spec"
)

func TestPaths(t *testing.T) {
	h := irisServer(t, nil).Handler()
	for _, c := range []struct {
		method, path string
		code         int
		want         string
	}{
		{"GET", "/", 200, `{"status":"alive"}`},
		{"HEAD", "/", 200, ""},
		{"GET", "/v2", 200, `{"name":"trainyard","version":"`},
		{"GET", "/v2/health/live", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", 200, `{"ready":true}`},
		{"GET", "/v2/models/iris", 200, `{"name":"iris","versions":["aaaaaaaaaaaa"],"platform":"trainyard_onnx",` +
			`"inputs":[{"name":"inputs","datatype":"FP32","shape":[-1,4]}],` +
			`"outputs":[{"name":"outputs","datatype":"FP32","shape":[-1,3]},{"name":"label","datatype":"BYTES","shape":[-1]}],` +
			`"parameters":{"columns":["sepal_length","sepal_width","petal_length","petal_width"],"classes":["setosa","versicolor","virginica"]}}`},
		{"GET", "/v2/models/iris/versions/aaaaaaaaaaaa", 200, `{"name":"iris"`},
		{"GET", "/v2/models/iris/versions/2", 404, `{"error":"model iris has no version \"2\"; it has aaaaaaaaaaaa"}`},
		{"GET", "/v2/models/iris/ready", 200, `{"name":"iris","ready":true}`},
		{"GET", "/v2/models/iris/versions/aaaaaaaaaaaa/ready", 200, `{"name":"iris","ready":true}`},
		{"GET", "/v2/models/rose", 404, `{"error":"there is no model \"rose\"; there are: iris"}`},
		{"GET", "/v2/models/rose/ready", 404, `"ready":false,"error":"there is no model`},
		{"POST", "/v2/models/rose/infer", 404, `{"error":"there is no model \"rose\"; there are: iris"}`},
		{"GET", "/v1/models", 200, `{"models":["iris"]}`},
		{"GET", "/v1/models/iris", 200, `{"name":"iris","ready":true}`},
		{"GET", "/v1/models/rose", 404, `there is no model \"rose\"`},
		{"POST", "/v1/models/rose:predict", 404, `there is no model \"rose\"`},
		{"POST", "/v2/repository/index", 200, `[{"name":"iris","version":"aaaaaaaaaaaa","digest":"` + digest("a") + `","state":"READY"}]`},
		{"POST", "/v2/repository/models/iris/unload", 404, `{"error":"there is nothing at /v2/repository/models/iris/unload"}`},
		{"GET", "/stats", 404, `{"error":"there is nothing at /stats"}`},
		{"GET", "/v2/nothing", 404, `{"error":"there is nothing at /v2/nothing"}`},
		{"DELETE", "/v2/models/iris", 405, `{"error":"method DELETE is not allowed on /v2/models/iris; use GET"}`},
		{"GET", "/v2/models/iris/infer", 405, `use POST`},
		{"GET", "/v1/models/iris:predict", 405, `use POST`},
		{"POST", "/v1/models/iris", 405, `use GET`},
		{"PUT", "/v1/models/iris", 405, `use GET`},
		{"PUT", "/v1/models/iris:predict", 405, `use POST`},
		{"GET", "/openapi.json", 200, `"openapi": "3.1.0"`},
	} {
		got := call(h, c.method, c.path, "")
		if got.code != c.code || !strings.Contains(got.body, c.want) {
			t.Errorf("%s %s\ngot  %d %s\nwant %d %s", c.method, c.path, got.code, got.body, c.code, c.want)
		}
		if c.code == http.StatusMethodNotAllowed && got.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", c.method, c.path)
		}
	}
}

func TestOperations(t *testing.T) {
	c := newCatalog()
	c.set(digest("a"), constant(1), nil)
	c.set(digest("d"), nil, unfit{http.ErrNotSupported})
	s := oneServer(t, c)
	h := s.Operations()
	one := `{"name":"one","repository":{"name":"registry.example/m"},"digest":"` + digest("a") + `"}`
	for _, x := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"POST", "/v2/repository/models/one/load", one, 200, `{"name":"one","version":"aaaaaaaaaaaa","digest":"` + digest("a") + `","state":"READY"}`},
		{"POST", "/v2/repository/models/two/load", one, 400, "the path is of model two, but the body of model one"},
		{"POST", "/v2/repository/models/one/load", "{", 400, "the body is not JSON"},
		{"POST", "/v2/repository/models/one/load", strings.Replace(one, digest("a"), "x", 1), 400, `the digest of model one is \"x\"`},
		{"POST", "/v2/repository/models/one/load", strings.Replace(one, digest("a"), digest("c"), 1), 503, "the registry does not answer"},
		{"POST", "/v2/repository/models/one/load", strings.Replace(one, digest("a"), digest("d"), 1), 422, "not supported"},
		{"POST", "/v2/repository/index", "", 200, `"state":"UNAVAILABLE"`},
		{"POST", "/v2/repository/models/one/unload", "", 200, "{}"},
		{"POST", "/v2/repository/models/one/unload", "", 404, "there is no model"},
		{"GET", "/stats", "", 200, `"inFlight":0`},
		{"GET", "/", "", 404, "there is nothing at /"},
	} {
		if got := call(h, x.method, x.path, x.body); got.code != x.code || !strings.Contains(got.body, x.want) {
			t.Errorf("%s %s %s\ngot  %d %s\nwant %d %s", x.method, x.path, x.body, got.code, got.body, x.code, x.want)
		}
	}
}

func TestStatsAndMetricsCountPredictions(t *testing.T) {
	s := irisServer(t, nil)
	h, o := s.Handler(), s.Operations()
	call(h, "POST", "/v2/models/iris/infer", v2("FP32", "[4]", "[1,2,3,4]"))
	call(h, "POST", "/v1/models/iris:predict", `{"instances":[[1,2]]}`)
	call(h, "POST", "/v1/models/rose:predict", `{"instances":[[1,2]]}`)
	call(h, "GET", "/v2/health/ready", "")
	call(h, "GET", "/v2/models/iris", "")
	stats := decoded[spec.Stats](t, call(o, "GET", "/stats", "").body)
	want := spec.Stats{Requests: 3, Started: stats.Started, BusySeconds: stats.BusySeconds, UptimeSeconds: stats.UptimeSeconds}
	if diff := cmp.Diff(want, stats); diff != "" || stats.BusySeconds <= 0 || stats.Started == 0 {
		t.Errorf("stats %+v\n%s", stats, diff)
	}
	text := call(o, "GET", "/metrics", "").body
	for _, line := range []string{
		`trainyard_server_requests_total{code="200",model="iris",protocol="v2",version="aaaaaaaaaaaa"} 1`,
		`trainyard_server_requests_total{code="400",model="iris",protocol="v1",version="aaaaaaaaaaaa"} 1`,
		`trainyard_server_requests_total{code="404",model="",protocol="v1",version=""} 1`,
		`trainyard_server_request_duration_seconds_count{model="iris",protocol="v2",version="aaaaaaaaaaaa"} 1`,
		`trainyard_server_requests_in_flight 0`,
		`trainyard_server_models{state="READY"} 1`,
		`trainyard_server_model_loads_total{model="iris",outcome="success"} 1`,
		`trainyard_server_model_load_seconds{model="iris",version="aaaaaaaaaaaa"}`,
	} {
		if !strings.Contains(text, line) {
			t.Errorf("metrics lack %s", line)
		}
	}
}

func TestLimits(t *testing.T) {
	h := irisServer(t, func(o *Options) { o.BodyBytes, o.Rows = 100, 2 }).Handler()
	long := `{"instances":[[1,2,3,4]]` + strings.Repeat(" ", 100) + "}"
	if got := call(h, "POST", "/v1/models/iris:predict", long); got.code != 413 || !strings.Contains(got.body, "larger than 100 bytes") {
		t.Errorf("got %d %s", got.code, got.body)
	}
	w := httptest.NewRecorder()
	chunked := httptest.NewRequest(http.MethodPost, "/v1/models/iris:predict", strings.NewReader(long))
	chunked.ContentLength = -1
	if h.ServeHTTP(w, chunked); w.Code != 413 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	three := `{"instances":[[1,2,3,4],[1,2,3,4],[1,2,3,4]]}`
	if got := call(h, "POST", "/v1/models/iris:predict", three); got.code != 413 || !strings.Contains(got.body, "the request has more than 2 rows") {
		t.Errorf("got %d %s", got.code, got.body)
	}
}

func TestForeignEncodingsAreRefused(t *testing.T) {
	h := irisServer(t, nil).Handler()
	for header, code := range map[string]int{"Content-Encoding": 415, "Inference-Header-Content-Length": 400} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/v2/models/iris/infer", strings.NewReader(v2("FP32", "[4]", "[1,2,3,4]")))
		r.Header.Set(header, "12")
		if h.ServeHTTP(w, r); w.Code != code {
			t.Errorf("%s: got %d %s", header, w.Code, w.Body)
		}
	}
}

func TestOldConnectionsAreClosed(t *testing.T) {
	for age, want := range map[time.Duration]bool{time.Hour: false, -time.Second: true} {
		s := irisServer(t, func(o *Options) { o.ConnectionAge = age })
		front, _ := s.servers()
		h := httptest.NewUnstartedServer(front.Handler)
		h.Config.ConnContext = front.ConnContext
		h.Start()
		response, err := h.Client().Get(h.URL + "/v2")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.Close != want {
			t.Errorf("after %v: closing is %v", age, response.Close)
		}
		h.Close()
	}
}

func TestAgeIsJittered(t *testing.T) {
	for by, want := range map[float64]time.Duration{0: 4 * time.Minute, 0.5: 5 * time.Minute, 1: 6 * time.Minute} {
		if got := jittered(5*time.Minute, by); got != want {
			t.Errorf("jittered by %v: got %v, want %v", by, got, want)
		}
	}
}
