# make demo    see it work          make test   everything that is tested
# make setup   what the build needs make lint   formatting, clippy, licences and advisories
# make bench   CPU per request, latency under reloads and memory per connection, beside a bare Pingora proxy, nginx and HAProxy
# make fuzz    ten minutes of made-up bytes for each target, see fuzz/README.md
# make image   the container        make image-test   build it, run it in front of blue and green, measure it

CARGO ?= cargo
FUZZ_SECONDS ?= 600

.PHONY: setup build demo test real lint bench fuzz image image-test

setup:
	./tests/real/build-tools.sh

build: setup
	$(CARGO) build --release --locked

demo: setup
	$(CARGO) run --release --locked -p vestibule -- demo

test: setup real
	$(CARGO) build --workspace --locked
	$(CARGO) test --workspace --locked

real:
	./tests/real/setup.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	$(CARGO) deny --locked check

bench: build real
	$(CARGO) build --release --locked -p vestibule-tests --example bare
	./tests/bench/run.py
	./tests/bench/reload.py
	./tests/bench/memory.py

fuzz:
	./fuzz/run.sh $(FUZZ_SECONDS)

image:
	docker build -t vestibule .

image-test:
	./docker/test.sh
