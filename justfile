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

# Our kernels beside candle's, one thread each.
peers:
    cd benches/peers && RAYON_NUM_THREADS=1 cargo bench

# Undefined behaviour in the crates that hold unsafe code or parse files (nightly).
miri:
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p halfbyte-formats --lib
    MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test -p halfbyte-kernels --lib
    # crossbeam, below rayon, keeps the rules of tree borrows only.
    MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-tree-borrows' cargo +nightly miri test -p halfbyte --lib exec:: -- --skip model

# Data races in the thread team, rayon and the standard library included (nightly with rust-src).
tsan:
    RUSTFLAGS=-Zsanitizer=thread CARGO_TARGET_DIR=target/tsan cargo +nightly test -Zbuild-std --target "$(rustc -vV | sed -n 's/^host: //p')" -p halfbyte --lib exec:: -- --skip model

# Every order of events in the thread team with up to three preemptions; `cargo test` goes up to two.
loom:
    LOOM_MAX_PREEMPTIONS=3 cargo test --release -p halfbyte --lib exec::team::tests::model

# Each fuzz target for SECONDS (nightly, cargo-fuzz).
fuzz SECONDS='60':
    for target in $(cargo +nightly fuzz list); do cargo +nightly fuzz run "$target" -- -max_total_time={{SECONDS}} -rss_limit_mb=2048 || exit 1; done

# The floor of `rust-version`, the only place it is written.
msrv:
    cargo "+$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)" check --workspace --locked

# Licences, advisories and duplicate crates (cargo-deny).
deny:
    cargo deny check

# Breaking changes since the last release (cargo-semver-checks).
semver:
    cargo semver-checks -p halfbyte-formats -p halfbyte-kernels -p halfbyte
