# Needs Rust, Go, Python 3, Node 20 or later with npm, make, bash and coreutils. `make` says what there is to make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

target := $(or $(CARGO_TARGET_DIR),target)
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keytide
chart := charts/keytide
keytide := $(target)/debug/keytide
cluster := $(target)/cluster

# The linters' versions are in a file, and the folder's name is a hash of it: other versions never meet.
lint_requirements := tests/testbed/lint-requirements.txt
linters := $(cache)/lint-$(shell sha256sum $(lint_requirements) | cut -c1-16)

.PHONY: help
help: ## Say what there is to make
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: tools
tools: ## Build the pinned control plane, kwok and Helm (once a machine, about 16 minutes)
	@folder=$$(tests/testbed/build.sh); echo "tools: in $$folder" >&2

.PHONY: build
build: ## Build keytide with everything that development and tests need
	cargo build --all-features

.PHONY: test
test: tools ## Run the unit, integration and conformance tests
	cargo test --all-features
	tests/conformance/run.sh $(keytide)

.PHONY: lint
lint: tools lint-rust lint-go lint-scripts lint-chart ## Run every linter

.PHONY: lint-rust
lint-rust:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

.PHONY: lint-go
lint-go:
	cd tests/testbed && go vet ./...
	unformatted=$$(gofmt -l tests/testbed); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }

.PHONY: lint-scripts
lint-scripts: $(linters)/.installed
	git ls-files -z '*.sh' .ci/run | xargs -0 $(linters)/bin/shellcheck
	git ls-files -z 'Dockerfile*' '*/Dockerfile*' ':!*.dockerignore' | xargs -0r $(linters)/bin/hadolint

.PHONY: lint-chart
lint-chart: tools
	"$$(tests/testbed/build.sh 2>/dev/null)/helm" lint --strict $(chart)

$(linters)/.installed: $(lint_requirements)
	mkdir -p $(@D)
	flock $(@D)/.lock bash -euc '\
		test -e $@ && exit; \
		python3 -m venv $(@D); \
		$(@D)/bin/pip install --quiet --requirement $(lint_requirements); \
		touch $@'

.PHONY: fmt
fmt: ## Format Rust and Go
	cargo fmt
	gofmt -w tests/testbed

.PHONY: crds
crds: ## Write the custom resource definitions into the chart
	mkdir -p $(chart)/crds
	cargo run --quiet -- crd > $(target)/crds.yaml
	mv $(target)/crds.yaml $(chart)/crds/keytide.dev.yaml

.PHONY: cluster
cluster: tools ## Start a cluster that stays, and print how kubectl finds it
	@cargo run --quiet --all-features --example testbed -- up --dir $(cluster)

.PHONY: cluster-down
cluster-down: ## End that cluster
	@cargo run --quiet --all-features --example testbed -- down --dir $(cluster)

.PHONY: demo
demo: tools build ## Show a rotation from end to end; KEEP=1 leaves all of it running
	cargo run --quiet --all-features --example testbed -- demo $(if $(KEEP),--keep)

.PHONY: clean
clean: ## End the cluster and remove what was built here (not the tools, which all checkouts share)
	if [ -e $(cluster)/state.json ]; then $(MAKE) cluster-down; fi
	cargo clean
