package serve

import (
	"bufio"
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// headOf is the head of a request for predictions with other fields, too.
func headOf(target string, length int, fields ...string) string {
	lines := append([]string{"POST " + target + " HTTP/1.1", "Host: digits", "Content-Length: " + strconv.Itoa(length)}, fields...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

func TestParseHead(t *testing.T) {
	const infer = "/v2/models/iris/infer"
	for _, c := range []struct {
		name, text      string
		model, version  string
		protocol, split string
	}{
		{name: "V2", text: headOf(infer, 3), model: "iris", protocol: "v2"},
		{name: "V1", text: headOf("/v1/models/i-r_i.s:predict", 3), model: "i-r_i.s", protocol: "v1"},
		{name: "a version", text: headOf("/v2/models/iris/versions/aaaaaaaaaaaa/infer", 3), model: "iris", version: "aaaaaaaaaaaa", protocol: "v2"},
		{name: "as Python sends it", model: "iris", protocol: "v2", text: headOf(infer, 3, "Accept-Encoding: identity", "User-Agent: python-requests/2.32.5",
			"Accept: */*", "connection: Keep-Alive", "Content-Type: application/json")},
		{name: "binary", text: headOf(infer, 3, "inference-header-content-length:  12 "), model: "iris", protocol: "v2", split: "12"},
		{name: "what comes after it", text: headOf(infer, 3) + "{\n}\r\n\r\nPOST", model: "iris", protocol: "v2"},

		{name: "not whole", text: strings.TrimSuffix(headOf(infer, 3), "\n")},
		{name: "nothing"},
		{name: "another method", text: strings.Replace(headOf(infer, 3), "POST", "PUT", 1)},
		{name: "another path", text: headOf("/v2/models/iris", 3)},
		{name: "a query", text: headOf(infer+"?a=b", 3)},
		{name: "an escape", text: headOf("/v2/models/ir%69s/infer", 3)},
		{name: "a path in the name", text: headOf("/v2/models/../infer", 3)},
		{name: "a slash in the name", text: headOf("/v2/models/a/b/infer", 3)},
		{name: "no name", text: headOf("/v2/models//infer", 3)},
		{name: "an absolute target", text: headOf("http://digits"+infer, 3)},
		{name: "HTTP/1.0", text: strings.Replace(headOf(infer, 3), "/1.1", "/1.0", 1)},
		{name: "no host", text: strings.Replace(headOf(infer, 3), "Host", "Hose", 1)},
		{name: "two hosts", text: headOf(infer, 3, "Host: x")},
		{name: "no host's host", text: headOf(infer, 3, "Host: x y")},
		{name: "no length", text: strings.Replace(headOf(infer, 3), "Content-Length", "Content-Breadth", 1)},
		{name: "two lengths", text: headOf(infer, 3, "Content-Length: 3")},
		{name: "a length with a sign", text: strings.Replace(headOf(infer, 3), "Length: 3", "Length: +3", 1)},
		{name: "a length as a list", text: strings.Replace(headOf(infer, 3), "Length: 3", "Length: 3, 3", 1)},
		{name: "no number of a length", text: strings.Replace(headOf(infer, 3), "Length: 3", "Length: 0x3", 1)},
		{name: "a long length", text: headOf(infer, 1234567890)},
		{name: "in chunks", text: headOf(infer, 3, "Transfer-Encoding: chunked")},
		{name: "packed", text: headOf(infer, 3, "Content-Encoding: gzip")},
		{name: "asks first", text: headOf(infer, 3, "Expect: 100-continue")},
		{name: "closes", text: headOf(infer, 3, "Connection: close")},
		{name: "upgrades", text: headOf(infer, 3, "Upgrade: h2c")},
		{name: "has more at the end", text: headOf(infer, 3, "Trailer: x")},
		{name: "a folded line", text: headOf(infer, 3, "A: b", " c")},
		{name: "no colon", text: headOf(infer, 3, "A")},
		{name: "a space before the colon", text: headOf(infer, 3, "A : b")},
		{name: "an empty name", text: headOf(infer, 3, ": b")},
		{name: "a control character", text: headOf(infer, 3, "A: \x00")},
		{name: "a bare line end", text: strings.Replace(headOf(infer, 3), "\r\nHost", "\nHost", 1)},
		{name: "two splits", text: headOf(infer, 3, "Inference-Header-Content-Length: 1", "Inference-Header-Content-Length: 1")},
	} {
		h, ok := parseHead([]byte(c.text))
		if ok != (c.model != "") {
			t.Errorf("%s: ok is %v", c.name, ok)
			continue
		}
		if !ok {
			continue
		}
		length := strings.Index(c.text, "\r\n\r\n") + 4
		if string(h.model) != c.model || string(h.version) != c.version || string(h.binary) != c.split || h.protocol != c.protocol || h.body != 3 || h.length != length {
			t.Errorf("%s: got %+v", c.name, h)
		}
	}
}

// FuzzParseHead compares with net/http: what is understood here is understood
// there, and in the same way.
func FuzzParseHead(f *testing.F) {
	f.Add([]byte(headOf("/v2/models/iris/infer", 3, "Connection: keep-alive", "A: b")))
	f.Add([]byte(headOf("/v2/models/iris/versions/1/infer", 0, "Inference-Header-Content-Length: 1")))
	f.Add([]byte(headOf("/v1/models/iris:predict", 20, "X: é", "TE: trailers")))
	f.Add([]byte(headOf("/v1/models/iris:predict", 20, "content-length: 20")))
	f.Add([]byte(headOf("/v1/models/iris:predict", 0, "traceparent: "+traceparent, "Tracestate:\ta=1 ", "tracestate: b=2")))
	f.Add([]byte(headOf("/v1/models/iris:predict", 0, "TraceParent: ", "traceparent: "+traceparent) + "traceparent: x\r\n"))
	paths := map[string]string{}
	mux := routes(map[string]methods{
		"/v2/models/{model}/infer":                    {"POST": note(paths, "v2")},
		"/v2/models/{model}/versions/{version}/infer": {"POST": note(paths, "v2")},
		"/v1/models/{model}":                          {},
		"/v1/models/{model}:predict":                  {"POST": note(paths, "v1")},
	})
	f.Fuzz(func(t *testing.T, text []byte) {
		h, ok := parseHead(text)
		if !ok {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			t.Fatalf("net/http reads %q: %v", text, err)
		}
		if r.ContentLength != int64(h.body) || len(r.TransferEncoding) != 0 || r.Close || r.Host == "" {
			t.Fatalf("net/http reads %q as %+v", text, r)
		}
		if r.Header.Get(binaryHeader) != string(h.binary) || r.Header.Get("Expect")+r.Header.Get("Content-Encoding")+r.Header.Get("Upgrade") != "" {
			t.Fatalf("net/http reads %q with the fields %v", text, r.Header)
		}
		for _, name := range callers.Fields() {
			if got, want := carrierOf(h.parent, h.state).Get(name), r.Header.Get(name); got != want {
				t.Fatalf("net/http reads %q with %s %q, not %q", text, name, want, got)
			}
		}
		if !bytes.HasSuffix(text[:h.length], []byte("\r\n\r\n")) {
			t.Fatalf("the head of %q is %d bytes long", text, h.length)
		}
		clear(paths)
		mux.ServeHTTP(discarded{}, r)
		if paths["protocol"] != h.protocol || paths["model"] != string(h.model) || paths["version"] != string(h.version) {
			t.Fatalf("net/http brings %q to %v", text, paths)
		}
	})
}

func note(paths map[string]string, protocol string) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) {
		paths["protocol"], paths["model"], paths["version"] = protocol, r.PathValue("model"), r.PathValue("version")
	}
}

// discarded is an answer that nobody reads.
type discarded struct{}

func (discarded) Header() http.Header         { return http.Header{} }
func (discarded) Write(p []byte) (int, error) { return len(p), nil }
func (discarded) WriteHeader(int)             {}
