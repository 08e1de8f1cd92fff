#!/usr/bin/env bash
# Instructions that a token of the bundled models takes in each tier, under qemu:
#
#     benches/arm/instructions.sh [OUT.csv]
#
# A number to compare two versions of the same code by; cores differ in what an instruction costs.
#
# Two runs of different length are subtracted, so that loading is left out; one thread, so that counts repeat exactly.
set -euo pipefail
if [ $# = 0 ]; then exec 3>&1; else exec 3>"$1"; fi
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

# `count CPU MODEL SENTENCES TOKENS`: sets `total`, the instructions of a run that reads so many sentences and writes so
# many tokens, `tokens`, how many it has read, and `tier`. Without such numbers nothing is recorded.
count() {
  rm -f "$work/counts"
  for _ in $(seq "$3"); do printf 'Once upon a time there was a king who had three sons. '; done >"$work/prompt"
  qemu-aarch64 -cpu "$1" -L /usr/aarch64-linux-gnu -plugin "$work/count.so" -d plugin -D "$work/counts" \
    "$program" run "$2" -f "$work/prompt" -n "$4" --temp 0 --threads 1 >/dev/null 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }
  total=$(awk '$2 == "total" {print $1}' "$work/counts")
  tokens=$(sed -n 's/.*| prompt \([0-9]*\) tokens.*/\1/p' "$work/log")
  tier=$(tail -n 1 "$work/log" | awk -F' [|] ' '{print $(NF - 2)}')
  [[ $total =~ ^[0-9]+$ && $tokens =~ ^[0-9]+$ && $tier ]] ||
    { echo "error: no counts of $2 on $1:"; cat "$work/log"; exit 1; } >&2
}

echo 'model,cpu,tier,prompt instructions a token,decode instructions a token' >&3
for model in tiny-mimo tiny-phimoe; do
  for cpu in cortex-a53 cortex-a76 max,sve=off max,sve256=on a64fx; do
    count $cpu $model 1 8; short=$total
    count $cpu $model 1 24; long=$total
    count $cpu $model 2 1; few=$total had=$tokens
    count $cpu $model 10 1; many=$total have=$tokens
    echo "$model,\"$cpu\",$tier,$(((many - few) / (have - had))),$(((long - short) / 16))" >&3
  done
done
