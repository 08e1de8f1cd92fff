#!/usr/bin/env bash
# Makes what it takes to link and run Android programs without Android's NDK:
#
#     scripts/android-kit.sh DIR      # writes DIR/android-clang, a linker, and DIR/android-run, a runner
#
# The linker links twice. First as for a phone, dynamically, against a stub of the C library that has just the symbols
# asked for; those have to be in scripts/android-symbols.txt, names that Android's own library has. Then, to run it, with
# musl's C library, which comes with Rust and stands in for Android's: the layouts of both agree but for what `shim.c`
# below translates. The second program is what cargo gets; the first is thrown away.
#
# So this shows that code for Android compiles, links and computes the right thing. It is no Android: neither its C
# library nor its dynamic linker, kernel or permissions are there.
#
# Needs clang-19, ld.lld-19, llvm-ar-19 and llvm-ifs-19, qemu-aarch64-static, and Rust's target aarch64-unknown-linux-musl.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,/^set/s/^# \?//p' "$0"; exit 2; }
api=24
symbols=$(realpath "$(dirname "$0")/android-symbols.txt")
mkdir -p "$1"
kit=$(realpath "$1")
musl=$(rustc --print sysroot)/lib/rustlib/aarch64-unknown-linux-musl/lib/self-contained
[ -f "$musl/libc.a" ] || { echo 'error: no musl here: rustup target add aarch64-unknown-linux-musl'; exit 1; }
rm -rf "$kit/stub" "$kit/musl"
mkdir -p "$kit/stub" "$kit/musl"

# The first link: nothing in it is ever run. But it starts at `main`: what nothing calls is left out, and not looked up.
echo '.section .note.GNU-stack,"",%progbits' >"$kit/empty.s"
clang-19 --target=aarch64-linux-android$api -c "$kit/empty.s" -o "$kit/empty.o"
for name in crtbegin_so crtend_android crtend_so; do cp "$kit/empty.o" "$kit/stub/$name.o"; done
printf '.globl _start\n_start: b main\n' | clang-19 --target=aarch64-linux-android$api -c -x assembler - -o "$kit/stub/crtbegin_dynamic.o"
for name in dl log m; do ld.lld-19 -shared -soname "lib$name.so" "$kit/empty.o" -o "$kit/stub/lib$name.so"; done
# The unwinder is the NDK's, in every program; what it asks the C library for is no matter of ours.
for name in Backtrace DeleteException FindEnclosingFunction GetCFA GetDataRelBase GetIP GetIPInfo GetLanguageSpecificData \
  GetRegionStart GetTextRelBase RaiseException Resume SetGR SetIP; do
  printf '.globl _Unwind_%s\n_Unwind_%s:\n' $name $name
done | clang-19 --target=aarch64-linux-android$api -c -x assembler - -o "$kit/unwind.o"
rm -f "$kit/stub/libunwind.a" && llvm-ar-19 rcs "$kit/stub/libunwind.a" "$kit/unwind.o"

# The second: musl's own start, and libraries of which Android has more than musl.
cp "$musl/libc.a" "$musl/libunwind.a" "$kit/musl/"
ld.lld-19 -r "$musl/crt1.o" "$musl/crti.o" -o "$kit/musl/crtbegin_static.o"
cp "$musl/crtn.o" "$kit/musl/crtend_android.o"
for name in dl log m; do rm -f "$kit/musl/lib$name.a" && llvm-ar-19 rcs "$kit/musl/lib$name.a" "$kit/empty.o"; done
cat >"$kit/shim.c" <<'C'
/* What Android's C library calls, numbers or lays out otherwise than musl's. Numbers are those of the public headers. */
typedef unsigned long word;
int *__errno_location(void);
int *__errno(void) { return __errno_location(); }
int __system_property_get(const char *name, char *value) { (void)name; *value = 0; return 0; }
void android_set_abort_message(const char *text) { (void)text; }
int __android_log_write(int level, const char *tag, const char *text) { (void)level; (void)tag; (void)text; return 0; }

/* Names that musl no longer has, because offsets have 64 bits anyway. */
#define AS(name) __asm__(".globl " #name "64\n" #name "64: b " #name)
AS(ftruncate);
AS(lseek);
AS(mmap);
AS(open);
AS(openat);
AS(pread);
AS(pwrite);

/* sysconf: numbers of Android and of musl. */
long __real_sysconf(int);
long __wrap_sysconf(int name) {
  static const struct { int android, musl; } names[] = {
    {0x06, 2},  /* clock ticks */ {0x27, 30}, {0x28, 30}, /* page size, twice */
    {0x47, 69}, {0x48, 70}, /* getgrent_r, getpwuid_r */
    {0x60, 83}, {0x61, 84}, /* processors there and online */ {0x62, 85}, {0x63, 86}, /* pages of memory */
  };
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
    if (names[i].android == name) return __real_sysconf(names[i].musl);
  *__errno_location() = 22;
  return -1;
}

/* sigaction: Android has the flags first, and 64 signals in a set. */
struct android { int flags; void *handler; word mask; void *restorer; };
struct musl { void *handler; word mask[16]; int flags; void *restorer; };
int __real_sigaction(int, const struct musl *, struct musl *);
int __wrap_sigaction(int signal, const struct android *new, struct android *old) {
  struct musl in = {0}, out = {0};
  if (new) in.handler = new->handler, in.mask[0] = new->mask, in.flags = new->flags;
  int result = __real_sigaction(signal, new ? &in : 0, old ? &out : 0);
  if (!result && old) *old = (struct android){out.flags, out.handler, out.mask[0], 0};
  return result;
}
/* A set of signals is one word; musl's functions would write sixteen. */
int __wrap_sigemptyset(word *set) { *set = 0; return 0; }
int __wrap_sigaddset(word *set, int signal) { *set |= 1ul << (signal - 1); return 0; }
C
clang-19 --target=aarch64-linux-musl -O2 -ffreestanding -c "$kit/shim.c" -o "$kit/shim.o"

# Its name ends in clang because that is how rustc guesses what options it takes.
cat >"$kit/android-clang" <<LINKER
#!/usr/bin/env bash
set -euo pipefail
work=\$(mktemp -d)
trap 'rm -rf "\$work"' EXIT
clang=(clang-19 --target=aarch64-linux-android$api --sysroot="$kit" -fuse-ld=lld)
stub=("\${clang[@]}" -B"$kit/stub" -L"\$work" -L"$kit/stub" "\$@" -o "\$work/program")
# What is missing without a C library is what the stub has to have.
cp "$kit/stub/libm.so" "\$work/libc.so"
"\${stub[@]}" -Wl,--error-limit=0 -Wl,--warn-unresolved-symbols 2>"\$work/log" || { cat "\$work/log" >&2; exit 1; }
sed -n 's/.*warning: undefined symbol: //p' "\$work/log" | sort -u >"\$work/symbols"
strangers=\$(comm -23 "\$work/symbols" <(grep -v '^#' "$symbols" | sort -u))
if [ "\$strangers" ]; then
  echo "error: not in $symbols:" \$strangers >&2
  exit 1
fi
{
  printf -- '--- !ifs-v1\nIfsVersion: 3.0\nSoName: libc.so\n'
  printf 'Target: { ObjectFormat: ELF, Arch: AArch64, Endianness: little, BitWidth: 64 }\nSymbols:\n'
  # \`environ\` is the one variable among them.
  sed 's/.*/  - { Name: &, Type: Func }/; s/Name: environ, Type: Func/Name: environ, Type: Object, Size: 8/' "\$work/symbols"
  echo ...
} >"\$work/libc.ifs"
llvm-ifs-19 --output-elf="\$work/libc.so" "\$work/libc.ifs"
"\${stub[@]}"
options=()
for option in "\$@"; do [ "\$option" = -pie ] || options+=("\$option"); done
wrap=-Wl,--wrap=sysconf,--wrap=sigaction,--wrap=sigemptyset,--wrap=sigaddset
"\${clang[@]}" -static -B"$kit/musl" -L"$kit/musl" "\${options[@]}" "$kit/shim.o" \$wrap -Wl,--start-group -lc -lunwind -Wl,--end-group
LINKER
# Where Android has temporary files is no folder here; tests that start themselves once more do so by this.
cat >"$kit/android-run" <<'RUNNER'
#!/usr/bin/env bash
exec qemu-aarch64-static -cpu "${QEMU_CPU:-max}" -E TMPDIR="${TMPDIR:-/tmp}" -E HALFBYTE_TEST_RUNNER="$(realpath "$0")" "$@"
RUNNER
chmod +x "$kit/android-clang" "$kit/android-run"
