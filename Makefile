# What to type; each target sets up what it needs by itself.  `make` alone lists them.
SHELL := /bin/bash
BIN := .venv/bin
PYTHON ?= python3
OUT ?= demo
WORKERS ?= 2

# A sourced ROS 2 would mix its own rclpy and libraries with those in .venv; the set-up says that it is left
# aside (README.md tells how to build with colcon instead).
ifeq ($(filter ros-env,$(MAKECMDGOALS)),)
ifdef ROS_DISTRO
export MTA_ROS_IGNORED := $(ROS_DISTRO)
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION
unexport AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH PYTHONPATH
endif
endif

.DEFAULT_GOAL := help
.PHONY: help env train-env ros-env demo real test test-all contract soak fuzz audit bench bench-gpu golden train-smoke lint coverage clean

help:  ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s  %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env:  ## Set up the vehicle side: .venv with perception_node, mta, mta-train (no torch)
	@$(PYTHON) tools/set_up.py

train-env:  ## The same, and torch, training packages, tools for tests
	@$(PYTHON) tools/set_up.py --train

ros-env:  ## Beside a sourced ROS 2: .venv-ros with what rosdep lacks, colcon build (COLCON=--symlink-install)
	@$(PYTHON) tools/ros_environment.py -- $(COLCON)

demo: env  ## A synthetic drive through player, node and recorder over DDS; look into demo/ (OUT=DIR)
	@$(BIN)/mta demo --out $(OUT)

real: train-env  ## The real drive of ../shared, imported, played through the node, filmed, judged (skips without it)
	@tools/real.sh $(BIN) real

test: train-env  ## All tests but the slow ones, in two processes (WORKERS=0: in this one)
	@$(BIN)/python -m pytest -rs test mta_training/test -m 'not slow' -n $(WORKERS) --dist loadfile

test-all: train-env  ## All tests
	@$(BIN)/python -m pytest -rs test mta_training/test

contract: train-env  ## Every fault of params/faults put to a real node; writes the table of docs/safety.md
	@$(BIN)/python test/contract.py

soak: train-env  ## An hour of faults at 12 Hz: memory, threads, handles, latency (SECONDS=3600, OUT=DIR)
	@$(BIN)/python test/soak.py --seconds $(or $(SECONDS),3600) --out $(if $(filter demo,$(OUT)),soak,$(OUT))

fuzz: train-env  ## Mutated files and messages to everything that reads them (INPUTS=100000, SEED=0)
	@$(BIN)/python fuzz/run.py --inputs $(or $(INPUTS),100000) --seed $(or $(SEED),0)

audit: train-env  ## Bill of materials (audit/sbom.json, CycloneDX) and known vulnerabilities of the pins
	@$(BIN)/python tools/audit.py

bench: train-env  ## Measure this machine into docs/performance.md and .json (QUICK=1: briefly, into bench.json; MINUTES=10 of driving each)
	@$(BIN)/mta bench --out $(if $(QUICK),bench.json --quick,docs/performance.json) $(if $(MINUTES),--minutes $(MINUTES))
	@$(if $(QUICK),,$(BIN)/python bench/report.py docs/performance.json --write docs/performance.md)

bench-gpu: train-env  ## Networks and language models with CUDA events (a machine with a GPU)
	@$(BIN)/python bench/gpu.py

golden: train-env  ## BEVFormer against outputs of the published code (CASE=case_a.npz); docs/bevformer.md
	@$(BIN)/python -m mta_training.bevformer.golden "$(or $(CASE),$(error which file? make golden CASE=case_a.npz))"

train-smoke: train-env  ## A toy training, its evaluation and an ablation, in runs/smoke: does everything run?
	@$(BIN)/mta-train train --smoke && $(BIN)/mta-train eval --smoke && \
	$(BIN)/mta-train ablate --table 4 --smoke

lint: train-env  ## ruff (rules and layout) and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

coverage: train-env  ## All tests but the slow ones, and which lines of both packages they reach
	@$(BIN)/python -m pytest -q test mta_training/test -m 'not slow' --cov --cov-report term:skip-covered

clean:  ## Remove .venv, .venv-ros, demo/ and what tests and builds leave (not the caches outside this folder)
	@rm -rf .venv .venv-ros .venv-audit .venv.lock demo build install log ros2_ws/{build,install,log} *.egg-info */*.egg-info
	@find . -path ./.git -prune -o \( -name __pycache__ -o -name '.*_cache' -o -name .hypothesis \) \
	  -type d -prune -exec rm -rf {} +
