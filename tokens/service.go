package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Identity is whose a credential is.
type Identity struct {
	// User is the API server's name for it.
	User string
	// Namespace of the ServiceAccount.
	Namespace string
}

// serviceAccountPrefix begins the API server's names of ServiceAccounts, which
// go on with namespace and name.
const serviceAccountPrefix = "system:serviceaccount:"

// identify reads the API server's name for a user. Only ServiceAccounts have a
// namespace.
func identify(user string) (Identity, bool) {
	rest, ok := strings.CutPrefix(user, serviceAccountPrefix)
	namespace, name, both := strings.Cut(rest, ":")
	if !ok || !both || name == "" || !component.MatchString(namespace) {
		return Identity{}, false
	}
	return Identity{User: user, Namespace: namespace}, true
}

// InvalidError says why a credential is not accepted.
type InvalidError struct {
	// Reason is the API server's.
	Reason string
}

// Error tells the reason.
func (e *InvalidError) Error() string { return e.Reason }

// Service answers requests for tokens.
type Service struct {
	Issuer *Issuer
	// Prefix is the path below which each namespace has its repositories.
	Prefix string
	// Review asks the API server whose credential it is. An [InvalidError] says
	// that it is nobody's.
	Review func(ctx context.Context, credential string) (user string, err error)
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger

	limits limits
}

// Handler serves GET /token.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", s.answer)
	return mux
}

// response is a token as the protocol has it. Some clients read the one name,
// some the other.
type response struct {
	Token       string    `json:"token"`
	AccessToken string    `json:"access_token"`
	ExpiresIn   int       `json:"expires_in"`
	IssuedAt    time.Time `json:"issued_at"`
}

func (s *Service) answer(w http.ResponseWriter, r *http.Request) {
	now := s.Now()
	token, refused := s.issue(r, now)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if refused != nil {
		s.tell(sourceOf(r), refused, now)
		switch refused.status {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", s.Issuer.Service))
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(refused.status)
		// That a client has left is no concern of ours.
		_ = json.NewEncoder(w).Encode(refused)
		return
	}
	_ = json.NewEncoder(w).Encode(response{Token: token, AccessToken: token, ExpiresIn: int(Lifetime.Seconds()), IssuedAt: now.UTC()})
}

// tell logs a refusal; of those of one source, one a minute for people to see.
func (s *Service) tell(from string, refused *refusal, now time.Time) {
	if count := s.limits.refuses(from, now); count > 0 {
		s.Log.Info("a token is refused", "from", from, "reason", refused.message, "status", refused.status, "refusals", count)
		return
	}
	s.Log.Debug("a token is refused", "from", from, "reason", refused.message, "status", refused.status)
}

// refusal is the answer to who gets no token. Its JSON is that of registries.
type refusal struct {
	status        int
	code, message string
}

// MarshalJSON makes it an error of the OCI Distribution Specification.
func (r *refusal) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"errors": []map[string]string{{"code": r.code, "message": r.message}}})
}

func refusef(status int, code, format string, args ...any) *refusal {
	return &refusal{status: status, code: code, message: fmt.Sprintf(format, args...)}
}

// issue makes the token that a request asks for.
func (s *Service) issue(r *http.Request, now time.Time) (string, *refusal) {
	if from := sourceOf(r); !s.limits.allows(from, now) {
		return "", refusef(http.StatusTooManyRequests, "TOOMANYREQUESTS", "%s asks for more than %d tokens a second; ask again later", from, perSecond)
	}
	query := r.URL.Query()
	if service := query.Get("service"); service != "" && service != s.Issuer.Service {
		return "", refusef(http.StatusBadRequest, "UNSUPPORTED", "tokens are issued here for %s, not for %.200q", s.Issuer.Service, service)
	}
	asked, err := parseScopes(query["scope"])
	if err != nil {
		return "", refusef(http.StatusBadRequest, "UNSUPPORTED", "%v", err)
	}
	who, refused := s.authenticate(r)
	if refused != nil {
		return "", refused
	}
	granted := Grant(s.Prefix, who.Namespace, asked)
	if len(granted) == 0 && len(asked) > 0 {
		return "", refusef(http.StatusForbidden, "DENIED", "%s may use only repositories below %s, and asks for %.200s",
			who.User, home(s.Prefix, who.Namespace), asked[0].Name)
	}
	token, err := s.Issuer.Issue(who.User, granted, now)
	if err != nil {
		s.Log.Error("no token can be issued", "reason", err)
		return "", refusef(http.StatusInternalServerError, "UNKNOWN", "%v", err)
	}
	return token, nil
}

// authenticate finds out whose request it is.
func (s *Service) authenticate(r *http.Request) (Identity, *refusal) {
	_, credential, ok := r.BasicAuth()
	if !ok || credential == "" {
		return Identity{}, refusef(http.StatusUnauthorized, "UNAUTHORIZED",
			"there is no password; give the token of a ServiceAccount for the audience %s", s.Issuer.Service)
	}
	user, err := s.Review(r.Context(), credential)
	if invalid := (*InvalidError)(nil); errors.As(err, &invalid) {
		return Identity{}, refusef(http.StatusUnauthorized, "UNAUTHORIZED",
			"the password is not a valid token of a ServiceAccount for the audience %s: %s", s.Issuer.Service, invalid.Reason)
	}
	if err != nil {
		return Identity{}, refusef(http.StatusServiceUnavailable, "UNAVAILABLE", "the API server can't be asked whose token it is: %v", err)
	}
	who, ok := identify(user)
	if !ok {
		return Identity{}, refusef(http.StatusForbidden, "DENIED", "%.200q is not a ServiceAccount; only these have repositories", user)
	}
	return who, nil
}
