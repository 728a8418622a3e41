# kvcached. `make help` lists the targets; README.md tells what they are for.

COMMA := ,
BUILD  ?= build
PREFIX ?= /usr/local

ifeq ($(origin CXX),default)
CXX := g++
endif
CCACHE ?= $(shell command -v ccache)
ifneq ($(CCACHE),)
ifeq ($(findstring ccache,$(CXX)),)
override CXX := $(CCACHE) $(CXX)
endif
endif

# As many jobs as processors, unless the command line says how many; make does not show us that flag.
ifeq ($(MAKELEVEL),0)
ifeq ($(shell tr '\0' '\n' </proc/$$PPID/cmdline | grep -E '^(-[a-zA-Z]*j|--jobs)'),)
MAKEFLAGS += -j$(shell nproc)
endif
endif

# ---- the CUDA headers: an installed toolkit of version 13 or later, else NVIDIA's wheels ----
WHEEL_CUDA := $(BUILD)/cuda
CUDA ?= $(if $(shell sed -n 's/^.define CUDA_VERSION \(1[3-9]\)...$$/\1/p' \
                     /usr/local/cuda/include/cuda.h 2>/dev/null),/usr/local/cuda,$(WHEEL_CUDA))
CUDA_HEADER := $(CUDA)/include/cuda.h

# ---- flags ----
SANITIZE ?=
WERROR   ?= -Werror
OPTIMIZE ?= -O2 -g
# Tests are compiled more often than they run.
TEST_OPTIMIZE ?= -O0 -g1
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion $(WERROR)
CPPFLAGS := -I. -Ishim/include -isystem $(CUDA)/include -DFMT_HEADER_ONLY $(CPPFLAGS_EXTRA)
CXXFLAGS := -std=c++20 $(WARNINGS) -fPIC -fvisibility=hidden \
            -fvisibility-inlines-hidden -ffunction-sections -fdata-sections -pthread \
            $(CXXFLAGS_EXTRA)
LDFLAGS  := -pthread -Wl,--gc-sections
ifneq ($(SANITIZE),)
CXXFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
# The checks that are inserted hide from g++ what it would otherwise see is initialized.
CXXFLAGS += $(if $(findstring clang,$(CXX)),,-Wno-maybe-uninitialized)
LDFLAGS  += -fsanitize=$(SANITIZE)
else
# The sanitizers intercept exceptions and need the shared C++ library; elsewhere it is inside, so
# that a binary built here runs on a machine without it.
LDFLAGS  += -static-libstdc++ -static-libgcc
endif

# `make V=1` shows whole commands.
ifeq ($(V),)
say = @printf '  %-5s %s\n' $(1) $(2);
endif

# ---- sources, found by their place ----
walk      = $(foreach d,$(wildcard $(1)/*),$(call walk,$(d),$(2)) $(filter $(2),$(d)))
objects   = $(patsubst %,$(BUILD)/obj/%.o,$(basename $(1)))
name      = $(basename $(notdir $(1)))
without   = $(filter-out $(1),$(2))

POLICY_SOURCES := $(call walk,policy,%.cpp)
SHIM_SOURCES   := $(call walk,shim,%.cpp %.S)
# What unit tests may link: everything that knows the driver only by its header.
INNER_SOURCES  := $(wildcard shim/log.cpp shim/adapters/free_blocks.cpp) \
                  $(foreach d,cache classify member,$(call walk,shim/$d,%.cpp))
TOOLS_SOURCES  := $(call walk,tools,%.cpp)
SIM_SOURCES    := $(call without,%_test.cpp,$(wildcard tests/sim/*.cpp))
ENGINE_SOURCES := $(call without,%/kernels_host.cpp,$(wildcard bench/engine/*.cpp))
DEMO_SOURCES   := $(wildcard bench/demo/*.cpp)
# What benchmarks and the demo share.
CHART_SOURCES  := $(wildcard bench/chart/*.cpp)
REPLAY_SOURCES := $(wildcard bench/replay/*.cpp)
MEASURE_SOURCES := $(call without,%/kernels_host.cpp,$(wildcard bench/measure/*.cpp))
ADAPTERS       := $(call walk,shim/adapters,%.py)
EXPORTS        := $(wildcard shim/entry/exports.map)

tests_in = $(call walk,tests/$(1),%_test.cpp)
helpers_in = $(call without,%_test.cpp $(2),$(wildcard tests/$(1)/*.cpp))
UNIT_SOURCES    := $(call walk,tests/unit,%.cpp)
SIMTEST_SOURCES := $(call tests_in,sim)
PRELOAD_SOURCES := $(call tests_in,preload) $(call helpers_in,preload)
PROCESS_SOURCES := $(call tests_in,process) $(call helpers_in,process)
API_SOURCES     := $(call tests_in,api) $(call helpers_in,api,%/kernels.cpp)
CLI_SOURCES     := $(call tests_in,cli) $(call helpers_in,cli)
PROGRAMS        := $(wildcard tests/preload/programs/*.cpp tests/process/programs/*.cpp \
                   tests/stress/programs/*.cpp)
STRESS_SOURCES  := $(wildcard tests/stress/*.cpp)
LIBRARIES       := $(wildcard tests/preload/libraries/*.cpp tests/process/libraries/*.cpp)
FUZZERS         := $(wildcard tests/fuzz/*_fuzz.cpp)
BENCHES         := $(wildcard bench/*.cpp)

# ---- products ----
LIBRARY := $(BUILD)/libkvcached.so
SIM     := $(BUILD)/sim/libcuda.so.1 $(BUILD)/sim/libcuda.so
PRODUCTS := $(if $(SHIM_SOURCES),$(LIBRARY)) \
            $(if $(TOOLS_SOURCES),$(BUILD)/kvcached) \
            $(if $(SIM_SOURCES),$(SIM)) \
            $(if $(ENGINE_SOURCES),$(BUILD)/engine) \
            $(if $(wildcard bench/engine/kernels_host.cpp),$(BUILD)/sim/libengine_kernels.so) \
            $(if $(wildcard bench/measure/kernels_host.cpp),$(BUILD)/sim/libbench_kernels.so) \
            $(if $(DEMO_SOURCES),$(BUILD)/demo-driver)

TEST_BINARIES := \
  $(if $(UNIT_SOURCES),$(BUILD)/tests/unit) \
  $(if $(SIMTEST_SOURCES),$(BUILD)/tests/sim) \
  $(if $(wildcard tests/gpu/driver_facts.cpp),$(BUILD)/tests/driver_facts) \
  $(if $(PRELOAD_SOURCES),$(BUILD)/tests/preload) \
  $(if $(PROCESS_SOURCES),$(BUILD)/tests/process) \
  $(if $(API_SOURCES),$(BUILD)/tests/api) \
  $(if $(CLI_SOURCES),$(BUILD)/tests/cli)
TEST_PARTS := \
  $(if $(STRESS_SOURCES),$(BUILD)/tests/chaos) \
  $(if $(wildcard tests/gpu/driver_facts_kernels.cpp),$(BUILD)/tests/libdriver_facts_kernels.so) \
  $(if $(wildcard tests/api/kernels.cpp),$(BUILD)/tests/libapi_kernels.so) \
  $(if $(wildcard tests/engines/adapter_types.cpp),$(BUILD)/tests/libadapter_types.so) \
  $(foreach s,$(PROGRAMS),$(BUILD)/tests/programs/$(call name,$s)) \
  $(foreach s,$(LIBRARIES),$(BUILD)/tests/libraries/lib$(call name,$s).so)
REPLAYS       := $(foreach s,$(FUZZERS),$(BUILD)/tests/fuzz/$(call name,$s))
FUZZ_BINARIES := $(foreach s,$(FUZZERS),$(BUILD)/fuzzers/$(call name,$s))
BENCH_BINARIES := $(foreach s,$(BENCHES),$(BUILD)/bench/$(call name,$s))

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all help deps demo test test-engines run-tests test-binaries check cheap-check asan ubsan \
        tsan stress fuzz bench bench-vllm gpu-binaries gpu-check install clean

all: $(PRODUCTS)

help:
	@echo 'make            the library, the command, the simulated GPU and the example engine'
	@echo 'make demo       three engines share one GPU; installs what is missing'
	@echo 'make test       all tests on the simulated GPU; installs what is missing'
	@echo 'make check      format, clang-tidy, include directions, file sizes'
	@echo 'make asan tsan  the tests with address and undefined, and with thread sanitizer'
	@echo 'make stress     the long tests, and CHAOS seconds of engines that are killed at random (20)'
	@echo 'make test-engines  the adapters on the sources of RELEASES of vLLM, fetched by pip; no GPU'
	@echo 'make fuzz       every fuzzer for a minute (clang)'
	@echo 'make bench      the benchmarks'
	@echo 'make bench-vllm vLLM in SITE on a real GPU, stock beside elastic'
	@echo 'make gpu-check  everything that needs a real GPU, into one log'
	@echo 'make install    into PREFIX ($(PREFIX))'
	@echo 'make clean      removes BUILD ($(BUILD))'
	@echo 'Variables: BUILD, PREFIX, CUDA (a toolkit, 13 or later), CXX, RELEASES'

deps:
	@tests/install-deps

# ---- compiling ----
$(BUILD)/obj/%.o: LEVEL = $(OPTIMIZE)
$(BUILD)/obj/tests/%.o: LEVEL = $(TEST_OPTIMIZE)
$(BUILD)/obj/tests/sim/%.o $(BUILD)/obj/tests/stress/%.o: LEVEL = $(OPTIMIZE)

ifneq ($(SANITIZE),)
# A sanitizer looks up what it wraps with dlsym, which is ours, before it can check anything.
$(BUILD)/obj/shim/entry/%.o $(BUILD)/obj/shim/driver/real_dlsym.o: LEVEL = -O2 -g1 -fno-sanitize=all
endif

$(WHEEL_CUDA)/include/cuda.h:
	tests/fetch-cuda $(WHEEL_CUDA)

$(BUILD)/obj/%.o: %.cpp | $(CUDA_HEADER)
	@mkdir -p $(@D)
	$(call say,CXX,$<)$(CXX) $(CPPFLAGS) $(CXXFLAGS) $(LEVEL) -MMD -MP -c $< -o $@

$(BUILD)/obj/%.o: %.S | $(CUDA_HEADER)
	@mkdir -p $(@D)
	$(call say,AS,$<)$(CXX) $(CPPFLAGS) -fPIC -MMD -MP -c $< -o $@

$(call objects,$(filter shim/adapters/%,$(SHIM_SOURCES))): $(ADAPTERS)

-include $(patsubst %.o,%.d,$(call objects,$(POLICY_SOURCES) $(SHIM_SOURCES) $(TOOLS_SOURCES) \
  $(SIM_SOURCES) $(ENGINE_SOURCES) $(DEMO_SOURCES) $(CHART_SOURCES) $(REPLAY_SOURCES) \
  $(MEASURE_SOURCES) \
  $(UNIT_SOURCES) $(SIMTEST_SOURCES) \
  $(PRELOAD_SOURCES) $(PROCESS_SOURCES) $(API_SOURCES) $(CLI_SOURCES) $(STRESS_SOURCES) $(PROGRAMS) $(LIBRARIES) \
  $(FUZZERS) $(BENCHES) $(wildcard bench/*/kernels_host.cpp tests/gpu/*.cpp \
  tests/api/kernels.cpp tests/engines/adapter_types.cpp tests/fuzz/replay_main.cpp)))

# ---- linking ----
define archive
	@mkdir -p $(@D)
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^
endef
# A test source may name what it needs in its first line: "// link: -lfoo".
link_comment = $(shell sed -n '1s,^// link: *,,p' $(firstword $(1)))
# Tests and benchmarks link against the simulator, and use it or a real driver when they run.
ON_GPU = -L$(BUILD)/sim -Wl,--as-needed -lcuda -Wl,--no-as-needed
GTEST  = -lgtest_main -lgmock -lgtest
define link
	@mkdir -p $(@D)
	$(call say,LINK,$@)$(CXX) $(CXXFLAGS) $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -o $@ $(LDFLAGS) $(1)
endef

$(BUILD)/libpolicy.a: $(call objects,$(POLICY_SOURCES))
	$(archive)
$(BUILD)/libinner.a: $(call objects,$(INNER_SOURCES))
	$(archive)
$(BUILD)/libengine.a: $(call objects,$(call without,%/main.cpp,$(ENGINE_SOURCES)))
	$(archive)
$(BUILD)/libbench.a: $(call objects,$(CHART_SOURCES) $(REPLAY_SOURCES) $(MEASURE_SOURCES))
	$(archive)

$(LIBRARY): $(call objects,$(POLICY_SOURCES) $(SHIM_SOURCES)) $(EXPORTS)
	$(call link,-shared -Wl$(COMMA)-soname$(COMMA)libkvcached.so $(if $(EXPORTS), \
	  -Wl$(COMMA)--version-script=$(EXPORTS)) -Wl$(COMMA)--exclude-libs$(COMMA)ALL \
	  -Wl$(COMMA)-Bsymbolic $(if $(SANITIZE),,-Wl$(COMMA)-z$(COMMA)defs) \
	  -Wl$(COMMA)-z$(COMMA)nodelete -Wl$(COMMA)--as-needed)

$(BUILD)/kvcached: $(call objects,$(TOOLS_SOURCES)) $(BUILD)/libpolicy.a
	$(call link,)

$(BUILD)/sim/libcuda.so.1: $(call objects,$(SIM_SOURCES))
	$(call link,-shared -Wl$(COMMA)-soname$(COMMA)libcuda.so.1 -Wl$(COMMA)--exclude-libs$(COMMA)ALL \
	  $(if $(wildcard tests/sim/exports.map),-Wl$(COMMA)--version-script=tests/sim/exports.map))
$(BUILD)/sim/libcuda.so: $(BUILD)/sim/libcuda.so.1
	ln -sf libcuda.so.1 $@

$(BUILD)/engine: $(call objects,$(ENGINE_SOURCES)) | $(SIM)
	$(call link,$(ON_GPU))
$(BUILD)/sim/libengine_kernels.so: $(call objects,bench/engine/kernels_host.cpp)
	$(call link,-shared)
$(BUILD)/sim/libbench_kernels.so: $(call objects,bench/measure/kernels_host.cpp)
	$(call link,-shared)
$(BUILD)/demo-driver: $(call objects,$(DEMO_SOURCES) $(CHART_SOURCES)) $(BUILD)/libpolicy.a
	$(call link,)

TEST_LIBS := $(BUILD)/libinner.a $(BUILD)/libengine.a $(BUILD)/libpolicy.a
$(BUILD)/tests/unit: $(call objects,$(UNIT_SOURCES)) $(TEST_LIBS) | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/sim: $(call objects,$(SIMTEST_SOURCES)) | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/driver_facts: $(call objects,tests/gpu/driver_facts.cpp tests/gpu/driver_facts_pointers.cpp) | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/preload: $(call objects,$(PRELOAD_SOURCES)) $(TEST_LIBS) | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/process: $(call objects,$(PROCESS_SOURCES)) $(TEST_LIBS) | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/api: $(call objects,$(API_SOURCES)) $(BUILD)/libpolicy.a | $(SIM)
	$(call link,$(GTEST) $(ON_GPU))
$(BUILD)/tests/cli: $(call objects,$(CLI_SOURCES)) $(BUILD)/libpolicy.a
	$(call link,$(GTEST))
$(BUILD)/tests/chaos: $(call objects,$(STRESS_SOURCES)) $(BUILD)/libbench.a $(BUILD)/libpolicy.a
	$(call link,)
$(BUILD)/tests/libdriver_facts_kernels.so: $(call objects,tests/gpu/driver_facts_kernels.cpp)
	$(call link,-shared)
$(BUILD)/tests/libapi_kernels.so: $(call objects,tests/api/kernels.cpp)
	$(call link,-shared)
$(BUILD)/tests/libadapter_types.so: $(call objects,tests/engines/adapter_types.cpp \
    $(call without,shim/adapters/python.cpp,$(wildcard shim/adapters/*.cpp)))
	$(call link,-shared)

define program
$(BUILD)/tests/programs/$(call name,$1): $(call objects,$1) | $(SIM)
	$$(call link,-L$(BUILD)/sim -L$(CUDA)/lib64 $(call link_comment,$1))
endef
$(foreach s,$(PROGRAMS),$(eval $(call program,$s)))
define library
$(BUILD)/tests/libraries/lib$(call name,$1).so: $(call objects,$1) | $(SIM)
	$$(call link,-shared -L$(BUILD)/sim -L$(CUDA)/lib64 $(call link_comment,$1))
endef
$(foreach s,$(LIBRARIES),$(eval $(call library,$s)))
define bench
$(BUILD)/bench/$(call name,$1): $(call objects,$1) $(BUILD)/libbench.a $(TEST_LIBS) | $(SIM)
	$$(call link,$(call link_comment,$1) $$(ON_GPU))
endef
$(foreach s,$(BENCHES),$(eval $(call bench,$s)))
# In `make test` a fuzzer replays its corpus and a fixed set of made-up inputs, with any compiler.
define replay
$(BUILD)/tests/fuzz/$(call name,$1): $(call objects,$1 tests/fuzz/replay_main.cpp) $(TEST_LIBS) | $(SIM)
	$$(call link,$$(ON_GPU))
endef
$(foreach s,$(FUZZERS),$(eval $(call replay,$s)))
define fuzzer
$(BUILD)/fuzzers/$(call name,$1): $(call objects,$1) $(BUILD)/libinner.a $(BUILD)/libpolicy.a
	$$(call link,-fsanitize=fuzzer)
endef
$(foreach s,$(FUZZERS),$(eval $(call fuzzer,$s)))

# ---- running ----
demo: deps
	+@$(MAKE) --no-print-directory run-demo
.PHONY: run-demo
run-demo: all
	$(if $(DEMO_SOURCES),$(BUILD)/demo-driver $(BUILD),python3 bench/demo/demo.py $(BUILD))

test: deps
	+@$(MAKE) --no-print-directory run-tests
test-binaries: all $(TEST_BINARIES) $(TEST_PARTS) $(REPLAYS)
run-tests: test-binaries
	@tests/run --build $(BUILD) --cuda $(CUDA)

asan ubsan:
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CUDA=$(CUDA) SANITIZE=address,undefined \
	  OPTIMIZE='-O1 -g1' TEST_OPTIMIZE='-O1 -g1' run-sanitized
tsan:
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CUDA=$(CUDA) SANITIZE=thread \
	  OPTIMIZE='-O1 -g1' TEST_OPTIMIZE='-O1 -g1' run-sanitized
.PHONY: run-sanitized
run-sanitized: all $(filter-out %/cli %/driver_facts,$(TEST_BINARIES)) $(TEST_PARTS)
	@tests/run --build $(BUILD) --cuda $(CUDA) --sanitizer $(firstword $(subst $(COMMA), ,$(SANITIZE))) \
	  unit sim preload process api

RELEASES ?= 0.18.1 0.20.2 0.22.1 0.24.0 0.26.0 0.28.0 0.30.0 0.33.0
test-engines: $(BUILD)/tests/libadapter_types.so
	@tests/engines/fetch $(BUILD)/engines $(RELEASES)
	@tests/engines/test-releases $(BUILD)/engines $(RELEASES)

CHAOS ?= 20
stress: test-binaries
	@tests/run --build $(BUILD) --cuda $(CUDA) --stress --chaos $(CHAOS)

fuzz:
	@command -v clang++ >/dev/null || { echo 'make fuzz needs clang: apt-get install clang' >&2; exit 2; }
	+@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CUDA=$(CUDA) CXX=clang++ \
	  SANITIZE=address,undefined CXXFLAGS_EXTRA=-fsanitize=fuzzer-no-link run-fuzzers
.PHONY: run-fuzzers
run-fuzzers: $(FUZZ_BINARIES)
	@tests/run --build $(BUILD) --cuda $(CUDA) --fuzz 60

bench: all $(BENCH_BINARIES)
	@tests/run --build $(BUILD) --cuda $(CUDA) --bench

bench-vllm: all
	python3 bench/vllm_alone measure --site '$(SITE)' --build $(BUILD)

gpu-binaries: test-binaries $(BENCH_BINARIES)
gpu-check: gpu-binaries
	tests/gpu/check.sh $(BUILD)

# ---- checking ----
CXX_FILES := $(foreach d,shim policy tools tests bench,$(call walk,$d,%.cpp %.hpp %.h))
TIDY_STAMPS := $(patsubst %,$(BUILD)/tidy/%.ok,$(filter %.cpp,$(POLICY_SOURCES) $(SHIM_SOURCES) $(TOOLS_SOURCES)))
check: cheap-check $(TIDY_STAMPS)
	clang-format --dry-run -Werror $(CXX_FILES)
	@echo 'check: all clean'
cheap-check:
	@tests/check-tree
	@tests/check-includes
	@$(CC) -std=c99 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c shim/include/kvcached.h
	@$(CXX) -std=c++14 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ shim/include/kvcached.hpp
$(BUILD)/tidy/%.cpp.ok: %.cpp .clang-tidy $(BUILD)/obj/%.o | $(CUDA_HEADER)
	@mkdir -p $(@D)
	$(call say,TIDY,$<)clang-tidy --quiet $< -- $(CPPFLAGS) -std=c++20 -pthread
	@touch $@

install: all
	install -D -m 755 $(LIBRARY) $(DESTDIR)$(PREFIX)/lib/libkvcached.so
	install -D -m 755 $(BUILD)/kvcached $(DESTDIR)$(PREFIX)/bin/kvcached
	install -d $(DESTDIR)$(PREFIX)/include
	install -m 644 $(wildcard shim/include/*) $(DESTDIR)$(PREFIX)/include

clean:
	rm -rf $(BUILD)
