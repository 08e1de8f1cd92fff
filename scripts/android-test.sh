#!/usr/bin/env bash
# The tests of every crate as programs for Android: `just android-test`.
#
# With Android's NDK (ANDROID_NDK_HOME), cargo-ndk and a phone on adb they are linked by the NDK and run on the phone.
# Otherwise they are linked against generated stubs and run under qemu, with musl's C library in place of Android's: see
# scripts/android-kit.sh. The last line says which it was. LINK_ONLY=1 runs nothing.
#
# Left out are tests that start other programs: those of the command line, and the house rules, which ask cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/need
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
target=aarch64-linux-android
need_targets $target
libraries=(-p halfbyte-formats -p halfbyte-kernels -p halfbyte)
rest=(-p halfbyte-cli -p halfbyte-tests --bins)
for test in tests/tests/*.rs; do
  [ "$test" = tests/tests/house_rules.rs ] || rest+=(--test "$(basename "$test" .rs)")
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

is_phone_there() { [ "$(adb get-state 2>/dev/null)" = device ]; }
if command -v cargo-ndk >/dev/null && [ -d "${ANDROID_NDK_HOME:-/nowhere}" ] && { [ "${LINK_ONLY-}" ] || is_phone_there; }; then
  linked="linked with the NDK in $ANDROID_NDK_HOME"
  cargo=(cargo ndk -t arm64-v8a -P 24 test --release)
else
  linked='linked against generated stubs, without an NDK'
  android_kit "${CARGO_TARGET_DIR:-target}/android-kit"
  cargo=(cargo test --release --target $target)
fi
for packages in libraries rest; do
  declare -n names=$packages
  "${cargo[@]}" --locked --no-run "${names[@]}" >"$log" 2>&1 || { grep -E '^error' -A 20 "$log" | tail -n 40; exit 1; }
  executables "$log" >>"$work/tests"
done
count=$(wc -l <"$work/tests")
if [ "${LINK_ONLY-}" ]; then
  echo "$count test programs for Android, $linked, not run"
  exit
fi

if [ "${kit-}" ]; then
  at_once=$(nproc)
  ran="run under qemu on musl's C library in place of Android's: no phone, no Android"
  run() { TMPDIR=$work "$kit/android-run" "$1"; }
else
  at_once=1
  ran="run on $(adb shell getprop ro.product.model | tr -d '\r')"
  there=/data/local/tmp/halfbyte-tests
  # The files that tests read, where they look for them: beside the folder of their crate.
  adb shell "rm -rf $there && mkdir -p $there/tmp $there/tests/tests $there/cli"
  adb push tests/tests/golden $there/tests/tests/ >/dev/null
  adb push cli/models $there/cli/ >/dev/null
  adb push models $there/ >/dev/null
  run() {
    adb push "$1" $there/program >/dev/null
    adb shell "cd $there/tests && CARGO_MANIFEST_DIR=$there/tests TMPDIR=$there/tmp $there/program" </dev/null
  }
fi
logged() {
  local log=$work/$(basename "$1").log
  run "$1" >"$log" 2>&1 </dev/null || { tail -n 40 "$log"; echo "error: $1 failed"; exit 1; }
}
while read -r program; do at_a_time "$at_once" logged "$program"; done <"$work/tests"
all_done
passed=$(awk '/^test result: ok/ {n += $4} END {print n + 0}' "$work"/*.log)
echo "$passed tests of $count programs for Android passed, $linked, $ran"
