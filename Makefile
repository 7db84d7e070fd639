VENV ?= .venv
PYTHON ?= python3
EXPERIMENT ?= cifar10
ARGS ?=

BIN := $(abspath $(VENV))/bin
# `mlflow run --env-manager local` takes the python that is first on PATH.
export PATH := $(BIN):$(PATH)

# uv reads none of pip's configuration, such as the address of an index of one's own: make UV= takes pip.
UV := $(shell command -v uv 2>/dev/null)
ifdef UV
MAKE_VENV = uv venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL = uv pip install --python $(BIN)/python
else
MAKE_VENV = $(PYTHON) -m venv $(VENV)
INSTALL = $(BIN)/python -m pip install
endif
SIZE := $(if $(and $(UV),$(UV_TORCH_BACKEND)),,: about 6 GB, most of it torch with CUDA)

.PHONY: run test test-unit test-long mutants lint docs

# Trains the report's network on CIFAR-10: make run, or make run ARGS="-P epochs=1 -P activation=gelu".
run: $(VENV)/.installed
	@cifar-mlflow check
	@if [ -n "$$CIFAR_MLFLOW_DATA$(findstring dataset=,$(ARGS))" ] || cifar-mlflow download --timeout 10; then \
	    exec mlflow run . --env-manager local --experiment-name $(EXPERIMENT) $(ARGS); \
	else \
	    echo "CIFAR-10 cannot be had here, so this run trains on scikit-learn's DIGITS instead." >&2; \
	    mlflow run . --env-manager local --experiment-name digits --run-name digits-prelu \
	        -P dataset=digits $(ARGS) && \
	    echo "This was a run on DIGITS, not on CIFAR-10: see above for what to do."; \
	fi

# In the order of the files, in which the slow ones do not come last: by default those with few tests do. Two processes
# whose BLAS has two threads each wait for one another most of the time.
PYTEST := OPENBLAS_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.tested
	$(PYTEST) -m "not long" $(ARGS)

# What another Python could break, in two minutes: files, processes, data and figures, the Python interface, a whole
# training. Networks and the compiled functions are torch's and C's. make test-unit VENV=.venv-3.13 PYTHON=python3.13
UNIT := config tracking tuning analysis interface learning/data learning/test_checkpoint_files.py \
        learning/test_steps.py learning/test_training.py jobs/training/test_train.py
test-unit: $(VENV)/.tested
	$(PYTEST) -m "not long" $(addprefix tests/,$(UNIT)) $(ARGS)

# The same tests many times over, and those that take minutes.
test-long: $(VENV)/.tested
	$(PYTEST) -m long $(ARGS)

# Faults put in one at a time: how many do the tests of each room notice? make mutants ARGS="--room tuning".
mutants: $(VENV)/.tested
	$(INSTALL) --editable '.[mutants]'
	python tests/mutation/mutants.py $(ARGS)

# Each script in benchmarks/ by its name: make benchmark-training, or make benchmark-training ARGS=5.
benchmark-%: $(VENV)/.installed
	python $(wildcard benchmarks/*/$*.py) $(ARGS)

# The pages of docs/reference/ that say what the code says.
docs: $(VENV)/.tested
	python docs/reference/generate.py

lint: $(VENV)/.tested
	ruff check .
	ruff format --check .
	mypy

# What a run needs, by uv where it is on PATH. UV_TORCH_BACKEND=cpu has uv take torch's smaller wheels, without CUDA.
$(VENV)/.installed: pyproject.toml setup.py $(wildcard cifar_mlflow/learning/compiled/csrc/*)
	@echo "installing the project into $(VENV) with $(if $(UV),uv,pip)$(SIZE)" >&2
	@$(MAKE_VENV)
	@$(INSTALL) --editable .
	@echo "installed: $$(du -sh $(VENV) | cut -f1) in $(VENV)" >&2
	@touch $@

# What the tests need besides: the extras.
$(VENV)/.tested: $(VENV)/.installed
	@$(BIN)/python -c "import tomllib; extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; print(*extras['test'], *extras['onnx'], *extras['ray'], sep='\n')" > $(VENV)/test.txt
	@echo "installing the packages of the tests into $(VENV)" >&2
	@$(INSTALL) -r $(VENV)/test.txt
	@touch $@
