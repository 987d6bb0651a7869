package spec

import (
	"fmt"
	"net/url"
)

// Name is what people call the file: its URL without the query, which may be
// secret, as signatures are in queries.
func (s *HTTPSSource) Name() string {
	u, err := url.Parse(s.URL)
	if err != nil {
		return "the file of the url"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Location is s3://bucket/key.
func (s *S3Source) Location() string { return "s3://" + s.Bucket + "/" + s.Key }

// Name is what people call the object.
func (s *S3Source) Name() string {
	if s.Endpoint == "" {
		return s.Location()
	}
	return s.Location() + " at " + s.Endpoint
}

// Name is what people call the file of a claim of that namespace.
func (c *ClaimReference) Name(namespace string) string {
	return fmt.Sprintf("PersistentVolumeClaim %s/%s, path %s", namespace, c.ClaimName, c.Path)
}
