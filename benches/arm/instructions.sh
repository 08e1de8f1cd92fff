#!/usr/bin/env bash
# Instructions that a token of the bundled models takes in each tier, under qemu:
#
#     benches/arm/instructions.sh [OUT.csv]
#
# A number to compare two versions of the same code by; cores differ in what an instruction costs.
#
#
# Two runs of different length are subtracted, so that loading is left out; one thread, so that counts repeat exactly.
set -euo pipefail
out=$(realpath -m "${1:-/dev/stdout}")
cd "$(dirname "$0")/../.."
. .ci/need
need qemu-aarch64=qemu-user aarch64-linux-gnu-gcc='gcc-aarch64-linux-gnu libc6-dev-arm64-cross' gcc=gcc
target=aarch64-unknown-linux-gnu
need_targets $target
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
cargo build --release --locked --quiet -p halfbyte-cli --target $target
program=${CARGO_TARGET_DIR:-target}/$target/release/halfbyte
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -shared -fPIC -O2 benches/arm/count.c -o "$work/count.so"

# `count CPU MODEL SENTENCES TOKENS`: instructions of a run that reads so many sentences and writes so many tokens; then
# how many tokens it has read, and the tier.
count() {
  for _ in $(seq "$3"); do printf 'Once upon a time there was a king who had three sons. '; done >"$work/prompt"
  qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu -plugin "$work/count.so" -d plugin -D "$work/counts" \
    "$program" run "$2" -f "$work/prompt" -n "$4" --temp 0 --threads 1 >/dev/null 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }
  awk '$2 == "total" {print $1}' "$work/counts"
  sed -n 's/.*| prompt \([0-9]*\) tokens.*/\1/p' "$work/log"
  tail -n 1 "$work/log" | awk -F' [|] ' '{print $(NF - 2)}'
}

echo 'model,cpu,tier,prompt instructions a token,decode instructions a token' >"$out"
for model in tiny-mimo tiny-phimoe; do
  for cpu in cortex-a53 cortex-a76 max,sve=off max,sve256=on a64fx; do
    read -r -d '' short _ tier < <(count $cpu $model 1 8) || true
    read -r -d '' long _ < <(count $cpu $model 1 24) || true
    read -r -d '' few had _ < <(count $cpu $model 2 1) || true
    read -r -d '' many have _ < <(count $cpu $model 10 1) || true
    echo "$model,\"$cpu\",$tier,$(((many - few) / (have - had))),$(((long - short) / 16))" >>"$out"
  done
done
