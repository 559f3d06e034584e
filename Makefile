# Everything runs in .venv, which the first target that needs it creates: see `make help`.

PYTHON ?= python3
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/installed

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run test check clean moved

help: ## Print this help
	@echo "make TARGET [ARGS=...] [PYTHON=python3]"
	@sed -n 's/^\([a-z]*\):.*## /  \1|/p' Makefile | while IFS='|' read -r t d; do printf '%-8s %s\n' "$$t" "$$d"; done

run: $(STAMP) ## Train offline on OGBench; flags in ARGS, such as ARGS=--help
	@$(PY) experiments/offline_ogbench.py $(ARGS)

test: $(STAMP) ## Run the tests; pytest's options in ARGS, such as ARGS="-m thorough"
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(STAMP) ## Lint, check the formatting, check the types
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check || { echo "Fix it with: $(PY) -m ruff format" >&2; exit 1; }
	@$(PY) -m basedpyright

clean: ## Remove .venv and every cache; keep runs and data
	@rm -rf $(VENV) build dist .hypothesis .pytest_cache .ruff_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp holds the folder that .venv was made for: in a copied or moved tree, install again, since
# the installed crlx would still be that of the old folder. So also where its Python has gone.
ifneq ($(shell $(PY) -c "" 2>/dev/null && cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): moved
endif

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import sys; print(sys.version.split()[0])' 2>/dev/null || echo missing); \
	  echo "crlx needs Python 3.11 to 3.13, but $(PYTHON) is $$found." >&2; \
	  echo "Name another one, as in: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module. On Debian or Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@rm -f $(STAMP)
	@echo "Installing into $(VENV): about 2 GB, one to five minutes the first time ..."
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PY) -m pip install --quiet --no-deps -r requirements.lock
	@$(PY) -m pip install --quiet --no-deps -e .
	@echo "$(CURDIR)" > $(STAMP)
