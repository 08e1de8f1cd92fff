//! What [`super::handover`] takes from the standard library; its model test puts loom's in their place.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard};
