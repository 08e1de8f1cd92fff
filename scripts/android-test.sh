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
# Fast enough to be emulated, and compiled in half the time of a release build.
export CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=0
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
  cargo=(cargo ndk -t arm64-v8a -P 24 test)
else
  linked='linked against generated stubs, without an NDK'
  need clang-19=clang-19 ld.lld-19=lld-19 llvm-ifs-19=llvm-19 qemu-aarch64-static=qemu-user-static
  need_targets aarch64-unknown-linux-musl
  # Where it is found again: with another linker cargo would build everything again.
  kit=$(realpath -m "${CARGO_TARGET_DIR:-target}")/android-kit
  scripts/android-kit.sh "$kit"
  export CARGO_TARGET_AARCH64_LINUX_ANDROID_LINKER=$kit/android-clang
  cargo=(cargo test --target $target)
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
  ran="run under qemu on musl's C library in place of Android's: no phone, no Android"
  run() { TMPDIR=$work "$kit/android-run" "$1"; }
else
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
while read -r program; do
  run "$program" >"$log" 2>&1 </dev/null || { tail -n 40 "$log"; echo "error: $program failed"; exit 1; }
  cat "$log" >>"$work/all"
done <"$work/tests"
passed=$(awk '/^test result: ok/ {n += $4} END {print n + 0}' "$work/all")
echo "$passed tests of $count programs for Android passed, $linked, $ran"
