# `make demo` runs the main job, `make test` passes the tests; each sets up all it needs in .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch
# On all cores, where pip takes one. Some packages bring templates that are no Python: they are left out. So are packages' own
# tests, and models that are not imported here; what is imported of them nevertheless is compiled then.
UNUSED := /(tests|rllib)/|/transformers/models/(?!auto|cli|gemma|qwen|siglip|t5|umt5)
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '$(UNUSED)' $(VENV)/lib >/dev/null 2>&1 || true

.PHONY: demo test test-slow test-floors test-hostile test-canaries lint clean

demo: $(VENV)/.demo
	$(BIN)/treering demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder --durations 25

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

# The oldest releases that pyproject.toml admits, in an environment of their own. TORCH chooses another torch than the oldest.
FLOORS ?= .floors
TORCH ?= torch
TESTS ?= $(shell grep -v '^#' tests/floors.txt)
test-floors:
	$(PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet uv
	$(FLOORS)/bin/uv pip install --quiet --python $(FLOORS) --resolution lowest-direct \
		-e '.[dev,pipelines,formats,video,ray]' '$(TORCH)'
	PATH="$(abspath $(FLOORS))/bin:$$PATH" $(FLOORS)/bin/python -m pytest $(TESTS)

# Everything that people who mean harm could send: images, names, lists, URLs, models, folders of results. Slow forms too.
HOSTILE := tests/treering_verify/media/test_hostile.py tests/treering_verify/media/test_slow_formats.py \
  tests/treering_verify/media/isolation tests/treering_verify/audit/test_hostile_names.py \
  tests/treering_verify/audit/inputs tests/treering_verify/models/test_hostile_models.py \
  tests/treering_verify/report/audit/test_hostile_folders.py tests/treering_verify/detection/test_fitted_keys.py \
  tests/treering_verify/detection/test_recheck.py tests/treering_verify/media/test_containers.py \
  tests/treering_verify/cli/test_secrets.py

test-hostile: $(VENV)/.dev
	timeout 3600 $(BIN)/python -m pytest -m "slow or not slow" --durations 10 $(HOSTILE)

# Model folders with canaries under the oldest and the newest diffusers and transformers that pyproject.toml admits, each pair in
# an environment of its own; all other packages are those of constraints.txt. It takes some minutes.
CANARIES ?= .canaries
MODELS := tests/treering_verify/models/test_hostile_models.py tests/treering_verify/report/audit/test_hostile_folders.py
test-canaries:
	$(PYTHON) -m venv $(CANARIES)
	$(CANARIES)/bin/python -m pip install --quiet uv
	grep -viE '^(diffusers|transformers|tokenizers|huggingface)' constraints.txt > $(CANARIES)/others.txt
	set -e; for each in lowest-direct highest; do \
		$(CANARIES)/bin/uv venv --quiet --allow-existing --python $(CANARIES)/bin/python $(CANARIES)/$$each; \
		$(CANARIES)/bin/uv pip install --quiet --python $(CANARIES)/$$each --resolution $$each --upgrade \
			-c $(CANARIES)/others.txt -e '.[dev,pipelines]' torch; \
		$(CANARIES)/$$each/bin/python -c 'import diffusers, transformers; print(diffusers.__version__, transformers.__version__)'; \
		$(CANARIES)/$$each/bin/python -m pytest -m "slow or not slow" $(MODELS); \
	done

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(VENV)/.demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	$(COMPILE)
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -e '.[dev,ray]'
	$(COMPILE)
	touch $@

clean:
	rm -rf $(VENV) $(FLOORS) $(CANARIES) dist
