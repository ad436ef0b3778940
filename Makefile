# SPDX-License-Identifier: Apache-2.0
# One Makefile, no recursion. `make help` lists the targets; objects go under build/.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
SAN ?=
comma := ,
BUILD ?= build$(if $(SAN),/san-$(subst $(comma),-,$(SAN)),)

# Packages: what the agent needs to build and run, then what tests and demo need, then whom the benchmarks compare with.
BUILD_PACKAGES := build-essential pkg-config libuv1-dev libsodium-dev libmsgpack-dev libcurl4-openssl-dev \
  libssl-dev libgcrypt20-dev libyaml-dev libjansson-dev uthash-dev node-llhttp python3
TEST_PACKAGES := libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev universal-ctags docker-registry skopeo \
  podman buildah containerd docker.io runc umoci nginx-light apache2-utils busybox-static conmon iproute2 procps curl jq man-db systemd \
  python3-jwt python3-cryptography python3-yaml python3-jsonschema prometheus nftables openssl ca-certificates chromium
BENCH_PACKAGES := aria2 python3-libtorrent

PKGS := libuv libsodium msgpack libcurl openssl libgcrypt yaml-0.1 jansson
MODULES := base wire session gossip dht transfer mesh cache registry http runtime daemon
CORE_MODULES := base wire gossip dht transfer mesh

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wmissing-prototypes \
  -Wundef -Wvla -Wformat=2 -Wimplicit-fallthrough -Wnull-dereference -Wcast-qual -Werror
HARDEN := -fstack-protector-strong -fstack-clash-protection -fPIE -ftrivial-auto-var-init=zero \
  -fno-delete-null-pointer-checks -fno-strict-overflow -fno-strict-aliasing
HARDEN += $(if $(filter x86_64,$(shell uname -m)),-fcf-protection=full,)
OPT := $(if $(SAN),-O1 -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all,-O2 -D_FORTIFY_SOURCE=2)
ifneq (,$(findstring clang,$(CC)))
# clang 14 knows the first only as an experiment, and has no static -Wnull-dereference worth the name.
HARDEN := $(filter-out -ftrivial-auto-var-init=zero,$(HARDEN))
# uthash's hash macro falls through its cases without saying so in a way clang sees; gcc checks ours.
WARN := $(filter-out -Wnull-dereference -Wimplicit-fallthrough,$(WARN))
endif
# $(PACKAGE_CFLAGS) as -isystem: our warnings are for our code.
PACKAGE_CFLAGS := $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(PKGS) 2>/dev/null)) -isystem /usr/share/include/llhttp
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -g $(OPT) $(WARN) $(HARDEN) -iquote include $(PACKAGE_CFLAGS) $(CFLAGS)
LDFLAGS_ALL := -pie -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed $(if $(SAN),-fsanitize=$(SAN),) $(LDFLAGS)
LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lpthread -lm

src_of = $(wildcard src/$(1)/*.c)
obj_of = $(patsubst %.c,$(BUILD)/%.o,$(call src_of,$(1)))
LLHTTP_OBJ := $(patsubst %,$(BUILD)/llhttp/%.o,llhttp api http)
MAIN_OBJ := $(BUILD)/src/daemon/main.o
SIM_SRC := $(filter-out sim/main.c,$(wildcard sim/*.c))
SIM_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(SIM_SRC))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:

.PHONY: all
all: $(BUILD)/shoal $(BUILD)/shoal-sim ## build the agent and the simulator

# ---- libraries: one per module, and the protocol core that agent and simulator share ----
define module_lib
$(BUILD)/lib$(1).a: $$(filter-out $(MAIN_OBJ),$$(call obj_of,$(1))) $(if $(filter http,$(1)),$(LLHTTP_OBJ),)
	$$(Q)mkdir -p $$(@D) && rm -f $$@ && ar rcs $$@ $$^
endef
$(foreach m,$(MODULES),$(eval $(call module_lib,$(m))))
$(BUILD)/libcore.a: $(foreach m,$(CORE_MODULES),$(call obj_of,$(m)))
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^
$(BUILD)/libsim.a: $(SIM_OBJ)
	$(Q)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^

HOST_LIBS := $(foreach m,session cache registry http runtime daemon,$(BUILD)/lib$(m).a)
$(BUILD)/shoal: $(MAIN_OBJ) $(HOST_LIBS) $(BUILD)/libcore.a
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $(MAIN_OBJ) -Wl,--start-group $(HOST_LIBS) $(BUILD)/libcore.a -Wl,--end-group $(LIBS)
# Wrapped: sim/piece_size.c stands before the rule by which agents cut blobs.
$(BUILD)/shoal-sim: $(BUILD)/sim/main.o $(BUILD)/libsim.a $(BUILD)/libcache.a $(BUILD)/libcore.a
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -Wl,--wrap=piece_layout_of -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)

# Core and simulator are what a run of thousands of nodes spends its time in: 8 % fewer instructions than with -O2.
$(foreach m,$(CORE_MODULES),$(BUILD)/src/$(m)/%.o) $(BUILD)/sim/%.o: CFLAGS_ALL += $(if $(SAN),,-O3) $(filter -O%,$(CFLAGS))
$(BUILD)/%.o: %.c
	@echo "  CC    $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<
# The reports' style and script go into the simulator as lists of byte values, which sim/html_assets.c includes.
$(BUILD)/gen/%.inc: sim/%
	$(Q)mkdir -p $(@D) && od -An -v -tx1 $< | sed 's/ \(..\)/0x\1,/g' >$@
$(BUILD)/sim/html_assets.o $(BUILD)/sim/build_id.o: CFLAGS_ALL += -isystem $(BUILD)
$(BUILD)/sim/html_assets.o: $(BUILD)/gen/report.css.inc $(BUILD)/gen/report.js.inc
# The status page goes into the agent in the same way.
$(BUILD)/gen/%.inc: src/daemon/page/%
	$(Q)mkdir -p $(@D) && od -An -v -tx1 $< | sed 's/ \(..\)/0x\1,/g' >$@
$(BUILD)/src/daemon/page_html.o: CFLAGS_ALL += -isystem $(BUILD)
$(BUILD)/src/daemon/page_html.o: $(BUILD)/gen/status.html.inc
# What the simulator names as its source, so that a seed can be replayed on it: release and commit; the release alone without git.
RELEASE := $(shell sed -n 's/^\#define SHOAL_VERSION "\(.*\)"/\1/p' src/daemon/cli.h)
.PHONY: build-id
build-id:
$(BUILD)/gen/build-id.inc: build-id
	$(Q)mkdir -p $(@D) && commit=$$(git -C $(CURDIR) describe --always --dirty --exclude '*' 2>/dev/null); \
	  echo "\"$(RELEASE)$${commit:+-g$$commit}\"" >$@.new; cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/sim/build_id.o: $(BUILD)/gen/build-id.inc
# llhttp ships as C sources in Debian (node-llhttp): built here with its own warnings off.
$(BUILD)/llhttp/%.o: /usr/share/llhttp/%.c
	$(Q)mkdir -p $(@D) && $(CC) -std=c11 -O2 -g -fPIE -w -isystem /usr/share/include/llhttp $(if $(SAN),-fsanitize=$(SAN),) -c -o $@ $<

# ---- tests: tests/<kind>/<module>_<what>.c, linked with that module and what it may see ----
deps_base := base
deps_wire := base wire
deps_session := base wire session
deps_gossip := base wire gossip
deps_dht := base wire dht
deps_transfer := base wire transfer
deps_mesh := base wire gossip dht transfer mesh
deps_cache := base cache
deps_registry := base registry
deps_http := base registry http
deps_runtime := base runtime
deps_daemon := $(MODULES)
deps_sim := base wire gossip dht transfer mesh cache sim
test_module = $(firstword $(subst _, ,$(basename $(notdir $(1)))))
test_libs = $(patsubst %,$(BUILD)/lib%.a,$(deps_$(call test_module,$(1))))
UNIT_SRC := $(wildcard tests/unit/*.c)
PROP_SRC := $(wildcard tests/prop/*.c)
SIMT_SRC := $(wildcard tests/sim/*.c)
FAULT_SRC := $(wildcard tests/fault/*.c)
define test_bin
$(BUILD)/$(basename $(1)): $(BUILD)/$(basename $(1)).o $(call test_libs,$(1))
	@echo "  LD    $$@"
	$$(Q)$$(CC) $$(LDFLAGS_ALL) -o $$@ $$< -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group -lcmocka $$(LIBS)
endef
$(foreach t,$(UNIT_SRC) $(PROP_SRC) $(SIMT_SRC) $(FAULT_SRC),$(eval $(call test_bin,$(t))))
bins = $(patsubst %.c,$(BUILD)/%,$(1))

.PHONY: check test check-unit check-sim check-fuzz check-integration
check: deps ## everything: boundaries, lint, unit, property, sanitizers, simulation, fuzz, real clients
	$(Q)$(MAKE) --no-print-directory all boundaries lint
	$(Q)tests/run.sh
test: check
check-unit: $(call bins,$(UNIT_SRC) $(PROP_SRC) $(FAULT_SRC)) ## unit, property and fault tests (SAN=address,undefined for sanitizers)
	$(Q)tools/run-tests.sh $^
check-sim: $(call bins,$(SIMT_SRC)) ## simulated scenarios
	$(Q)tools/run-tests.sh $^
$(BUILD)/shoal-liar: $(MAIN_OBJ) $(BUILD)/tests/integration/liar.o $(HOST_LIBS) $(BUILD)/libcore.a
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -Wl,--wrap=node_upload_ready,--wrap=blobs_handlers -o $@ $(MAIN_OBJ) $(BUILD)/tests/integration/liar.o \
	  -Wl,--start-group $(HOST_LIBS) $(BUILD)/libcore.a -Wl,--end-group $(LIBS)
# The next minor version: everything that one may add is sent, and must be skipped (C-3).
NEXT_WRAPS := intro__own gossip_new wire_writer_begin wire_writer_end mesh_udp_send frame_encode session_seal
$(BUILD)/shoal-next: $(MAIN_OBJ) $(BUILD)/tests/integration/next.o $(HOST_LIBS) $(BUILD)/libcore.a
	@echo "  LD    $@"
	$(Q)$(CC) $(LDFLAGS_ALL) $(patsubst %,-Wl$(comma)--wrap=%,$(NEXT_WRAPS)) -o $@ $(MAIN_OBJ) $(BUILD)/tests/integration/next.o \
	  -Wl,--start-group $(HOST_LIBS) $(BUILD)/libcore.a -Wl,--end-group $(LIBS)
$(BUILD)/tests/integration/fill_cache: $(BUILD)/tests/integration/fill_cache.o $(BUILD)/libcache.a $(BUILD)/libbase.a
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS)
INTEGRATION_BINS := $(BUILD)/shoal-liar $(BUILD)/shoal-next $(BUILD)/tests/integration/fill_cache
check-integration: all $(INTEGRATION_BINS) ## real registry, real clients, network namespaces
	$(Q)tests/integration/run.sh

# ---- fuzz: clang's libFuzzer, one target per decoder ----
FUZZ_SECONDS ?= 20
FUZZ_SRC := $(wildcard tests/fuzz/*.c)
FUZZ_BUILD := build/fuzz
ifeq ($(FUZZING),1)
fuzz_bins: $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
define fuzz_bin
$(BUILD)/fuzz/$(basename $(notdir $(1))): $(BUILD)/$(basename $(1)).o $(call test_libs,$(1))
	@echo "  LD    $$@"
	$$(Q)mkdir -p $$(@D) && $$(CC) -fsanitize=fuzzer,address,undefined -o $$@ $$< -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $$(LIBS)
endef
$(foreach t,$(FUZZ_SRC),$(eval $(call fuzz_bin,$(t))))
endif
.PHONY: fuzz-build fuzz
fuzz-build:
	$(Q)$(MAKE) --no-print-directory CC=clang BUILD=$(FUZZ_BUILD) FUZZING=1 \
	  CFLAGS="-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -O1 -Wno-error" fuzz_bins
fuzz: fuzz-build ## every fuzz target for FUZZ_SECONDS (default 20) each, corpus replayed first
	$(Q)tools/run-fuzz.sh $(FUZZ_BUILD)/fuzz $(FUZZ_SECONDS)

# ---- judges of the house ----
.PHONY: boundaries lint format
boundaries: $(BUILD)/libcore.a ## includes and object symbols keep to the one-way arrows
	$(Q)tools/boundaries.py $(BUILD)
lint: man ## banned calls, lengths, doc comments, leftovers, format; help that is no page
	$(Q)tools/lint.py
	$(Q)tools/config_table.py
	$(Q)tools/chart.py check
format: ## rewrite layout with clang-format
	$(Q)git ls-files '*.c' '*.h' | xargs clang-format -i

# ---- set-up, demo, bench ----
.PHONY: deps demo bench calibrate costs sim image chart man install clean help
deps: ## install what is missing from Debian
	$(Q)tools/deps.sh $(BUILD_PACKAGES) $(TEST_PACKAGES)
demo: deps ## 5 nodes, 2 zones, a real registry, a real image: where each byte came from (DEMO_STAY=1: nodes and their status pages stay)
	$(Q)$(MAKE) --no-print-directory all
	$(Q)bench/demo.sh $(if $(DEMO_STAY),--stay)
bench: deps ## measured figures beside their baselines: nginx, aria2, libtorrent, no mesh (ARGS="--full", "--help")
	$(Q)tools/deps.sh $(BENCH_PACKAGES)
	$(Q)$(MAKE) --no-print-directory all
	$(Q)bench/bench.sh $(ARGS)
calibrate: deps ## the same crowd for real and simulated, side by side (ARGS="--help")
	$(Q)$(MAKE) --no-print-directory all
	$(Q)/usr/bin/python3 bench/calibrate.py $(ARGS)
costs: ## processor time of this machine per byte and message, as the simulator's keys (FOLDER=where the cache will be)
	$(Q)$(MAKE) --no-print-directory -f Makefile -f bench/tools.mk $(BUILD)/bench/costs
	$(Q)$(BUILD)/bench/costs $(or $(FOLDER),$(BUILD))
sim: $(BUILD)/shoal-sim ## one simulated pull (SEED=n)
	$(Q)$(BUILD)/shoal-sim run --seed $(or $(SEED),1)
image: $(BUILD)/shoal ## a small OCI image of the agent in build/image, and its SBOM
	$(Q)/usr/bin/python3 tools/image.py $(BUILD)/shoal build/image
chart: ## make deploy/kubernetes anew from deploy/chart
	$(Q)/usr/bin/python3 tools/chart.py write
man: $(BUILD)/shoal $(BUILD)/shoal-sim ## manual pages in build/man, from what the programs say of themselves
	$(Q)rm -rf $(BUILD)/man && /usr/bin/python3 tools/man.py $(BUILD) $(BUILD)/man
# The agent looks for /etc/shoal/shoal.yaml, whatever PREFIX is; the example beside it is never read.
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
install: all man ## programs, manual pages, systemd units, scenarios below PREFIX (/usr/local); an example configuration in SYSCONFDIR (/etc)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/shoal $(BUILD)/shoal-sim
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/shoal/scenarios $(wildcard sim/scenarios/*.yaml)
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 $(BUILD)/man/*.1
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man5 $(BUILD)/man/*.5
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system deploy/systemd/*.service
	sed -i 's#=/usr/bin/#=$(PREFIX)/bin/#' $(DESTDIR)$(PREFIX)/lib/systemd/system/shoal*.service
	install -D -m 0644 deploy/systemd/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/shoal.conf
	install -D -m 0644 -t $(DESTDIR)$(SYSCONFDIR)/shoal deploy/shoal.yaml.example
uninstall: ## removes what install put there; configuration and /var/lib/shoal stay
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,shoal shoal-sim) $(DESTDIR)$(PREFIX)/share/man/man1/shoal*.1 $(DESTDIR)$(PREFIX)/share/man/man5/shoal.yaml.5
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/shoal*.service $(DESTDIR)$(PREFIX)/lib/sysusers.d/shoal.conf $(DESTDIR)$(SYSCONFDIR)/shoal/shoal.yaml.example
	rm -rf $(DESTDIR)$(PREFIX)/share/shoal
clean: ## remove build/
	rm -rf build
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 26

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
