package gateway

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	// probeTimeout bounds one question to a pod.
	probeTimeout = 500 * time.Millisecond
	// maxProbed is how many pods are asked at once.
	maxProbed = 16
)

// prober asks pods whether they answer. Connections are not kept: a pod that
// starts refuses many.
var prober = &http.Client{Timeout: probeTimeout, Transport: &http.Transport{DisableKeepAlives: true}}

// probe asks pods whether they answer. Asking them directly is faster than to
// wait until the kubelet has asked, told the API server, and that told us.
func (s *service) probe(addresses []string) {
	var group sync.WaitGroup
	for _, address := range addresses[:min(len(addresses), maxProbed)] {
		group.Go(func() {
			if answers(net.JoinHostPort(address, strconv.Itoa(s.gateway.options.PodHTTP))) {
				s.count(func() {
					s.answered[address] = true
					delete(s.suspect, address)
					s.tell()
				})
			}
		})
	}
	group.Wait()
}

func answers(host string) bool {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+host+"/v2/health/ready", nil)
	if err != nil {
		return false
	}
	response, err := prober.Do(request)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 4<<10))
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
