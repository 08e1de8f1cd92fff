//! The cache of one session: a table of pages, each with the keys and values of [`KV_PAGE`] positions in all layers.
//!
//! A page is mapped when a position in it is about to be run, never beyond the context; a failure to map is an error
//! instead of an abort. So a cache grows without being copied, and sequences that begin alike share the pages of what
//! they have in common. A page that is shared is never written: whoever comes to write the rest of it takes a copy
//! first. A position counts once [`KvCache::commit`] says so, so an interrupted step leaves nothing.

use std::{ops::Range, sync::Arc};

use halfbyte_kernels::{KV_PAGE, KernelError, KvLayout, KvPages, KvType};

use crate::{
    FactorSet, RuntimeError,
    budget::Lease,
    config::ModelConfig,
    exec::PageParts,
    memory::{Buffer, with_room},
};

/// Memory of a page: `(layers, layout.page_bytes())`.
pub(crate) type Page = Buffer<u8>;

/// Keys and values of one layer, to be read.
pub(crate) struct LayerPages<'a> {
    pages: &'a [Arc<Page>],
    /// Where the layer lies in a page.
    bytes: Range<usize>,
}

impl KvPages for LayerPages<'_> {
    fn page(&self, index: usize) -> &[u8] {
        self.pages.get(index).and_then(|page| page.get(self.bytes.clone())).unwrap_or_default()
    }
}

/// Keys and values of all layers, the multi-token-prediction ones last.
pub(crate) struct KvCache {
    layout: KvLayout,
    layers: usize,
    /// Bytes of a page of one layer.
    bytes: usize,
    /// Positions there may be.
    capacity: usize,
    /// Those of the positions that count, and of those reserved.
    pages: Vec<Arc<Page>>,
    len: usize,
    /// What all keys in it were rotated with.
    factors: FactorSet,
    /// Where memory for pages comes from, and goes back to.
    lease: Lease,
}

impl KvCache {
    fn layout_of(config: &ModelConfig, ty: KvType) -> Result<KvLayout, RuntimeError> {
        let layout = KvLayout { ty, kv_heads: config.kv_heads, head_dim: config.head_dim };
        layout.check_head().map_err(|error| RuntimeError::InvalidOption {
            option: "kv",
            found: format!("{ty:?}"),
            expected: format!("a type for heads of {} elements: {error}", config.head_dim),
        })?;
        Ok(layout)
    }

    /// Bytes of a page, of all layers.
    pub(crate) fn page_bytes(config: &ModelConfig, ty: KvType) -> Result<usize, RuntimeError> {
        Ok((config.layers + config.mtp_layers) * Self::layout_of(config, ty)?.page_bytes()?)
    }

    /// A page of no cache yet.
    pub(crate) fn new_page(from: &mut Lease, config: &ModelConfig, ty: KvType) -> Result<Page, RuntimeError> {
        new_page(from, config.layers + config.mtp_layers, Self::layout_of(config, ty)?.page_bytes()?)
    }

    /// An empty cache, whose pages take their memory out of `lease` as far as that goes.
    pub(crate) fn new(lease: Lease, config: &ModelConfig, ty: KvType, capacity: usize) -> Result<Self, RuntimeError> {
        let layout = Self::layout_of(config, ty)?;
        Ok(Self {
            layout,
            layers: config.layers + config.mtp_layers,
            bytes: layout.page_bytes()?,
            capacity,
            pages: with_room("pages of the KV cache", capacity.div_ceil(KV_PAGE))?,
            len: 0,
            factors: FactorSet::Short,
            lease,
        })
    }

    /// A cache with the same positions, whose pages are shared until one of the two writes to them.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn fork(&self) -> Result<Self, RuntimeError> {
        let Self { layout, layers, bytes, capacity, len, factors, .. } = *self;
        let mut pages = with_room("pages of the KV cache", capacity.div_ceil(KV_PAGE))?;
        pages.extend(self.pages.iter().take(len.div_ceil(KV_PAGE)).cloned());
        Ok(Self { layout, layers, bytes, capacity, pages, len, factors, lease: self.lease.budget().lease() })
    }

    /// Lets this cache, if it is empty, begin with the first `len` positions of `pages`. Returns how many those are.
    pub(crate) fn adopt(&mut self, pages: Vec<Arc<Page>>, len: usize) -> usize {
        let expected = self.layers * self.bytes;
        let fits = len <= self.capacity && pages.len() == len.div_ceil(KV_PAGE);
        if self.len > 0 || !fits || pages.iter().any(|page| page.len() != expected) {
            return 0;
        }
        self.pages.clear();
        self.pages.extend(pages);
        self.len = len;
        len
    }

    /// The pages of the positions that count, to be shared, and how many positions those are: all, or those in full
    /// pages.
    pub(crate) fn shared_pages(&self, full: bool) -> (&[Arc<Page>], usize) {
        let len = if full { self.len / KV_PAGE * KV_PAGE } else { self.len };
        (self.pages.get(..len.div_ceil(KV_PAGE)).unwrap_or_default(), len)
    }

    /// How numbers are stored.
    pub(crate) fn ty(&self) -> KvType {
        self.layout.ty
    }

    /// Positions that count.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Positions there may be.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes of the positions that count, in all layers.
    pub(crate) fn len_bytes(&self) -> usize {
        self.layers * self.bytes / KV_PAGE * self.len
    }

    /// Makes the next `tokens` positions writable, those beyond the capacity left out. This is the one place that takes
    /// memory while tokens are generated: a mapping and one small allocation for every [`KV_PAGE`] of them, before the
    /// pass.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`], [`RuntimeError::BudgetExceeded`]; nothing that counts has changed.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<(), RuntimeError> {
        let end = self.len.saturating_add(tokens).min(self.capacity);
        for n in self.len / KV_PAGE..end.div_ceil(KV_PAGE) {
            let Some(page) = self.pages.get_mut(n) else {
                self.pages.push(Arc::new(new_page(&mut self.lease, self.layers, self.bytes)?));
                continue;
            };
            if Arc::get_mut(page).is_none() {
                let mut copy = new_page(&mut self.lease, self.layers, self.bytes)?;
                copy.copy_from_slice(page);
                *page = Arc::new(copy);
                // If the other one is a cache of prefixes, it may be given up now.
                self.lease.budget().returned();
            }
        }
        Ok(())
    }

    /// Makes `tokens` more positions count, all layers having been written.
    pub(crate) fn commit(&mut self, tokens: usize) {
        self.len = (self.len + tokens).min(self.capacity);
    }

    /// Forgets all positions from `len` up.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for page in self.pages.drain(self.len.div_ceil(KV_PAGE)..) {
            match Arc::into_inner(page) {
                // What was set aside for the sequence stays so.
                Some(page) if self.lease.is_grant() => self.lease.absorb(page.into_lease()),
                Some(_) => {}
                // If the other one is a cache of prefixes, it may be given up now.
                None => self.lease.budget().returned(),
            }
        }
    }

    /// What keys are rotated with.
    pub(crate) fn factors(&self) -> FactorSet {
        self.factors
    }

    /// Forgets all positions; keys to come are rotated with `factors`.
    pub(crate) fn rotate_with(&mut self, factors: FactorSet) {
        self.factors = factors;
        self.truncate(0);
    }

    /// The shape of a page of one layer.
    pub(crate) fn layout(&self) -> KvLayout {
        self.layout
    }

    /// The pages of `layer`; of no bytes if there is no such one, which the kernels refuse.
    pub(crate) fn layer(&self, layer: usize) -> LayerPages<'_> {
        LayerPages { pages: &self.pages, bytes: self.layer_bytes(layer) }
    }

    /// Adds the pages of `positions` in `layer` to those that a step writes.
    ///
    /// # Errors
    /// [`RuntimeError::Kernel`] if one of them is not there, or not the cache's alone: [`KvCache::reserve`] sees to
    /// that.
    pub(super) fn add_parts<'a>(
        &'a mut self,
        layer: usize,
        positions: Range<usize>,
        parts: &mut PageParts<'a>,
    ) -> Result<(), RuntimeError> {
        let bytes = self.layer_bytes(layer);
        let pages = positions.start / KV_PAGE..positions.end.div_ceil(KV_PAGE);
        for page in self.pages.get_mut(pages).unwrap_or_default() {
            let page = Arc::get_mut(page).and_then(|page| page.get_mut(bytes.clone()));
            let expected = bytes.len();
            parts.push(page.ok_or(KernelError::ShapeMismatch { what: "kv page", expected, found: 0 })?)?;
        }
        Ok(())
    }

    fn layer_bytes(&self, layer: usize) -> Range<usize> {
        debug_assert!(layer < self.layers);
        layer * self.bytes..(layer + 1) * self.bytes
    }
}

fn new_page(from: &mut Lease, layers: usize, bytes: usize) -> Result<Page, RuntimeError> {
    Buffer::zeros(from, "a page of the KV cache", [layers, bytes])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Budget;

    /// Two layers of one head of one element.
    fn cache(capacity: usize) -> KvCache {
        let layout = KvLayout { ty: KvType::F16, kv_heads: 1, head_dim: 1 };
        let bytes = layout.page_bytes().expect("small");
        let (pages, lease) = (Vec::new(), Budget::default().lease());
        KvCache { layout, layers: 2, bytes, capacity, pages, len: 0, factors: FactorSet::Short, lease }
    }

    fn grow(cache: &mut KvCache, tokens: usize) {
        cache.reserve(tokens).expect("memory");
        cache.commit(tokens);
    }

    /// Whether page `n` of two caches is the same memory.
    fn shared(a: &KvCache, b: &KvCache, n: usize) -> bool {
        Arc::ptr_eq(&a.pages[n], &b.pages[n])
    }

    #[test]
    fn pages_come_and_go_with_positions() {
        let mut cache = cache(200);
        assert_eq!((cache.pages.len(), cache.len_bytes()), (0, 0));
        for (tokens, pages) in [(1, 1), (63, 1), (1, 2), (100, 3), (1000, 4)] {
            grow(&mut cache, tokens);
            assert_eq!(cache.pages.len(), pages);
        }
        assert_eq!((cache.len(), cache.len_bytes()), (200, 2 * 2 * 2 * 200));
        for (len, pages) in [(193, 4), (192, 3), (64, 1), (1, 1), (0, 0)] {
            cache.truncate(len);
            assert_eq!((cache.len(), cache.pages.len()), (len, pages));
        }
    }

    #[test]
    fn forks_share_pages_until_one_is_written() {
        let mut cache = cache(300);
        grow(&mut cache, 130);
        Arc::get_mut(&mut cache.pages[2]).expect("its own").fill(7);
        let mut fork = cache.fork().expect("memory");
        assert!((0..3).all(|n| shared(&cache, &fork, n)));
        // Neither may be written now.
        for cache in [&mut cache, &mut fork] {
            assert!(cache.add_parts(0, 130..131, &mut PageParts::new(2)).is_err());
        }
        grow(&mut fork, 1);
        assert!(shared(&cache, &fork, 0) && shared(&cache, &fork, 1) && !shared(&cache, &fork, 2));
        assert_eq!(fork.layer(1).page(2), cache.layer(1).page(2));
        // The other one has the page for itself again.
        let page = Arc::as_ptr(&cache.pages[2]);
        grow(&mut cache, 1);
        assert_eq!(Arc::as_ptr(&cache.pages[2]), page);
        // A full page stays shared, whatever comes after it.
        fork.truncate(128);
        grow(&mut fork, 1);
        assert!(shared(&cache, &fork, 1));
        fork.truncate(100);
        grow(&mut fork, 1);
        assert!(shared(&cache, &fork, 0) && !shared(&cache, &fork, 1));
    }
}
