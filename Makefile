# Braid. `make help` lists the targets.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO      ?= go
T       ?= 1m
TOOLS   := $(CURDIR)/.tools
LDFLAGS := -s -w -X main.version=$(VERSION)
STATIC  := CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)'

# Tools, pinned. A stamp carries the version, so that a new pin installs.
GOLANGCI_LINT := v2.15.0
BENCHSTAT     := v0.0.0-20260908200009-22c9c6c9d4da
XTOOLS        := v0.52.0
HELM          := v4.3.1
KUBECONFORM   := v0.8.0
CHART_TOOLS    = $(TOOLS)/helm-$(HELM) $(TOOLS)/kubeconform-$(KUBECONFORM)

# Folders whose tests have a build tag: $(call tagged,long)
tagged = $(sort $(dir $(shell grep -rlE --include='*_test.go' '^//go:build.*\b$(1)\b' . 2>/dev/null)))

.DEFAULT_GOAL := check
.PHONY: check help demo run build test test-long e2e test-web plugin chart chart-package fuzz bench bench-go bench-logs bench-metrics bench-traces generate lint fmt clean release-check tools

check: fmt lint test ## format, lint and test (what plain make does)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build static binaries into bin/
	@mkdir -p bin
	$(STATIC) -o bin/ ./cmd/...

run: ## build and run braid on loopback with its defaults
	@mkdir -p bin
	$(STATIC) -o bin/ ./cmd/braid
	bin/braid $(ARGS)

demo: ## run braid with a small shop that sends it traces, logs and metrics
	@mkdir -p bin
	$(STATIC) -o bin/ ./cmd/braid ./bench/shop/cmd/shop ./bench/demo
	bin/demo $(ARGS)

test: ## run all tests with the race detector, shuffled
	CGO_ENABLED=1 $(GO) test -race -shuffle=on ./...

test-long: $(CHART_TOOLS) ## run the long tests: metamorphic, crash, many random checks
	@if [ -z "$(call tagged,long)" ]; then echo "no long tests"; else \
		set -x; $(GO) test -tags long -p 1 -timeout 60m $(call tagged,long); fi

e2e: ## run the binaries on loopback and, as root, in containers, and talk to them; the whole path prints each fact
	$(GO) test -tags e2e -count=1 -timeout 20m $(filter-out ./bench/e2e/,$(call tagged,e2e))
	$(GO) test -tags e2e -count=1 -timeout 10m -v ./bench/e2e/

WEB := grafana-plugin

$(WEB)/node_modules/.installed: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

test-web: $(WEB)/node_modules/.installed ## check the front end of the Grafana plugin, in Chromium too
	cd $(WEB) && npm run typecheck && npm run lint && npm run test:ci && npm run build
	@[ -n "$$CHROME_BIN" ] || [ -e /usr/bin/chromium ] || [ -e /usr/bin/chromium-headless-shell ] || [ -e /usr/bin/google-chrome ] || { \
		root=; [ "$$(id -u)" = 0 ] || root=sudo; set -x; \
		$$root apt-get update -qq && { $$root apt-get install -y -qq --no-install-recommends chromium-headless-shell || \
			$$root apt-get install -y -qq --no-install-recommends chromium; }; }
	cd $(WEB) && GO='$(GO)' npm run browser

plugin: $(WEB)/node_modules/.installed ## build the Grafana plugin into grafana-plugin/dist
	cd $(WEB) && npm run build
	for arch in amd64 arm64; do \
		GOOS=linux GOARCH=$$arch $(STATIC) -o $(WEB)/dist/gpx_braid_linux_$$arch ./$(WEB)/pkg || exit 1; done

chart: $(CHART_TOOLS) ## render the Helm chart, validate it, the kustomize base and the Dockerfile (ARGS=-rewrite makes the base)
	$(GO) test -tags long -count=1 -v ./daemonset/deploy $(if $(ARGS),-args $(ARGS))
	cd daemonset/deploy/dockerfile && $(GO) run . ../../../Dockerfile

chart-package: $(TOOLS)/helm-$(HELM) ## package the Helm chart into bin/ (VERSION=v1.2.3)
	@mkdir -p bin
	$(TOOLS)/helm package daemonset/deploy/helm/braid --destination bin --version $(VERSION:v%=%) --app-version $(VERSION:v%=%)

fuzz: ## fuzz every target for T (make fuzz T=10m)
	@set -e; for dir in $$(grep -rlE --include='*_test.go' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for f in $$($(GO) test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "== $$dir $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(T) $$dir; \
		done; \
	done

bench: ## measure CPU, disk and memory of each signal and write bench/results/; alone on the machine
	@mkdir -p bin
	flock bin/.bench.lock $(GO) run ./bench/report $(ARGS)

bench-metrics: ## measure metrics, beside PROMETHEUS=path and VICTORIAMETRICS=path where given (ARGS=-full takes long); alone on the machine
	@mkdir -p bin
	flock bin/.bench.lock $(GO) run ./bench/metrics $(ARGS)

bench-logs: ## measure logs, beside LOKI=path and VICTORIALOGS=path where given (ARGS=-full takes long); alone on the machine
	@mkdir -p bin
	flock bin/.bench.lock $(GO) run ./bench/logs $(ARGS)

bench-traces: ## measure traces, beside TEMPO=path, JAEGER=path and VICTORIATRACES=path where given (ARGS=-full takes long); alone on the machine
	@mkdir -p bin
	flock bin/.bench.lock $(GO) run ./bench/traces $(ARGS)

bench-go: ## run the Go benchmarks ten times into bin/bench-VERSION.txt, for benchstat; alone on the machine
	@mkdir -p bin
	flock bin/.bench.lock $(GO) test -run '^$$' -bench '$(or $(B),.)' -benchmem -count 10 -timeout 60m \
		$(or $(P),./...) | tee bin/bench-$(VERSION).txt

generate: ## regenerate generated files and fail if any was not current
	$(GO) generate ./...
	git diff --exit-code

fmt: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## format the code
	$(TOOLS)/golangci-lint fmt ./...

lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) ## run the linters
	$(TOOLS)/golangci-lint run ./...

release-check: build $(TOOLS)/deadcode-$(XTOOLS) ## look for dead code, list licences, dependencies and sizes in bin/
	$(TOOLS)/deadcode -test ./... | tee bin/deadcode.txt
	@for b in $$($(GO) list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./cmd/...); do \
		$(GO) list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' $$b | sort -u \
			> bin/deps-$$(basename $$b).txt; \
		echo "$$(basename $$b): $$(wc -l < bin/deps-$$(basename $$b).txt) modules, $$(stat -c %s bin/$$(basename $$b)) bytes"; \
	done
	@cat bin/deps-*.txt | sort -u | while read -r path version dir; do \
		file=$$(ls "$$dir" | grep -iE '^(licen[sc]e|copying)' | head -1); \
		text=$$(cat "$$dir/$$file" 2>/dev/null || true); \
		case "$$text" in \
			*"GNU AFFERO"*|*"GNU GENERAL PUBLIC"*|*"GNU LESSER"*) name=GPL;; \
			*"Apache License"*) name=Apache-2.0;; \
			*"Mozilla Public License"*) name=MPL-2.0;; \
			*"Permission is hereby granted"*) name=MIT;; \
			*"Redistribution and use in source and binary forms"*|*"Redistributions of source code"*) name=BSD;; \
			*"Permission to use, copy, modify"*) name=ISC;; \
			*) name=unknown;; \
		esac; \
		echo "$$name $$path $$version"; \
	done | sort > bin/licences.txt
	@cut -d' ' -f1 bin/licences.txt | sort | uniq -c
	@! grep -E '^(GPL|unknown) ' bin/licences.txt

tools: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT) $(TOOLS)/benchstat-$(BENCHSTAT) $(TOOLS)/deadcode-$(XTOOLS) $(TOOLS)/stress-$(XTOOLS) ## install the pinned tools into .tools/

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT):
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)
	@touch $@

$(TOOLS)/benchstat-$(BENCHSTAT):
	GOBIN=$(TOOLS) $(GO) install golang.org/x/perf/cmd/benchstat@$(BENCHSTAT)
	@touch $@

$(TOOLS)/deadcode-$(XTOOLS):
	GOBIN=$(TOOLS) $(GO) install golang.org/x/tools/cmd/deadcode@$(XTOOLS)
	@touch $@

$(TOOLS)/stress-$(XTOOLS):
	GOBIN=$(TOOLS) $(GO) install golang.org/x/tools/cmd/stress@$(XTOOLS)
	@touch $@

# helm is large: its first build takes some minutes.
$(TOOLS)/helm-$(HELM):
	GOBIN=$(TOOLS) $(GO) install helm.sh/helm/v4/cmd/helm@$(HELM)
	@touch $@

$(TOOLS)/kubeconform-$(KUBECONFORM):
	GOBIN=$(TOOLS) $(GO) install github.com/yannh/kubeconform/cmd/kubeconform@$(KUBECONFORM)
	@touch $@

clean: ## remove what was built (not the tools)
	rm -rf bin
