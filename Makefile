# tokenmill: `make help` lists what there is. Build output goes to build/<variant>/ only, so nothing needs a clean.
VARIANT ?= release
B := build/$(VARIANT)
PREFIX ?= /usr/local
PYTHON ?= python3
CC ?= cc
CXX ?= c++

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter
CFLAGS_release := -O2 -g
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
CFLAGS_tsan := -O1 -g -fsanitize=thread -fno-omit-frame-pointer
CFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
ifeq ($(VARIANT),fuzz)
CC := clang
endif
PKGS := sqlite3 libzstd libarchive libpcre2-8 libutf8proc libxxhash libcrypto libcurl yaml-0.1 libmicrohttpd
# No contraction: the same source gives the same floats on every processor; kernels ask for fma by name.
CFLAGS_ALL := -std=c11 -D_GNU_SOURCE -pthread -ffp-contract=off $(WARN) $(CFLAGS_$(VARIANT)) -I. -isystem build/deps/yyjson \
	-MMD -MP $(shell pkg-config --cflags $(PKGS) 2>/dev/null) $(CFLAGS)
LDLIBS_ALL := $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm -pthread $(LDLIBS)

# Libraries, lowest first. A test of a library links it and what is below.
SRC_base := $(wildcard base/*.c)
SRC_text := $(wildcard engine/file/*.c engine/text/*.c)
SRC_engine := $(wildcard engine/*.c engine/model/*.c engine/cpu/*.c engine/cuda/*.c)
SRC_queue := $(wildcard queue/*.c)
SRC_jobs := $(wildcard jobs/*.c)
SRC_runner := $(filter-out runner/main.c,$(wildcard runner/*.c))
LIBS := base text engine queue jobs runner

# engine/cpu/kernels_*.c are compiled once per instruction set; engine/cpu/*.c choose at run time.
KERNELS := $(filter engine/cpu/kernels_%,$(SRC_engine))
SRC_engine := $(filter-out $(KERNELS),$(SRC_engine))
ARCH := $(shell uname -m)
ISAS_x86_64 := generic avx2 avx512
ISAS_aarch64 := generic
ISAS := $(or $(ISAS_$(ARCH)),generic)
# Fuzzers parse, they do not compute; clang takes minutes for unrolled kernels under sanitizers.
KERNEL_OPT := $(if $(filter release,$(VARIANT)),-O3,$(if $(filter fuzz,$(VARIANT)),-O0,-O1))
# The generic kernels are for correctness elsewhere, not for speed; scalar replacement of their 16-lane structs takes gcc
# minutes, and clang (fuzz) anything but -O0.
ISA_FLAGS_generic := -DISA=generic -DISA_GENERIC $(if $(filter fuzz,$(VARIANT)),-O0,-O1 -fno-tree-sra)
ISA_FLAGS_avx2 := -DISA=avx2 -DISA_AVX2 -mavx2 -mfma -mf16c $(KERNEL_OPT)
ISA_FLAGS_avx512 := -DISA=avx512 -DISA_AVX512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c -mprefer-vector-width=512 $(KERNEL_OPT)
KERNEL_OBJS := $(foreach isa,$(ISAS),$(patsubst %.c,$(B)/obj/%.$(isa).o,$(KERNELS)))

lib = $(B)/lib$(1).a
LINK_base := $(call lib,base)
LINK_text := $(call lib,text) $(LINK_base)
LINK_engine := $(call lib,engine) $(LINK_text)
LINK_queue := $(call lib,queue) $(LINK_base)
LINK_jobs := $(call lib,jobs) $(call lib,queue) $(LINK_text)
LINK_runner := $(call lib,runner) $(call lib,jobs) $(call lib,queue) $(LINK_engine)

all: $(B)/tokenmill ## build the program (build/release/tokenmill)

cuda: $(B)/tokenmill-cuda.so ## the plug-in for NVIDIA GPUs (fetches its compiler where there is none: 105 MB)
$(B)/tokenmill-cuda.so: $(wildcard engine/cuda/*.cu engine/cuda/*.cuh) engine/cuda/gpu.h engine/cuda/gpu_kernels.h scripts/cuda.sh
	PYTHON=$(PYTHON) scripts/cuda.sh $@

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

YYJSON := build/deps/yyjson/yyjson.h
$(YYJSON): scripts/deps.sh
	PYTHON=$(PYTHON) scripts/deps.sh yyjson

define library
$(B)/lib$(1).a: $(patsubst %.c,$(B)/obj/%.o,$(SRC_$(1))) $(2)
	@mkdir -p $$(@D)
	@rm -f $$@
	@ar rcs $$@ $$^
endef
$(eval $(call library,base,$(B)/obj/yyjson.o))
$(eval $(call library,text))
$(eval $(call library,engine,$(KERNEL_OBJS)))
$(eval $(call library,queue))
$(eval $(call library,jobs))
$(eval $(call library,runner))

$(B)/obj/yyjson.o: $(YYJSON)
	@mkdir -p $(@D)
	$(CC) -std=c11 -O2 -g -c -o $@ build/deps/yyjson/yyjson.c
define kernel_rule
$(B)/obj/%.$(1).o: %.c | $(YYJSON)
	@mkdir -p $$(@D)
	$(CC) $(CFLAGS_ALL) $(ISA_FLAGS_$(1)) -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call kernel_rule,$(isa))))
$(B)/obj/%.o: %.c | $(YYJSON)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -c -o $@ $<

$(B)/tokenmill: $(B)/obj/runner/main.o $(LINK_runner)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL)

# tests/<library>/test_*.c, tool_*.c (what scripts drive): one binary each, linked with that library and what is below it.
TESTS :=
define test_rules
TESTS_$(1) := $$(patsubst tests/$(1)/%.c,$$(B)/tests/%,$$(wildcard tests/$(1)/test_*.c))
TESTS += $$(TESTS_$(1))
$$(TESTS_$(1)): $$(B)/tests/%: $$(B)/obj/tests/$(1)/%.o $$(LINK_$(1))
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS_ALL) -o $$@ $$^ $$(LDLIBS_ALL)
TOOLS_$(1) := $$(patsubst tests/$(1)/%.c,$$(B)/tests/%,$$(wildcard tests/$(1)/tool_*.c))
TOOLS += $$(TOOLS_$(1))
$$(TOOLS_$(1)): $$(B)/tests/%: $$(B)/obj/tests/$(1)/%.o $$(LINK_$(1))
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS_ALL) -o $$@ $$^ $$(LDLIBS_ALL)
FUZZ_$(1) := $$(patsubst tests/$(1)/%.c,$$(B)/fuzz/%,$$(wildcard tests/$(1)/fuzz_*.c))
FUZZERS += $$(FUZZ_$(1))
$$(FUZZ_$(1)): $$(B)/fuzz/%: $$(B)/obj/tests/$(1)/%.o $$(LINK_$(1))
	@mkdir -p $$(@D)
	$$(CC) $$(CFLAGS_ALL) -fsanitize=fuzzer -o $$@ $$^ $$(LDLIBS_ALL)
endef
$(foreach l,$(LIBS),$(eval $(call test_rules,$(l))))

# tests/rigs/nfs_sim*.c: a file system for tests, where libfuse3 is there. The program never links it.
ifeq ($(shell pkg-config --exists fuse3 2>/dev/null && echo yes),yes)
NFS_SIM := $(B)/tests/nfs_sim
$(NFS_SIM): $(patsubst %.c,$(B)/obj/%.o,$(wildcard tests/rigs/nfs_sim*.c)) $(LINK_base)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(shell pkg-config --libs fuse3) $(LDLIBS_ALL)
endif

# The CUDA sources run on the CPU, each CUDA thread a fiber (tests/rigs/cuda_shim): linked into tests/cuda/test_*.c, and as a plug-in for
# tests of the whole program. ThreadSanitizer knows no fibers.
CUDA_SOURCES := $(wildcard engine/cuda/*.cu)
SHIM_FLAGS := -std=c++17 -fPIC -fvisibility=hidden -pthread -ffp-contract=off -Wall -Wextra -Wshadow -Wno-unused-parameter $(CFLAGS_$(VARIANT)) \
	-DTOKENMILL_CUDA_SHIM -Itests/rigs/cuda_shim -I. -MMD -MP
SHIM_OBJS := $(patsubst %,$(B)/obj/shim/%.o,$(CUDA_SOURCES) $(wildcard tests/rigs/cuda_shim/*.cpp))
$(B)/obj/shim/%.o: %
	@mkdir -p $(@D)
	$(CXX) -x c++ $(SHIM_FLAGS) -c -o $@ $<
$(B)/obj/shim/tensor.o: engine/file/tensor.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -fPIC -fvisibility=hidden -c -o $@ $<
ifneq ($(VARIANT),tsan)
TESTS_cuda := $(patsubst tests/cuda/%.c,$(B)/tests/%,$(wildcard tests/cuda/test_*.c))
TESTS += $(TESTS_cuda)
CUDA_SHIM := $(B)/tests/tokenmill-cuda-shim.so
endif
$(TESTS_cuda): $(B)/tests/%: $(B)/obj/tests/cuda/%.o $(SHIM_OBJS) $(LINK_engine)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -o $@ $^ $(LDLIBS_ALL) -lstdc++
$(CUDA_SHIM): $(SHIM_OBJS) $(B)/obj/shim/tensor.o
	@mkdir -p $(@D)
	$(CXX) $(CFLAGS_$(VARIANT)) -shared -o $@ $^

tests: $(TESTS) $(TOOLS) $(NFS_SIM) $(CUDA_SHIM)
fuzzers: $(FUZZERS)
test: all $(TESTS) ## C unit tests: no network, no model, no GPU
	scripts/run-tests.sh $(TESTS)
asan ubsan: ## the same under AddressSanitizer and UndefinedBehaviorSanitizer
	$(MAKE) VARIANT=asan test
tsan: ## tests that use threads, under ThreadSanitizer
	$(MAKE) VARIANT=tsan tsan-tests
# Not those that run on one thread, and not the real model: minutes.
tsan-tests: $(filter-out %/test_kv %/test_sample %/test_schedule %/test_model %/test_smollm2,$(TESTS_base) $(TESTS_engine) $(TESTS_runner))
	scripts/run-tests.sh $^
fuzz: ## every fuzzer for FUZZ_SECONDS (10) each; needs clang
	$(MAKE) VARIANT=fuzz fuzz-all
fuzz-all: $(FUZZERS)
	scripts/run-fuzz.sh $^
check: ## install what tests need, then every test there is
	MAKE="$(MAKE)" scripts/check.sh
check-cluster: all tests ## the image, and jobs in a real Kubernetes on this machine (root; builds it once, 9 minutes, needs Go)
	CLUSTER=1 MAKE="$(MAKE)" scripts/check.sh cluster

demo: ## from nothing to results: SmolLM2-135M answers HumanEval's prompts
	MAKE="$(MAKE)" scripts/demo.sh smollm2
demo-qwen: ## the same with Qwen2.5-Coder-1.5B; its answers are run and scored
	MAKE="$(MAKE)" scripts/demo.sh qwen-coder
bench: ## speed beside llama.cpp on the same prompts (BENCH="--rounds 3 --workloads A,B")
	MAKE="$(MAKE)" scripts/bench.sh $(BENCH)

install: all ## into PREFIX (/usr/local), under DESTDIR
	install -D -m 755 $(B)/tokenmill $(DESTDIR)$(PREFIX)/bin/tokenmill
image: ## the container image, by buildah (IMAGE=localhost/tokenmill:latest)
	scripts/image.sh $(IMAGE)
uninstall: ## take it away again
	rm -f $(DESTDIR)$(PREFIX)/bin/tokenmill
SOURCES := $(wildcard $(foreach d,base engine engine/* queue jobs runner tests tests/*,$(d)/*.c $(d)/*.h))
SOURCES := $(if $(NFS_SIM),$(SOURCES),$(filter-out tests/rigs/nfs_sim%,$(SOURCES)))
format: ## clang-format over all sources
	clang-format -i $(SOURCES)
lint: $(YYJSON) ## the analyzer of clang-tidy over all sources
	clang-tidy --quiet --checks='-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.*' --warnings-as-errors='*' $(filter-out $(KERNELS),$(filter %.c,$(SOURCES))) -- \
		-std=c11 -D_GNU_SOURCE -I. -isystem build/deps/yyjson
hdr-check: $(YYJSON) ## each header compiles alone
	@for h in $(filter %.h,$(SOURCES)); do echo "#include \"$$h\"" | \
		$(CC) $(CFLAGS_ALL) -MF /dev/null -Werror -Wno-unused-function -Wno-unused-variable -fsyntax-only -x c - || { echo "FAIL $$h"; exit 1; }; done
clean: ## remove what was built; models, data and build/deps stay
	rm -rf $(foreach v,release asan tsan fuzz,build/$(v))

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
.PHONY: all cuda tests fuzzers test help asan ubsan tsan tsan-tests fuzz fuzz-all check check-cluster image demo demo-qwen bench install uninstall format lint \
	hdr-check clean
.SECONDARY:
