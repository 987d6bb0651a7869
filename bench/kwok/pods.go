package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"trainyard.dev/trainyard/api/v1alpha1"
	"trainyard.dev/trainyard/runtime/spec"
)

// The addresses that KWOK gives out. In the bench's own network they all are
// this machine's, so that what listens on a port answers for every pod.
const (
	podRange    = "10.64.0.1/12"
	nodeAddress = "10.32.0.1"
)

// pods answers in place of the servers, trainers and gateways in KWOK's pods.
type pods struct {
	byAddress cache.Indexer
	started   time.Time
	// digests are the models that servers have, by the name of their service.
	digests sync.Map
}

const addressIndex = "address"

// startPods listens where pods do.
func (b *bench) startPods() error {
	clients, err := kubernetes.NewForConfig(b.config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(clients, 0)
	informer := factory.Core().V1().Pods().Informer()
	err = informer.AddIndexers(cache.Indexers{addressIndex: func(object any) ([]string, error) {
		return []string{object.(*corev1.Pod).Status.PodIP}, nil
	}})
	if err != nil {
		return err
	}
	factory.Start(b.life.Done())
	if !cache.WaitForCacheSync(b.ctx.Done(), informer.HasSynced) {
		return context.Cause(b.ctx)
	}
	b.pods = &pods{byAddress: informer.GetIndexer(), started: time.Now()}
	return errors.Join(b.serve(spec.ServePort, b.pods.work()), b.serve(spec.OperationsPort, b.pods.operations()))
}

func (b *bench) serve(port int, handler http.Handler) error {
	listener, err := new(net.ListenConfig).Listen(b.ctx, "tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	b.running.Go(func() { _ = server.Serve(listener) })
	context.AfterFunc(b.life, func() { _ = server.Close() })
	return nil
}

// work is what answers on a server's port for predictions, which are all the
// same, and on that of a trainer.
func (p *pods) work() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { answer(w, struct{}{}) })
	mux.HandleFunc("GET /progress", func(w http.ResponseWriter, r *http.Request) {
		epoch := int32(0)
		if pod := p.asked(r); pod != nil && pod.Status.StartTime != nil {
			epoch = min(10, 1+int32(time.Since(pod.Status.StartTime.Time).Seconds()/2))
		}
		answer(w, spec.Progress{
			Epoch: epoch, Epochs: 10, Step: 20, Steps: 45, Loss: 1 / float64(epoch+1), SamplesPerSecond: 1e5, SecondsLeft: float64(10-epoch) * 2,
			Metrics: map[string]float64{"Accuracy": float64(epoch) / 11}, MemoryBytes: 64 << 20,
		})
	})
	return mux
}

// operations is what answers to the manager: a server that has the model it
// should have and that nobody asks, or the gateway.
func (p *pods) operations() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, spec.Stats{Started: p.started.UnixNano(), UptimeSeconds: time.Since(p.started).Seconds()})
	})
	mux.HandleFunc("POST /v2/repository/index", func(w http.ResponseWriter, r *http.Request) {
		models := []spec.ModelStatus{}
		if pod := p.asked(r); pod != nil {
			name := pod.Labels[v1alpha1.ModelServiceLabel]
			digest, _ := p.digests.Load(name)
			model := spec.ServedModel{Name: name, Digest: fmt.Sprint(digest)}
			models = append(models, spec.ModelStatus{Name: model.Name, Version: model.Version(), Digest: model.Digest, State: spec.StateReady})
		}
		answer(w, models)
	})
	mux.Handle("GET /report", httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: gatewayOperations}))
	return mux
}

// asked is the pod whose address a request was sent to.
func (p *pods) asked(r *http.Request) *corev1.Pod {
	address, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return nil
	}
	found, err := p.byAddress.ByIndex(addressIndex, address.IP.String())
	if err != nil || len(found) == 0 {
		return nil
	}
	return found[len(found)-1].(*corev1.Pod)
}

func answer(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what)
}
