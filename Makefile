# Two commands on a fresh machine (Python 3.11, gcc): `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

# One core per maths library: Ray and pytest run several processes side by side, and spinning
# OpenMP threads of one would starve the others.
export OMP_WAIT_POLICY ?= passive

.PHONY: demo test test-fast faults storm nightly check format setup clean

demo: setup
	rm -rf $(DEMO)
	$(BIN)/python -m training.demo.corpus $(DEMO)/corpus --planted 2
	$(BIN)/omnitrace ingest $(DEMO)/corpus/samples.jsonl $(DEMO)/input
	$(BIN)/omnitrace run configs/quickstart.yaml
	$(BIN)/python -m training.demo.show $(DEMO)/output

# Two at a time: one alone leaves a core idle while its processes start.
PYTEST := $(BIN)/pytest --numprocesses $(or $(TEST_PROCESSES),2) --dist worksteal

test: setup
	$(PYTEST) -m "not nightly"

# Under three minutes: no Ray, nothing slow.
test-fast: setup
	$(PYTEST) -m "not ray and not slow and not nightly"

# All that docs/guarantees.md names, five times over; `make faults ROUNDS=1` does it once.
faults: setup
	for round in $$(seq $(or $(ROUNDS),5)); do $(PYTEST) $$($(BIN)/python -m tests.guaranteed) || exit 1; done

# Drivers killed, stopped and doubled while input and output change; tests/pipeline/storm/__main__.py
# says what is checked. `make storm ROUNDS=20 SEED=1 STORE=s3` plays a shorter one.
STORM := $(BIN)/python -m tests.pipeline.storm
storm: setup
	$(STORM) --rounds $(or $(ROUNDS),200) --store $(or $(STORE),local) $(if $(SEED),--seed $(SEED))

# What takes too long for `make test`.
nightly: setup
	$(PYTEST) -m nightly
	$(STORM) --rounds 200
	$(STORM) --rounds 50 --store s3

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

setup: $(VENV)/installed

# The stamp is newer than what it was installed from, so a second `make` installs nothing.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out build *.egg-info
