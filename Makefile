# Every target sets itself up: .venv is made on first use (see scripts/setup.sh for choices).
.PHONY: demo test test-all attack lint loops-1 loops-2 collected format docs docs-tools clean

PYTHON := .venv/bin/python
# Two threads are slower than one on small networks when the other core is busy.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Each worker takes half of the files, then from the other: what a file sets up is made once.
WORKERS := auto
# Workers and processes of their own read what one of them has compiled.
export PYTHONDONTWRITEBYTECODE :=
MINUTES := 30

demo: .venv/ready  ## digits: train, convert, compare engines, report
	$(ONE_THREAD) .venv/bin/firstspike demo --out runs/demo

test: .venv/ready  ## lint, types, fast tests
	$(MAKE) --jobs=2 lint loops-1 loops-2 collected
	$(ONE_THREAD) $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal

test-all: .venv/ready docs-tools  ## also the long tests
	$(ONE_THREAD) HYPOTHESIS_PROFILE=long $(PYTHON) -m pytest -n $(WORKERS) --dist worksteal -m "slow or not slow"

attack: .venv/ready  ## damaged files, kills, random graphs, threads, full disks, for MINUTES
	$(ONE_THREAD) nice -n 5 $(PYTHON) tests/attack/attack.py --minutes $(MINUTES)

lint: .venv/ready
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

loops-1 loops-2: .venv/ready  ## compiled once; workers of a first test run would each compile them
	$(ONE_THREAD) $(PYTHON) scripts/compile_loops.py $(@:loops-%=%)

collected: .venv/ready  ## test modules as pytest reads them, likewise
	$(ONE_THREAD) $(PYTHON) -m pytest --collect-only --quiet --quiet

format: .venv/ready
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/ready docs-tools  ## tables and schema from stored results, then the site in site/, strictly
	$(PYTHON) scripts/render_docs.py
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

docs-tools: .venv/ready
	$(PYTHON) -c "import mkdocs, mkdocstrings, nbclient, ipykernel" 2>/dev/null || \
		$(PYTHON) -m pip --disable-pip-version-check -q install --editable ".[docs]"

.venv/ready: pyproject.toml scripts/setup.sh
	scripts/setup.sh

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache
