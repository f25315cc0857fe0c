# The two commands of the README do all of their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
OUT ?= demo-out
BUNDLE := models/bundles/hybrid-cifar10.bundle
CLIP := camera_demo/clips/highway_1280x720_25fps.mp4
# The cars that a detector found on the clip (docs/objects.md); sky and road, which must never be used, stay where they are.
SKY_AND_ROAD := --roi sky=700,20,160,130 --roi road=560,500,160,130
OBJECTS := --objects $(CLIP:.mp4=.boxes.jsonl) --label-map $(CLIP:.mp4=.labels.json) $(SKY_AND_ROAD)
REGIONS := --roi black-car=795,385,160,130 --roi white-car=1000,370,270,160 $(SKY_AND_ROAD)
WHERE := $(OBJECTS)

SUITE ?= quick
FOREIGN = $(foreach path,$(GTSRB) $(PHOTOS),--ood $(path))

.PHONY: help demo demo-faults demo-regions demo-page test test-fast test-all check lint types docs wheel bench results tables evaluation attacks dense-signs faults drift kernels pycuda gpu gpu-pack kernel-model clean

help:
	@echo "make demo         follow the cars of a dash-camera clip, a verdict for each (sets everything up itself, no torch)"
	@echo "make demo-faults  the same with corrupted frames"
	@echo "make demo-regions the same with four regions that stay where they are"
	@echo "make demo-page    the same live in a browser, with faults on buttons (docs/demo.md)"
	@echo "make test         run the tests (sets everything up itself)"
	@echo "make test-fast    of every folder what is quick, and three cases of a test that has many"
	@echo "make test-all     also sanitizers, fuzzing, several processes and machines, more repetitions; before a release"
	@echo "make check        what CI runs: lint, types, the site, tests"
	@echo "make docs         build the site from docs/ and the docstrings"
	@echo "make wheel        build sdist and wheel, install the wheel outside the checkout and run the main job there"
	@echo "make bench        measure latency, start-up and memory on this machine"
	@echo "make tables       fill the tables of README and docs from the committed records"
	@echo "make evaluation   attack and judge every shipped bundle; needs CIFAR10=, GTSRB= and ADRENAL=, paths of the data"
	@echo "make dense-signs  train and export an example of a segmentation network; needs GTSRB=, the path of the data; PHOTOS= a folder of pictures"
	@echo "make attacks      what attacks of many kinds get past each bundle, its gate and its certificate; needs CIFAR10= and GTSRB=; ATTACKED=500 and ADAPTIVE=60 frames"
	@echo "make faults       what every injected fault does to the verdicts, also on their way to driving logic, and what the camera check costs"
	@echo "make drift        simulate the drift alarm: frames to a false alarm, frames to a true one"
	@echo "make kernels      compile the CUDA kernels for every architecture; needs nvcc, no GPU"
	@echo "make gpu          on a machine with an NVIDIA GPU: tests, memory checks and measurements"
	@echo "make gpu-pack     a folder with all of that, for a machine with a GPU and no network; needs nvcc, no GPU"
	@echo "make kernel-model what the kernels' machine code lets expect of GPUs; needs nvcc and cuobjdump, no GPU"
	@echo "make pycuda       build a PyCUDA wheel and try it over a stub of the driver; needs a CUDA toolkit, no driver"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "framegate needs Python 3.10 or newer, $(PYTHON) is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# What the vehicle needs, and no more.
$(VENV)/.runtime: pyproject.toml setup.py constraints.txt $(wildcard runtime/*/*.c runtime/*/*.h runtime/handover/c/*) | $(VENV)/bin/python
	@command -v cc gcc clang >/dev/null || echo "no C compiler: the camera check runs in NumPy, which takes longer"
	@echo "installing the runtime (about 150 MB) ..."
	$(PIP) install -c constraints.txt -e .
	@touch $@

# What the page of the live demo needs on top: three small packages.
$(VENV)/.page: pyproject.toml constraints.txt | $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

# Training, export and the test tools on top.
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.runtime
	@echo "installing torch and the test tools ..."
	$(PIP) install -c constraints.txt -e '.[evaluate,test,dev]'
	@touch $@

demo: $(VENV)/.runtime
	$(run_demo)

demo-faults: OUT := $(OUT)/faults
demo-faults: FAULTS := --inject black:12-14,stuck:16-18,torn:20-22,saturated:24-26,half:28-30,size:32-33
demo-faults: $(VENV)/.runtime
	$(run_demo)

demo-regions: OUT := $(OUT)/regions
demo-regions: WHERE := $(REGIONS)
demo-regions: $(VENV)/.runtime
	$(run_demo)

define run_demo
@mkdir -p $(OUT)
$(BIN)/framegate run $(CLIP) --bundle $(BUNDLE) --precision int8 $(WHERE) $(FAULTS) --jsonl $(OUT)/verdicts.jsonl --video $(OUT)/annotated.mp4
@echo "verdicts: $(OUT)/verdicts.jsonl   annotated video: $(OUT)/annotated.mp4"
endef

# DEMO= is what follows `framegate demo`, e.g. make demo-page DEMO='0 --bundle models/bundles/hybrid-cifar10.bundle'
demo-page: $(VENV)/.page
	$(BIN)/framegate demo $(DEMO) || [ $$? -eq 130 ]

# tests/helpers/parallel_run.py says how many workers; eight at most, because each holds torch and OpenVINO in memory.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# What the tests of the page look for faults of accessibility with; without npm they leave that out, and say so.
AXE := axe-core@4.14.1

$(VENV)/.axe: | $(VENV)/.dev
	@if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --ignore-scripts --prefix $(VENV)/axe $(AXE) && touch $@ || echo "axe-core could not be had: its tests are left out"; else echo "no npm: axe-core is left out"; fi

test: $(VENV)/.dev $(VENV)/.axe
	$(PYTEST) -m "not long"

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow and not long"

test-all: $(VENV)/.dev $(VENV)/.axe
	$(PYTEST)

# The last one: who may import whom (pyproject.toml).
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	MYPYPATH=src $(BIN)/mypy -p framegate

# Types and the site take a minute each and one core each, so they go beside each other; what they need is installed before.
check: $(VENV)/.dev $(VENV)/.docs
	$(MAKE) -j2 lint types docs
	$(MAKE) test

# What the site is built with: about 30 small packages.
$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

# Warnings are errors (mkdocs.yml). The theme's notice about its successor is none, and would be printed every time.
SITE ?= site

.PHONY: docs

docs: $(VENV)/.docs
	$(BIN)/python docs/tools/site.py build/site-sources
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean --site-dir $(abspath $(SITE))
	@echo "site: $(SITE)/index.html"

$(VENV)/.release: pyproject.toml constraints.txt | $(VENV)/.runtime
	$(PIP) install -c constraints.txt -e '.[release]'
	@touch $@

# PYTHONS= are the interpreters that the wheel is tried with. The compiled part asks for no more than glibc 2.17.
PYTHONS ?= $(BIN)/python
PLATFORM ?= manylinux_2_17_$(shell uname -m)

# The wheel is built from the sdist, so both are known to be complete. Each is checked as an index would.
wheel: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build
	PATH="$(abspath $(BIN)):$$PATH" auditwheel repair --strip --only-plat --plat $(PLATFORM) --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python .ci/try_wheel.py dist/*.whl --python $(PYTHONS)

# A quarter of an hour on a quiet machine; as root, or the record says that there was no SCHED_FIFO.
FRAMES ?= 10000
PACED_FRAMES ?= 3000
RIVAL_FRAMES ?= 2000

bench: $(VENV)/.dev
	$(BIN)/framegate bench $(BUNDLE) --source $(CLIP) --frames $(FRAMES) --out benchmarks/results/cpu-latency.json
	$(BIN)/framegate bench $(BUNDLE) --source $(CLIP) --pace 30 --streams 4 --frames $(PACED_FRAMES) --realtime block --out benchmarks/results/latency-streams.json
	$(BIN)/framegate bench $(BUNDLE) --source $(CLIP) --pace 60 --frames $(PACED_FRAMES) --load --realtime block --out benchmarks/results/latency-scenarios.json
	$(BIN)/python -m framegate.benchmarks.latency.against_rivals --bundle $(BUNDLE) --frames $(RIVAL_FRAMES) --bundles 500 --out benchmarks/results/latency-rivals.json --png docs/latency.png
	$(BIN)/python -m framegate.benchmarks.latency.gate_cost --frames $(FRAMES) --out benchmarks/results/gate-cost.json
	$(BIN)/python -m framegate.benchmarks.cost.monitor --out benchmarks/results/monitor-latency.json
	$(BIN)/python -m framegate.benchmarks.cost.health --out benchmarks/results/health-latency.json
	$(BIN)/python -m framegate.benchmarks.cost.fail_closed_time --out benchmarks/results/fail-closed-time.json
	$(BIN)/python -m framegate.benchmarks.cost.threads --out benchmarks/results/engine-threads.json
	$(BIN)/python -m framegate.benchmarks.cost.page --frames 1500 --out benchmarks/results/page-latency.json
	$(BIN)/python -m framegate.benchmarks.tables

# Every figure of the README comes from these files.
results: bench
	$(BIN)/framegate run $(CLIP) --bundle $(BUNDLE) --precision int8 $(REGIONS) --json > benchmarks/results/demo.json
	$(BIN)/framegate run $(CLIP) --bundle $(BUNDLE) --precision int8 $(OBJECTS) --json > benchmarks/results/demo-objects.json
	$(BIN)/python -m framegate.benchmarks.tables

# From the committed records; nothing is measured.
tables: $(VENV)/.dev
	$(BIN)/python -m framegate.benchmarks.tables

# Long; an interrupted run goes on where it stopped. PHOTOS=, a folder of pictures, is optional.
evaluation: $(VENV)/.dev
	@test -n "$(CIFAR10)" -a -n "$(GTSRB)" -a -n "$(ADRENAL)" || \
	  { echo "make evaluation: give CIFAR10=, GTSRB= and ADRENAL=, the paths of the data sets"; exit 2; }
	$(foreach name,simplecnn mobilenet hybrid simplecnn-robust resnet20-robust,$(call evaluate,$(name)-cifar10,$(CIFAR10),$(FOREIGN)))
	$(foreach name,hybrid resnet20,$(call evaluate,$(name)-gtsrb,$(GTSRB),$(foreach path,$(CIFAR10) $(PHOTOS),--ood $(path))))
	$(call evaluate,hybrid3d-adrenalmnist3d,$(ADRENAL),,--limit 100)
	$(BIN)/python -m framegate.benchmarks.tables

define evaluate
$(BIN)/framegate evaluate models/bundles/$(1).bundle --data $(2) $(3) --suite $(SUITE)
@mkdir -p benchmarks/results/evaluation
xz -9ec runs/evaluation-$(1)-$(SUITE)/results.json > benchmarks/results/evaluation/$(1).json.xz
@mkdir -p benchmarks/results/gate
@mkdir -p runs/gate
$(BIN)/framegate gate models/bundles/$(1).bundle --data $(2) $(3) $(4) --out runs/gate/$(1).json
xz -9ec runs/gate/$(1).json > benchmarks/results/gate/$(1).json.xz

endef

# What attacks of many kinds make of each image bundle, without and with its gate and certificate: minutes for a small
# network, hours for the hybrids on two cores. Rows are kept in runs/attacks: the same command goes on after an
# interruption, and what is finished there is not measured again (remove the folder to start anew). ATTACKED= ADAPTIVE= AUTO= for fewer frames.
ATTACKED ?= 500
ADAPTIVE ?= 60
AUTO ?= 200
attacks: $(VENV)/.dev
	@test -n "$(CIFAR10)" -a -n "$(GTSRB)" || { echo "make attacks: give CIFAR10= and GTSRB=, the paths of the data sets"; exit 2; }
	@mkdir -p runs/attacks benchmarks/results/attacks
	$(call attack,simplecnn-cifar10,$(CIFAR10),--transfer models/bundles/mobilenet-cifar10.bundle)
	$(foreach name,simplecnn-robust mobilenet,$(call attack,$(name)-cifar10,$(CIFAR10),--transfer models/bundles/simplecnn-cifar10.bundle))
	$(call attack,resnet20-robust-cifar10,$(CIFAR10),--auto $(AUTO) --transfer models/bundles/simplecnn-cifar10.bundle)
	$(call attack,hybrid-cifar10,$(CIFAR10),--transfer models/bundles/simplecnn-cifar10.bundle --require-certificate patch:5)
	$(call attack,hybrid-gtsrb,$(GTSRB),--require-certificate linf:2/255)
	$(call attack,resnet20-gtsrb,$(GTSRB),--require-certificate patch:5)
	$(BIN)/python -m framegate.benchmarks.tables

# Exit code 1: measured, and a health check failed; the record says which, and so does the table.
define attack
$(BIN)/framegate attacks models/bundles/$(1).bundle --data $(2) --frames $(ATTACKED) --adaptive $(ADAPTIVE) $(3) --out runs/attacks/$(1).json || test $$? = 1
cp runs/attacks/$(1).json benchmarks/results/attacks/$(1).json

endef

# An example of a segmentation network (docs/segmentation.md): about half an hour.
dense-signs: $(VENV)/.dev
	@test -n "$(GTSRB)" || { echo "make dense-signs: give GTSRB=, the path of the data set"; exit 2; }
	$(BIN)/python -m framegate.models.dense_signs --gtsrb $(GTSRB) $(if $(PHOTOS),--photos $(PHOTOS)) --out runs/dense-signs
	$(BIN)/framegate export runs/dense-signs/dense-signs.onnx --kind dense --labels runs/dense-signs/labels.txt --scaling symmetric \
	  --resize area --region roadside=0.5,0.08,0.5,0.56 --unseen runs/dense-signs/calibration --no-promise --force --out models/bundles/dense-signs.bundle \
	  --origin "framegate.models.dense_signs: GTSRB signs (research use, Stallkamp et al. 2012) pasted onto Udacity clips (MIT), with PHOTOS also onto photographs; never measured on signs of a real road"

# PHOTOS=, a folder of pictures, is optional.
faults: $(VENV)/.dev
	$(BIN)/python -m framegate.benchmarks.cost.fail_closed --out benchmarks/results/fail-closed.json
	$(BIN)/python -m framegate.benchmarks.handover.campaign --out benchmarks/results/handover-faults.json
	$(BIN)/python -m framegate.benchmarks.handover.soak --messages 100000
	$(BIN)/python -m framegate.benchmarks.tables docs/faults.md
	$(BIN)/python -m framegate.benchmarks.cost.camera_rival --out benchmarks/results/camera-rival.json
	$(BIN)/python -m framegate.benchmarks.tables docs/camera-check.md
	@mkdir -p runs
	$(BIN)/python -m framegate.benchmarks.cost.faults --plugins $(if $(PHOTOS),--photos $(PHOTOS)) --out runs/faults.json
	gzip -9nc runs/faults.json > benchmarks/results/faults.json.gz

drift: $(VENV)/.runtime
	$(BIN)/python -m framegate.benchmarks.cost.drift --out benchmarks/results/drift.json

# Prints registers, shared memory and spills of each kernel, and fails if one spills.
kernels: $(VENV)/.runtime
	$(BIN)/python -m framegate.cuda_kernels.compile.build --out cuda_kernels

# Ten minutes at most; says so and ends well where there is no GPU.
gpu: $(VENV)/.dev
	$(BIN)/python -m framegate.benchmarks.gpu.suite

# To be carried to a machine with a GPU; docs/gpu.md.
gpu-pack: $(VENV)/.runtime
	$(BIN)/python -m framegate.benchmarks.gpu.pack $(if $(PACK),--out $(PACK)) $(if $(WHEELS),--wheels $(WHEELS))

kernel-model: $(VENV)/.dev
	$(BIN)/python -m framegate.benchmarks.gpu.model --out benchmarks/results/kernel-model.json
	$(BIN)/python -m framegate.benchmarks.tables docs/kernels.md

# Two to three minutes, into this environment too; importing it needs the NVIDIA driver, or the tests' stub of it.
pycuda: $(VENV)/.dev
	wheel=$$($(BIN)/python -m framegate.cuda_kernels.compile.build_pycuda --out dist) \
	  && $(BIN)/python -m pip install -q -c constraints.txt --force-reinstall --no-deps $$wheel \
	  && $(BIN)/python -m pip install -q -c constraints.txt $$wheel && echo $$wheel
	FRAMEGATE_PYCUDA=real $(BIN)/python -m pytest -q -n 0 tests/cuda_kernels/driver/test_driver.py -k pycuda

clean:
	rm -rf build dist site src/*.egg-info cuda_kernels/*/*.fatbin cuda_kernels/*/*.fatbin.json $(OUT)
