# Every target installs and builds what it needs itself. Plain `make` prints help.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install uninstall build fmt lint check test test-mounts sim soak power-cuts fuzz-input golden bench demo clean ci

PREFIX  ?= /usr/local
DESTDIR ?=
# mount(8) looks for its helpers here and nowhere else.
HELPERS ?= /sbin
UNITS   ?= $(PREFIX)/lib/systemd/system
SEED    ?=
RUNS    ?=
HISTORY ?=
MINUTES ?= 60
CUTS    ?= 20
KILLS   ?= 20
JOBS    ?= $(shell nproc)
TESTS   ?= $$(find dist/test -name '*.test.js')

MODULES := node_modules/.package-lock.json
BUILT   := dist/.built
# `test/.` and not `test`, which is a target.
SOURCES := $(shell find src/. test/. \( -type d -o -name '*.ts' \) 2>/dev/null)
NODE    := node --enable-source-maps
RUNNER  := $(NODE) --test --test-reporter=spec
BIN     := node_modules/.bin

# What Node is started with, to be loaded in parts: the command and the daemon's process. And whole: the daemon's threads.
STARTED := src/main.ts src/daemon/background-process.ts
THREADS := $(addprefix src/daemon/,server-thread.ts log-thread.ts check-thread.ts)
ESBUILD := $(BIN)/esbuild --platform=node --target=node20.19 --entry-names=[name] --log-level=warning
BUNDLE  := $(ESBUILD) --bundle --external:koffi --external:fuse-native
COMMAND := --format=cjs --supported:dynamic-import=false --outdir=dist/command \
	--banner:js='"use strict"; const fileUrl = require("node:url").pathToFileURL(__filename);' --define:import.meta.url=fileUrl

INTO    := $(DESTDIR)$(PREFIX)/lib/tidemark
# A file of src/daemon/install with the places of this installation in it.
template = sed -e "s|@NODE@|$$(command -v node)|" -e 's|@LIB@|$(PREFIX)/lib/tidemark|' src/daemon/install/$(1).in

help: ## print this text
	@echo 'Tidemark: make <target>'
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

install: $(BUILT) ## copy the command, mount helpers and unit (PREFIX=/usr/local DESTDIR=)
	rm -rf $(INTO)
	mkdir -p $(INTO)/dist $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(UNITS)
	cp -R dist/command $(INTO)/dist/
	cp package.json README.md LICENSE $(INTO)/
	npm ls --omit=dev --all --parseable --loglevel=error | sed -n 's|^$(CURDIR)/||p' | sort -u | while read -r module; do \
		mkdir -p "$(INTO)/$$(dirname "$$module")" && cp -R "$$module" "$(INTO)/$$(dirname "$$module")/" || exit 1; \
	done
	ln -sf ../lib/tidemark/dist/command/main.js $(DESTDIR)$(PREFIX)/bin/tidemark
	$(call template,tidemark@.service) > $(DESTDIR)$(UNITS)/tidemark@.service
	@if mkdir -p $(DESTDIR)$(HELPERS) && [ -w $(DESTDIR)$(HELPERS) ]; then \
		for helper in mount umount; do \
			$(call template,$$helper.fuse.tidemark) > $(DESTDIR)$(HELPERS)/$$helper.fuse.tidemark && \
			chmod 755 $(DESTDIR)$(HELPERS)/$$helper.fuse.tidemark && \
			ln -sf $$helper.fuse.tidemark $(DESTDIR)$(HELPERS)/$$helper.tidemark || exit 1; \
		done; \
	else \
		echo 'no helpers for mount(8): $(DESTDIR)$(HELPERS) cannot be written'; \
	fi

uninstall: ## remove what install has copied
	rm -rf $(INTO)
	rm -f $(DESTDIR)$(PREFIX)/bin/tidemark $(DESTDIR)$(UNITS)/tidemark@.service
	for helper in mount umount; do \
		rm -f $(DESTDIR)$(HELPERS)/$$helper.fuse.tidemark $(DESTDIR)$(HELPERS)/$$helper.tidemark; \
	done

build: $(BUILT) ## compile src and test into dist, and bundle the command

fmt: $(MODULES) ## format and sort imports, in place
	$(BIN)/biome check --write

lint: $(MODULES) ## lint, with type information
	$(BIN)/oxlint

check: $(MODULES) lint ## lint, formatting and types; changes nothing
	$(BIN)/biome check
	$(BIN)/tsc --noEmit

test: $(BUILT) ## run all tests (TESTS='dist/test/core/*.test.js' for some)
	$(RUNNER) --test-concurrency=$(JOBS) $(TESTS)

test-mounts: $(BUILT) ## run the tests on real mounts; fail, not skip, where mounting is impossible
	CI=true $(RUNNER) --test-concurrency=1 $$(find dist/test/posix dist/test/hosts -name '*.test.js')

sim: $(BUILT) ## simulate crashes in random histories (SEED= RUNS=1 repeats one, HISTORY=file what it printed, JOBS=)
	$(NODE) dist/test/sim/sim.js --jobs=$(JOBS) $(if $(SEED),--seed=$(SEED)) $(if $(RUNS),--runs=$(RUNS)) $(if $(HISTORY),--history=$(HISTORY))

fuzz-input: $(BUILT) ## look for hostile inputs that do harm for MINUTES=60 (ENTRY= SEED=)
	$(NODE) dist/test/hostile/fuzz-input.js --minutes=$(MINUTES) $(if $(ENTRY),--entry=$(ENTRY)) \
		$(if $(SEED),--seed=$(SEED)) $(if $(GENOME),--genome=$(GENOME))

soak: $(BUILT) ## the simulation with fresh seeds for MINUTES=60
	$(NODE) dist/test/sim/sim.js --jobs=$(JOBS) --minutes=$(MINUTES) $(if $(SEED),--seed=$(SEED))

power-cuts: $(BUILT) ## cut the power of a real disk under a mount CUTS=20 times, kill the daemon KILLS=20 times
	$(NODE) dist/test/power/power-cuts.js --cuts=$(CUTS) --kills=$(KILLS) $(if $(SEED),--seed=$(SEED))

golden: $(BUILT) ## write the golden volumes and streams of the current format
	$(NODE) dist/test/golden/golden.js

# In a mount namespace of its own: what others copy of the mount table keeps none of its mounts busy, and none outlives it.
bench: $(BUILT) ## print one table of ratios against peers (QUICK=1 ROWS= PEERS= ROUNDS= JSON=)
	$(if $(filter 0,$(shell id -u)),unshare --mount) $(NODE) dist/test/bench/bench.js

demo: $(BUILT) ## mount, write, snapshot, mirror, cut the power, restore
	$(NODE) dist/test/demo/demo.js

clean: ## remove everything that was built or installed here
	rm -rf dist node_modules

ci: check build test ## everything that must hold before a change is merged

$(MODULES): package-lock.json .npmrc
	npm ci --loglevel=error
	@touch $@

# Output without a source would still be run as a test: it goes first. Directories are among the sources, so a removal counts.
# Parts are made in two steps, for esbuild splits ES modules only, and Node loads CommonJS faster: see decisions.md.
$(BUILT): $(MODULES) Makefile tsconfig.json $(SOURCES)
	@mkdir -p dist
	@find dist -name '*.js' -not -path 'dist/command/*' | while read -r js; do ts=$${js#dist/}; [ -e "$${ts%.js}.ts" ] || rm -f "$$js" "$$js.map"; done
	$(BIN)/tsc
	@rm -rf dist/bundle dist/command
	@$(BUNDLE) --splitting --format=esm --outdir=dist/bundle $(STARTED)
	@$(ESBUILD) $(COMMAND) dist/bundle/*.js
	@$(BUNDLE) $(COMMAND) $(THREADS)
	@echo '{ "type": "commonjs" }' > dist/command/package.json
	@chmod +x dist/command/main.js
	@rm -rf dist/bundle
	@touch $@
