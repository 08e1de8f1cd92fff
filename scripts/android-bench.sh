#!/usr/bin/env bash
# Measures a model on a phone:
#
#     scripts/android-bench.sh MODEL.gguf OUT.json [bench options]     # as -p 256 -n 64 --reps 5
#
# Builds the program, pushes it and the model with adb, runs `halfbyte bench` there, and brings back its JSON with what the
# phone is. With Android's NDK (ANDROID_NDK_HOME) and cargo-ndk it is a program for Android; without, a static one for
# Linux, which Android's kernel runs as well. The model stays on the phone, for the next time.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \?//p' "$0"; exit 2; }
model=$(realpath "$1") out=$(realpath -m "$2")
shift 2
[ -f "$model" ] || { echo "error: no file $model"; exit 1; }
cd "$(dirname "$0")/.."
. .ci/need
command -v adb >/dev/null || { echo 'error: no adb: install the platform tools of Android'; exit 1; }
[ "$(adb get-state 2>/dev/null)" = device ] || { echo 'error: no phone: adb devices'; exit 1; }
if command -v cargo-ndk >/dev/null && [ -d "${ANDROID_NDK_HOME:-/nowhere}" ]; then
  target=aarch64-linux-android
  need_targets $target
  cargo ndk -t arm64-v8a -P 24 build --release --locked -p halfbyte-cli
else
  target=aarch64-unknown-linux-musl
  need_targets $target
  CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld cargo build --release --locked -p halfbyte-cli --target $target
fi

# Not /sdcard: that is FUSE, and slow to map.
there=/data/local/tmp/halfbyte
name=$(basename "$model")
adb shell "mkdir -p $there"
adb push "${CARGO_TARGET_DIR:-target}/$target/release/halfbyte" $there/halfbyte >/dev/null
size=$(stat -c %s "$model")
[ "$(adb shell "stat -c %s '$there/$name' 2>/dev/null" | tr -d '\r')" = "$size" ] || adb push "$model" "$there/$name"

prop() { adb shell getprop "$1" | tr -d '\r'; }
# Some zones cannot be read.
heat() { adb shell 'cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null; true' | tr -d '\r' | sort -n | tail -n 1; }
before=$(heat)
options=
(($#)) && printf -v options ' %q' "$@"
adb shell "cd $there && ./halfbyte bench '$name' --json$options" >"$out.part"
BEFORE=$before AFTER=$(heat) TARGET=$target MODEL=$(prop ro.product.model) SOC=$(prop ro.soc.model) \
  ANDROID=$(prop ro.build.version.release) KERNEL=$(adb shell uname -r | tr -d '\r') python3 - "$out.part" >"$out" <<'PYTHON'
import json, os, sys

report = json.load(open(sys.argv[1]))
degrees = lambda name: int(os.environ[name] or 0) / 1000 or None
report["phone"] = {name.lower(): os.environ[name] for name in ("MODEL", "SOC", "ANDROID", "KERNEL", "TARGET")}
report["phone"]["hottest_before"], report["phone"]["hottest_after"] = degrees("BEFORE"), degrees("AFTER")
print(json.dumps(report, indent=2))
PYTHON
rm -f "$out.part"
echo "$out"
