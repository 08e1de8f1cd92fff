//! The hand-over as loom sees it: every order of events between the thread that sends, the one that reads and one that
//! leaves.

use std::sync::Arc;

use handover::Handover;
use loom::thread::spawn;

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
        assert_eq!((handover.next(), handover.next(), handover.next()), (Some(1), Some(2), None));
        assert_eq!(handover.next(), None);
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
        let first = handover.next();
        assert!(first.is_none_or(|item| item == 1));
        // Whatever came first, after it nothing does.
        canceller.join().expect("no panic");
        assert_eq!(handover.next(), None);
        assert!(!handover.send(2));
        sender.join().expect("no panic");
    });
}
