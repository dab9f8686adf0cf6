# Everything is installed into .venv of this checkout; after that the program is .venv/bin/tickcast.

PYTHON := $(firstword $(shell command -v python3.11 python3 2>/dev/null))
BIN := .venv/bin
INSTALLED := .venv/.installed
# Three at a time on two cores: most tests wait for a broker or a process. A file stays with one worker, and so does
# what it shares. In their order: files of few and long tests last would leave two workers idle.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: install demo test check compile uncompile format lock clean
.DELETE_ON_ERROR:

install: $(INSTALLED)

# Every package is pinned by its hash, those that others need too; the project itself is linked, so that changes of
# the code count at once.
$(INSTALLED): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or newer is needed: install python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "make: Python 3.11 or newer is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# make demo DEMO_ARGS="--seconds 30"
demo: $(INSTALLED)
	@exec $(BIN)/tickcast demo $(DEMO_ARGS)

# make test TEST_ARGS="-k session"
test: $(INSTALLED)
	$(PYTEST) -m "not long" $(TEST_ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m long

# The hot modules of the core as machine code, beside their sources: optional, the same bits, and it needs a C compiler.
compile: $(INSTALLED) uncompile
	$(BIN)/python -m daemon.dev.compile

uncompile:
	rm -f daemon/core/compiled.json daemon/core/*.so tickcast__mypyc.*

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

LOCK := $(BIN)/uv pip compile pyproject.toml --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command "make lock"

# Newest versions that fit pyproject.toml; the images hold parts of the same list.
lock: $(INSTALLED)
	$(LOCK) --all-extras --upgrade --output-file requirements.txt
	$(LOCK) --constraint requirements.txt --extra librdkafka --extra watch --output-file deploy/requirements-serve.txt
	$(LOCK) --constraint requirements.txt --extra tensorflow --extra librdkafka --extra parquet --extra report --extra watch \
		--output-file deploy/requirements-full.txt

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
