package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"regexp"
	"strings"
	"testing"
)

// TestHandshake has both kinds of certificate checked by the library that
// checks them in the cluster.
func TestHandshake(t *testing.T) {
	ca, err := NewAuthority("test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ca.Server("api", "127.0.0.1", "kubernetes.default")
	if err != nil {
		t.Fatal(err)
	}
	client, err := ca.Client("jane", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"127.0.0.1", "kubernetes.default"} {
		peer := handshake(t, ca, server, client, name)
		if peer.CommonName != "jane" || peer.Organization[0] != "system:masters" {
			t.Errorf("server saw the user %v", peer)
		}
	}
}

func handshake(t *testing.T, ca *Authority, server, client Pair, name string) (peer struct {
	CommonName   string
	Organization []string
}) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.Cert)
	here, there := net.Pipe()
	serving := tls.Server(there, &tls.Config{
		Certificates: []tls.Certificate{keyPair(t, server)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: pool,
		SessionTicketsDisabled: true, // nobody reads on after the handshake
	})
	done := make(chan error, 1)
	go func() { done <- serving.Handshake() }()
	err := tls.Client(here, &tls.Config{
		RootCAs: pool, ServerName: name, Certificates: []tls.Certificate{keyPair(t, client)},
	}).Handshake()
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	if err := <-done; err != nil {
		t.Fatalf("server: %v", err)
	}
	subject := serving.ConnectionState().PeerCertificates[0].Subject
	peer.CommonName, peer.Organization = subject.CommonName, subject.Organization
	return peer
}

func keyPair(t *testing.T, p Pair) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestKubeconfig(t *testing.T) {
	out, err := Kubeconfig("https://10.0.0.1:6443", "admin", []byte("ca"), Pair{Cert: []byte("cert"), Key: []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"certificate-authority-data": "ca", "client-certificate-data": "cert", "client-key-data": "key",
	} {
		m := regexp.MustCompile(field + ": (.*)").FindSubmatch(out)
		if m == nil {
			t.Errorf("no %s in:\n%s", field, out)
			continue
		}
		if got, err := base64.StdEncoding.DecodeString(string(m[1])); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", field, got, err, want)
		}
	}
	if !strings.Contains(string(out), "server: https://10.0.0.1:6443\n") {
		t.Errorf("the server is missing in:\n%s", out)
	}
}
