# Builds the release binaries and puts them into src/, where users of Redis look for them.

PREFIX ?= /usr/local
# Where the programs are that `install` and `deb` take.
BUILT ?= src
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
PROGRAMS := redis-server redis-cli redis-benchmark
LINKS := redis-sentinel redis-check-aof redis-check-rdb

.PHONY: all build test lint asan check bench docs simulate simulate-large install deb clean

all: build redis.conf

build:
	$(CARGO) build --release --locked --bins
	@for p in $(PROGRAMS); do cp -f $(TARGET)/release/$$p src/.$$p.new && mv -f src/.$$p.new src/$$p; done
	@for l in $(LINKS); do ln -sf redis-server src/$$l; done
	@cp -f utils/redis-trib.rb src/redis-trib.rb && chmod +x src/redis-trib.rb

# A configuration to start from; one that is there stays.
redis.conf:
	cp conf/redis.conf redis.conf

test:
	$(CARGO) test --locked

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

# The structures' tests under AddressSanitizer, which a stable compiler has as well, only not by default. CASES: runs of each
# property.
CASES ?= 256
asan:
	cd utils/asan && RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address --cfg checked_allocator" PROPTEST_CASES=$(CASES) \
	  CARGO_TARGET_DIR="$(abspath $(TARGET))/asan" $(CARGO) test --locked --target $$(rustc -vV | sed -n 's/^host: //p')

# What CI does, from a clean checkout.
check:
	.ci/run

bench: build
	$(CARGO) bench --locked --bench structures
	utils/bench/run

# The lists of commands and directives, which a test compares with what they are made from.
docs: build
	$(BUILT)/redis-cli --write-docs docs

# Clusters of 60 to 1,000 nodes in one process: what they cost, and how soon a master, and a third of them, are replaced.
simulate-large:
	$(CARGO) test --release --locked --lib a_thousand_nodes -- --ignored --nocapture

# Random faults of clusters and of their data: SEEDS of each kind from SEED on, JOBS at a time.
SEEDS ?= 1000
SEED ?= 1
JOBS ?= 2
simulate:
	utils/simulate $(SEEDS) $(SEED) $(JOBS)

install: build
	install -d $(DESTDIR)$(PREFIX)/bin
	@for p in $(PROGRAMS); do install -m 755 $(BUILT)/$$p $(DESTDIR)$(PREFIX)/bin/$$p; done
	@for l in $(LINKS); do ln -sf redis-server $(DESTDIR)$(PREFIX)/bin/$$l; done
	$(BUILT)/redis-cli --write-manual $(DESTDIR)$(PREFIX)/share

# A package for the release of Debian or Ubuntu that this machine runs, into target/.
deb: build
	utils/package/deb $(BUILT) $(TARGET)

clean:
	$(CARGO) clean
	rm -f $(addprefix src/,$(PROGRAMS) $(LINKS) redis-trib.rb)
