.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help setup prerequisites demo clean-demo repro test test-fast lint lock kill-large bench

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

setup: .venv/installed  ## make .venv with the pinned packages

.venv/installed: requirements.lock | prerequisites
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

prerequisites:
	@sh .ci/prerequisites $(PYTHON)

demo: setup  ## run the whole pipeline on a generated sample, in the clone demo/
	@python -m stages.tools.demo

clean-demo:  ## remove demo/, with all commits and experiments in it
	@$(PYTHON) -m stages.tools.demo --remove

repro: setup  ## run the stages of the real pipeline that have changed
	dvc repro

# One process more than the smallest machine has cores: some tests mostly wait.
PYTEST := python -m pytest --numprocesses 3 --dist worksteal

test: setup lint  ## run all tests
	$(PYTEST)

test-fast: setup lint  ## run the tests that need no trained models and no network
	$(PYTEST) -m "not pipeline and not network"

kill-large: setup  ## kill and resume training runs of the real ResNet50 and fast94
	python -m benchmarks.kill_large

bench: setup  ## measure time and memory, compared to the notebook
	python -m benchmarks.bench train
	python -m benchmarks.bench memory
	python -m benchmarks.bench start

lint: setup  ## check style and types
	ruff format --check .
	ruff check .
	mypy

lock: setup  ## pin the newest packages that pyproject.toml allows
	uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --upgrade --output-file requirements.lock
