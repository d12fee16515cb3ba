# `make train` and `make test` do all their set-up themselves; a second call does only what is new.
.PHONY: help setup train test bench lint
NTM = cargo run --quiet --release --
RUN = runs/make-train

help:
	@echo "make train   set up, build, train the copy task into $(RUN), print an evaluation"
	@echo "make test    set up, build, run all tests"
	@echo "make bench   measure speed and memory beside JAX and PyTorch (own environment, 5 GB)"
	@echo "make setup   fetch libtorch into .venv (LIBTORCH in the environment wins)"
	@echo "make lint    rustfmt and clippy, as CI runs them"

setup:
	@.cargo/setup.sh

# A run that was stopped goes on; a finished one is only evaluated.
train: setup
	cargo build --release
	@if [ -e $(RUN)/checkpoints/latest.safetensors ]; then $(NTM) train --resume $(RUN); \
	else $(NTM) train copy --run-dir $(RUN); fi
	@$(NTM) eval --checkpoint $(RUN) --lengths 10,20,50,120 --sequences 100

test: setup .venv-test/.complete
	cargo test --release --no-fail-fast

bench: setup .venv-bench/.complete
	python3 benches/compare.py

# What the tests read our files with (NumPy, safetensors, TensorBoard, onnxruntime); what the benchmarks compare with (JAX, PyTorch).
.venv-test/.complete: tests/requirements.txt
.venv-bench/.complete: benches/requirements.txt
.venv-%/.complete:
	@python3 -m venv .venv-$* && .venv-$*/bin/python -m pip install --quiet --disable-pip-version-check -r $< || \
	{ echo "error: cannot install $< into .venv-$*" >&2; \
	  echo "hint: check the network and the space here, then run the same make again" >&2; exit 1; }
	@touch $@

lint: setup
	cargo fmt --check
	cargo clippy --release --all-targets -- -D warnings
