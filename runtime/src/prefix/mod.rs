//! The prefix cache: what was made of the beginning of a sequence, for the next one that begins alike.
//!
//! It holds pages of finished and running sequences in a radix [`tree`]; taking one up copies nothing but the last
//! page, if sequences part inside it, when it is first written. Pages never change once they are shared, and a token's
//! keys and values do not depend on what follows, on the pass it was in or on the number of threads: so a sequence that
//! begins with cached pages has the bits it would have without. What they do depend on is in the key.

mod file;
mod fingerprint;
mod lock;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use halfbyte_kernels::{KV_PAGE, KvType};

pub(crate) use fingerprint::Fingerprint;
use tree::Tree;

use crate::{
    FactorSet, Model, RuntimeError,
    budget::Reclaim,
    kv::{KvCache, Page},
    memory::{push, with_room},
};

/// All that keys and values depend on besides the model and the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    factors: FactorSet,
    kv: KvType,
}

/// Prefixes of sequences of one [`Model`], the least recently used of which go first. Clones are the same cache.
///
/// A [`Scheduler`](crate::Scheduler) has [one of its own](crate::Scheduler::prefixes), which it fills and uses by
/// itself; a [`Session`](crate::Session) begins with the one that it is [given](crate::Session::set_prefixes).
#[derive(Clone)]
pub struct PrefixCache {
    shared: Arc<Shared>,
}

struct Shared {
    model: Model,
    limit: usize,
    kept: Mutex<Kept>,
    evicted: AtomicU64,
}

struct Kept {
    tree: Tree<Key, Arc<Page>>,
    bytes: usize,
}

/// What a cache holds for one sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefixEntry {
    /// The tokens, from the first one on.
    pub tokens: Vec<u32>,
    /// What they were rotated with.
    pub factors: FactorSet,
    /// How keys and values are stored.
    pub kv: KvType,
}

impl PrefixCache {
    /// An empty cache of at most `limit` bytes of pages, which it gives up earlier if the model's budget runs out. No
    /// scheduler will use it: it is for files, to [`load`](Self::load) them, look at [`entries`](Self::entries) and
    /// [`save`](Self::save) them with nothing running, and for [sessions](crate::Session::set_prefixes).
    #[must_use]
    pub fn new(model: &Model, limit: usize) -> Self {
        let shared = Arc::new(Shared {
            model: model.clone(),
            limit,
            kept: Mutex::new(Kept { tree: Tree::new(), bytes: 0 }),
            evicted: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&shared);
        model.budget().on_pressure(weak);
        Self { shared }
    }

    /// Whether what it holds was made by `model`, this very one.
    pub(crate) fn is_of(&self, model: &Model) -> bool {
        self.shared.model.is_same(model)
    }

    /// Bytes of the pages it holds, some of which running sequences may hold too.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// Bytes it may hold.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.shared.limit
    }

    /// Pages that had to go.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.shared.evicted.load(Ordering::Relaxed)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let mut kept = self.shared.lock();
        *kept = Kept { tree: Tree::new(), bytes: 0 };
    }

    /// The sequences it holds, each once, without those that are the beginning of another.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn entries(&self) -> Result<Vec<PrefixEntry>, RuntimeError> {
        let kept = self.shared.lock();
        let entries = kept.tree.entries()?;
        let mut found = Vec::new();
        each_path(
            &entries,
            |entry| entry.above,
            |path| {
                let mut tokens = with_room("tokens of a prefix", path.len() * KV_PAGE)?;
                path.iter().for_each(|entry| tokens.extend_from_slice(entry.tokens));
                let Some(end) = path.last() else { return Ok(()) };
                push("prefixes", &mut found, PrefixEntry { tokens, factors: end.key.factors, kv: end.key.kv })
            },
        )?;
        Ok(found)
    }

    /// The pages of what is known of `tokens`, and how many tokens that is: the last page may go on otherwise.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn find(
        &self,
        factors: FactorSet,
        kv: KvType,
        tokens: &[u32],
    ) -> Result<(Vec<Arc<Page>>, usize), RuntimeError> {
        self.shared.lock().tree.find(&Key { factors, kv }, tokens)
    }

    /// Keeps what `cache` has made of `tokens`, if there is memory for the tree; `full` only the pages that nothing
    /// will be added to.
    pub(crate) fn keep(&self, cache: &KvCache, tokens: &[u32], full: bool) {
        let (pages, len) = cache.shared_pages(full);
        let Some(tokens) = tokens.get(..len) else { return };
        if let Err(error) = self.insert(Key { factors: cache.factors(), kv: cache.ty() }, tokens, pages) {
            tracing::warn!(%error, "a prefix is not kept");
        }
    }

    fn insert(&self, key: Key, tokens: &[u32], pages: &[Arc<Page>]) -> Result<(), RuntimeError> {
        let Some(page_bytes) = pages.first().map(|page| page.len()).filter(|_| self.limit() > 0) else {
            return Ok(());
        };
        let mut kept = self.shared.lock();
        let (added, removed) = kept.tree.insert(key, tokens, pages)?;
        kept.bytes = (kept.bytes + added * page_bytes).saturating_sub(removed * page_bytes);
        self.shared.evict(&mut kept, |kept, _| kept.bytes <= self.shared.limit, |_| true);
        if added > 0 {
            // Who waits may need less memory now, because it begins like this.
            self.shared.model.budget().returned();
        }
        Ok(())
    }
}

/// Calls `each` with the paths of a list in which an entry may follow an earlier one: for each entry that none follows,
/// all up to it.
fn each_path<T>(
    list: &[T],
    above: impl Fn(&T) -> Option<usize>,
    mut each: impl FnMut(&[&T]) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    let what = "paths of prefixes";
    let (mut ends, mut path) = (with_room(what, list.len())?, with_room(what, list.len())?);
    ends.resize(list.len(), true);
    for above in list.iter().filter_map(&above) {
        ends[above] = false;
    }
    for (end, _) in list.iter().zip(ends).filter(|(_, is_end)| *is_end) {
        path.clear();
        let mut at = Some(end);
        while let Some(entry) = at {
            path.push(entry);
            at = above(entry).and_then(|above| list.get(above));
        }
        path.reverse();
        each(&path)?;
    }
    Ok(())
}

impl Shared {
    /// No code that can panic half-way runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up pages for which `may` holds until `enough` of what is left and of the bytes that became free.
    fn evict(&self, kept: &mut Kept, enough: impl Fn(&Kept, usize) -> bool, may: impl Fn(&Arc<Page>) -> bool) {
        let (mut freed, mut gone) = (0, 0);
        while !enough(kept, freed) {
            let Some(page) = kept.tree.evict(&may) else { break };
            kept.bytes = kept.bytes.saturating_sub(page.len());
            freed += Arc::into_inner(page).map_or(0, |page| page.len());
            gone += 1;
        }
        if gone > 0 {
            self.evicted.fetch_add(gone, Ordering::Relaxed);
            tracing::debug!(pages = gone, "prefixes evicted");
        }
    }
}

impl Reclaim for Shared {
    fn spare(&self) -> usize {
        let kept = self.lock();
        // Without memory to count in, nothing is said against trying.
        kept.tree.spare(is_unused).map_or(kept.bytes, |pages| pages.map(|page| page.len()).sum())
    }

    fn reclaim(&self, bytes: usize) {
        self.evict(&mut self.lock(), |_, freed| freed >= bytes, is_unused);
    }
}

/// Whether no running sequence holds `page` as well: it would free nothing.
fn is_unused(page: &Arc<Page>) -> bool {
    Arc::strong_count(page) == 1
}

impl fmt::Debug for PrefixCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixCache").field("bytes", &self.bytes()).field("limit", &self.limit()).finish()
    }
}
