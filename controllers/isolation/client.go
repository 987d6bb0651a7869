package isolation

import (
	"net/http"
	"time"
)

// Client returns what the operator asks pods with. It gives up after the timeout,
// and does not follow a redirect: policies let the operator reach ports that pods
// can't reach themselves, and a pod must not send it to those of another.
func Client(timeout time.Duration) *http.Client {
	// The same pods are asked every few seconds: connections are kept however many
	// pods there are, and go by no proxy.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy, transport.MaxIdleConns = nil, 0
	// What they say is short.
	transport.ReadBufferSize, transport.WriteBufferSize = 1<<10, 1<<10
	return &http.Client{
		Timeout:       timeout,
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
