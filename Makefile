PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RESULTS ?= results

.PHONY: help demo study notebook published test faults lint clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

demo: $(VENV)/.installed  ## all six stages on photographs that come with a package
	$(BIN)/python 01_download_stl10.py --results $(RESULTS) --dataset photos
	$(BIN)/python 02_embed_resnet50.py --results $(RESULTS) --model efficientnet_lite0
	@$(MAKE) --no-print-directory measure

study: $(VENV)/.installed  ## all six stages on STL-10 with ResNet-50 (2.6 GB to download)
	$(BIN)/python 01_download_stl10.py --results $(RESULTS)
	$(BIN)/python 02_embed_resnet50.py --results $(RESULTS)
	@$(MAKE) --no-print-directory measure

.PHONY: measure
measure:
	$(BIN)/python 03_exact_knn.py --results $(RESULTS)
	$(BIN)/python 04_hnsw_search.py --results $(RESULTS)
	$(BIN)/python 05_metrics.py --results $(RESULTS)
	$(BIN)/python 06_plots.py --results $(RESULTS)

notebook: $(VENV)/.installed  ## stages 03 to 06 by the notebook's protocol, beside its published curve
	mkdir -p results-notebook
	cp $(wildcard $(RESULTS)/01_images.*) $(RESULTS)/02_*.* results-notebook/
	$(BIN)/python 03_exact_knn.py --results results-notebook --protocol notebook
	$(BIN)/python 04_hnsw_search.py --results results-notebook --runs faiss:50
	$(BIN)/python 05_metrics.py --results results-notebook
	$(BIN)/python 06_plots.py --results results-notebook

QUERIES ?= all
DENSE := ef_construction=400

published: $(VENV)/.installed  ## the paper's three experiments on the embeddings in $(RESULTS), beside its curves
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

test: $(VENV)/.installed-dev  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

TRIES ?= 12
SEED ?= 0

faults: $(VENV)/.installed  ## kill, fill, damage, ... every stage, TRIES times each, and print the table
	$(BIN)/python -m tests.faults --tries $(TRIES) --seed $(SEED)

lint: $(VENV)/.installed-dev  ## ruff check and ruff format --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:  ## remove the results, not the virtual environment and not the data
	find $(RESULTS) -mindepth 1 -not -name README.md -delete

$(VENV)/.installed: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(wildcard requirements-*.txt) $(VENV)/.installed
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	@touch $@
