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
	$(PYTEST) -m "not ray and not slow"

# All that docs/guarantees.md names, five times over; `make faults ROUNDS=1` does it once.
FAULTS := tests/core/media/isolation/test_isolated_decoder.py \
	tests/core/media/isolation/test_node_faults.py \
	tests/core/media/isolation/test_child_cleanup.py \
	tests/core/access/test_store_rules.py \
	tests/core/media/fetching/test_gate.py \
	tests/pipeline/test_secrets.py \
	tests/pipeline/test_bad_media.py \
	tests/pipeline/test_faults_driver.py \
	tests/pipeline/test_faults_workers.py \
	tests/pipeline/test_node_faults.py \
	tests/pipeline/storage/test_conditional_writes.py \
	tests/pipeline/storage/test_store_faults.py \
	tests/pipeline/run_folder/test_lease.py \
	tests/pipeline/test_ray_job.py \
	tests/pipeline/driver/test_run.py \
	tests/pipeline/driver/test_capacity_watch.py \
	tests/pipeline/driver/test_crashes.py \
	tests/pipeline/driver/test_ends.py \
	tests/pipeline/driver/test_changed_inputs.py \
	tests/pipeline/driver/test_run_lease.py \
	tests/pipeline/driver/test_damaged_input.py \
	tests/pipeline/driver/test_present_input.py \
	tests/pipeline/driver/test_schedules.py \
	tests/pipeline/recuration/test_changed_source.py \
	tests/pipeline/run_folder/checks/test_damaged_shards.py \
	tests/pipeline/run_folder/checks/test_final_check.py \
	tests/pipeline/run_folder/checks/test_linked_folders.py \
	tests/pipeline/run_folder/test_stored_shard.py \
	tests/pipeline/storage/test_locks.py \
	tests/pipeline/cluster/test_loss_watch.py \
	tests/pipeline/cluster/test_start_local.py \
	tests/pipeline/run_folder/test_totals.py \
	tests/pipeline/retrying/test_retry.py \
	tests/pipeline/retrying/test_retry_run.py \
	tests/pipeline/commands/test_ingest.py \
	tests/pipeline/test_cli.py \
	tests/core/runtime/test_node_faults.py \
	tests/pipeline/test_s3_run.py \
	tests/pipeline/test_absurd_settings.py \
	tests/pipeline/test_settings_yaml.py \
	tests/pipeline/planning/test_input_shards.py \
	tests/pipeline/planning/test_media_stores.py \
	tests/pipeline/planning/test_shard_names.py \
	tests/pipeline/commands/test_input_names.py \
	tests/stages/arrow/test_input_columns.py \
	tests/stages/arrow/test_parquet_reader.py \
	tests/stages/arrow/test_plain_types.py \
	tests/pipeline/storm/test_storm.py \
	tests/stages/guards/test_attempts.py \
	tests/stages/guards/test_node_guard.py \
	tests/stages/test_chunk_speech.py \
	tests/stages/test_full_addresses.py \
	tests/pipeline/recuration/test_positions.py \
	tests/pipeline/recuration/test_recurate_run.py \
	tests/stages/test_decode_media.py \
	tests/stages/test_trace_decode.py
faults: setup
	for round in $$(seq $(or $(ROUNDS),5)); do $(PYTEST) $(FAULTS) || exit 1; done

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
