# GNU make 3.81 and BSD tools suffice. Every verb but `help`, `images` and `clean` brings the environment up to date first.
SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: setup demo test test-fast check readme images pins clean help mutants

BIN := .venv/bin
# DVC starts `python -m components.NAME`, which has to be the Python of .venv
HERE = PATH="$(CURDIR)/$(BIN):$$PATH"

setup: ## make .venv (PYTHON=python3.12, TORCH=auto|cpu|cu130|pypi); nothing to do when it is up to date
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' sh ./setup.sh
	@test -f hardware.yaml || $(BIN)/gradworks cells >/dev/null

demo: setup ## run the default benchmark and say what it found; goes on where it was stopped
	@$(HERE) $(BIN)/gradworks run

# one worker more than two cores: much of the time goes into waiting for servers and containers
# bytecode is kept, also where the environment switches it off: reading the tests takes 11 s with it and 17 s without
PYTEST = $(HERE) PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder

test: setup ## run the tests (ARGS='-k dotprod' chooses some, WORKERS=4 uses more cores)
	@$(PYTEST) $(ARGS)

test-fast: setup ## run the tests while editing: no containers, browser or whole pipeline
	@$(PYTEST) -m 'not slow' $(ARGS)

mutants: setup ## plant known defects in a copy of the tree: each must turn its test red
	@$(HERE) $(BIN)/python -m tests.mutants $(ARGS)

YAML = git ls-files -z -- '*.yaml' '*.yml' | xargs -0
check: setup ## lint Python, YAML, the Dockerfile, the workflow and the citation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(YAML) $(BIN)/yamllint --strict
	$(BIN)/hadolint images/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

readme: setup ## write the tables of README.md from report/results.json
	@$(BIN)/gradworks readme

# The code comes with each run, so an image holds the environment only; its tag says which. PIP_FIND_LINKS may be a
# folder, which a build does not see: only an address is handed on.
PREFIX = $(if $(REGISTRY),$(REGISTRY:/=)/)
images: ## build the images of the stages (KIND=cpu|gpu, PLATFORM=linux/amd64, REGISTRY=host/name, PUSH=1, TORCH=...)
	@docker info >/dev/null 2>&1 || { echo 'images: a running Docker engine is needed (`docker info` fails)' >&2; exit 1; }
	@case '$(PUSH):$(REGISTRY)' in ?*:) echo 'images: PUSH=1 needs a REGISTRY=host/name to push to' >&2; exit 1;; esac
	@set -e; case "$${PIP_FIND_LINKS-}" in http*) ;; *) unset PIP_FIND_LINKS;; esac; \
	for kind in $(or $(KIND),cpu gpu); do \
	  digest=$$( (echo $$kind; cat constraints.txt images/Dockerfile) | git hash-object --stdin | cut -c1-12); \
	  tag=$(PREFIX)gradworks-$$kind:$$digest; echo "images: $$tag"; \
	  tar -cf - pyproject.toml constraints.txt images/Dockerfile | \
	  docker build $(if $(PLATFORM),--platform $(PLATFORM)) $(if $(TORCH),--build-arg TORCH=$(TORCH)) $(DOCKER_ARGS) \
	    --build-arg PIP_INDEX_URL --build-arg PIP_FIND_LINKS --build-arg KIND=$$kind --build-arg DIGEST=$$digest \
	    -f images/Dockerfile -t $$tag -; \
	  $(if $(PUSH),docker push $$tag;) done

# without this machine's wheels and pip.conf, so that the pins hold everywhere
pins: setup ## resolve constraints.txt again and write versions.json from it (ARGS=--upgrade takes newer versions)
	@env -u PIP_FIND_LINKS -u UV_FIND_LINKS PIP_CONFIG_FILE=/dev/null UV_SYSTEM_CERTS=1 UV_PYTHON_DOWNLOADS=never \
	  $(BIN)/uv pip compile pyproject.toml --all-extras --universal --fork-strategy fewest --python-version 3.11 \
	  --no-annotate --no-header --quiet -o constraints.txt $(ARGS)
	@$(BIN)/python -c 'import pathlib; from gradworks.base.artifacts import write_json; \
	  pins = dict(line.split(" ;")[0].split("==") for line in pathlib.Path("constraints.txt").read_text().splitlines()); \
	  write_json(pathlib.Path("versions.json"), {name: pins[name] for name in ("torch", "transformers", "tokenizers")})'

clean: ## remove .venv and caches; runs/, data/ and checkpoints stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./data -prune -o -path ./runs -prune -o -name __pycache__ -prune -exec rm -rf {} +

help: ## this list
	@echo 'make VERB [NAME=value ...]'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{ printf "  %-9s %s\n", $$1, substr($$0, length($$1) + 2) }'
