# Everything sets itself up: Python >= 3.11 and pip are all that has to be there.
#   make demo    recover the example trajectories and draw them next to the truth
#   make test    the tests; MARK= runs those too that are marked slow
#   make lint    style, and which part imports which
#   make types   pyright; the number of its errors may only fall
#   make docs    the pages of docs/ as a site in build/site, with warnings as errors
# PyTorch is installed in a step of its own, so that you can choose the build for your hardware, and nothing else replaces it:
#   make demo TORCH="torch==2.11.0"        or TORCH=path/to/torch.whl
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
# setuptools explains at length, and as a warning, what an editable install is.
PIP = PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet
# Threads that wait must not spin: on a busy machine that costs more than it gains.
RUN = OMP_NUM_THREADS=$(THREADS) OMP_WAIT_POLICY=PASSIVE HF_HUB_OFFLINE=1 $(VENV)/bin/python
THREADS ?= 2
MARK ?= not slow

.PHONY: demo test lint types docs install clean

demo: $(VENV)/.demo
	$(RUN) pipelines/demo.py

# A file stays with one process, so what its tests share is made once.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --durations=10 -m "$(MARK)"

lint: $(VENV)/.test
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/lint-imports

types: $(VENV)/.test
	$(VENV)/bin/python tools/check_types.py

docs: $(VENV)/.test
	NO_MKDOCS_2_WARNING=true $(VENV)/bin/python -m mkdocs build --quiet

install: $(VENV)/.demo

$(VENV)/.torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	@touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) -e ".[dev,examples]"
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist *.egg-info outputs
