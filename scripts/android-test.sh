#!/usr/bin/env bash
# The tests of every crate as programs for Android: `just android-test`.
#
# With Android's NDK (ANDROID_NDK_HOME) and a phone on adb they are linked by the NDK, and run on the phone: one push, one
# run. Otherwise they are linked against generated stubs and run under qemu, with musl's C library in place of Android's:
# see scripts/android-kit.sh. The last line says which it was. LINK_ONLY=1 runs nothing.
#
# The files that tests read are in the programs: nothing else is pushed.
#
# Left out are tests that start other programs: those of the command line, and the house rules, which ask cargo.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/need
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
target=aarch64-linux-android
need_targets $target
packages=(-p halfbyte-formats -p halfbyte-kernels -p halfbyte -p halfbyte-cli -p halfbyte-tests)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log

is_phone_there() { [ "$(adb get-state 2>&1)" = device ]; }
if adb devices 2>/dev/null | awk '$2 == "device" {n += 1} END {exit n < 2}' && ! is_phone_there; then
  echo 'error: more than one phone: ANDROID_SERIAL says which'
  exit 1
fi
if { [ "${LINK_ONLY-}" ] || is_phone_there; } && android_ndk; then
  linked="linked with the NDK in $ANDROID_NDK_HOME"
  # What is pushed is a tenth of the size.
  export CARGO_PROFILE_RELEASE_STRIP=symbols
else
  linked='linked against generated stubs, without an NDK'
  android_kit "${CARGO_TARGET_DIR:-target}/android-kit"
fi
# One set of packages, see .ci/arm.
CARGO_PROFILE_RELEASE_DEBUG=none cargo test --release --target $target --locked --no-run "${packages[@]}" --lib --bins \
  $(named_tests formats kernels runtime tests | grep -v house_rules) >"$log" 2>&1 ||
  { grep -E '^error' -A 20 "$log" | tail -n 40; exit 1; }
executables "$log" >"$work/tests"
count=$(wc -l <"$work/tests")
((count)) || { echo "error: cargo named no test program"; exit 1; }
if [ "${LINK_ONLY-}" ]; then
  echo "$count test programs for Android, $linked, not run"
  exit
fi

if [ "${kit-}" ]; then
  ran="run under qemu on musl's C library in place of Android's: no phone, no Android"
  run() {
    local log=$work/$(basename "$1").log
    TMPDIR=$work "$kit/android-run" "$1" --show-output >"$log" 2>&1 </dev/null || { tail -n 40 "$log"; echo "error: $1 failed"; exit 1; }
  }
  while read -r program; do at_a_time "$(nproc)" run "$program"; done <"$work/tests"
  all_done
else
  ran="run on $(adb shell getprop ro.product.model | tr -d '\r')"
  push=$work/halfbyte-tests
  mkdir -p "$push"/{programs,tmp}
  while read -r program; do cp "$program" "$push/programs"; done <"$work/tests"
  cat >"$push/run" <<'PHONE'
cd "${0%/*}" || exit 1
export TMPDIR="$PWD/tmp"
chmod 755 programs/*
for program in programs/*; do
  "$program" --show-output 2>&1 || { echo "error: $program failed"; exit 1; }
done
PHONE
  there=/data/local/tmp
  adb shell "rm -rf $there/halfbyte-tests"
  adb push "$push" $there/ >/dev/null
  adb shell "sh $there/halfbyte-tests/run" >"$work/phone.log" </dev/null || { tail -n 40 "$work/phone.log"; exit 1; }
  adb shell "rm -rf $there/halfbyte-tests"
fi
sum() { cat "$work"/*.log | tr -d '\r' | awk "$1"; }
ended=$(sum '/^test result: ok/ {n += 1} END {print n + 0}')
[ "$ended" = "$count" ] || { echo "error: $ended of $count programs told a result"; exit 1; }
# A test whose data is absent says `skipped:`. Under qemu it is there if it is beside the checkout.
skipped=$(sum '/^skipped:/ {n += 1} END {print n + 0}')
if [ "${kit-}" ] && [ -d ../shared ] && ((skipped)); then
  sum '/^skipped:/'
  echo 'error: tests were skipped although ../shared is there'
  exit 1
fi
passed=$(sum '/^test result: ok/ {n += $4} END {print n + 0}')
echo "$passed tests of $count programs for Android passed ($skipped times data was not there), $linked, $ran"
