//! The memory budget: whoever wants much memory asks here first, and is refused before the system has to.
//!
//! A [`Budget`] counts bytes that were asked for and not given back: pages of keys and values, activations, buffers of
//! a sequence, prefixes that are kept, and weights if they are copied. A mapped file does not count: the system can
//! drop its pages and read them again. Nothing is asked per token but a page of the cache, every 64th.
//!
//! Who is admitted to a queue's front door gets a [`Lease`] of all it may ever need and takes its memory out of that,
//! so that a sequence that runs is never refused. Under pressure what is kept for later only goes first ([`Reclaim`]).

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{RuntimeError, machine::available_memory};

/// What happens when a budget is exceeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BudgetMode {
    /// The request fails with [`RuntimeError::BudgetExceeded`].
    Enforce,
    /// It is granted, with a warning through `tracing`.
    Warn,
    /// It is granted; bytes are counted only.
    #[default]
    Off,
}

/// Something that holds memory it could do without.
pub(crate) trait Reclaim: Send + Sync {
    /// Bytes that it could give up at this moment.
    fn spare(&self) -> usize;

    /// Gives some up, the least useful first: at least `bytes` if it can.
    fn reclaim(&self, bytes: usize);
}

/// A limit of memory, shared by all that count against it. Clones are the same budget.
///
/// ```
/// use halfbyte::{Budget, BudgetMode};
///
/// let budget = Budget::new(512 << 20, BudgetMode::Enforce);
/// assert_eq!((budget.limit(), budget.used()), (512 << 20, 0));
/// ```
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    limit: usize,
    mode: BudgetMode,
    used: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicUsize,
    /// How often something came back, or can be given up now.
    returns: AtomicUsize,
    /// Asked in turn before a request is refused.
    reclaim: Mutex<Vec<Weak<dyn Reclaim>>>,
}

impl Default for Budget {
    /// Counts, and refuses nothing.
    fn default() -> Self {
        Self::new(usize::MAX, BudgetMode::Off)
    }
}

impl Budget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize, mode: BudgetMode) -> Self {
        let inner = Inner {
            limit,
            mode,
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            returns: AtomicUsize::new(0),
            reclaim: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A budget of what this process can have at this moment: the least of the memory that Linux calls available, of
    /// what its control groups leave, and of the address space that `RLIMIT_AS` leaves. Where the system says nothing,
    /// all.
    #[must_use]
    pub fn of_machine(mode: BudgetMode) -> Self {
        let available = available_memory().map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Self::new(available, mode)
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// What happens beyond it.
    #[must_use]
    pub fn mode(&self) -> BudgetMode {
        self.inner.mode
    }

    /// Bytes in use, or set aside for who may need them.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }

    /// The most that was in use at a time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.inner.peak.load(Ordering::Relaxed)
    }

    /// Requests that found too little: refused, or granted with a warning.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// A number that changes when bytes have come back, when others may be given up, or when fewer may be needed,
    /// because more prefixes are known: until then, who was refused will be again. To be read before asking.
    pub(crate) fn returns(&self) -> usize {
        self.inner.returns.load(Ordering::Acquire)
    }

    /// Says that bytes have come back, or that what is kept for later only has become more, for others to take over or
    /// to be given up.
    pub(crate) fn returned(&self) {
        self.inner.returns.fetch_add(1, Ordering::Release);
    }

    /// Has `what` asked for memory when there is too little. It is not to ask for any itself.
    pub(crate) fn on_pressure(&self, what: Weak<dyn Reclaim>) {
        let mut all = self.inner.reclaim.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(what);
    }

    /// Sets `bytes` aside.
    ///
    /// # Errors
    /// [`RuntimeError::BudgetExceeded`].
    pub(crate) fn ask(&self, bytes: usize) -> Result<Lease, RuntimeError> {
        if let Some(lease) = self.try_ask(bytes) {
            return Ok(lease);
        }
        // What is given up for somebody who is refused all the same is lost for nothing.
        let have = self.limit().saturating_sub(self.least_used());
        let goes = have >= bytes || self.inner.mode != BudgetMode::Enforce;
        for holder in self.holders().iter().filter(|_| goes) {
            let short = bytes.saturating_sub(self.left());
            holder.reclaim(short);
            if let Some(lease) = self.try_ask(bytes) {
                return Ok(lease);
            }
        }
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        if self.inner.mode == BudgetMode::Enforce {
            // Others may have taken what was seen above.
            let have = if goes { self.left() } else { have };
            return Err(RuntimeError::BudgetExceeded { need: bytes, have });
        }
        if self.inner.mode == BudgetMode::Warn {
            tracing::warn!(need = bytes, have = self.left(), limit = self.limit(), "memory budget exceeded");
        }
        self.inner.used.fetch_add(bytes, Ordering::Relaxed);
        self.inner.peak.fetch_max(self.used(), Ordering::Relaxed);
        Ok(Lease { budget: self.clone(), bytes, grant: true })
    }

    /// A lease of nothing: what is taken out of it is asked for.
    pub(crate) fn lease(&self) -> Lease {
        Lease { budget: self.clone(), bytes: 0, grant: false }
    }

    /// Bytes that would be in use if all that could go had gone.
    pub(crate) fn least_used(&self) -> usize {
        self.holders().iter().fold(self.used(), |used, holder| used.saturating_sub(holder.spare()))
    }

    /// Those that may give something up.
    fn holders(&self) -> Vec<Arc<dyn Reclaim>> {
        let all = self.inner.reclaim.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    fn left(&self) -> usize {
        self.limit().saturating_sub(self.used())
    }

    fn try_ask(&self, bytes: usize) -> Option<Lease> {
        let add = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.inner.limit);
        let before = self.inner.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        self.inner.peak.fetch_max(before + bytes, Ordering::Relaxed);
        Some(Lease { budget: self.clone(), bytes, grant: true })
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { limit, mode, .. } = &*self.inner;
        f.debug_struct("Budget").field("limit", limit).field("mode", mode).field("used", &self.used()).finish()
    }
}

/// Bytes of a budget that are set aside, until this is dropped.
pub(crate) struct Lease {
    budget: Budget,
    bytes: usize,
    /// Set aside in advance, and to be kept: what was taken out of it comes back to it.
    grant: bool,
}

impl Lease {
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether anything was ever set aside here in advance.
    pub(crate) fn is_grant(&self) -> bool {
        self.grant
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// `bytes` out of this lease; if it has less, out of the budget.
    ///
    /// # Errors
    /// [`RuntimeError::BudgetExceeded`].
    pub(crate) fn take(&mut self, bytes: usize) -> Result<Self, RuntimeError> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => {
                self.bytes = left;
                Ok(Self { budget: self.budget.clone(), bytes, grant: true })
            }
            None => self.budget.ask(bytes),
        }
    }

    /// Adds what was set aside by `other`.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        if Arc::ptr_eq(&self.budget.inner, &other.budget.inner) {
            self.bytes += std::mem::take(&mut other.bytes);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
            self.budget.returned();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::{prelude::*, test_runner::TestRunner};

    use super::*;

    #[test]
    fn modes() {
        for (mode, refused) in [(BudgetMode::Enforce, true), (BudgetMode::Warn, false), (BudgetMode::Off, false)] {
            let budget = Budget::new(10, mode);
            let held = budget.ask(8).expect("it fits");
            let more = budget.ask(3);
            assert_eq!((more.is_err(), budget.refused()), (refused, 1));
            if let Err(error) = &more {
                assert!(matches!(error, RuntimeError::BudgetExceeded { need: 3, have: 2 }), "{error}");
            }
            assert_eq!(budget.used(), if refused { 8 } else { 11 });
            drop((held, more));
            assert_eq!((budget.used(), budget.peak()), (0, if refused { 8 } else { 11 }));
        }
    }

    /// Holds leases and gives them up, the oldest first.
    #[derive(Default)]
    struct Hoard(Mutex<Vec<Lease>>);

    impl Reclaim for Hoard {
        fn spare(&self) -> usize {
            self.0.lock().expect("one thread").iter().map(Lease::bytes).sum()
        }

        fn reclaim(&self, bytes: usize) {
            let mut held = self.0.lock().expect("one thread");
            let mut freed = 0;
            while freed < bytes && !held.is_empty() {
                freed += held.remove(0).bytes();
            }
        }
    }

    /// What could go counts as left, whether it goes or not.
    #[test]
    fn who_is_refused_is_told_what_there_could_be() {
        let budget = Budget::new(10, BudgetMode::Enforce);
        let hoard = Arc::new(Hoard::default());
        let weak: Weak<Hoard> = Arc::downgrade(&hoard);
        budget.on_pressure(weak);
        let _held = budget.ask(4).expect("it fits");
        hoard.0.lock().expect("one thread").push(budget.ask(5).expect("it fits"));
        let refused = budget.ask(7).map(drop);
        assert!(matches!(refused, Err(RuntimeError::BudgetExceeded { need: 7, have: 6 })), "{refused:?}");
        assert_eq!((budget.used(), budget.least_used()), (9, 4));
        assert_eq!(budget.ask(6).map(|lease| lease.bytes()).ok(), Some(6));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(usize),
        Hoard(usize),
        /// Out of the lease with this number.
        Take(usize, usize),
        Absorb(usize, usize),
        Drop(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..40_usize).prop_map(Step::Ask),
            2 => (0..20_usize).prop_map(Step::Hoard),
            3 => (any::<usize>(), 0..30_usize).prop_map(|(n, bytes)| Step::Take(n, bytes)),
            1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Step::Absorb(a, b)),
            3 => any::<usize>().prop_map(Step::Drop),
        ]
    }

    /// Steps that all cases together have run.
    static STEPS: OnceLock<AtomicUsize> = OnceLock::new();
    const LIMIT: usize = 100;

    /// The simple model: a list of the bytes of each lease, and one of what is hoarded.
    fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
        let budget = Budget::new(LIMIT, BudgetMode::Enforce);
        let hoard = Arc::new(Hoard::default());
        let weak: Weak<Hoard> = Arc::downgrade(&hoard);
        budget.on_pressure(weak);
        let (mut leases, mut model, mut kept) = (Vec::<Lease>::new(), Vec::<usize>::new(), Vec::<usize>::new());
        for step in steps {
            STEPS.get_or_init(|| AtomicUsize::new(0)).fetch_add(1, Ordering::Relaxed);
            // Whether `bytes` can be had, if what is hoarded may go; if not, nothing goes.
            let grant = |bytes: usize, model: &[usize], kept: &mut Vec<usize>| {
                if model.iter().sum::<usize>() + bytes > LIMIT {
                    return false;
                }
                while model.iter().chain(kept.iter()).sum::<usize>() + bytes > LIMIT {
                    kept.remove(0);
                }
                true
            };
            match *step {
                Step::Ask(bytes) => {
                    let expected = grant(bytes, &model, &mut kept);
                    let found = budget.ask(bytes);
                    prop_assert_eq!(found.is_ok(), expected);
                    if let Ok(lease) = found {
                        leases.push(lease);
                        model.push(bytes);
                    }
                }
                Step::Hoard(bytes) => {
                    if grant(bytes, &model, &mut kept) {
                        let lease = budget.ask(bytes).expect("the model has it");
                        hoard.0.lock().expect("one thread").push(lease);
                        kept.push(bytes);
                    } else {
                        prop_assert!(budget.ask(bytes).is_err());
                    }
                }
                Step::Take(n, bytes) if !leases.is_empty() => {
                    let n = n % leases.len();
                    let inside = model[n] >= bytes;
                    let expected = inside || grant(bytes, &model, &mut kept);
                    let found = leases[n].take(bytes);
                    prop_assert_eq!(found.is_ok(), expected);
                    if let Ok(lease) = found {
                        model[n] -= if inside { bytes } else { 0 };
                        leases.push(lease);
                        model.push(bytes);
                    }
                }
                Step::Absorb(a, b) if leases.len() > 1 => {
                    let (lease, bytes) = (leases.swap_remove(a % leases.len()), model.swap_remove(a % model.len()));
                    let b = b % leases.len();
                    leases[b].absorb(lease);
                    model[b] += bytes;
                }
                Step::Drop(n) if !leases.is_empty() => {
                    drop(leases.swap_remove(n % leases.len()));
                    model.swap_remove(n % model.len());
                }
                _ => {}
            }
            let sum: usize = model.iter().chain(&kept).sum();
            prop_assert_eq!(budget.used(), sum);
            prop_assert!(budget.used() <= LIMIT && budget.peak() <= LIMIT);
            prop_assert!(leases.iter().map(Lease::bytes).eq(model.iter().copied()));
        }
        Ok(())
    }

    /// A million steps: the budget is never exceeded, and grants what a list of numbers would.
    #[test]
    fn any_history_is_that_of_a_list_of_numbers() {
        let config = ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() };
        // Not by the macro, with which the environment may ask for fewer.
        let run = TestRunner::new(config).run(&prop::collection::vec(step(), 1000..1200), |steps| compare(&steps));
        run.unwrap_or_else(|error| panic!("{error}"));
        assert!(STEPS.get().expect("it ran").load(Ordering::Relaxed) >= 1_000_000);
    }

    #[test]
    fn threads_together_stay_below() {
        let budget = Budget::new(1000, BudgetMode::Enforce);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let budget = &budget;
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for n in 0..5000 {
                        held.extend(budget.ask((n * 7 + thread * 13) % 300).ok());
                        assert!(budget.used() <= 1000);
                        if n % 3 == 0 {
                            held.clear();
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
        assert!(budget.peak() <= 1000);
    }
}
