package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"trainyard.dev/trainyard/runtime/spec"
)

// Defaults of an S3 source, as the API server fills them in.
const (
	defaultEndpoint = "s3.amazonaws.com"
	defaultRegion   = "us-east-1"
)

// bucketObject is an object in a bucket.
type bucketObject struct {
	from   spec.S3Source
	client minio.Core
	field  func(name string) string
	// known is what the caller has already.
	known Version
}

func newBucketObject(s Source, transport *http.Transport, known Version) (*bucketObject, error) {
	from, c := s.S3, s.Credentials
	o := &bucketObject{from: *from, field: s.field, known: known}
	if o.from.Endpoint == "" {
		o.from.Endpoint = defaultEndpoint
	}
	if o.from.Region == "" {
		o.from.Region = defaultRegion
	}
	keys := credentials.NewStatic("", "", "", credentials.SignatureAnonymous)
	if from.CredentialsSecret != nil {
		if c[spec.AccessKeyKey] == "" || c[spec.SecretKeyKey] == "" {
			return nil, refusedf("Secret %s, which credentialsSecret names, has to be there, with the keys %s and %s, and neither may be empty",
				from.CredentialsSecret.Name, spec.AccessKeyKey, spec.SecretKeyKey)
		}
		keys = credentials.NewStaticV4(c[spec.AccessKeyKey], c[spec.SecretKeyKey], "")
	}
	client, err := minio.NewCore(o.from.Endpoint, &minio.Options{
		Creds: keys, Secure: !from.PlainHTTP, Region: o.from.Region, Transport: transport,
		MaxRetries: 1, // download tries again
	})
	if err != nil {
		return nil, refusedf("%s is %q, which can't be used: %v; write it as host or host:port", o.field("s3.endpoint"), o.from.Endpoint, err)
	}
	o.client = *client
	return o, nil
}

// open asks for the rest of the object, if it is still the same.
func (o *bucketObject) open(ctx context.Context, from int64, version string) (*part, error) {
	var options minio.GetObjectOptions
	if from > 0 {
		if err := errors.Join(options.SetRange(from, 0), options.SetMatchETag(version)); err != nil {
			return nil, err
		}
	} else if o.known.ETag != "" {
		if err := options.SetMatchETagExcept(o.known.ETag); err != nil {
			return nil, err
		}
	}
	body, info, _, err := o.client.GetObject(ctx, o.from.Bucket, o.from.Key, options)
	if err != nil {
		return nil, o.explain(err)
	}
	return &part{body: body, from: from, version: info.ETag, state: Version{ETag: info.ETag}}, nil
}

// explain says what the server refused. Other errors stay as they are.
func (o *bucketObject) explain(err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) {
		return err
	}
	if answer.StatusCode == http.StatusNotModified {
		return ErrUnchanged
	}
	code := answer.Code
	switch code {
	case minio.PreconditionFailed, "InvalidRange":
		return errChanged
	case minio.NoSuchBucket:
		return refusedf("there is no bucket %q at %s; check %s and endpoint", o.from.Bucket, o.from.Endpoint, o.field("s3.bucket"))
	case minio.NoSuchKey:
		return refusedf("there is no object %q in the bucket; check %s", o.from.Key, o.field("s3.key"))
	case "InvalidAccessKeyId":
		return refusedf("the server doesn't know the %s of %s; correct the Secret", spec.AccessKeyKey, o.field("s3.credentialsSecret"))
	case "SignatureDoesNotMatch":
		return refusedf("the %s of %s doesn't belong to its %s; correct the Secret", spec.SecretKeyKey, o.field("s3.credentialsSecret"), spec.AccessKeyKey)
	case minio.AccessDenied:
		return refusedf("the server denies access to the object; %s", o.accessAdvice())
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "InvalidRegion":
		return refusedf("the bucket is not in region %s (%s); set %s to the bucket's", o.from.Region, code, o.field("s3.region"))
	case "RequestTimeTooSkewed":
		return &UnavailableError{Problem: "the clock of the node differs too much from the server's; set it right", Err: err}
	}
	words := fmt.Sprintf("the server answers with %d %s", answer.StatusCode, code)
	if passes(answer.StatusCode) {
		return &UnavailableError{Problem: words + "; check that it is well", Err: err}
	}
	return refusedf("%s (%s)", words, shorten(answer.Message))
}

func (o *bucketObject) accessAdvice() string {
	if o.from.CredentialsSecret == nil {
		return "put an access key into a Secret and name it in " + o.field("s3.credentialsSecret") + ", or make the object public"
	}
	return "have the access key of " + o.field("s3.credentialsSecret") + " allowed to read it"
}
