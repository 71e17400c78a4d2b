# Every target makes .venv itself when it is missing.
PY ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: setup run test deb bench docs lint clean compiled test-compiled check-compiled

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(VENV)/bin/python || $(PY) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

run: $(STAMP)
	$(VENV)/bin/edge demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n auto

bench: $(STAMP)
	$(VENV)/bin/python -m bench
	$(VENV)/bin/python -m bench.compute

docs: $(STAMP)
	$(VENV)/bin/python tests/kit/reference.py

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

# A Debian package in dist/.
deb: $(STAMP)
	$(VENV)/bin/python deploy/debian/build.py dist

# The optional compiled build: a wheel in dist/, and the tree that it was made in, which its tests run in.
compiled: $(STAMP)
	HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 $(VENV)/bin/python -m pip wheel --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -w dist .

test-compiled: compiled
	cd build/compiled && PYTHONPATH=$(CURDIR)/build/compiled ../../$(VENV)/bin/python -m pytest -n auto $(TESTS)

# A quick look at it: without optimization, and the tests that go furthest through what is compiled.
CHECKED := data_path_attempts data_path_bodies data_path_heads http2 http2_rules tracing traps

check-compiled: $(STAMP)
	$(VENV)/bin/python deploy/compiled.py build/checked 0
	cd build/checked && PYTHONPATH=$(CURDIR)/build/checked ../../$(VENV)/bin/python -m pytest -n auto \
		tests/conformance tests/unit/http tests/unit/cache tests/unit/test_build.py \
		$(CHECKED:%=tests/integration/test_%.py)

clean:
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache
