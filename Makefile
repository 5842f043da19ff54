# Needs Rust, Go, Python 3, Node 20 or later with npm, make, bash, coreutils, curl, jq, procps and util-linux. `make` says what
# there is to make.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

target := $(or $(CARGO_TARGET_DIR),target)
cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/keytide
chart := charts/keytide
keytide := $(target)/debug/keytide
cluster := $(target)/cluster

version := $(shell sed -nE '0,/^version = "(.*)"/s//\1/p' Cargo.toml)
commit := $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)
triple := $(shell rustc -vV | sed -n 's/^host: //p')
image := $(target)/keytide-image.tar
# Most of an idle daemon's memory is its own program, of which packed relocations are 1.7 MiB less and folded twins 0.5 MiB. The
# linker that Rust brings knows both; on other processors it is not the default.
packed := -C link-arg=-Wl,-z,pack-relative-relocs,--icf=all
static := -C target-feature=+crt-static $(if $(filter x86_64-%,$(triple)),$(packed))

# The linters' versions are in a file, and the folder's name is a hash of it: other versions never meet.
lint_requirements := tests/testbed/lint-requirements.txt
linters := $(cache)/lint-$(shell sha256sum $(lint_requirements) | cut -c1-16)

mdbook_version := 0.5.4
mdbook := $(cache)/mdbook-$(mdbook_version)

.PHONY: help
help: ## Say what there is to make
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

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
	rustfmt --check --edition 2024 fuzz/fuzz_targets/*.rs
	cargo clippy --all-targets --all-features -- -D warnings

.PHONY: lint-go
lint-go:
	cd tests/testbed && CGO_ENABLED=0 go vet -trimpath ./...
	unformatted=$$(gofmt -l tests/testbed); test -z "$$unformatted" || { echo "gofmt: $$unformatted"; exit 1; }

.PHONY: lint-scripts
lint-scripts: $(linters)/.installed
	git ls-files -z '*.sh' .ci/run tests/testbed/azure_devops/agent/bin | xargs -0 $(linters)/bin/shellcheck
	git ls-files -z 'Dockerfile*' '*/Dockerfile*' ':!*.dockerignore' | xargs -0r $(linters)/bin/hadolint

.PHONY: lint-chart
lint-chart: tools
	"$$(tests/testbed/build.sh 2>/dev/null)/helm" lint --strict $(chart) $(chart)/charts/runners

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

.PHONY: docs
docs: $(mdbook)/bin/mdbook ## Build the book of docs/ (installs mdBook the first time)
	$< build docs --dest-dir $(abspath $(target))/docs
	@echo "docs: $(abspath $(target))/docs/index.html" >&2

$(mdbook)/bin/mdbook:
	cargo install mdbook --version $(mdbook_version) --locked --no-default-features --features search --root $(mdbook)

.PHONY: cluster
cluster: tools ## Start a cluster that stays, and print how kubectl finds it
	@cargo run --quiet --all-features --example testbed -- up --dir $(cluster)

.PHONY: cluster-down
cluster-down: ## End that cluster
	@cargo run --quiet --all-features --example testbed -- down --dir $(cluster)

.PHONY: demo
demo: tools build ## Show a rotation from end to end; KEEP=1 leaves all of it running
	cargo run --quiet --all-features --example testbed -- demo $(if $(KEEP),--keep)

.PHONY: e2e
e2e: ## Run the image in real containers, as root; E2E_INSTALL=1 installs the Debian packages for that
	tests/e2e/run.sh

.PHONY: e2e-keda
e2e-keda: ## Have KEDA scale runner pools in real containers, as root (builds KEDA once a machine, about 15 minutes)
	tests/e2e/run.sh keda

.PHONY: e2e-rotation
e2e-rotation: ## The same for 50 rotations in a row of a Deployment with 10 Pods
	tests/e2e/run.sh --only "rotations in a row" --rotations 50

.PHONY: image
image: ## Build the release image into an OCI archive, with buildah or docker (about 15 minutes)
	KEYTIDE_COMMIT=$(commit) RUSTFLAGS="$(static)" cargo build --profile dist --target $(triple)
	deploy/image.sh stage $(target)/$(triple)/dist/keytide $(target)/image
	deploy/image.sh build $(target)/image keytide:$(version) $(image) VERSION=$(version) REVISION=$(commit)
	@echo "image: keytide:$(version) in $(image)"

.PHONY: figures
figures: image ## Measure the release image: sizes, start, memory (as root)
	@stat --format 'program: %s bytes' $(target)/image/rootfs/keytide
	@stat --format 'image: %s bytes, uncompressed' $(image)
	tests/e2e/run.sh figures --program $(target)/image/rootfs/keytide

# The program is built by itself and linked as in the image: without what tests want of its dependencies, and without a C library beside it.
define measure
	RUSTFLAGS="$(static)" cargo build --release --all-features --target $(triple)
	RUSTFLAGS="$(static)" cargo run --release --all-features --target $(triple) --example bench -- $(1) --source $(commit) \
		--json $(2)/$(or $(3),benchmark).json --page $(2)/$(or $(3),benchmark).md
endef

.PHONY: bench
bench: tools ## Measure against the bars, into docs/src/benchmark.md (40 minutes, on a machine that does nothing else)
	$(call measure,,docs/src)

.PHONY: bench-quick
bench-quick: tools ## The same with at most 1,000 objects, into target/bench (10 minutes)
	$(call measure,--quick,$(target)/bench)

.PHONY: bench-full
bench-full: tools ## The same as bench with what there is no bar for, into target/bench
	$(call measure,--full,$(target)/bench)

.PHONY: bench-rotation
bench-rotation: tools ## Measure rotation among 5,000 workloads, into docs/src/benchmark-rotation.md (10 minutes, on a machine that does nothing else)
	$(call measure,--rotation,docs/src,benchmark-rotation)

fuzz_targets := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

.PHONY: fuzz
fuzz: ## Feed all that reads foreign bytes with what libFuzzer finds, a minute each (needs cargo-fuzz and a nightly Rust)
	for name in $(fuzz_targets); do \
		mkdir -p fuzz/corpus/$$name; \
		cargo +nightly fuzz run $$name fuzz/corpus/$$name src/render/testdata src/migrate/testdata -- \
			-max_total_time=60 -max_len=25600 -timeout=10 -rss_limit_mb=2048; \
	done

.PHONY: clean
clean: ## End the cluster and remove what was built here (not the tools, which all checkouts share)
	if [ -e $(cluster)/state.json ]; then $(MAKE) cluster-down; fi
	cargo clean
