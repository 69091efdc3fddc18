PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RESULTS ?= results

.PHONY: help demo study notebook published sweep test test-floors faults recipes lint clean
.DEFAULT_GOAL := help

help:  ## list the targets, with the variables that they take
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 13
	@echo 'All take PYTHON=python3, by which an environment is made, and VENV=.venv, where it is; one'
	@echo 'that is there and was not made here is used as it is, and nothing is installed into it.'

demo: $(VENV)/.installed  ## all six stages on photographs that come with a package; RESULTS=results
	$(BIN)/python 01_download_stl10.py --results $(RESULTS) --dataset photos
	$(BIN)/python 02_embed_resnet50.py --results $(RESULTS) --model efficientnet_lite0
	@$(MAKE) --no-print-directory measure

study: $(VENV)/.installed  ## all six stages on STL-10 with ResNet-50 (2.6 GB to download); RESULTS=results
	$(BIN)/python 01_download_stl10.py --results $(RESULTS)
	$(BIN)/python 02_embed_resnet50.py --results $(RESULTS)
	@$(MAKE) --no-print-directory measure

.PHONY: measure
measure:
	$(BIN)/python 03_exact_knn.py --results $(RESULTS)
	$(BIN)/python 04_hnsw_search.py --results $(RESULTS)
	$(BIN)/python 05_metrics.py --results $(RESULTS)
	$(BIN)/python 06_plots.py --results $(RESULTS)

notebook: $(VENV)/.installed  ## after demo or study, 03 to 06 by the notebook's protocol, beside its curve; RESULTS=results
	mkdir -p results-notebook
	cp $(wildcard $(RESULTS)/01_images.*) $(RESULTS)/02_*.* results-notebook/
	$(BIN)/python 03_exact_knn.py --results results-notebook --protocol notebook
	$(BIN)/python 04_hnsw_search.py --results results-notebook --runs faiss:50
	$(BIN)/python 05_metrics.py --results results-notebook
	$(BIN)/python 06_plots.py --results results-notebook

QUERIES ?= all
DENSE := ef_construction=400

published: $(VENV)/.installed  ## after demo or study, the paper's three experiments beside its curves (about 15 minutes); RESULTS=results QUERIES=all
	@echo 'thirteen runs up to k = 500: about 15 minutes on two cores, 3 with QUERIES=1000'
	mkdir -p results-published
	ln -f $(wildcard $(RESULTS)/01_images.*) $(RESULTS)/02_*.* results-published/
	$(BIN)/python 03_exact_knn.py --results results-published --protocol paper --k-max 500 \
	    --queries $(QUERIES)
	$(BIN)/python 04_hnsw_search.py --results results-published --runs \
	    faiss:25 faiss:50 faiss:75 faiss:100 \
	    faiss:50,ef_construction=50 faiss:50,ef_construction=100 faiss:50,ef_construction=300 \
	    faiss:50,$(DENSE) faiss:0.25k,$(DENSE) faiss:0.5k,$(DENSE) faiss:k,$(DENSE) \
	    faiss:2k,$(DENSE) faiss:4k,$(DENSE)
	$(BIN)/python 04_hnsw_search.py --results results-published --k 100 --runs \
	    faiss:50,ef_construction=63 faiss:50,ef_construction=64
	$(BIN)/python 05_metrics.py --results results-published
	$(BIN)/python 06_plots.py --results results-published

SERIES := 10..800

sweep: $(VENV)/.installed-backends  ## after demo or study, ten efSearch each of FAISS, hnswlib and usearch (a few minutes); RESULTS=results QUERIES=all
	mkdir -p results-sweep
	ln -f $(wildcard $(RESULTS)/01_images.*) $(RESULTS)/02_*.* results-sweep/
	$(BIN)/python 03_exact_knn.py --results results-sweep --queries $(QUERIES)
	$(BIN)/python 04_hnsw_search.py --results results-sweep --k 10 50 100 250 \
	    --runs faiss:$(SERIES) hnswlib:$(SERIES) usearch:$(SERIES)
	$(BIN)/python 05_metrics.py --results results-sweep
	$(BIN)/python 06_plots.py --results results-sweep

test: $(VENV)/.installed-dev  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# An environment of its own, with Python 3.11 and the oldest versions that the vector stages take.
FLOORS := .venv-floors
PYTHON311 ?= python3.11
# These need networks, images, a browser, a cluster, or packages of the newest versions, or quote what
# an approximate index of these returns.
NOT_VECTORS := backbones benchmarks dask_workers download embedding example faults images imports memory \
    package page pgvector postgres startup
VECTOR_TESTS = $(filter-out $(NOT_VECTORS:%=tests/test_%.py),$(wildcard tests/test_*.py))

test-floors: $(FLOORS)/.installed  ## the tests of the vector stages with the oldest versions of their packages; PYTHON311=python3.11
	$(FLOORS)/bin/python -m pytest -q -n 2 --dist loadfile $(VECTOR_TESTS)

$(FLOORS)/.installed: requirements-floors.txt
	$(PYTHON311) -m venv $(FLOORS)
	$(FLOORS)/bin/python -m pip install --quiet -r requirements-floors.txt
	@touch $@

TRIES ?= 12
SEED ?= 0

faults: $(VENV)/.installed  ## kill, fill, damage, ... every stage, TRIES times each, and print the table; TRIES=12 SEED=0
	$(BIN)/python -m tests.faults --tries $(TRIES) --seed $(SEED)

WITH ?= $(BIN)/python

recipes: $(VENV)/.installed  ## lists of the libraries of docs/recipes.md, beside the exact ones in RESULTS=results; WITH=PYTHON that has them
	$(BIN)/python benchmarks/recipes.py --results $(RESULTS) --python $(WITH)

lint: $(VENV)/.installed-dev  ## ruff check and ruff format --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove the results that the stages wrote, not what else lies there, nor the data
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m drift.pipeline.clean "$(RESULTS)" results-notebook \
	    results-published results-sweep

# What an environment that somebody else has made lacks of some requirements files.
define MISSING
import importlib.metadata as installed, pathlib, re, sys
def numbers(version): return [int(part) for part in re.findall(r"\d+", version)]
def lacks(name, floor):
    try: return numbers(installed.version(name)) < numbers(floor)
    except installed.PackageNotFoundError: return True
if sys.version_info < (3, 11, 4): sys.exit("$(VENV) needs Python 3.11.4 or later, and has " + sys.version.split()[0])
lines = [line for file in sys.argv[1:] for line in pathlib.Path(file).read_text().splitlines()]
wanted = filter(None, (re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line) for line in lines))
missing = [match[0] for match in wanted if lacks(*match.groups())]
sys.exit("$(VENV) was not made here, and lacks " + ", ".join(missing) + ": install that, or name another VENV" if missing else 0)
endef
export MISSING

$(VENV)/.installed: requirements.txt requirements-vectors.txt requirements-leiden.txt
	@if [ -e $(BIN)/python ] && [ ! -e $(VENV)/.made ] && [ ! -e $@ ]; then \
	    $(BIN)/python -c "$$MISSING" requirements.txt requirements-vectors.txt; \
	else \
	    $(PYTHON) -c 'import drift.pipeline' && $(PYTHON) -m venv $(VENV) && touch $(VENV)/.made && \
	    $(BIN)/python -m pip install --quiet -r requirements.txt -r requirements-leiden.txt && touch $@; \
	fi

BACKENDS := requirements-backends.txt
DEV := requirements-dev.txt requirements-cluster.txt $(BACKENDS)

$(VENV)/.installed-backends: $(BACKENDS) $(VENV)/.installed
$(VENV)/.installed-dev: $(DEV) $(VENV)/.installed
$(VENV)/.installed-%:
	@if [ -e $(VENV)/.installed ]; then \
	    $(BIN)/python -m pip install --quiet -r requirements-$*.txt && touch $@; \
	else \
	    $(BIN)/python -c "$$MISSING" $(filter requirements-%,$^); \
	fi
