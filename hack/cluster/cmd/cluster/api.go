package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// apiClient speaks to the API server as its administrator. Three kinds of
// request do not justify client-go, which would take minutes to compile.
type apiClient struct{ http *http.Client }

func newAPIClient() (*apiClient, error) {
	ca, err := os.ReadFile(certificate("ca"))
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(certificate("admin"), keyOf("admin"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &apiClient{&http.Client{
		Timeout: 5 * time.Second, // of one request; the waits try again
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			RootCAs: pool, Certificates: []tls.Certificate{pair},
		}},
	}}, nil
}

func (a *apiClient) get(ctx context.Context, url string, into any) error {
	body, err := a.request(ctx, http.MethodGet, url, nil)
	if err != nil || into == nil {
		return err
	}
	return json.Unmarshal(body, into)
}

// create posts an object in YAML; one that is there already is left as it is.
func (a *apiClient) create(ctx context.Context, url string, object []byte) error {
	_, err := a.request(ctx, http.MethodPost, url, object)
	if errors.Is(err, errConflict) {
		return nil
	}
	return err
}

var errConflict = errors.New("conflict")

func (a *apiClient) request(ctx context.Context, method, url string, object []byte) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(object))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/yaml")
	request.Header.Set("Accept", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	switch {
	case response.StatusCode == http.StatusConflict:
		return nil, errConflict
	case response.StatusCode >= 300:
		return nil, fmt.Errorf("%s %s: %s: %s", method, url, response.Status, body)
	}
	return body, nil
}

// nodeReady is nil when the node takes pods.
func (a *apiClient) nodeReady(ctx context.Context) error {
	var node struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := a.get(ctx, apiServer+"/api/v1/nodes/"+nodeName, &node); err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
		if c.Type == "Ready" {
			return errors.New(c.Message)
		}
	}
	return errors.New("the node has not said yet whether it is ready")
}

// untainted is nil when the scheduler may put pods on the node: the controller
// manager takes the not-ready taint away a moment after the node is ready.
func (a *apiClient) untainted(ctx context.Context) error {
	var node struct {
		Spec struct {
			Taints []struct{ Key string }
		}
	}
	if err := a.get(ctx, apiServer+"/api/v1/nodes/"+nodeName, &node); err != nil {
		return err
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("the node has the taint %s", node.Spec.Taints[0].Key)
	}
	return nil
}

// serviceAnswers is nil when kube-proxy has programmed the API server's
// Service. A connection that was begun before that never comes about, so each
// attempt is short.
func (a *apiClient) serviceAnswers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	return a.get(ctx, "https://"+apiServiceIP+"/readyz", nil)
}

// dnsAnswers is nil when the cluster's DNS knows the API server's Service.
func dnsAnswers(ctx context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, nodeIP+":53")
	}}
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+domain+".")
	if err != nil {
		return err
	}
	if len(addresses) != 1 || addresses[0] != apiServiceIP {
		return fmt.Errorf("the Service kubernetes has the addresses %v instead of %s", addresses, apiServiceIP)
	}
	return nil
}
