# What contributors and CI run. `just --list` shows the recipes.

# Everything a change must pass.
check:
    bash .ci/run

# Format, lints and tests only.
quick:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --release --workspace

# The README's first command.
run *ARGS='run -p "Once upon a time"':
    cargo run --release -- {{ARGS}}

# Criterion benchmarks; `just bench matmul` runs one file.
bench *NAME:
    cargo bench -p halfbyte-benches {{ if NAME == "" { "" } else { "--bench " + NAME } }}

# Our kernels beside candle's, one thread each; beside ggml's with HALFBYTE_GGML=FOLDER, see benches/README.md.
peers *ARGS:
    cd benches/peers && RAYON_NUM_THREADS=1 cargo bench {{ARGS}}

# A model beside llama.cpp and ik_llama.cpp; `just compare --help` says how.
compare *ARGS:
    python3 scripts/compare_peers.py {{ARGS}}

# All that takes longer than `just check`; `just full miri fuzz` runs steps of it.
full *STEPS:
    bash .ci/full {{STEPS}}

# The hot loops of each tier as they were compiled.
asm: (full "asm")

# Kernels, formats and golden logits on seven Arm CPUs under qemu; `just arm a53 sve256` runs some.
arm *CPUS:
    bash .ci/arm {{CPUS}}

# How fast the hot loops of the Arm tiers are on models of real cores (llvm-mca); fails if one is too slow.
arm-gate *ARGS='--check':
    bash benches/arm/gate.sh {{ARGS}}

# Every crate's tests as programs for Android, on a phone if there is one, else under qemu.
android-test:
    bash scripts/android-test.sh

# A model on a phone: `just android-bench model.gguf out.json -p 256`.
android-bench *ARGS:
    bash scripts/android-bench.sh {{ARGS}}

# Undefined behaviour in the crates that hold unsafe code or parse files (nightly).
miri: (full "miri")

# Data races in the thread team (nightly with rust-src).
tsan: (full "tsan")

# Secrets of many sessions and cancelled requests, as often as is promised.
scheduler: (full "scheduler")

# More orders of events in the thread team and the scheduler's hand-over than their tests try.
loom: (full "loom")

# Each fuzz target for SECONDS (nightly, cargo-fuzz).
fuzz SECONDS='60':
    FUZZ_SECONDS={{SECONDS}} bash .ci/full fuzz

# The floor of `rust-version`, the only place it is written.
msrv:
    cargo "+$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)" check --workspace --locked

# Licences, advisories and duplicate crates (cargo-deny).
deny:
    cargo deny check

# Breaking changes since the last release (cargo-semver-checks).
semver:
    cargo semver-checks -p halfbyte-formats -p halfbyte-kernels -p halfbyte
