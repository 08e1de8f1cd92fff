//! What a step of the thread team costs beside its work: right after another, and after serial work of the caller.
//!
//! `empty` has two units that do nothing; the caller may well do both. In `meet` each of two units waits for the other
//! to begin, so that the helper has to come: the cost of a fork and a join. `join` is the same from rayon.

#![deny(unsafe_code)]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use halfbyte_kernels::KernelError;

/// What the runtime's errors are to the modules below.
#[allow(dead_code, reason = "only printed")]
#[derive(Debug)]
enum RuntimeError {
    Kernel(KernelError),
    Thread(std::io::Error),
    WorkerPanicked,
    Cancelled,
}

impl From<KernelError> for RuntimeError {
    fn from(error: KernelError) -> Self {
        Self::Kernel(error)
    }
}

/// The team is no part of the library's interface: its files are compiled once more as they are, in modules of the same
/// names. That includes their tests, because benchmarks count as tests; nobody calls those.
#[allow(dead_code, unused_imports, reason = "only what a step needs is measured")]
#[path = "../../runtime/src/exec"]
mod exec {
    mod affinity;
    pub(crate) mod split;
    pub(crate) mod team;
}

#[allow(dead_code, unreachable_pub, reason = "public in the library; nobody cancels here")]
#[path = "../../runtime/src/cancel.rs"]
mod cancel;

use cancel::CancelToken;
use exec::team::{Team, TeamUntil};

/// Cost of a unit that is a chunk of its own.
const DEAR: usize = usize::MAX;

/// Serial work.
fn work(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {}
}

/// Waits until both threads that call it have.
fn meet(arrived: &AtomicUsize) {
    arrived.fetch_add(1, Ordering::AcqRel);
    while arrived.load(Ordering::Acquire) < 2 {
        std::hint::spin_loop();
    }
}

fn steps(c: &mut Criterion) {
    let pool = rayon_core::ThreadPoolBuilder::new().num_threads(2).build().expect("threads");
    let (one, two) = (Team::new(1, None).expect("threads"), Team::new(2, None).expect("threads"));
    let never = CancelToken::default();
    let (one, two) = (one.until(&never), two.until(&never));
    let empty = |team: TeamUntil<'_>| team.run(2, DEAR, (), |_, ()| Ok(())).expect("no failure");
    let both = || {
        let arrived = AtomicUsize::new(0);
        two.each(2, DEAR, (), |_, ()| {
            meet(&arrived);
            Ok(())
        })
        .expect("no failure");
    };
    let join = || {
        let arrived = AtomicUsize::new(0);
        pool.install(|| rayon_core::join(|| meet(&arrived), || meet(&arrived)));
    };
    let mut group = c.benchmark_group("team");
    for gap in [0, 20, 200] {
        let mut bench = |name: &str, step: &dyn Fn()| {
            group.bench_function(format!("{name},gap_us={gap}"), |b| {
                b.iter_custom(|n| {
                    (0..n)
                        .map(|_| {
                            work(Duration::from_micros(gap));
                            let start = Instant::now();
                            step();
                            start.elapsed()
                        })
                        .sum()
                });
            });
        };
        bench("empty/threads=1", &|| empty(one));
        bench("empty/threads=2", &|| empty(two));
        bench("meet/threads=2", &both);
        bench("join/threads=2", &join);
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
