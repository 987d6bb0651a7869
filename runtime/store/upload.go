package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
		response, err := u.do(ctx, http.MethodGet, u.location, nil, 0)
		if err != nil {
			return err
		}
		end, err := rangeEnd(response)
		if response.StatusCode == http.StatusNoContent && err == nil && end > 0 && end < u.blob.Size {
			u.sent = end + 1
			return u.move(response)
		}
	}
	u.location, u.sent = nil, 0
	return u.begin(ctx)
}

func (u *upload) begin(ctx context.Context) error {
	response, err := u.do(ctx, http.MethodPost, u.uploads(), nil, 0)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusAccepted {
		return refusal(response)
	}
	return u.move(response)
}

// append sends the next piece.
func (u *upload) append(ctx context.Context, content io.ReaderAt) error {
	size := min(pieceBytes, u.blob.Size-u.sent)
	response, err := u.do(ctx, http.MethodPatch, u.location, io.NewSectionReader(content, u.sent, size), u.sent)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		if u.sent == 0 && slices.Contains(noPieces, response.StatusCode) {
			return errNoPieces
		}
		return refusal(response)
	}
	u.sent += size
	// It may have taken less than it was sent.
	if end, err := rangeEnd(response); err == nil && end+1 < u.sent {
		if end+1 <= u.sent-size {
			return fmt.Errorf("registry %s accepted %d bytes from offset %d, but says that it has %d", u.client.host(), size, u.sent-size, end+1)
		}
		u.sent = end + 1
	}
	return u.move(response)
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
	response, err := u.do(ctx, http.MethodPut, &end, nil, 0)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return refusal(response)
	}
	u.forget()
	return nil
}

// move follows the registry to where it wants the next request.
func (u *upload) move(response *http.Response) error {
	location, err := response.Location()
	if err != nil || !u.isOurs(location) {
		return errNoPieces
	}
	u.location = location
	// A note that cannot be kept costs a later Push what was sent, and nothing
	// else.
	_ = os.WriteFile(u.note, []byte(u.blob.Digest.String()+" "+location.String()+"\n"), 0o600)
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

// do sends a request, and reads the answer to its end.
func (u *upload) do(ctx context.Context, method string, to *url.URL, piece *io.SectionReader, offset int64) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, to.String(), nil)
	if err != nil {
		return nil, err
	}
	if piece != nil {
		request.GetBody = func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(piece, 0, piece.Size())), nil
		}
		request.Body, _ = request.GetBody() // this one never fails
		request.ContentLength = piece.Size()
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, offset+piece.Size()-1))
	}
	response, err := u.client.repository.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	const longest = 64 << 10
	words, err := io.ReadAll(io.LimitReader(response.Body, longest))
	response.Body = io.NopCloser(strings.NewReader(string(words)))
	return response, err
}

// rangeEnd is the last byte of a header like "Range: 0-1023".
func rangeEnd(response *http.Response) (int64, error) {
	text := strings.TrimPrefix(response.Header.Get("Range"), "bytes=")
	_, end, _ := strings.Cut(text, "-")
	return strconv.ParseInt(end, 10, 64)
}

// refusal is a registry's answer as oras-go has it.
func refusal(response *http.Response) error {
	var said struct {
		Errors errcode.Errors `json:"errors"`
	}
	// What is no JSON has no words.
	_ = json.NewDecoder(response.Body).Decode(&said)
	return &errcode.ErrorResponse{Method: response.Request.Method, URL: response.Request.URL, StatusCode: response.StatusCode, Errors: said.Errors}
}
