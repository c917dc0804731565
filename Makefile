# make run           the main job: pretrain, evaluate and export on the embedded data   (more flags: ARGS="--seed=1")
# make test          the tests                                                          (more flags: ARGS="-k losses")
# make test-slow     the tests that take minutes: faults by the thousand, long runs, exports in other TensorFlow releases
# make test-addons   the same tests with TensorFlow Addons (Python 3.10 or 3.11)
# make lint          ruff and mypy; `make format` mends what ruff can mend
# make docs          writes docs/settings.md, the table of all settings
# make clean         removes the virtual environments and the caches
#
# Each target makes the virtual environment that it needs; nothing is installed again until a requirements file changes.
# Another Python than the one that is found: make run PYTHON=/path/to/python3.12

SHELL := bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUNBUFFERED := 1

.PHONY: help run test test-slow test-addons lint format docs clean

help:
	@sed -n '/^# make/ s/^# //p' Makefile

run: .venv/run.stamp
	.venv/bin/python run.py --mode=train_then_eval $(ARGS)

test: .venv/dev.stamp
	.venv/bin/python -m pytest -q -n auto --dist loadfile $(ARGS)

test-slow: .venv/dev.stamp .venv-tf220/load.stamp
	.venv/bin/python -m pytest -q -n auto --dist load -m slow $(ARGS)

test-addons: .venv-addons/dev.stamp
	.venv-addons/bin/python -m pytest -q -n auto --dist loadfile $(ARGS)

lint: .venv/dev.stamp
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/dev.stamp
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/run.stamp
	.venv/bin/python -c 'from tf_simclr import builders, evaluation; from tf_simclr.settings import document; print(document.markdown(builders.NAMES | evaluation.NAMES), end="")' > docs/settings.md

clean:
	rm -rf .venv .venv-addons .venv-tf220 .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call make_venv,FOLDER,VERSIONS,CANDIDATES,INSTEAD): an empty virtual environment of the first candidate that starts,
# is of one of the versions, and can make virtual environments.
define make_venv
	@for candidate in $(3); do \
	  if "$$candidate" -c 'import ensurepip, sys, venv; sys.exit("%d.%d" % sys.version_info[:2] not in sys.argv)' $(2) 2>/dev/null; then \
	    echo "Making $(1) with $$("$$candidate" --version)."; \
	    exec "$$candidate" -m venv --clear --without-pip $(1); \
	  fi; \
	done; \
	echo "$(4): install one together with its venv module (on Debian and Ubuntu: python3-venv), or name yours with PYTHON=/path/to/python." >&2; \
	exit 1
endef

# $(call install,FOLDER,REQUIREMENTS): installs the files; pip's own account of it is cut to the large downloads.
define install
	@echo "Installing $(2) into $(1); the first time this takes some minutes."
	@$(1)/bin/python -m ensurepip --default-pip >/dev/null
	@set -o pipefail; $(1)/bin/python -m pip install $(addprefix -r ,$(2)) | while read -r line; do \
	  case "$$line" in \
	    "Downloading "*" MB)"* | "Using cached "*" MB)"*) echo "  $$line" ;; \
	    "Installing collected packages"*) echo "  Unpacking" ;; \
	  esac; \
	done
	@touch $@
endef

# A Python given by name is the only candidate. Without one, the newest fit one wins where the default python3 is unfit.
PYENV := $(HOME)/.pyenv/versions
MAIN_PYTHONS := $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 $(wildcard $(PYENV)/3.1[0-3].*/bin/python))
ADDONS_PYTHONS := $(or $(PYTHON),python3.11 python3.10 python3 $(wildcard $(PYENV)/3.1[01].*/bin/python))

.venv/bin/python:
	$(call make_venv,.venv,3.10 3.11 3.12 3.13,$(MAIN_PYTHONS),No Python 3.10 to 3.13 was found)

.venv-addons/bin/python:
	$(call make_venv,.venv-addons,3.10 3.11,$(ADDONS_PYTHONS),No Python 3.10 or 3.11 was found and TensorFlow Addons runs on no other)

.venv-tf220/bin/python:
	$(call make_venv,.venv-tf220,3.10 3.11 3.12 3.13,$(MAIN_PYTHONS),No Python 3.10 to 3.13 was found)

.venv/run.stamp: requirements.txt .venv/bin/python
	$(call install,.venv,requirements.txt)

.venv/dev.stamp: requirements.txt requirements-dev.txt requirements-onnx.txt requirements-index.txt .venv/run.stamp
	$(call install,.venv,requirements.txt requirements-dev.txt requirements-onnx.txt requirements-index.txt)

.venv-addons/dev.stamp: requirements-addons.txt requirements-dev.txt requirements-index.txt .venv-addons/bin/python
	$(call install,.venv-addons,requirements-addons.txt requirements-dev.txt requirements-index.txt)

.venv-tf220/load.stamp: requirements-tf220.txt .venv-tf220/bin/python
	$(call install,.venv-tf220,requirements-tf220.txt)
