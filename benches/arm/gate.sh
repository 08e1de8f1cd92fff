#!/usr/bin/env bash
# Builds the kernels for Arm, with names that tell instances apart, and runs gate.py on them: `benches/arm/gate.sh --check`.
# Nothing is optimised across crates after that: programs hold the same functions.
set -euo pipefail
cd "$(dirname "$0")/../.."
. .ci/need
need llvm-mca-19=llvm-19 llvm-objdump-19=llvm-19 aarch64-linux-gnu-gcc='gcc-aarch64-linux-gnu libc6-dev-arm64-cross'
target=aarch64-unknown-linux-gnu
need_targets $target
folder=${CARGO_TARGET_DIR:-target}/gate
CARGO_TARGET_DIR=$folder CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS=-Csymbol-mangling-version=v0 \
  cargo build --release --locked --quiet -p halfbyte-kernels --target $target
exec python3 benches/arm/gate.py "$folder/$target/release/libhalfbyte_kernels.rlib" "$@"
