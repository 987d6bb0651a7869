// Package pki makes the keys, certificates and kubeconfigs of a cluster that
// is thrown away: everything is made anew on each start.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"text/template"
	"time"
)

const lifetime = 365 * 24 * time.Hour

// Pair is a certificate and its key, in PEM.
type Pair struct{ Cert, Key []byte }

// Authority signs certificates.
type Authority struct {
	Pair
	cert *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes a self-signed certificate authority.
func NewAuthority(name string) (*Authority, error) {
	template := newTemplate(pkix.Name{CommonName: name})
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	a := &Authority{}
	pair, key, err := issue(template, template, nil)
	if err != nil {
		return nil, fmt.Errorf("making the authority %s: %w", name, err)
	}
	block, _ := pem.Decode(pair.Cert)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("reading back the authority %s: %w", name, err)
	}
	a.Pair, a.key = pair, key
	return a, nil
}

// Client issues a certificate for a user of the API, with its groups.
func (a *Authority) Client(user string, groups ...string) (Pair, error) {
	template := newTemplate(pkix.Name{CommonName: user, Organization: groups})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.sign(template)
}

// Server issues a certificate for a server that is known by names, each a
// host name or an IP address.
func (a *Authority) Server(commonName string, names ...string) (Pair, error) {
	template := newTemplate(pkix.Name{CommonName: commonName})
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return a.sign(template)
}

func (a *Authority) sign(template *x509.Certificate) (Pair, error) {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	pair, _, err := issue(template, a.cert, a.key)
	if err != nil {
		return Pair{}, fmt.Errorf("issuing a certificate for %s: %w", template.Subject.CommonName, err)
	}
	return pair, nil
}

func newTemplate(subject pkix.Name) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		Subject: subject,
		// Some machines set their clock back a little after they started.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(lifetime),
	}
}

// issue makes a key and a certificate for it; without a signer it signs itself.
func issue(template, parent *x509.Certificate, signer crypto.Signer) (Pair, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, nil, err
	}
	if signer == nil {
		signer = key
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return Pair{}, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return Pair{}, nil, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, nil, err
	}
	return Pair{Cert: encode("CERTIFICATE", der), Key: keyPEM}, key, nil
}

// ServiceAccountKey makes the key that signs service account tokens. It is an
// RSA key because that (RS256) is what nearly every cluster signs with, so it
// is what verifiers of such tokens are tried against.
func ServiceAccountKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("making the key for service account tokens: %w", err)
	}
	return encodeKey(key)
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return encode("PRIVATE KEY", der), nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

//go:embed kubeconfig.yaml
var kubeconfigText string

var kubeconfig = template.Must(template.New("kubeconfig").Parse(kubeconfigText))

// Kubeconfig renders a kubeconfig that holds all it needs, so that it can be
// copied anywhere.
func Kubeconfig(server, user string, ca []byte, client Pair) ([]byte, error) {
	var out bytes.Buffer
	err := kubeconfig.Execute(&out, map[string]string{
		"Server": server,
		"User":   user,
		"CA":     base64.StdEncoding.EncodeToString(ca),
		"Cert":   base64.StdEncoding.EncodeToString(client.Cert),
		"Key":    base64.StdEncoding.EncodeToString(client.Key),
	})
	if err != nil {
		return nil, fmt.Errorf("rendering the kubeconfig of %s: %w", user, err)
	}
	return out.Bytes(), nil
}
