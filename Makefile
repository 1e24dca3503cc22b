.DEFAULT_GOAL := help
PYTHON ?= python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# In a hook these name the hook's repository. GIT_CONFIG_... stays, such as CI's safe.directory.
unexport $(filter-out GIT_CONFIG_%,$(shell git rev-parse --local-env-vars 2> /dev/null))

.PHONY: help setup prerequisites demo clean-demo repro test test-fast lint lock kill-large bench

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

setup: .venv/installed  ## make .venv with the pinned packages

# Overrides targets in pip's settings. pip takes an empty --root or --prefix for a relative path.
IN_VENV := --no-user --target '' --root / --prefix "$(CURDIR)/.venv"

.venv/installed: requirements.lock | prerequisites
	$(PYTHON) -m venv .venv
	.venv/bin/python -I -m pip install --quiet --disable-pip-version-check $(IN_VENV) \
		--require-hashes -r requirements.lock
	@.venv/bin/python -I -c 'import dvc, importlib.util as x; assert x.find_spec("keras")' || { \
		echo "error: pip has not installed the packages in .venv; see: python3 -m pip config list" >&2; exit 1; }
	@touch $@

prerequisites:
	@sh .ci/prerequisites $(PYTHON)

# Small batches, for more steps. In the ResNets batch normalization stays frozen: its moving averages
# would take hundreds of steps to catch up, and the demo has 180. Without batch normalization they
# need a smaller learning rate. `++`, as a resumed demo has these keys already.
DEMO_SETTINGS := dataset=sample epochs=2 batch_size=16 training.min_batches=0 \
	models.fast94.epochs=2 models.fast94.batch_size=96 \
	models.resnet50_scratch.learning_rate=0.0003 ++models.resnet50_scratch.frozen_batch_norm_epochs=2 \
	models.resnet50_finetune.learning_rate=0.0003 ++models.resnet50_finetune.frozen_batch_norm_epochs=2 \
	models.resnet50_features.enlarge_to=32 ++models.resnet50_features.epochs=20 \
	models.resnet50_tuned.enlarge_to=32 models.resnet50_tuned.epochs=2 \
	models.resnet50_tuned.frozen_batch_norm_epochs=2

# This folder within its repository, which may have others beside it: "" or a path that ends in "/".
SUBFOLDER := $$(git rev-parse --show-prefix)

demo: setup  ## run the whole pipeline on a generated sample, in the clone demo/
	@test -d demo || { rm -rf .partial-demo && \
		git clone --quiet "$$(git rev-parse --show-toplevel)" .partial-demo && \
		ln -s "$$(git rev-parse --show-cdup)../.venv" ".partial-demo/$(SUBFOLDER).venv" && \
		touch -r requirements.lock ".partial-demo/$(SUBFOLDER)requirements.lock" && mv .partial-demo demo; }
	@test "$$(git --git-dir=demo/.git rev-parse HEAD 2> /dev/null)" = "$$(git rev-parse HEAD)" || { \
		echo "error: demo/ is of another commit; make clean-demo removes it with everything in it" >&2; exit 1; }
	@test -z "$$(git status --porcelain .)" || echo "note: demo/ is a clone, without your uncommitted changes"
	@cd "demo/$(SUBFOLDER)" && dvc exp run $(DEMO_SETTINGS:%=--set-param %) || { \
		echo "error: the demo is incomplete; make demo resumes it" >&2; exit 1; }
	@echo && cat "demo/$(SUBFOLDER)metrics/report.md" && echo && \
		echo "page: $(CURDIR)/demo/$(SUBFOLDER)metrics/report.html"

clean-demo:  ## remove demo/, with all commits and experiments in it
	rm -rf demo

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
