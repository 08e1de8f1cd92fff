//! The hand-over as loom sees it: every order of events between the thread that sends, the one that reads and one that
//! leaves.

use std::sync::Arc;

use handover::Handover;
use loom::{
    sync::{Condvar, Mutex},
    thread::spawn,
};

#[path = "../handover.rs"]
#[allow(clippy::duplicate_mod, reason = "the point of this file")]
mod handover;

mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}

#[test]
fn all_items_arrive_in_order_and_then_none() {
    loom::model(|| {
        let handover = Arc::new(Handover::new());
        let other = Arc::clone(&handover);
        let sender = spawn(move || {
            assert!(other.send(1));
            other.send_last(2);
        });
        assert_eq!((handover.next(|| ()), handover.next(|| ()), handover.next(|| ())), (Some(1), Some(2), None));
        assert_eq!(handover.next(|| ()), None);
        sender.join().expect("no panic");
        assert!(!handover.send(3));
    });
}

#[test]
fn a_reader_who_is_told_to_leave_does_not_wait_for_ever() {
    loom::model(|| {
        let handover = Arc::new(Handover::new());
        let (sending, leaving) = (Arc::clone(&handover), Arc::clone(&handover));
        let sender = spawn(move || sending.send(1));
        let canceller = spawn(move || leaving.leave());
        let first = handover.next(|| ());
        assert!(first.is_none_or(|item| item == 1));
        // Whatever came first, after it nothing does.
        canceller.join().expect("no panic");
        assert_eq!(handover.next(|| ()), None);
        assert!(!handover.send(2));
        sender.join().expect("no panic");
    });
}

/// A sender that sleeps while there is no room, under a lock that the reader takes before it calls.
#[test]
fn a_sender_who_finds_no_room_is_called_back() {
    loom::model(|| {
        let handover = Arc::new(Handover::new());
        let door = Arc::new((Mutex::new(()), Condvar::new()));
        let (sending, waiting) = (Arc::clone(&handover), Arc::clone(&door));
        let sender = spawn(move || {
            for item in 1..=2 {
                let (lock, bell) = &*waiting;
                let mut held = lock.lock().expect("no panic");
                while !sending.has_room(1) {
                    held = bell.wait(held).expect("no panic");
                }
                drop(held);
                assert!(sending.send(item));
            }
        });
        let call = || {
            let (lock, bell) = &*door;
            drop(lock.lock());
            bell.notify_one();
        };
        assert_eq!((handover.next(call), handover.next(call)), (Some(1), Some(2)));
        sender.join().expect("no panic");
    });
}

/// The same, if the reader leaves instead.
#[test]
fn a_sender_who_finds_no_room_learns_that_nobody_reads() {
    loom::model(|| {
        let handover = Arc::new(Handover::new());
        let door = Arc::new((Mutex::new(()), Condvar::new()));
        let (sending, waiting) = (Arc::clone(&handover), Arc::clone(&door));
        assert!(handover.send(1));
        let sender = spawn(move || {
            let (lock, bell) = &*waiting;
            let mut held = lock.lock().expect("no panic");
            while !sending.has_room(1) {
                held = bell.wait(held).expect("no panic");
            }
            drop(held);
            assert!(!sending.send(2));
        });
        handover.leave();
        let (lock, bell) = &*door;
        drop(lock.lock());
        bell.notify_one();
        sender.join().expect("no panic");
    });
}
