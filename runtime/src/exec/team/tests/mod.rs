//! Every unit once and by whom; helpers that are late, slow, asleep, blocked or gone; panics and errors.

mod model;

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::{board::Board, *};
use crate::exec::split::{Chunks, Grid, Rows};

/// Large enough that a chunk is one unit.
const DEAR: usize = MAX_CHUNK;
/// No test waits longer than this for something that comes at once on a machine with time for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn team_of(threads: usize) -> Team {
    Team::new(threads, None).expect("threads")
}

/// Steps that nobody cancels.
impl Team {
    fn run<S: Split>(
        &self,
        units: usize,
        cost: usize,
        split: S,
        body: impl Fn(Range<usize>, S::Part) -> Done + Sync,
    ) -> Result<(), RuntimeError> {
        self.until(&CancelToken::default()).run(units, cost, split, body)
    }
}

fn is_helper() -> bool {
    thread::current().name().is_some_and(|name| name.starts_with("halfbyte-"))
}

/// Runs steps until a helper took part in one.
fn wait_for_help(team: &Team) {
    let start = Instant::now();
    let helped = AtomicBool::new(false);
    while !helped.load(Ordering::Relaxed) {
        assert!(start.elapsed() < PATIENCE, "no helper came");
        team.run(64, DEAR, (), |_, ()| {
            helped.fetch_or(is_helper(), Ordering::Relaxed);
            thread::yield_now();
            Ok(())
        })
        .expect("no failure");
    }
}

#[test]
fn chunks_follow_the_cost() {
    assert_eq!(chunk(0), chunk(1));
    assert_eq!(chunk(1), (MIN_CHUNK, MAX_CHUNK));
    assert_eq!(chunk(MIN_CHUNK), (1, MAX_CHUNK / MIN_CHUNK));
    assert_eq!(chunk(3 * MIN_CHUNK / 2), (1, 2 * MAX_CHUNK / MIN_CHUNK / 3));
    assert_eq!(chunk(usize::MAX), (1, 1));
}

#[test]
fn each_unit_runs_once_for_any_team_and_size() {
    for threads in [1, 2, 3, 7] {
        let team = team_of(threads);
        for cost in [1, MIN_CHUNK / 5, MIN_CHUNK, DEAR] {
            for units in [0, 1, 2, 3, 15, 16, 17, if cfg!(miri) { 40 } else { 1000 }] {
                let counts: Vec<_> = (0..units).map(|_| AtomicUsize::new(0)).collect();
                team.run(units, cost, (), |range, ()| {
                    range.for_each(|unit| _ = counts[unit].fetch_add(1, Ordering::Relaxed));
                    Ok(())
                })
                .expect("no failure");
                assert!(counts.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} {cost} {units}");
            }
        }
    }
}

#[test]
fn outputs_are_written_once_for_any_team_and_shape() {
    for threads in [1, 2, 5] {
        let team = team_of(threads);
        for (tokens, rows) in [(1, 1), (1, 15), (3, 16), (2, 17), (1, 1000), (7, 333)] {
            let mut out = vec![0.0; tokens * rows];
            let (mut other, mut third) = (vec![0_u32; tokens * rows], vec![0.0; tokens * 4 * rows]);
            let units = rows.div_ceil(4).max((tokens * rows).div_ceil(7));
            let split = (Rows::new(&mut out, rows, 4), Chunks::new(&mut other, 7));
            team.run(units, DEAR, split, |range, (mut tile, run)| {
                for token in 0..tile.tokens() {
                    for (slot, row) in tile.row_mut(token).iter_mut().zip(range.start * 4..) {
                        *slot += (token * rows + row) as f32;
                    }
                }
                run.iter_mut().zip(range.start * 7..).for_each(|(slot, i)| *slot += u32::try_from(i).expect("small"));
                Ok(())
            })
            .expect("no failure");
            let grid = Grid::new(&mut third, 4 * rows, [2, rows]);
            team.until(&CancelToken::default())
                .each(grid.units(), DEAR, grid, |unit, mut tile| {
                    for token in 0..tile.tokens() {
                        for (slot, row) in tile.row_mut(token).iter_mut().zip(unit % 4 * rows..) {
                            *slot += ((unit / 4 * 2 + token) * 4 * rows + row) as f32;
                        }
                    }
                    Ok(())
                })
                .expect("no failure");
            assert!(out.iter().enumerate().all(|(i, &v)| v == i as f32), "{threads} {tokens} {rows}");
            assert!(other.iter().enumerate().all(|(i, &v)| v as usize == i), "{threads} {tokens} {rows}");
            assert!(third.iter().enumerate().all(|(i, &v)| v == i as f32), "{threads} {tokens} {rows}");
        }
    }
}

/// Steps so short that helpers are always somewhere between two of them.
#[test]
fn short_steps_in_a_row() {
    let team = team_of(3);
    for round in 0..if cfg!(miri) { 100 } else { 20_000_usize } {
        let mut out = [0.0_f32; 6];
        let units = 2 + round % 5;
        team.run(units, DEAR, Chunks::new(&mut out[..units], 1), |range, run| {
            run.iter_mut().zip(range).for_each(|(slot, unit)| *slot += (round + unit) as f32);
            Ok(())
        })
        .expect("no failure");
        assert!(out[..units].iter().enumerate().all(|(unit, &v)| v == (round + unit) as f32));
    }
}

#[test]
fn sessions_on_one_team_do_not_wait_for_each_other() {
    let team = team_of(2);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..if cfg!(miri) { 10 } else { 500_usize } {
                    let mut out = vec![0.0; 100 + round % 7];
                    team.run(out.len().div_ceil(8), DEAR, Chunks::new(&mut out, 8), |range, run| {
                        run.iter_mut().zip(range.start * 8..).for_each(|(v, i)| *v += i as f32);
                        Ok(())
                    })
                    .expect("no failure");
                    assert!(out.iter().enumerate().all(|(i, &v)| v == i as f32));
                }
            });
        }
    });
}

/// A step inside a step, as a caller of a busy team, is run by whoever asks for it.
#[test]
fn a_step_inside_a_step() {
    let team = team_of(2);
    let runs = AtomicUsize::new(0);
    team.run(4, DEAR, (), |outer, ()| {
        for _ in outer {
            let inside = team.run(5, DEAR, (), |inner, ()| {
                runs.fetch_add(inner.len(), Ordering::Relaxed);
                Ok(())
            });
            assert!(inside.is_ok());
        }
        Ok(())
    })
    .expect("no failure");
    assert_eq!(runs.into_inner(), 20);
}

/// Each helper holds on to its first chunk until all units that no helper has are done: if the caller waited for
/// anything but those chunks, this would not end.
#[test]
fn the_caller_waits_for_nothing_but_chunks_that_helpers_have() {
    const UNITS: usize = 400;
    let team = team_of(3);
    let mut rounds = 0;
    let start = Instant::now();
    // Until helpers took part in some rounds: they need not come to every one.
    while rounds < if cfg!(miri) { 2 } else { 20 } {
        assert!(start.elapsed() < PATIENCE, "helped only {rounds} times");
        let (done, held) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let holders = Mutex::new(HashSet::new());
        team.run(UNITS, DEAR, (), |range, ()| {
            if is_helper() && holders.lock().expect("sound").insert(thread::current().id()) {
                held.fetch_add(range.len(), Ordering::SeqCst);
                while done.load(Ordering::SeqCst) + held.load(Ordering::SeqCst) < UNITS {
                    thread::yield_now();
                }
            } else {
                thread::yield_now();
                done.fetch_add(range.len(), Ordering::SeqCst);
            }
            Ok(())
        })
        .expect("no failure");
        assert_eq!(done.into_inner() + held.into_inner(), UNITS);
        rounds += usize::from(!holders.into_inner().expect("sound").is_empty());
    }
}

#[test]
fn a_team_whose_pool_is_blocked_works_and_gets_its_helpers_back() {
    let team = team_of(3);
    wait_for_help(&team);
    let (release, blocked) = mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let blocking = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&blocking);
    let pool = team.pool.as_ref().expect("a pool");
    pool.spawn_broadcast(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Ends when `release` is dropped.
        _ = blocked.lock().expect("sound").recv();
    });
    // The helpers go back to the pool after a second without a step, and are caught there.
    let start = Instant::now();
    while blocking.load(Ordering::Relaxed) < 2 {
        assert!(start.elapsed() < PATIENCE, "helpers did not go back to their pool");
        thread::sleep(Duration::from_millis(10));
    }
    let helped = AtomicUsize::new(0);
    for _ in 0..1000 {
        team.run(10, DEAR, (), |range, ()| {
            helped.fetch_add(if is_helper() { range.len() } else { 0 }, Ordering::Relaxed);
            Ok(())
        })
        .expect("no failure");
    }
    assert_eq!(helped.into_inner(), 0);
    drop(release);
    wait_for_help(&team);
}

#[test]
fn a_thread_takes_the_front_of_its_own_units_and_the_back_of_others() {
    let taken = Mutex::new(Vec::new());
    let body = |range: Range<usize>| {
        taken.lock().expect("sound").push(range);
        Ok(())
    };
    let job = Job::new(21, (2, 5), &body);
    assert!(Board::new(2, 2).run(&job, |_| ()));
    job.finish().expect("no failure");
    let expected = [0..3, 3..5, 5..7, 11..14, 9..11, 7..9, 18..21, 16..18, 14..16];
    assert_eq!(taken.into_inner().expect("sound"), expected);
}

#[test]
fn chunks_shrink_within_their_bounds() {
    let sizes_of = |part, helpers, units, bounds| {
        let sizes = Mutex::new(Vec::new());
        let body = |range: Range<usize>| {
            sizes.lock().expect("sound").push(range.len());
            Ok(())
        };
        let job = Job::new(units, bounds, &body);
        assert!(Board::new(helpers, part).run(&job, |_| ()));
        job.finish().expect("no failure");
        sizes.into_inner().expect("sound")
    };
    // Its own, then those of a helper that does not come.
    assert_eq!(sizes_of(4, 1, 40, (1, 100)), [5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1, 5, 3, 3, 2, 1, 1, 1, 1, 1, 1, 1]);
    let sizes = |helpers, units, bounds| sizes_of(2, helpers, units, bounds);
    assert_eq!(sizes(1, 100, (1, 100)), [25, 12, 6, 3, 2, 1, 1, 25, 12, 6, 3, 2, 1, 1]);
    assert_eq!(sizes(1, 100, (3, 20)), [20, 15, 7, 4, 3, 1, 20, 15, 7, 4, 3, 1]);
    assert_eq!(sizes(3, 10, (4, 5)), [2, 3, 2, 3]);
    assert_eq!(sizes(3, 4, (0, 0)), [1, 1, 1, 1]);
}

/// How long a step of `units` takes, and what threads do of it, if thread `n` needs `paces[n]` for a unit and nothing
/// for all else. Time is counted, not measured: the thread whose chunk ends first takes the next one.
fn simulate(units: u32, paces: &[u64]) -> (u64, Vec<u64>) {
    let board = Board::new(paces.len() - 1, PHONE_PART);
    let body = |_: Range<usize>| Ok(());
    let job = Job::new(units as usize, (1, units as usize), &body);
    // SAFETY: no unit is run.
    unsafe { board.post(&job, units) };
    let (mut clocks, mut done) = (vec![0; paces.len()], vec![0; paces.len()]);
    let mut free: Vec<usize> = (0..paces.len()).collect();
    while let Some((place, &thread)) = free.iter().enumerate().min_by_key(|&(_, &thread)| clocks[thread]) {
        match board.take(thread) {
            Some(chunk) => {
                done[thread] += chunk.len() as u64;
                clocks[thread] += chunk.len() as u64 * paces[thread];
            }
            None => _ = free.swap_remove(place),
        }
    }
    assert_eq!(done.iter().sum::<u64>(), u64::from(units));
    (clocks.into_iter().max().expect("a thread"), done)
}

/// As slow as a core of a phone's default team can be, beside any others, and the caller may be on it: the step ends as
/// if all work had been shared out by speed, but for a thirtieth, and a unit of the slowest. Slower than that, if
/// someone asks for more threads than fast cores, or another program takes a core: at most one chunk of the slowest
/// later.
#[test]
fn slow_threads_hold_nobody_up() {
    const UNITS: u32 = 6000;
    for (in_time, paces) in [
        (true, vec![10, 25]),
        (true, vec![25, 10]),
        (true, vec![10, 12, 12, 12, 13, 13]),
        (true, vec![10, 25, 25, 25, 25]),
        // A Snapdragon 8 Gen 3 with all its cores.
        (false, vec![40, 40, 12, 12, 12, 13, 13, 10]),
        (false, vec![40, 10, 10, 10]),
        (false, vec![10, 10, 1000]),
    ] {
        let speed: f64 = paces.iter().map(|&pace| 1.0 / pace as f64).sum();
        let ideal = f64::from(UNITS) / speed;
        let slowest = *paces.iter().max().expect("a thread") as f64;
        let chunk = f64::from(UNITS) / paces.len() as f64 / f64::from(PHONE_PART);
        let late = if in_time { ideal / 30.0 + slowest } else { chunk * slowest };
        let (time, done) = simulate(UNITS, &paces);
        println!("{paces:?}: {time} for {ideal:.0}, units {done:?}");
        assert!(time as f64 <= ideal + late, "{paces:?}: {time} instead of {ideal:.0}");
    }
}

#[test]
fn helpers_run_where_they_were_bound() {
    let all = affinity::allowed();
    assert_eq!(*team_of(3).processors(), all);
    let Some(&last) = all.last() else { return };
    let bound = BTreeSet::from([last]);
    let team = Team::new(3, Some(bound.clone())).expect("threads");
    assert_eq!(*team.processors(), bound);
    wait_for_help(&team);
    assert_eq!(affinity::allowed(), all, "the caller is not bound");
    thread::scope(|scope| {
        scope.spawn(|| {
            team.bind_caller();
            assert_eq!(affinity::allowed(), bound, "now it is");
        });
    });
    // A core that is not there: the system refuses, and says where helpers run instead.
    assert_eq!(*Team::new(2, Some(BTreeSet::from([8191]))).expect("threads").processors(), all);
}

/// However many steps there are, helpers that are kept from running are called once.
#[test]
fn missing_helpers_are_called_once() {
    let board = Board::new(2, 2);
    let body = |_: Range<usize>| Ok(());
    let mut calls = Vec::new();
    for _ in 0..1000 {
        let job = Job::new(10, (1, 1), &body);
        assert!(board.run(&job, |shift| calls.push(shift)));
        job.finish().expect("no failure");
    }
    assert_eq!(calls, [1]);
    // Had they come after the board was closed, they would find it so.
    board.close();
    board.help(1, 0);
    board.help(1, 1);
}

#[test]
fn helpers_need_not_be_of_a_pool() {
    let board = Board::new(2, 2);
    let runs = AtomicUsize::new(0);
    let body = |units: Range<usize>| {
        runs.fetch_add(units.len(), Ordering::Relaxed);
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..100 {
            let job = Job::new(10, (1, 1), &body);
            assert!(board.run(&job, |shift| {
                for index in 0..2 {
                    let board = &board;
                    scope.spawn(move || board.help(shift, index));
                }
            }));
            job.finish().expect("no failure");
        }
        board.close();
    });
    assert_eq!(runs.into_inner(), 1000);
}

#[test]
fn a_panic_in_a_unit_is_an_error_and_the_team_lives_on() {
    for threads in [1, 2] {
        let team = team_of(threads);
        let mut out = vec![0.0; 64];
        let failed = team.run(64, DEAR, Chunks::new(&mut out, 1), |units, _| {
            if units.contains(&40) { panic!("on purpose") } else { Ok(()) }
        });
        assert!(matches!(failed, Err(RuntimeError::WorkerPanicked)));
        team.run(64, DEAR, Chunks::new(&mut out, 1), |_, run| {
            run.fill(1.0);
            Ok(())
        })
        .expect("no failure");
        assert!(out.iter().all(|&v| v == 1.0));
    }
}

#[test]
fn the_first_error_is_reported() {
    for threads in [1, 2] {
        let team = team_of(threads);
        let failed = team.run(64, DEAR, (), |units, ()| {
            if units.contains(&40) {
                return Err(halfbyte_kernels::KernelError::ShapeMismatch { what: "unit", expected: 0, found: 40 });
            }
            // Were it not for the error, this would follow.
            if units.start > 50 && threads == 1 { panic!("on purpose") } else { Ok(()) }
        });
        let Err(RuntimeError::Kernel(error)) = failed else { panic!("{failed:?}") };
        assert!(error.to_string().contains("unit"), "{error}");
    }
}

#[test]
fn a_team_larger_than_the_machine() {
    let threads = if cfg!(miri) { 5 } else { 64 };
    let team = team_of(threads);
    assert_eq!(team.threads(), threads);
    wait_for_help(&team);
}

/// A step that is cancelled stops at the next chunk of each thread, also where the caller is alone; the team is then as
/// before.
#[test]
fn a_cancelled_step_stops_at_the_next_chunk() {
    for threads in [1, 3] {
        let (team, cancel) = (team_of(threads), CancelToken::default());
        let team = team.until(&cancel);
        for _ in 0..20 {
            let ran = AtomicUsize::new(0);
            let found = team.run(1000, DEAR, (), |units, ()| {
                ran.fetch_add(units.len(), Ordering::Relaxed);
                cancel.cancel();
                Ok(())
            });
            assert!(matches!(found, Err(RuntimeError::Cancelled)), "{found:?}");
            assert!((1..=threads).contains(&ran.into_inner()));
            assert!(matches!(team.run(1, 1, (), |_, ()| Ok(())), Err(RuntimeError::Cancelled)));
            cancel.reset();
            team.run(1000, DEAR, (), |_, ()| Ok(())).expect("not cancelled");
        }
    }
}
