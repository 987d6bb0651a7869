package tokens

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// from asks as a pod of that address.
func from(service *Service, address, password string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodGet, "/token", nil)
	request.RemoteAddr = address + ":1234"
	request.SetBasicAuth("anybody", password)
	answer := httptest.NewRecorder()
	service.Handler().ServeHTTP(answer, request)
	return answer
}

// TestOneSourceDoesNotUseUpTheOthersTokens asks from one address as fast as it
// can.
func TestOneSourceDoesNotUseUpTheOthersTokens(t *testing.T) {
	service, _ := newService(t)
	now := noon
	service.Now = func() time.Time { return now }
	for i := range burst {
		if answer := from(service, "10.0.0.1", "red"); answer.Code != http.StatusOK {
			t.Fatalf("request %d is answered with %d", i, answer.Code)
		}
	}
	answer := from(service, "10.0.0.1", "red")
	if answer.Code != http.StatusTooManyRequests || answer.Header().Get("Retry-After") != "1" || !strings.Contains(answer.Body.String(), "10.0.0.1 asks for more than 10 tokens a second") {
		t.Errorf("one too many is answered with %d, %s", answer.Code, answer.Body)
	}
	if answer := from(service, "10.0.0.2", "red"); answer.Code != http.StatusOK {
		t.Errorf("another is answered with %d", answer.Code)
	}
	now = now.Add(time.Second)
	for i := range perSecond {
		if answer := from(service, "10.0.0.1", "red"); answer.Code != http.StatusOK {
			t.Errorf("request %d of the next second is answered with %d", i, answer.Code)
		}
	}
}

// TestRefusalsAreToldOnceAMinute has two sources with wrong passwords.
func TestRefusalsAreToldOnceAMinute(t *testing.T) {
	service, _ := newService(t)
	var log bytes.Buffer
	service.Log = slog.New(slog.NewTextHandler(&log, nil))
	now := noon
	service.Now = func() time.Time { return now }
	told := func(from string) int { return strings.Count(log.String(), "from="+from) }
	for range 20 {
		from(service, "10.0.0.1", "wrong")
		from(service, "10.0.0.2", "wrong")
		now = now.Add(time.Second)
	}
	if told("10.0.0.1") != 1 || told("10.0.0.2") != 1 {
		t.Errorf("told after 20 s:\n%s", &log)
	}
	now = now.Add(time.Minute - 20*time.Second)
	from(service, "10.0.0.1", "wrong")
	if told("10.0.0.1") != 2 || !strings.Contains(log.String(), "refusals=20") {
		t.Errorf("told after a minute:\n%s", &log)
	}
}

// TestSourcesAreForgotten has more of them than there are pods at a time.
func TestSourcesAreForgotten(t *testing.T) {
	var l limits
	for minute := range 5 {
		for i := range 1000 {
			l.allows(fmt.Sprintf("10.%d.0.%d", minute, i), noon.Add(time.Duration(minute)*time.Minute))
		}
	}
	if len(l.sources) > 2000 {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
}
