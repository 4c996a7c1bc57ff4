# make demo | init | inspect | dev | test | scale-test | check | docs | bench | soak | tables | clean   (README: what each one does)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench
SCALE_STAMP := $(VENV)/.installed-scale
SPARK_STAMP := $(VENV)/.installed-spark
# A machine without a GPU saves gigabytes with TORCH_INDEX=<URL of PyTorch's CPU wheel index>
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

DATASET ?=
DATA_DIR ?=
CONFIG ?=
PRESET ?=
PORT ?= 3000
DATA ?=
export ONEREC_DATA := $(DATA)
export ONEREC_DATASET := $(DATASET)
export ONEREC_DATA_DIR := $(DATA_DIR)
export ONEREC_CONFIG := $(CONFIG)
export ONEREC_PRESET := $(PRESET)
# Threads that wait give their core away: two steps at once, or anything else on the machine, else
# slow one another several times over
export OMP_WAIT_POLICY ?= PASSIVE
# No step of ours may ask a model hub, or tell anyone that it ran
export HF_HUB_OFFLINE := 1
export DAGSTER_DISABLE_TELEMETRY := 1
export DBT_SEND_ANONYMOUS_USAGE_STATS := false
export GX_ANALYTICS_ENABLED := false

.PHONY: setup demo init inspect dev test scale-test check docs bench soak tables format clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another with PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) from pinned constraints (a minute or two) ..."
	$(PIP_INSTALL) torch
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@

demo: $(STAMP)
	@$(BIN)/python -m onerec_dagster.demo

# A YAML file for one's own data, proposed from its files: make init DATA=directory
init: $(STAMP)
	@$(BIN)/python -m onerec_dagster.init

# What is in one's own log, before anything is trained: make inspect CONFIG=my_data.yaml
inspect: $(STAMP)
	@$(BIN)/python -m onerec_dagster.inspect

dev: $(STAMP)
	@$(BIN)/python -m onerec_dagster.dev --port $(PORT)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

$(SCALE_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[ray]"
	@touch $@

$(SPARK_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[spark-local]"
	@touch $@

# The engines past one machine, on this one (docs/scaling.md): two Ray workers, two gloo processes and,
# without SHORT=1, Spark behind its Thrift server (skipped where there is no Java)
scale-test: $(SCALE_STAMP) $(if $(SHORT),,$(SPARK_STAMP))
	$(if $(SHORT),,SCALE_TEST=1) $(BIN)/python -m pytest -q -rs tests/core/test_shards.py \
		tests/core/test_stages_in_shards.py $(if $(SHORT),-k "not text_vectors",\
		tests/core/training/test_distributed.py tests/core/training/test_large_in_shards.py)
	$(if $(SHORT),,$(BIN)/python -m pytest -q -rs tests/sql/test_spark.py tests/sql/test_session_sql.py \
		tests/end_to_end/test_nights.py -k spark)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint dbt_sessions --config dbt_sessions/.sqlfluff
	scratch=$$(mktemp -d) && $(BIN)/dbt parse --quiet --project-dir dbt_sessions \
		--profiles-dir dbt_sessions --target-path $$scratch --log-path $$scratch && rm -r $$scratch
	$(BIN)/python -m resources.settings_page --check
	$(BIN)/zensical build --clean --strict
	@! grep -rnE '<(script|link|img|iframe)[^>]+(src|href)="(https?:)?//' site || \
		(echo "a page of the docs loads something from another host"; exit 1)

# The docs as a site in site/, after writing docs/settings.md from the dataclasses
docs: $(STAMP)
	$(BIN)/python -m resources.settings_page
	$(BIN)/zensical build --clean --strict

$(BENCH_STAMP): $(STAMP)
	$(PIP_INSTALL) -e ".[bench]"
	@touch $@

# The sections of benchmarks/, or some of them: make bench SECTIONS="tokenizer generation"
bench: $(BENCH_STAMP)
	@$(BIN)/python -m benchmarks $(SECTIONS)

# A month of nightly runs with incidents, checked after each; goes on where it ended
soak: $(STAMP)
	@$(BIN)/python -m soak $(if $(NIGHTS),--nights $(NIGHTS))

# The result tables of docs/results.md, or some of them: make tables TABLES="alignment ablation_training"
tables: $(STAMP)
	@$(BIN)/python -m experiments.make_tables $(TABLES) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(QUICK),--quick)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/sqlfluff fix dbt_sessions --config dbt_sessions/.sqlfluff

clean:
	rm -rf .onerec site .cache dbt_sessions/target dbt_sessions/logs
