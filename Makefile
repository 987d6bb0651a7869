# Trainyard. `make help` tells what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Where images go: `make images IMAGE_PREFIX=registry.example.com/trainyard/ IMAGE_TAG=v1`.
IMAGE_PREFIX ?= trainyard/
IMAGE_TAG    ?= dev
KUBECTL      ?= kubectl

CLUSTER := hack/cluster/cluster
TOOL    := go tool -modfile=hack/tools/go.mod
BUILD   := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
# Links OpenBLAS into a static program.
OPENBLAS       := bin/openblas
# What connects the workers of a run, with the libraries that it needs.
GLOO           := bin/gloo
BUILD_OPENBLAS := CGO_ENABLED=1 go build -trimpath -tags openblas,netgo,osusergo \
	-ldflags "-s -w -X main.version=$(VERSION) -linkmode external -extldflags '-static -L$(CURDIR)/$(OPENBLAS)'"
# golangci-lint's cache holds paths, so each checkout has its own.
export GOLANGCI_LINT_CACHE := $(CURDIR)/bin/lint

.PHONY: help
help: ## Tell what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Development

.PHONY: generate
generate: ## Make generated files: deepcopy, CRDs, RBAC, apply configurations
	$(TOOL) controller-gen object crd:allowDangerousTypes=true applyconfiguration rbac:roleName=trainyard-manager \
		paths=./api/v1alpha1 paths=./runtime/spec paths=./controllers/... \
		output:crd:dir=config/crd/bases output:rbac:dir=config/rbac

.PHONY: verify
verify: generate ## Regenerate, vet and lint; fail on any difference
	gofmt -l . | (! grep .) || (echo 'gofmt would change these files: run gofmt -w' >&2; exit 1)
	go mod tidy -diff
	go vet ./...
	$(TOOL) golangci-lint run ./...
	@git diff --exit-code -- api config runtime/spec || (echo 'generated files are stale: commit what make generate makes' >&2; exit 1)
	@test -z "$$(git ls-files --others --exclude-standard -- api config runtime/spec)" || (echo 'generated files are not committed:' >&2; git ls-files --others --exclude-standard -- api config runtime/spec >&2; exit 1)

.PHONY: test
test: test-unit test-e2e ## Run the tests: units, controllers against a real API server, the whole on a real cluster

.PHONY: prerequisites
prerequisites:
	hack/prerequisites

.PHONY: test-unit
test-unit: prerequisites ## Run the unit and controller tests
	$(CLUSTER) build
	KUBEBUILDER_ASSETS="$$($(CLUSTER) envtest)" go test -race $$(go list ./... | grep -v /test/e2e)
	go test -tags openblas ./runtime/dataset ./runtime/nn ./runtime/train ./cmd/trainer/app
	go -C hack/cluster test ./internal/... ./cmd/cluster/...

.PHONY: test-e2e
test-e2e: cluster-up images ## Run the whole on the real cluster
	hack/kueue/kueue build
	CGO_ENABLED=0 GOFLAGS= GOWORK=off go -C hack/networkpolicies build -trimpath -o $(CURDIR)/bin/networkpolicies .
	hack/test-e2e

.PHONY: test-cpu
test-cpu: cluster-up images ## Scale by CPU on the real cluster, with the real metrics-server
	hack/metrics-server/metrics-server build
	TRAINYARD_METRICS_SERVER=built hack/test-e2e -run TestScalesByCPU

##@ Benchmarks

BENCH_PYTHON := bin/bench-venv/bin/python

.PHONY: bench-train
bench-train: prerequisites bin/bench-venv/ready $(OPENBLAS)/libopenblas.a ## Train beside PyTorch, Keras and scikit-learn (BENCH_CASES, see bench/README.md)
	mkdir -p bin/bench-data
	$(BUILD_OPENBLAS) -o bin/bench-train ./bench/train
	CGO_ENABLED=0 go build -o bin/bench-train-without-openblas ./bench/train
	bin/bench-train $(BENCH_PYTHON) bench/train/peers.py bin/bench-train-without-openblas bin/bench-data

.PHONY: bench-scale
bench-scale: cluster-up images ## Measure how a ModelService goes from zero to many (BENCH_CASES, see bench/README.md)
	hack/install-local
	go build -o bin/bench-scale ./bench/scale
	KUBECONFIG="$$($(CLUSTER) kubeconfig --path)" bin/bench-scale

# A network and processes of its own: nothing leaves it, and nothing is left of
# it. All addresses of KWOK's pods and nodes are the machine's own there.
ALONE := unshare --net --pid --fork --kill-child --mount-proc sh -c \
	'ip link set lo up && ip route add local 10.0.0.0/8 dev lo && exec "$$@"' alone

.PHONY: bench-kwok
bench-kwok: prerequisites ## Measure the operator with 500 TrainingJobs and 1,000 ModelServices on KWOK's nodes (BENCH_CASES, see bench/README.md)
	mkdir -p bin/bench-kwok
	$(BUILD) -o bin/bench-kwok/ ./bench/kwok ./cmd/manager ./cmd/gateway
	$(ALONE) bin/bench-kwok/kwok "$$($(CLUSTER) build)" "$$(hack/kwok/kwok build)" bin/bench-kwok bin/bench-kwok/output

.PHONY: soak
soak: cluster-up images ## Let ModelServices go to zero and back 200 times under a client that counts
	TRAINYARD_CYCLES=200 TRAINYARD_SERVICES=4 hack/test-e2e -run TestFromZero -parallel=5 -timeout=60m

# A peer that cannot be installed is not measured, and the output says so.
bin/bench-venv/ready: bench/train/requirements.txt bench/train/requirements-torch.txt
	python3 -m venv bin/bench-venv
	$(BENCH_PYTHON) -m pip install -q -r bench/train/requirements.txt || echo 'bench: not all peers could be installed' >&2
	$(BENCH_PYTHON) -m pip install -q --no-deps -r bench/train/requirements-torch.txt || echo 'bench: PyTorch could not be installed' >&2
	touch $@

SERVE_PEERS := bin/serve-peers

.PHONY: bench-serve
bench-serve: prerequisites $(addprefix $(SERVE_PEERS)/,kserve/ready mlserver/ready fastapi/ready) $(OPENBLAS)/libopenblas.a bin/fortio ## Serve beside KServe, MLServer and FastAPI (BENCH_CASES, see bench/README.md)
	@type wrk h2load runsc >/dev/null 2>&1 || apt-get install -y wrk nghttp2-client runsc
	mkdir -p bin/bench-serve-data
	$(BUILD_OPENBLAS) -o bin/bench-serve-server ./cmd/server
	$(BUILD_OPENBLAS) -o bin/bench-serve ./bench/serve
	$(CC) -O2 -o bin/bench-serve-floor bench/serve/floor/floor.c
	bin/bench-serve bin/bench-serve-server bin/bench-serve-floor bin/fortio $(SERVE_PEERS) bin/bench-serve-data

bin/fortio: hack/fortio/go.mod hack/fortio/go.sum
	CGO_ENABLED=0 go -C hack/fortio build -trimpath -o $(CURDIR)/$@ fortio.org/fortio

# Peers pin what others pin differently, so each has an environment of its own.
$(SERVE_PEERS)/%/ready: bench/serve/peers/%.txt
	python3 -m venv $(@D)
	$(@D)/bin/pip install -q -r $< || echo 'bench: $* could not be installed' >&2
	touch $@

CONFORMANCE := $(CURDIR)/bin/conformance

.PHONY: conformance
conformance: $(CONFORMANCE)/installed ## Let clients and checkers that others wrote ask the server
	mkdir -p bin/conformance/programs
	go build -o bin/conformance/programs/ ./cmd/server ./test/conformance/registry
	go -C hack/h2spec build -o $(CONFORMANCE)/programs/ github.com/summerwind/h2spec/cmd/h2spec
	@# One process each: two of the clients cannot be in the same.
	for test in test/conformance/test_*.py; do \
		BINARIES=$(CONFORMANCE)/programs $(CONFORMANCE)/bin/python -m pytest -q -p no:cacheprovider $$test; \
	done

$(CONFORMANCE)/installed: test/conformance/requirements.txt
	@python3 -c 'import ensurepip' 2>/dev/null || apt-get install -y python3-venv
	python3 -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/pip install --quiet --requirement $<
	touch $@

##@ Images and installation

.PHONY: binaries
binaries: $(OPENBLAS)/libopenblas.a $(GLOO)/collective ## Build the binaries that go into the images
	mkdir -p bin/image/runtime
	$(BUILD) -o bin/image/ ./cmd/manager ./cmd/gateway
	$(BUILD_OPENBLAS) -o bin/image/runtime/ ./cmd/runtime
	ln -sf runtime bin/image/runtime/trainer
	ln -sf runtime bin/image/runtime/server
	ln -sf runtime bin/image/runtime/follower

$(OPENBLAS)/libopenblas.a: hack/openblas
	hack/openblas $(OPENBLAS)

$(GLOO)/collective: hack/gloo runtime/group/collective/collective.cc
	hack/gloo $(GLOO)

.PHONY: images
images: prerequisites binaries ## Build the operator's and the runtime's image into bin/*.tar
	hack/images $(IMAGE_PREFIX) $(IMAGE_TAG)

.PHONY: deploy
deploy: ## Install into the cluster of the current kubectl context
	$(KUBECTL) apply --server-side -k config/default

.PHONY: undeploy
undeploy: ## Remove from the cluster of the current kubectl context
	$(KUBECTL) delete -k config/default --ignore-not-found

##@ A cluster of your own

.PHONY: cluster-up
cluster-up: ## Start a real Kubernetes on this machine (Debian, as root)
	$(CLUSTER) up

.PHONY: cluster-down
cluster-down: ## Stop it, and remove what it left
	$(CLUSTER) down

.PHONY: demo
demo: ## From nothing to a prediction: cluster, operator, training, serving
	hack/demo

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin
