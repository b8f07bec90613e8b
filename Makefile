# animate4d: `make demo` shows everything, `make test` checks everything. Both set themselves up.

VENV   ?= .venv
OUT    ?= demo
PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(shell command -v $(p) >/dev/null 2>&1 && $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo test check format clean

setup: $(READY)  ## Make the virtual environment with the pinned packages

demo: $(READY)  ## Objects, shards, training, four animations and a gallery, on this machine
	@$(BIN)/python jobs/demo.py --out $(OUT)

test: $(READY)  ## Every test: those without Ray in parallel, then those that share one Ray
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not ray and not gpu"
	@$(BIN)/python -m pytest -q -m ray

check: $(READY)  ## What a reviewer runs first: format, lint, types, fast tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not ray and not slow and not gpu"

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove the environment and what the demo made
	rm -rf $(VENV) $(OUT)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found: install one, or name it with make PYTHON=/path/to/python3"; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (a few minutes the first time; log in $(VENV)/setup.log)"
	@$(PYTHON) -m venv $(VENV)
	@{ $(BIN)/python -m pip install --quiet --upgrade "pip>=25" "setuptools>=77" wheel && \
	   $(BIN)/python -m pip install --quiet --constraint constraints.txt torch numpy && \
	   $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; } > $(VENV)/setup.log 2>&1 \
	   || { tail -n 20 $(VENV)/setup.log; echo "error: setting up failed, see $(VENV)/setup.log"; exit 1; }
	@touch $(READY)
