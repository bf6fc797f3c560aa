# Everything happens in .venv and build/, which git ignores.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := build/demo
# They travel with the package: an installation makes the images of its steps of them.
LOCKS := runtime/installation

# The interpreter may have been told not to keep bytecode; every start would then compile anew.
unexport PYTHONDONTWRITEBYTECODE
export MLFLOW_DISABLE_TELEMETRY := true
export BENTOML_DO_NOT_TRACK := true
export UV_SYSTEM_CERTS := true
export UV_NO_PROGRESS := true

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-cluster test-pages test-node test-node-core test-versions test-tools lint compile docs lock audit examples bench bench-serving bench-batch bench-road clean

help: ## Say what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## Run the whole road on this machine: train, build, serve, check, promote
	@$(BIN)/kfp-bento demo --to $(DEMO)

examples: $(VENV)/.runtime ## Run the examples and print their answers: make examples [EXAMPLE=credit_risk]
	@$(BIN)/python examples/run.py $(EXAMPLE)

# Three at a time, also on two processors: a good part of the tests is waiting for servers.
test: $(VENV)/.dev test-tools ## Run the tests, with real services
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-slow: $(VENV)/.dev test-tools ## Run the tests that take minutes
	@$(BIN)/python -m pytest -n 2 -m slow

test-cluster: $(VENV)/.dev ## Run the tests against a real Kubernetes control plane (needs Go)
	@if ./tests/cluster/build-tools >/dev/null; then \
	  for kserve in newer older; do \
	    ./tests/cluster/operators/build-kserve $$kserve >/dev/null || [ $$? -eq 69 ] || exit 1; \
	  done; \
	  $(BIN)/python -m pytest tests/cluster -m cluster -n 2 --dist worksteal; \
	else \
	  [ $$? -eq 69 ] && echo "Skipped: no Kubernetes control plane can be had on this machine."; \
	fi

test-pages: $(VENV)/.dev test-tools ## Run the commands of all pages as written, with real services and an API server
	@./tests/cluster/build-tools >/dev/null || [ $$? -eq 69 ]
	@$(BIN)/python -m pytest tests/pages -m "slow or cluster or not node" -n 2

test-node: $(VENV)/.dev test-tools ## Run the tests on a real node: kubelet, containerd, a network (needs Go and root)
	@if ./tests/node/install-tools && ./tests/cluster/build-tools node >/dev/null; then \
	  ./tests/cluster/operators/build-kserve >/dev/null || [ $$? -eq 69 ] || exit 1; \
	  ./tests/node/apart $(BIN)/python -m pytest tests/node -m node; \
	else \
	  [ $$? -eq 69 ] && echo "Skipped: no node can be had on this machine."; \
	fi

test-node-core: $(VENV)/.dev test-tools ## A core of these: the node itself, and a release that changes under load
	@if ./tests/node/install-tools && ./tests/cluster/build-tools node >/dev/null; then \
	  ./tests/node/apart $(BIN)/python -m pytest -m node tests/node/test_real_node.py \
	    tests/node/test_releases_on_a_node.py::test_a_release_changes_and_goes_back_and_no_request_is_lost; \
	else \
	  [ $$? -eq 69 ] && echo "Skipped: no node can be had on this machine."; \
	fi

test-versions: $(VENV)/.dev ## Run the tests without services with the lowest and newest versions (PYTHONS="3.12 /path")
	@$(BIN)/python tests/versions.py $(PYTHONS)

test-tools: # As root on Debian the tests bring the real services that they use
	@./tests/install-tools

lint: $(VENV)/.dev ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@mkdir -p build/typing/kfp_bento && ln -sfn ../../../runtime build/typing/kfp_bento/runtime
	@MYPYPATH=build/typing $(BIN)/mypy -p kfp_bento.runtime

compile: $(VENV)/.runtime ## Compile components and pipelines to YAML
	@$(BIN)/kfp-bento compile --to pipelines/compiled --components components

docs: $(VENV)/.docs ## Build the pages as a site, in build/site
	@$(BIN)/python docs/site/build.py build/site && echo build/site/docs/README.html

lock: $(VENV)/.uv ## Resolve the dependencies anew into the requirements files
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 --extra local -o requirements.txt pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 --extra runtime -c requirements.txt \
	  -o $(LOCKS)/requirements-runtime.txt pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 --extra training -c requirements.txt \
	  -c $(LOCKS)/requirements-runtime.txt \
	  -o $(LOCKS)/requirements-training.txt pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 --extra dev -c requirements.txt \
	  -o requirements-dev.txt pyproject.toml
	@$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --python-version 3.11 --extra docs -c requirements.txt \
	  -c requirements-dev.txt -o requirements-docs.txt pyproject.toml

# Apart from the others: it needs a newer pip, and MLflow writes pip's version into every model.
audit: $(VENV)/.uv ## Look for known holes in the locked dependencies
	@$(BIN)/uv run --quiet --no-project --isolated --python $(BIN)/python --with 'pip-audit>=2.9,<3' \
	  python tests/audit_dependencies.py $(LOCKS)/requirements-runtime.txt \
	  $(LOCKS)/requirements-training.txt requirements-dev.txt

bench: $(VENV)/.runtime ## Measure image builds beside BentoML's, as root (BENCH=--quick: ours only)
	@./bench/install-tools
	@$(BIN)/python -m bench.image_builds $(BENCH)

bench-serving: $(VENV)/.dev ## Measure generated services beside hand-written ones and MLflow's server
	@$(BIN)/python -W ignore -m bench.serving $(BENCH)

bench-batch: $(VENV)/.dev ## Measure batches beside mlflow.models.predict, on a million rows
	@$(BIN)/python -W ignore -m bench.batch $(BENCH)

bench-road: $(VENV)/.dev ## Measure serve_model on this machine, and models to images step by step and in one
	@$(BIN)/python -W ignore -m bench.road
	@./bench/install-tools
	@$(BIN)/python -W ignore -m bench.weights $(BENCH)

clean: ## Remove what was built and installed
	@rm -rf build $(VENV) *.egg-info

$(VENV)/.uv:
	@echo "Making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	@touch $@

$(VENV)/.runtime: requirements.txt pyproject.toml $(VENV)/.uv
	@echo "Installing into $(VENV)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode \
	  -r requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --compile-bytecode \
	  -r requirements-dev.txt
	@touch $@

$(VENV)/.docs: requirements-docs.txt $(VENV)/.runtime
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-docs.txt
	@touch $@
