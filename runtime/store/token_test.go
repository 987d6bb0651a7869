package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"trainyard.dev/trainyard/runtime/spec"
)

// strict is a registry whose every token is good for some requests only, and what
// issues the tokens, to who knows the password. Whenever it has issued one, the
// password is another, in the file too, as if the kubelet had renewed it.
type strict struct {
	mutex            sync.Mutex
	password, file   string
	issued, uses     int
	refused, wrongly int
}

const usesOfToken = 3

func newStrict(t *testing.T, registry *testRegistry) (*strict, *httptest.Server) {
	t.Helper()
	s := &strict{file: filepath.Join(t.TempDir(), "token")}
	s.renew(t)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		if user, password, _ := r.BasicAuth(); password != s.password || user == "" {
			s.wrongly++
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors": [{"code": "UNAUTHORIZED", "message": "who is that?"}]}`)
			return
		}
		s.issued++
		s.uses = 0
		s.renew(t)
		fmt.Fprintf(w, `{"token": "%d"}`, s.issued)
	}))
	t.Cleanup(issuer.Close)
	registry.set(func(w http.ResponseWriter, r *http.Request) bool {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		if r.Header.Get("Authorization") == fmt.Sprintf("Bearer %d", s.issued) && s.uses < usesOfToken {
			s.uses++
			return false
		}
		s.refused++
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry",scope="repository:models/digits:pull,push"`, issuer.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	return s, issuer
}

func (s *strict) renew(t *testing.T) {
	s.password = fmt.Sprintf("password %d", s.issued)
	if err := os.WriteFile(s.file, []byte(s.password+"\n"), 0o600); err != nil {
		t.Error(err)
	}
}

// TestTokensAreFetchedAndRenewed pushes and pulls more than one token is good for.
func TestTokensAreFetchedAndRenewed(t *testing.T) {
	registry, repo := startRegistry(t)
	s, _ := newStrict(t, registry)
	repo.TokenFile = s.file
	pushed, err := Push(t.Context(), repo, writeModel(t, testFiles))
	if err != nil {
		t.Fatal(err)
	}
	if err := Pull(t.Context(), repo, pushed.Digest, filepath.Join(t.TempDir(), "model")); err != nil {
		t.Fatal(err)
	}
	if s.issued < 3 || s.wrongly > 0 {
		t.Errorf("%d tokens were issued, %d requests for one had another password", s.issued, s.wrongly)
	}
}

func TestTokenProblemsAreSaid(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0", 64)
	registry, repo := startRegistry(t)
	s, issuer := newStrict(t, registry)
	pull := func(repo spec.Repository) error {
		return Pull(t.Context(), repo, digest, filepath.Join(t.TempDir(), "m"))
	}

	repo.TokenFile = filepath.Join(t.TempDir(), "away")
	if err := pull(repo); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "reading the pod's token for registry") {
		t.Errorf("without the file: %v", err)
	}
	refused := (*RefusedError)(nil)
	repo.TokenFile = ""
	if err := pull(repo); !errors.As(err, &refused) || refused.Status != http.StatusUnauthorized || !strings.Contains(err.Error(), "who is that?") {
		t.Errorf("without a token: %v", err)
	}
	repo.TokenFile = s.file
	issuer.Close()
	host, unreachable := strings.TrimPrefix(issuer.URL, "http://"), (*UnreachableError)(nil)
	if err := pull(repo); !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "it wants a token from "+host+", and there: nothing listens there") {
		t.Errorf("without who issues tokens: %v", err)
	}
}

// TestTokenIsForOneRegistry lets another one ask for it.
func TestTokenIsForOneRegistry(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	tell := credential(spec.Repository{TokenFile: file}, "registry:5000")
	for host, want := range map[string]string{"registry:5000": "secret", "registry": "", "other:5000": ""} {
		if told, err := tell(t.Context(), host); err != nil || told.Password != want {
			t.Errorf("%s is told %q, %v", host, told.Password, err)
		}
	}
}
