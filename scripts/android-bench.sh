#!/usr/bin/env bash
# Measures a model on a phone:
#
#     scripts/android-bench.sh MODEL.gguf OUT.json [bench options]     # as -p 256 -n 64 --reps 5
#
# Builds the program, pushes it and the model with adb, runs `halfbyte bench` there, and brings back its JSON with what the
# phone is. With Android's NDK (ANDROID_NDK_HOME) it is a program for Android; without, a static one for Linux, which
# Android's kernel runs as well. The model stays on the phone, for the next time. Of several phones ANDROID_SERIAL names one.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,/^set/s/^# \?//p' "$0"; exit 2; }
model=$(realpath "$1") out=$(realpath -m "$2")
shift 2
[ -f "$model" ] || { echo "error: no file $model"; exit 1; }
mkdir -p "$(dirname "$out")"
cd "$(dirname "$0")/.."
. .ci/need
command -v adb >/dev/null || { echo 'error: no adb: install the platform tools of Android'; exit 1; }
state=$(adb get-state 2>&1) || true
[ "$state" = device ] || { echo "error: no phone: adb says $state"; exit 1; }
if android_ndk; then
  target=aarch64-linux-android
else
  target=aarch64-unknown-linux-musl
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
fi
need_targets $target
cargo build --release --locked -p halfbyte-cli --target $target

# Not /sdcard: that is FUSE, and slow to map.
there=/data/local/tmp/halfbyte
# As the shell on the phone reads it.
printf -v name %q "$(basename "$model")"
adb shell "mkdir -p $there"
adb push "${CARGO_TARGET_DIR:-target}/$target/release/halfbyte" $there/halfbyte >/dev/null
sum=$(sha256sum <"$model")
[ "$(adb shell "sha256sum <$there/$name" 2>/dev/null | tr -d '\r')" = "$sum" ] || adb push "$model" "$there/$(basename "$model")"

prop() { adb shell getprop "$1" | tr -d '\r'; }
# Some zones cannot be read, and some tell volts or shares: those are no temperatures of a phone.
heat() {
  adb shell 'cat /sys/class/thermal/thermal_zone*/temp 2>/dev/null; true' | tr -d '\r' | awk '$1 > 0 && $1 < 150000' | sort -n | tail -n 1
}
before=$(heat)
trap 'rm -f "$out.part" "$out.new"' EXIT
options=
(($#)) && printf -v options ' %q' "$@"
adb shell "cd $there && ./halfbyte bench $name --json$options" >"$out.part"
BEFORE=$before AFTER=$(heat) TARGET=$target MODEL=$(prop ro.product.model) SOC=$(prop ro.soc.model) \
  ANDROID=$(prop ro.build.version.release) KERNEL=$(adb shell uname -r | tr -d '\r') python3 - "$out.part" >"$out.new" <<'PYTHON'
import json, os, sys

report = json.load(open(sys.argv[1]))
degrees = lambda name: int(os.environ[name] or 0) / 1000 or None
report["phone"] = {name.lower(): os.environ[name] for name in ("MODEL", "SOC", "ANDROID", "KERNEL", "TARGET")}
report["phone"]["hottest_before"], report["phone"]["hottest_after"] = degrees("BEFORE"), degrees("AFTER")
print(json.dumps(report, indent=2))
PYTHON
mv "$out.new" "$out"
echo "$out"
