package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// A large file goes to the registry in pieces, as the OCI Distribution
// Specification has it: POST begins an upload, PATCH appends to it, PUT ends it
// with the digest, and GET tells how far it came. So a broken upload goes on
// from what the registry has. oras-go sends a blob in one request only.

// pieceBytes is the most that one request carries. What it costs is a round
// trip each; some registries take no more than 20 MiB.
const pieceBytes = 16 << 20

// errNoPieces says that a registry takes a blob only in one request.
var errNoPieces = errors.New("the registry takes no uploads in pieces")

// upload is a blob on its way.
type upload struct {
	client *client
	blob   ocispec.Descriptor
	// location is where the next request goes; nil: nowhere yet.
	location *url.URL
	// sent is how many bytes the registry has.
	sent int64
	// note is a file that keeps the location, for a later Push.
	note string
}

// resumeUpload returns the upload that an earlier Push noted, or a new one.
func (c *client) resumeUpload(blob ocispec.Descriptor, note string) *upload {
	u := &upload{client: c, blob: blob, note: note}
	noted, err := os.ReadFile(note)
	if err != nil {
		return u
	}
	digest, location, _ := strings.Cut(strings.TrimSpace(string(noted)), " ")
	if parsed, err := url.Parse(location); err == nil && digest == blob.Digest.String() && u.isOurs(parsed) {
		u.location = parsed
	}
	return u
}

// send goes on until the registry has the blob.
func (u *upload) send(ctx context.Context, content io.ReaderAt) error {
	ctx = auth.AppendRepositoryScope(ctx, u.client.repository.Reference, auth.ActionPull, auth.ActionPush)
	if err := u.find(ctx); err != nil {
		return err
	}
	for u.sent < u.blob.Size {
		if err := u.append(ctx, content); err != nil {
			return err
		}
	}
	return u.finish(ctx)
}

// find asks how far the upload came. One that is not known any more, or has
// nothing yet, begins anew.
func (u *upload) find(ctx context.Context) error {
	if u.location != nil {
		r, err := u.do(ctx, http.MethodGet, u.location, nil)
		if err != nil {
			return err
		}
		if r.status == http.StatusNoContent && r.has > 1 && r.has <= u.blob.Size {
			u.sent = r.has
			return u.move(r)
		}
	}
	u.location, u.sent = nil, 0
	return u.begin(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	r, err := u.do(ctx, http.MethodPost, u.uploads(), nil)
	if err != nil {
		return err
	}
	if r.status != http.StatusAccepted {
		return r.refusal
	}
	return u.move(r)
}

// append sends the next piece.
func (u *upload) append(ctx context.Context, content io.ReaderAt) error {
	piece := io.NewSectionReader(content, u.sent, min(pieceBytes, u.blob.Size-u.sent))
	r, err := u.do(ctx, http.MethodPatch, u.location, piece)
	switch {
	case err != nil:
		return err
	case u.sent == 0 && slices.Contains(noPieces, r.status):
		return errNoPieces
	case r.status/100 != 2:
		return r.refusal
	case r.has >= 0 && r.has <= u.sent:
		return fmt.Errorf("registry %s accepted %d bytes from offset %d, but says that it has %d", u.client.host(), piece.Size(), u.sent, r.has)
	}
	u.sent += piece.Size()
	if r.has >= 0 {
		u.sent = min(u.sent, r.has) // it may have taken less than it was sent
	}
	return u.move(r)
}

// noPieces are the answers to a first piece of registries that take none.
var noPieces = []int{
	http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired,
	http.StatusUnsupportedMediaType, http.StatusRequestedRangeNotSatisfiable, http.StatusNotImplemented,
}

func (u *upload) finish(ctx context.Context) error {
	end := *u.location
	query := end.Query()
	query.Set("digest", u.blob.Digest.String())
	end.RawQuery = query.Encode()
	r, err := u.do(ctx, http.MethodPut, &end, nil)
	if err != nil {
		return err
	}
	if r.status/100 != 2 {
		return r.refusal
	}
	u.forget()
	return nil
}

// move follows the registry to where it wants the next request.
func (u *upload) move(r reply) error {
	if r.location == nil || !u.isOurs(r.location) {
		return errNoPieces
	}
	u.location = r.location
	// A note that cannot be kept costs a later Push what was sent, and nothing
	// else.
	_ = os.WriteFile(u.note, []byte(u.blob.Digest.String()+" "+u.location.String()+"\n"), 0o600)
	return nil
}

func (u *upload) forget() { _ = os.Remove(u.note) }

// uploads is where uploads begin.
func (u *upload) uploads() *url.URL {
	scheme := "https"
	if u.client.repository.PlainHTTP {
		scheme = "http"
	}
	reference := u.client.repository.Reference
	return &url.URL{Scheme: scheme, Host: reference.Host(), Path: "/v2/" + reference.Repository + "/blobs/uploads/"}
}

// isOurs tells places of this registry, where its credentials may go.
func (u *upload) isOurs(location *url.URL) bool {
	ours := u.uploads()
	return location.Scheme == ours.Scheme && location.Host == ours.Host
}

// reply is what a registry said.
type reply struct {
	status   int
	location *url.URL // nil: none
	has      int64    // how many bytes of the upload it has; -1: not said
	refusal  error    // for a status that was not wanted
}

// do sends a request, with a piece that belongs at u.sent or without one.
func (u *upload) do(ctx context.Context, method string, to *url.URL, piece *io.SectionReader) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return reply{}, err
	}
	if piece != nil {
		request.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(piece, 0, piece.Size())), nil
		}
		request.Body, _ = request.GetBody() // this one never fails
		request.ContentLength = piece.Size()
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.sent, u.sent+piece.Size()-1))
	}
	response, err := u.client.repository.Client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	r := reply{status: response.StatusCode, has: received(response.Header), refusal: refusal(response)}
	r.location, _ = response.Location() // nil says that there is none
	return r, nil
}

// received reads a header like "Range: 0-1023", which says 1024 bytes. -1: it is
// not there.
func received(header http.Header) int64 {
	_, end, _ := strings.Cut(strings.TrimPrefix(header.Get("Range"), "bytes="), "-")
	last, err := strconv.ParseInt(end, 10, 64)
	if err != nil || last < 0 || last == math.MaxInt64 {
		return -1
	}
	return last + 1
}

// refusal is a registry's answer as oras-go has it.
func refusal(response *http.Response) error {
	var said struct {
		Errors errcode.Errors `json:"errors"`
	}
	const longest = 64 << 10
	// What is no JSON has no words.
	_ = json.NewDecoder(io.LimitReader(response.Body, longest)).Decode(&said)
	return &errcode.ErrorResponse{Method: response.Request.Method, URL: response.Request.URL, StatusCode: response.StatusCode, Errors: said.Errors}
}
