package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	// Images from scratch have no certificates of authorities. These are used
	// only where the system has none.
	_ "golang.org/x/crypto/x509roots/fallback"

	"trainyard.dev/trainyard/runtime/spec"
)

func newTransport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// The bytes are hashed and taken up in the middle, so they have to come as
	// they are stored.
	transport.DisableCompression = true
	transport.ResponseHeaderTimeout = time.Minute
	return transport
}

// object returns what can be opened. It sends nothing.
func (s Source) object(transport *http.Transport, known Version) (object, error) {
	if s.S3 != nil {
		return newBucketObject(s, transport, known)
	}
	return newWebFile(s, transport, known)
}

// webFile is a file on a web server.
type webFile struct {
	url    string
	client *http.Client
	// authorize adds the credentials.
	authorize func(*http.Request)
	has       bool // credentials
	field     func(name string) string
	// known is what the caller has already.
	known Version
}

func newWebFile(s Source, transport *http.Transport, known Version) (*webFile, error) {
	from, c := s.HTTPS, s.Credentials
	u, err := url.Parse(from.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, refusedf("the url has to be of the form https://host/path, without user and password")
	}
	f := &webFile{
		url:       from.URL,
		client:    &http.Client{Transport: transport, CheckRedirect: onlyHTTPS},
		authorize: func(*http.Request) {},
		has:       from.CredentialsSecret != nil,
		field:     s.field,
		known:     known,
	}
	switch {
	case !f.has:
	case c[spec.TokenKey] != "":
		f.authorize = func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+c[spec.TokenKey]) }
	case c[spec.UsernameKey] != "":
		f.authorize = func(r *http.Request) { r.SetBasicAuth(c[spec.UsernameKey], c[spec.PasswordKey]) }
	case c[spec.AuthorityKey] != "":
		f.has = false
	default:
		return nil, refusedf("Secret %s, which credentialsSecret names, isn't there, or has neither a key %s nor the keys %s and %s; add them",
			from.CredentialsSecret.Name, spec.TokenKey, spec.UsernameKey, spec.PasswordKey)
	}
	return f, nil
}

var errPlainRedirect = errors.New("the server redirects to a URL that is not https")

func onlyHTTPS(r *http.Request, via []*http.Request) error {
	if r.URL.Scheme != "https" {
		return errPlainRedirect
	}
	if len(via) >= 10 {
		return errors.New("the server redirects again and again")
	}
	return nil
}

// open asks for the rest of the file. If-Range makes a server that has other
// bytes by now answer with all of them.
func (f *webFile) open(ctx context.Context, from int64, version string) (*part, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, refusedf("the url can't be used: %v", withoutURL(err))
	}
	request.Header.Set("Accept-Encoding", "identity")
	if from > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		request.Header.Set("If-Range", version)
	} else {
		f.known.ask(request.Header)
	}
	f.authorize(request)
	response, err := f.client.Do(request)
	if err != nil {
		return nil, err
	}
	p := &part{body: response.Body, version: strongVersion(response.Header), state: stateOf(response.Header)}
	switch {
	case response.StatusCode == http.StatusNotModified && f.known != (Version{}),
		response.StatusCode == http.StatusOK && p.state.ETag != "" && p.state.ETag == f.known.ETag:
		response.Body.Close()
		return nil, ErrUnchanged
	case response.StatusCode == http.StatusOK:
		return p, nil
	case response.StatusCode == http.StatusPartialContent && from > 0 && strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)):
		p.from, p.version = from, version
		return p, nil
	}
	response.Body.Close()
	if response.StatusCode == http.StatusPartialContent || response.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return nil, errChanged
	}
	return nil, f.refusal(response.StatusCode)
}

func stateOf(h http.Header) Version {
	return Version{ETag: h.Get("ETag"), Modified: h.Get("Last-Modified")}
}

// ask has the server send nothing if it has this version.
func (v Version) ask(h http.Header) {
	switch {
	case v.ETag != "":
		h.Set("If-None-Match", v.ETag)
	case v.Modified != "":
		h.Set("If-Modified-Since", v.Modified)
	}
}

// strongVersion is an ETag that stands for the very bytes; "" if there is none.
func strongVersion(h http.Header) string {
	if tag := h.Get("ETag"); !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

func (f *webFile) refusal(status int) error {
	answer := fmt.Sprintf("%d %s", status, http.StatusText(status))
	switch {
	case status == http.StatusUnauthorized && !f.has:
		return refusedf("the server asks for credentials (%s); put them into a Secret and name it in %s", answer, f.field("https.credentialsSecret"))
	case (status == http.StatusUnauthorized || status == http.StatusForbidden) && f.has:
		return refusedf("the server doesn't accept the credentials of %s for this file (%s); correct the Secret, or have access granted", f.field("https.credentialsSecret"), answer)
	case status == http.StatusForbidden:
		return refusedf("the server doesn't give this file to everyone (%s); put credentials into a Secret and name it in %s", answer, f.field("https.credentialsSecret"))
	case status == http.StatusNotFound || status == http.StatusGone:
		return refusedf("there is no such file on the server (%s); check the url", answer)
	case passes(status):
		return &UnavailableError{Problem: fmt.Sprintf("the server answers with %s; check that it is well", answer)}
	}
	return refusedf("the server answers with %s; check the url", answer)
}

// passes tells whether an HTTP status may be another one a while later.
func passes(status int) bool {
	return status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests
}
