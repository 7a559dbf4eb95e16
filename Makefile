# What people and CI type. Each target does one thing; `make check` never rewrites, `make fix` does.

CARGO ?= cargo
SEEDS ?= 3000
COVERAGE_SEEDS ?= 400

.PHONY: build check fix test demo bench sim coverage replay doc deny clean deps

build:
	$(CARGO) build --release

# The quick gate: format, lints, and the tests of the crate that decides.
check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) test -p failover-core

fix:
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	$(CARGO) fmt --all

# Everything, on real Redis and Valkey servers.
test: deps
	$(CARGO) test --workspace

# A failover to watch: real servers, a real `kill -9`.
demo:
	bash scripts/demo.sh

# Prints a table with Sentinel beside ours, and writes target/bench.json, in about 25 minutes. `make bench BENCH="kill9 idle"`
# runs these alone.
bench: deps
	$(CARGO) bench -p redis-failover --bench failover -- $(BENCH)

# The decisions in a modelled world, from seeds: a failing one is printed, made shorter, and can be replayed. Then mistakes
# are made on purpose, each of which has to be found.
sim:
	$(CARGO) run --release -p failover-sim -- --seeds $(SEEDS) --shrink
	$(CARGO) test --release -p failover-sim --test mutations

# Which lines of the decisions no modelled run comes to. Slow, and a report only.
coverage:
	bash scripts/coverage.sh $(COVERAGE_SEEDS)

# Goes through the journal_file of a real node again, and says where the decisions are others now.
replay:
	$(CARGO) run --release -p failover-sim -- --journal "$(JOURNAL)"

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --workspace

# Needs cargo-deny, which no other target does. Advisories are left to CI that can fetch them.
deny:
	$(CARGO) deny check bans licenses sources

clean:
	$(CARGO) clean

deps:
	bash scripts/install-deps.sh redis valkey iproute2 etcd zookeeper
