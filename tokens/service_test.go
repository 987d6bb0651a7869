package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestIdentify(t *testing.T) {
	for user, want := range map[string]string{
		"system:serviceaccount:red:default": "red", "system:serviceaccount:red-2:a.b": "red-2",
		"system:serviceaccount:red": "", "system:serviceaccount:red:": "", "system:serviceaccount::default": "",
		"system:serviceaccount:red/blue:default": "", "system:serviceaccount:../red:x": "", "system:node:red:default": "", "red:default": "", "": "",
	} {
		who, ok := identify(user)
		if who.Namespace != want || ok != (want != "") || ok && who.User != user {
			t.Errorf("%q is %+v, %v; want namespace %q", user, who, ok, want)
		}
	}
}

// newService knows three credentials.
func newService(t *testing.T) (*Service, map[string][]byte) {
	t.Helper()
	ring, kept := complete(t, nil)
	return &Service{
		Issuer: &Issuer{Name: "issuer", Service: "service", Keys: ring}, Prefix: "models", Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return noon },
		Review: func(_ context.Context, credential string) (string, error) {
			switch credential {
			case "red":
				return "system:serviceaccount:red:default", nil
			case "admin":
				return "admin", nil
			case "unlucky":
				return "", errors.New("connection refused")
			}
			return "", &InvalidError{Reason: "it has expired"}
		},
	}, kept
}

func ask(service *Service, method, password, query string) *httptest.ResponseRecorder {
	request := httptest.NewRequest(method, "/token?"+query, nil)
	if password != "" {
		request.SetBasicAuth("anybody", password)
	}
	answer := httptest.NewRecorder()
	service.Handler().ServeHTTP(answer, request)
	return answer
}

func TestServiceIssues(t *testing.T) {
	service, kept := newService(t)
	for _, test := range []struct{ name, query, want string }{
		{"a push", "service=service&scope=" + url.QueryEscape("repository:models/red/a:pull,push"), "repository:models/red/a:pull,push"},
		{"two scopes in one", "scope=" + url.QueryEscape("repository:models/red/a:pull repository:models/red/b:pull"), "repository:models/red/a:pull repository:models/red/b:pull"},
		{"two scopes apart", "scope=repository:models/red/a:pull&scope=repository:models/red/b:pull", "repository:models/red/a:pull repository:models/red/b:pull"},
		{"half of what is asked", "scope=repository:models/red/a:pull&scope=repository:models/blue/b:pull", "repository:models/red/a:pull"},
		{"a login asks for nothing", "account=anybody&client_id=docker&offline_token=true&service=service", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := ask(service, http.MethodGet, "red", test.query)
			var got response
			if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusOK {
				t.Fatalf("%d %s: %v", answer.Code, answer.Body, err)
			}
			if got.Token == "" || got.Token != got.AccessToken || got.ExpiresIn != 300 || !got.IssuedAt.Equal(noon) {
				t.Errorf("answered %+v", got)
			}
			var scopes []string
			token := verify(t, trusted(t, kept), got.Token)
			for _, access := range token.Access {
				scopes = append(scopes, access.Type+":"+access.Name+":"+strings.Join(access.Actions, ","))
			}
			if strings.Join(scopes, " ") != test.want || token.Subject != "system:serviceaccount:red:default" {
				t.Errorf("%s has %q, want %q", token.Subject, scopes, test.want)
			}
		})
	}
}

func TestServiceRefusesAndSaysWhy(t *testing.T) {
	service, _ := newService(t)
	for _, test := range []struct {
		name, password, query string
		status                int
		code, message         string
	}{
		{"no password", "", "", 401, "UNAUTHORIZED", "there is no password; give the token of a ServiceAccount for the audience service"},
		{"a wrong password", "blue", "", 401, "UNAUTHORIZED", "it has expired"},
		{"no ServiceAccount", "admin", "", 403, "DENIED", `"admin" is not a ServiceAccount`},
		{"another's repository", "red", "scope=repository:models/blue/a:pull", 403, "DENIED", "system:serviceaccount:red:default may use only repositories below models/red/, and asks for models/blue/a"},
		{"the catalog", "red", "scope=registry:catalog:*", 403, "DENIED", "and asks for catalog"},
		{"another registry", "red", "service=other", 400, "UNSUPPORTED", `issued here for service, not for "other"`},
		{"no scope", "red", "scope=nonsense", 400, "UNSUPPORTED", "is not TYPE:NAME:ACTIONS"},
		{"no API server", "unlucky", "", 503, "UNAVAILABLE", "connection refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := ask(service, http.MethodGet, test.password, test.query)
			var got struct {
				Errors []struct{ Code, Message string }
			}
			if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || len(got.Errors) != 1 {
				t.Fatalf("answered %s: %v", answer.Body, err)
			}
			if answer.Code != test.status || got.Errors[0].Code != test.code || !strings.Contains(got.Errors[0].Message, test.message) {
				t.Errorf("%d %+v, want %d %s ...%q...", answer.Code, got.Errors, test.status, test.code, test.message)
			}
			if challenged := answer.Header().Get("WWW-Authenticate") != ""; challenged != (test.status == http.StatusUnauthorized) {
				t.Errorf("a challenge with status %d: %v", answer.Code, challenged)
			}
		})
	}
	// Clients that would rather use OAuth 2 go on with GET after this.
	if answer := ask(service, http.MethodPost, "red", ""); answer.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered with %d", answer.Code)
	}
}
