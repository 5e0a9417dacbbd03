# Fovea. `make help` lists what can be done.

CARGO ?= cargo
PYTHON ?= python3

.PHONY: help demo test test-gpu test-deploy soak screenshots build libtorch deploy-tools s3-server model-tools page-tools cuda-tools docs docs-tools reference lint bench bench-gpu gpu-bundle bench-epoch bench-checkpoints bench-coordinator bench-decode methods clean

help: ## Show this help
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## Train on synthetic photographs with two workers; DATA=folder WEIGHTS=file.caffemodel for real ones
	@DATA="$(DATA)" WEIGHTS="$(WEIGHTS)" scripts/demo.sh

test: build ## Run every test; what this machine lacks is reported as ignored (FOVEA_REQUIRE=shared,netns,... fails instead)
	$(CARGO) test --release --workspace --locked --no-fail-fast

test-gpu: build ## Train on a GPU: bits, losses, NCCL, a killed worker; fails where there is none
	$(CARGO) test --release --locked -p fovea-tests --test gpu -- --nocapture --include-ignored on_one_gpu

test-deploy: build deploy-tools ## Run the manifests of deploy/ in systemd, Slurm, Docker and Podman; needs root and Debian 12
	@scripts/deploy_engines.sh
	$(CARGO) test --release --workspace --locked --test deploy -- --ignored --test-threads=1 --nocapture

soak: build ## Inject faults at random: FAULTS=n faults (200), SEED=n, PLAIN=1 without TLS; prints one JSON line; needs root and iproute2
	@target/release/fovea-soak $(or $(FAULTS),200) $(or $(SEED),1) $(if $(PLAIN),plain)

screenshots: build ## Pictures of every page of the dashboard while workers and the coordinator are killed, in target/screenshots; needs chromedriver
	SCREENSHOTS=$(or $(OUT),$(CURDIR)/target/screenshots) $(CARGO) test --release --workspace --locked --test screenshots -- --ignored --nocapture

build: libtorch ## Build all programs into target/release
	$(CARGO) build --release --workspace --locked

libtorch: ## Fetch libtorch into .libtorch (skipped when it is there)
	@$(PYTHON) scripts/libtorch.py

deploy-tools: ## Fetch the tools that check the manifests into .deploy-tools/ (skipped when they are there)
	@$(PYTHON) scripts/tools.py deploy-tools

s3-server: ## Fetch SeaweedFS into .s3-server/, for the tests of the object store (skipped when it is there)
	@$(PYTHON) scripts/tools.py s3-server

model-tools: ## Fetch ONNX Runtime, OpenCV, TensorBoard, gRPC, pandas and mypy into .model-tools/, for the tests of models, event files and python/
	@$(PYTHON) scripts/tools.py model-tools

page-tools: ## Fetch axe-core into .page-tools/, for the test of the dashboard's pages
	@$(PYTHON) scripts/tools.py page-tools

cuda-tools: ## Fetch NVRTC into .cuda-tools/, for the test that compiles the kernels for GPUs (skipped when it is there)
	@$(PYTHON) scripts/tools.py cuda-tools

docs: docs-tools ## Make a site of the documentation in target/docs/html, with search
	@scripts/docs.sh

docs-tools: ## Fetch mdBook into .docs-tools/, which makes the site (skipped when it is there)
	@$(PYTHON) scripts/tools.py docs-tools

reference: libtorch ## Write the generated pages of docs/reference/ anew: commands, run file, configuration
	FOVEA_WRITE_REFERENCE=1 $(CARGO) test --release --workspace --locked --bin fovea --bin fovea-coordinator --bin fovea-worker --test docs reference

lint: libtorch ## Check formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --locked -- -D warnings

bench: build ## Measure images/s of a two-worker CPU run; one JSON object a line (MBIT=1000: with a network that slow)
	@$(PYTHON) bench/bench.py $(if $(PEER),--peer "$(PEER)") $(if $(MBIT),--mbit $(MBIT))

gpu-bundle: build ## Pack programs, tests and benchmark for a machine with a GPU but without a compiler: OUT=target/gpu-bundle.tar.xz
	@CARGO="$(CARGO)" $(PYTHON) scripts/gpu_bundle.py $(or $(OUT),target/gpu-bundle.tar.xz)

bench-gpu: build ## Measure images/s on a GPU beside PyTorch, if PYTHON has it (DEVICE=cuda:0, BATCH=256); one JSON object a line
	@$(PYTHON) bench/bench.py --device $(or $(DEVICE),cuda:0) --batch $(or $(BATCH),256) $(if $(PEER),--peer "$(PEER)")

bench-epoch: build ## Measure whole epochs, evaluation and checkpoint included: EPOCH=35126 images (EyePACS), DEVICE=cpu, BATCH=16
	@$(PYTHON) bench/bench.py --epoch $(or $(EPOCH),35126) --device $(or $(DEVICE),cpu) --batch $(or $(BATCH),16)

bench-checkpoints: build ## Measure what a checkpoint every 10 steps costs
	@$(PYTHON) bench/bench.py --checkpoints

bench-coordinator: build ## Measure the coordinator with simulated workers; ARGS="--seconds 60 --idle 200 ...", ARGS=--help lists all
	@target/release/fovea-bench-coordinator $(ARGS)

bench-decode: build ## Measure decoding beside Pillow, which PYTHON must have; ARGS="--photographs FOLDER --rounds 5"
	$(CARGO) build --release --locked -p fovea-dataset --example decode_time
	@$(PYTHON) bench/decode.py $(ARGS)

methods: build ## Train every method on one patient split, and compare them: DATA=folder WEIGHTS=file ARGS="--labels referable ..."
	@$(PYTHON) bench/methods.py --data "$(DATA)" --weights "$(WEIGHTS)" $(ARGS)

clean: ## Remove what was built, and the demo's output (keeps .libtorch)
	$(CARGO) clean
	rm -rf demo-output bench-output
