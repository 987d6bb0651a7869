package isolation

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestClientStaysWhereItIs has a pod answer with a redirect to another, which would
// take the same request along.
func TestClientStaysWhereItIs(t *testing.T) {
	asked := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer other.Close()
	pod := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer pod.Close()
	response, err := Client(10*time.Second).Post(pod.URL, "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusTemporaryRedirect || asked > 0 {
		t.Errorf("the answer is %s, and the other pod was asked %d times", response.Status, asked)
	}
}
