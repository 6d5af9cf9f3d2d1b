# Every target works in a fresh checkout: it makes what it needs first, and only once.
PYTHON ?= python3
MODEL ?= scripted
VENV = .venv/bin
SETUP = .venv/.installed
VLLM_ENVIRONMENT = .environments/vllm
VLLM_MODEL = .models/SmolLM2-135M-Instruct

.PHONY: setup serve demo test test-load test-vllm bench bench-quick peers check format environments vllm build clean

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	scripts/setup.sh $(PYTHON)

serve: $(SETUP)  ## the emulator with its embedded model
	$(VENV)/job-runtime-local serve --model "$(MODEL)"

demo: $(SETUP)  ## an agent over a small data set; MODEL=http://… or MODEL=vllm:… for a real model
	scripts/demo.sh "$(MODEL)"

test: $(SETUP) environments  ## everything that needs no large download
	$(VENV)/pytest -m "not vllm and not load"

test-load: $(SETUP)  ## 100,000 samples, 2,000 streams, kills and restarts: nothing lost, doubled or mixed up
	$(VENV)/pytest -m load --timeout 900

environments: $(SETUP)  ## programs whose dependencies clash with ours: the AWS CLI, the SageMaker SDK, vllm-router, datasets; and nginx
	scripts/build_clients.sh
	scripts/build_nginx.sh

vllm: $(SETUP)  ## vLLM for the CPU, and a small model
	scripts/build_vllm.sh $(VLLM_ENVIRONMENT) $(VLLM_MODEL)

test-vllm: $(SETUP) vllm environments  ## the contract and the examples against a real vLLM
	TEST_VLLM_PYTHON=$(CURDIR)/$(VLLM_ENVIRONMENT)/bin/python \
	TEST_VLLM_MODEL=$(CURDIR)/$(VLLM_MODEL) \
	$(VENV)/pytest -m vllm --timeout 600

bench: $(SETUP) peers  ## every figure, beside the peers; 20 minutes
	$(VENV)/python -m bench --write-readme

bench-quick: $(SETUP)  ## a few figures in two minutes, for development
	$(VENV)/python -m bench --quick

peers: $(SETUP)  ## what the benchmark compares with, each in an environment of its own
	scripts/build_peers.sh

check: $(SETUP)  ## formatting, lint, types, the direction of dependencies
	$(VENV)/ruff format --check .
	$(VENV)/ruff check .
	$(VENV)/mypy
	$(VENV)/lint-imports --no-logo --config pyproject.toml

format: $(SETUP)
	$(VENV)/ruff format .
	$(VENV)/ruff check --fix .

build: $(SETUP)  ## the wheel and the source distribution
	$(VENV)/python -m build --installer uv

clean:
	rm -rf .venv .environments .models .demo bench/.build dist build
