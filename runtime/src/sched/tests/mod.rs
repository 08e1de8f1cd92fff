//! The queue, the bucket and admission beside simple models, on a clock of the test's own.

mod model;

use std::time::Duration;

use proptest::prelude::*;

use super::{
    admission::Admission,
    bucket::Bucket,
    queue::{Id, Limits, Priority, Queue},
};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn limits() -> Limits {
    Limits { length: 12, timeout: ms(50), ageing: ms(10) }
}

fn priority() -> impl Strategy<Value = Priority> {
    prop::sample::select(&Priority::ALL[..])
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Push(Priority),
    Pop,
    Remove(u64),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..25_u64).prop_map(Step::Wait),
        5 => priority().prop_map(Step::Push),
        3 => Just(Step::Pop),
        1 => (0..60_u64).prop_map(Step::Remove),
        2 => Just(Step::Expire),
    ]
}

/// A request of the simple model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Waiting {
    id: u64,
    priority: Priority,
    arrived: Duration,
}

/// The simple model: a list, searched for the best rank at this moment. A rank is the class, better by one for each
/// ageing time that was waited; of equal ones the first that came.
fn best(list: &[Waiting], now: Duration) -> Option<Waiting> {
    let rank = |w: &Waiting| {
        let waited = (now - w.arrived).as_nanos() as i128;
        (w.priority as i128) * ms(10).as_nanos() as i128 - waited
    };
    list.iter().copied().min_by_key(|w| (rank(w), w.id))
}

fn run_queue(steps: &[Step]) -> Result<(), TestCaseError> {
    let (mut queue, mut list) = (Queue::new(limits()), Vec::<Waiting>::new());
    let (mut now, mut next) = (Duration::ZERO, 0);
    for step in steps {
        match *step {
            Step::Wait(time) => now += ms(time),
            Step::Push(priority) => {
                let full = list.len() == limits().length;
                prop_assert_eq!(queue.push(now, Id(next), priority, next), if full { Err(next) } else { Ok(()) });
                if !full {
                    list.push(Waiting { id: next, priority, arrived: now });
                }
                next += 1;
            }
            Step::Pop => {
                let expected = best(&list, now);
                prop_assert_eq!(queue.first().copied(), expected.map(|w| w.id));
                prop_assert_eq!(queue.pop(), expected.map(|w| (w.arrived, w.id)));
                list.retain(|w| Some(*w) != expected);
            }
            Step::Remove(id) => {
                let expected = list.iter().any(|w| w.id == id).then_some(id);
                prop_assert_eq!(queue.remove(Id(id)), expected);
                list.retain(|w| w.id != id);
            }
            Step::Expire => {
                let expected = list.iter().copied().find(|w| now - w.arrived >= limits().timeout);
                prop_assert_eq!(queue.expire(now), expected.map(|w| (now - w.arrived, w.id)));
                list.retain(|w| Some(*w) != expected);
            }
        }
        prop_assert_eq!(queue.len(), list.len());
        let expires = list.iter().map(|w| w.arrived + limits().timeout).min();
        prop_assert_eq!(queue.expires_at(), expires);
    }
    Ok(())
}

/// The simple model: a level in nanoseconds of refill, brought up to date at every step.
fn run_bucket(capacity: u32, interval: u64, steps: &[(u64, bool)]) -> Result<(), TestCaseError> {
    let mut bucket = Bucket::new(capacity, Duration::from_nanos(interval));
    let full = u128::from(capacity) * u128::from(interval);
    let (mut now, mut level) = (0_u64, full);
    for &(time, take) in steps {
        now += time;
        level = full.min(level + u128::from(time));
        let at = Duration::from_nanos(now);
        prop_assert_eq!(u128::from(bucket.level(at)), level / u128::from(interval));
        let ready = level >= u128::from(interval);
        prop_assert_eq!(bucket.ready_at() <= at, ready);
        if take {
            prop_assert_eq!(bucket.take(at), ready);
            level -= if ready { u128::from(interval) } else { 0 };
        }
        prop_assert!(bucket.level(at) <= capacity);
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Door {
    Wait(u64),
    Submit(Priority),
    /// And whether there is memory for it.
    Admit(bool),
    Leave,
    Expire,
}

fn door() -> impl Strategy<Value = Door> {
    prop_oneof![
        3 => (0..30_u64).prop_map(Door::Wait),
        5 => priority().prop_map(Door::Submit),
        5 => any::<bool>().prop_map(Door::Admit),
        2 => Just(Door::Leave),
        1 => Just(Door::Expire),
    ]
}

/// Places are never more than there are; nobody is lost, served twice or kept beyond the timeout; starts keep to the
/// rate; and who waits is told when to look again.
fn run_admission(steps: &[Door]) -> Result<(), TestCaseError> {
    const PLACES: usize = 2;
    let interval = ms(7);
    let mut door = Admission::new(limits(), PLACES, interval);
    let (mut now, mut inside, mut waiting, mut starts) = (Duration::ZERO, 0, Vec::<u64>::new(), Vec::new());
    for step in steps {
        match *step {
            Door::Wait(time) => now += ms(time),
            Door::Submit(priority) => {
                let id = door.submit(now, priority, now);
                prop_assert_eq!(id.is_err(), waiting.len() == limits().length);
                waiting.extend(id.ok().map(|id| id.0));
            }
            Door::Admit(fits) => {
                let free = inside < PLACES && !waiting.is_empty() && fits && door.bucket(now).0 > 0;
                let admitted = door.admit(now, |_| fits.then_some(()));
                prop_assert_eq!(admitted.is_some(), free);
                if let Some((waited, arrived, ())) = admitted {
                    prop_assert_eq!(waited, now - arrived);
                    inside += 1;
                    starts.push(now);
                    waiting.pop();
                    // In any stretch of time there are no more starts than a full bucket and what flows in.
                    for (n, &first) in starts.iter().enumerate() {
                        let flown = (now - first).as_nanos() / interval.as_nanos();
                        prop_assert!(((starts.len() - n) as u128) <= 2 * PLACES as u128 + flown);
                    }
                }
            }
            Door::Leave => {
                door.leave();
                inside = inside.saturating_sub(1);
            }
            Door::Expire => {
                if let Some((waited, arrived)) = door.expire(now) {
                    prop_assert!(waited == now - arrived && waited >= limits().timeout);
                    waiting.pop();
                }
            }
        }
        prop_assert_eq!((door.queued(), door.taken()), (waiting.len(), inside));
        prop_assert_eq!(door.wakes_at().is_some(), !waiting.is_empty());
        // Nothing changes before the time that it names: it is not later than the first timeout or token.
        if let Some(at) = door.wakes_at().filter(|_| inside < PLACES && door.bucket(now).0 == 0) {
            prop_assert!(at <= now || door.bucket(at).0 > 0 || door.expire(at).is_some());
            break;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_is_a_list_searched_for_the_best(steps in prop::collection::vec(step(), 1..120)) {
        run_queue(&steps)?;
    }

    #[test]
    fn the_bucket_is_a_level(
        capacity in 1..9_u32,
        interval in 1..1000_u64,
        steps in prop::collection::vec((prop_oneof![0..3_u64, 0..500_u64, 0..100_000_u64], any::<bool>()), 1..200),
    ) {
        run_bucket(capacity, interval, &steps)?;
    }

    #[test]
    fn the_door_keeps_its_limits(steps in prop::collection::vec(door(), 1..120)) {
        run_admission(&steps)?;
    }
}

/// The lowest class is served within two ageing times of its arrival, however many of the highest come.
#[test]
fn nobody_starves() {
    let mut queue = Queue::new(Limits { length: 1000, timeout: ms(10_000), ageing: ms(10) });
    queue.push(ms(0), Id(0), Priority::Batch, 0).expect("room");
    for n in 1.. {
        // Two come for each one that is served.
        queue.push(ms(n), Id(2 * n), Priority::Realtime, 2 * n).expect("room");
        queue.push(ms(n), Id(2 * n + 1), Priority::Realtime, 2 * n + 1).expect("room");
        let (_, served) = queue.pop().expect("somebody");
        if served == 0 {
            // Those that came before its place are served first, and there are 40 of them.
            assert!(n <= 41, "{n}");
            return;
        }
        assert!(n < 1000, "starved");
    }
}

/// A process that was stopped for a minute, and a clock that goes back.
#[test]
fn clocks_that_jump() {
    let mut bucket = Bucket::new(4, ms(100));
    assert!((0..4).all(|_| bucket.take(ms(1000))) && !bucket.take(ms(1000)));
    assert!((0..4).all(|_| bucket.take(ms(61_000))) && !bucket.take(ms(61_000)), "full, and no more than that");
    let mut door = Admission::new(limits(), 1, ms(100));
    door.submit(ms(60_000), Priority::Normal, "a").expect("room");
    assert_eq!(door.expire(ms(10)), None);
    assert_eq!(door.admit(ms(10), |_| Some(())).map(|(waited, item, ())| (waited, item)), Some((ms(0), "a")));
    assert!((0..9).all(|_| Bucket::new(1, Duration::ZERO).take(ms(0))));
}
