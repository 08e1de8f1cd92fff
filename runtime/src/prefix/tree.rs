//! A radix tree of token sequences whose edges are pages.
//!
//! A node is a page: up to [`KV_PAGE`] tokens that follow the path above it, and what was made of them. Only leaves can
//! have less than a full page. Children of a node are sorted by their tokens, so the one that has most in common with a
//! sequence stands beside the place where that sequence would stand.
//!
//! The least recently used leaf goes first, then what has become a leaf: what is left is always whole sequences from
//! their first token on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use halfbyte_kernels::KV_PAGE;

use crate::{RuntimeError, memory::with_room};

/// What memory is for, in errors.
const WHAT: &str = "the tree of prefixes";

/// The number of a node.
type Index = usize;

/// One page, and where it stands.
struct Node<P> {
    /// `None` for a root.
    above: Option<Index>,
    /// Its name among the children of that one.
    tokens: Box<[u32]>,
    page: Option<P>,
    children: BTreeMap<Box<[u32]>, Index>,
    /// When it was used last.
    used: u64,
}

/// See the head of this file. Sequences under different keys `K` have nothing to do with each other.
pub(crate) struct Tree<K, P> {
    nodes: Vec<Option<Node<P>>>,
    /// Numbers of nodes that are free again; there is room for all.
    free: Vec<Index>,
    roots: Vec<(K, Index)>,
    /// Leaves, by last use.
    leaves: BTreeSet<(u64, Index)>,
    pages: usize,
    clock: u64,
}

/// A page in the order in which a tree can be put together again.
pub(crate) struct Entry<'a, K, P> {
    pub(crate) key: &'a K,
    /// The number, in this order, of the page before it.
    pub(crate) above: Option<usize>,
    pub(crate) tokens: &'a [u32],
    pub(crate) page: &'a P,
}

impl<K: PartialEq, P: Clone> Tree<K, P> {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), roots: Vec::new(), leaves: BTreeSet::new(), pages: 0, clock: 0 }
    }

    /// Pages in it.
    #[cfg(test)]
    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The pages of the longest beginning of `tokens` that is known under `key`, and how many tokens that is: the last
    /// page may go on otherwise. They count as used.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn find(&mut self, key: &K, tokens: &[u32]) -> Result<(Vec<P>, usize), RuntimeError> {
        let (mut pages, mut found) = (with_room(WHAT, tokens.len().div_ceil(KV_PAGE).min(self.pages))?, 0);
        let Some(mut at) = self.root(key) else { return Ok((pages, 0)) };
        self.clock += 1;
        while let Some(rest) = tokens.get(found..).filter(|rest| !rest.is_empty()) {
            let Some((child, common)) = self.nearest(at, rest.get(..KV_PAGE).unwrap_or(rest)) else { break };
            self.touch(child);
            pages.extend(self.node(child).and_then(|node| node.page.clone()));
            found += common;
            if common < KV_PAGE {
                break;
            }
            at = child;
        }
        Ok((pages, found))
    }

    /// Keeps `pages`, made of `tokens`, all of one size. What is known already is not replaced. Returns how many came,
    /// and how many went because others cover them.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`]; nothing has changed.
    pub(crate) fn insert(&mut self, key: K, tokens: &[u32], pages: &[P]) -> Result<(usize, usize), RuntimeError> {
        // One more, for a root.
        let out_of_memory = |_| RuntimeError::OutOfMemory { what: WHAT, bytes: size_of_val(pages) };
        self.nodes.try_reserve(pages.len() + 1).map_err(out_of_memory)?;
        self.free.try_reserve(self.nodes.len() + pages.len() + 1 - self.free.len()).map_err(out_of_memory)?;
        self.clock += 1;
        let (mut added, mut removed) = (0, 0);
        let mut at = match self.root(&key) {
            Some(root) => root,
            None => {
                let root = self.add(None, Box::default(), None);
                self.roots.push((key, root));
                root
            }
        };
        for (tokens, page) in tokens.chunks(KV_PAGE).zip(pages) {
            let known = self.nearest(at, tokens);
            if let Some((child, common)) = known {
                if common == tokens.len() {
                    // Known, or the beginning of what is.
                    self.touch(child);
                    at = child;
                    continue;
                }
                if self.node(child).is_some_and(|node| node.tokens.len() == common) {
                    // The beginning of this page, and of nothing else: such a node is a leaf.
                    self.remove(child);
                    removed += 1;
                }
            }
            at = self.add(Some(at), tokens.into(), Some(page.clone()));
            added += 1;
        }
        Ok((added, removed))
    }

    /// Takes out the page that was not used for the longest time, of those on which no other depends and for which
    /// `may` holds.
    pub(crate) fn evict(&mut self, may: impl Fn(&P) -> bool) -> Option<P> {
        let page = |index: Index| self.node(index)?.page.as_ref();
        let &(_, leaf) = self.leaves.iter().find(|(_, leaf)| page(*leaf).is_some_and(&may))?;
        self.remove(leaf)
    }

    /// The pages that could be [taken out](Self::evict) one after the other, if only those go for which `may` holds.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn spare(&self, may: impl Fn(&P) -> bool) -> Result<impl Iterator<Item = &P>, RuntimeError> {
        let mut stays = with_room(WHAT, self.nodes.len())?;
        stays.resize(self.nodes.len(), false);
        for (index, node) in self.nodes.iter().enumerate() {
            if node.as_ref().and_then(|node| node.page.as_ref()).is_none_or(&may) {
                continue;
            }
            // So does all that it stands on.
            let mut at = Some(index);
            while let Some(index) = at.filter(|&index| stays.get(index) == Some(&false)) {
                stays[index] = true;
                at = self.node(index).and_then(|node| node.above);
            }
        }
        let pages = self.nodes.iter().zip(stays).filter(|(_, stays)| !stays);
        Ok(pages.filter_map(|(node, _)| node.as_ref()?.page.as_ref()))
    }

    /// All pages, each after the one it depends on.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub(crate) fn entries(&self) -> Result<Vec<Entry<'_, K, P>>, RuntimeError> {
        let mut entries = with_room(WHAT, self.pages)?;
        let mut open = with_room(WHAT, self.pages + 1)?;
        for (key, root) in &self.roots {
            open.push((*root, None));
            while let Some((index, above)) = open.pop() {
                let Some(node) = self.node(index) else { continue };
                let number = node.page.as_ref().map(|page| {
                    entries.push(Entry { key, above, tokens: &node.tokens, page });
                    entries.len() - 1
                });
                open.extend(node.children.values().map(|&child| (child, number)));
            }
        }
        Ok(entries)
    }

    fn root(&self, key: &K) -> Option<Index> {
        self.roots.iter().find(|(known, _)| known == key).map(|&(_, root)| root)
    }

    fn node(&self, index: Index) -> Option<&Node<P>> {
        self.nodes.get(index)?.as_ref()
    }

    /// The child of `at` that has the longest common beginning with `tokens`, and how long that is, unless that is
    /// nothing.
    fn nearest(&self, at: Index, tokens: &[u32]) -> Option<(Index, usize)> {
        let children = &self.node(at)?.children;
        let below = children.range::<[u32], _>((Bound::Unbounded, Bound::Included(tokens))).next_back();
        let above = children.range::<[u32], _>((Bound::Excluded(tokens), Bound::Unbounded)).next();
        let common = |known: &[u32]| known.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let both = [below, above].into_iter().flatten().map(|(known, &child)| (child, common(known)));
        both.filter(|&(_, common)| common > 0).max_by_key(|&(_, common)| common)
    }

    /// A new node, used now.
    fn add(&mut self, above: Option<Index>, tokens: Box<[u32]>, page: Option<P>) -> Index {
        let index = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            self.nodes.len() - 1
        });
        if let Some(above) = above {
            self.pages += 1;
            self.leaves.insert((self.clock, index));
            if let Some(node) = self.nodes.get_mut(above).and_then(Option::as_mut) {
                self.leaves.remove(&(node.used, above));
                node.children.insert(tokens.clone(), index);
            }
        }
        let node = Node { above, tokens, page, children: BTreeMap::new(), used: self.clock };
        if let Some(place) = self.nodes.get_mut(index) {
            *place = Some(node);
        }
        index
    }

    /// Takes out a leaf.
    fn remove(&mut self, leaf: Index) -> Option<P> {
        let node = self.nodes.get_mut(leaf)?.take()?;
        self.leaves.remove(&(node.used, leaf));
        self.free.push(leaf);
        self.pages -= 1;
        let above = node.above?;
        if let Some(parent) = self.nodes.get_mut(above).and_then(Option::as_mut) {
            parent.children.remove(&node.tokens);
            if parent.children.is_empty() && parent.above.is_some() {
                self.leaves.insert((parent.used, above));
            }
        }
        node.page
    }

    /// `index` is used now.
    fn touch(&mut self, index: Index) {
        let clock = self.clock;
        let Some(node) = self.nodes.get_mut(index).and_then(Option::as_mut) else { return };
        let before = std::mem::replace(&mut node.used, clock);
        if self.leaves.remove(&(before, index)) {
            self.leaves.insert((clock, index));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What stands for a page: its key, and the whole sequence up to its end.
    type Page = (u8, Vec<u32>);

    fn pages(key: u8, tokens: &[u32]) -> Vec<Page> {
        (1..=tokens.len().div_ceil(KV_PAGE)).map(|n| (key, tokens[..tokens.len().min(n * KV_PAGE)].to_vec())).collect()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, Vec<u32>),
        Find(u8, Vec<u32>),
        Evict,
    }

    /// Sequences of few pieces, so that many begin alike, on and off the edges of pages.
    fn tokens() -> impl Strategy<Value = Vec<u32>> {
        let piece = prop_oneof![Just(1_usize), Just(3), Just(31), Just(63), Just(64), Just(65)];
        prop::collection::vec((0..2_u32, piece), 0..7)
            .prop_map(|pieces| pieces.into_iter().flat_map(|(token, len)| vec![token; len]).collect())
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..2_u8, tokens()).prop_map(|(key, tokens)| Step::Insert(key, tokens)),
            3 => (0..2_u8, tokens()).prop_map(|(key, tokens)| Step::Find(key, tokens)),
            2 => Just(Step::Evict),
        ]
    }

    /// The simple model: every page as the whole sequence up to its end, with the time of its last use.
    type Model = BTreeMap<Page, u64>;

    fn common(a: &[u32], b: &[u32]) -> usize {
        a.iter().zip(b).take_while(|(a, b)| a == b).count()
    }

    /// Tokens of `tokens` that some page of the model covers.
    fn covered(model: &Model, key: u8, tokens: &[u32]) -> usize {
        model.keys().filter(|(k, _)| *k == key).map(|(_, known)| common(known, tokens)).max().unwrap_or(0)
    }

    /// The page that goes next: of those that are the beginning of no other, the one that was used least recently.
    fn oldest(model: &Model) -> Option<&Page> {
        let depends = |(k, known): &Page| {
            model.keys().any(|(key, longer)| k == key && longer.len() > known.len() && longer.starts_with(known))
        };
        model.iter().filter(|(page, _)| !depends(page)).min_by_key(|(_, used)| **used).map(|(page, _)| page)
    }

    fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
        let (mut tree, mut model, mut clock) = (Tree::new(), Model::new(), 0);
        for step in steps {
            clock += 1;
            match step {
                Step::Insert(key, tokens) => {
                    tree.insert(*key, tokens, &pages(*key, tokens)).expect("memory");
                    for page in pages(*key, tokens) {
                        // A page that goes on from a shorter one takes its place; one that another covers is not kept,
                        // but the first of those counts as used.
                        let start = |known: &[u32]| (known.len() - 1) / KV_PAGE;
                        let same = |known: &Page| known.0 == page.0 && start(&known.1) == start(&page.1);
                        let covers = model.keys().find(|known| same(known) && known.1.starts_with(&page.1)).cloned();
                        model.retain(|known, _| covers.is_some() || !(same(known) && page.1.starts_with(&known.1)));
                        model.insert(covers.unwrap_or(page), clock);
                    }
                }
                Step::Find(key, tokens) => {
                    let (found, len) = tree.find(key, tokens).expect("memory");
                    prop_assert_eq!(len, covered(&model, *key, tokens));
                    prop_assert_eq!(found.len(), len.div_ceil(KV_PAGE));
                    for (n, page) in found.iter().enumerate() {
                        let end = len.min((n + 1) * KV_PAGE);
                        prop_assert_eq!(page.0, *key);
                        prop_assert_eq!(&page.1[..end], &tokens[..end], "a page of another sequence");
                    }
                    for page in found {
                        model.insert(page, clock);
                    }
                }
                Step::Evict => {
                    // Of those that may go, what is left once all of them have been tried.
                    let may = |page: &Page| !page.1.len().is_multiple_of(3);
                    let mut spare: Vec<Page> = tree.spare(may).expect("memory").cloned().collect();
                    let stays = |page: &Page| {
                        model.keys().any(|known| known.0 == page.0 && known.1.starts_with(&page.1) && !may(known))
                    };
                    let mut expected: Vec<Page> = model.keys().filter(|page| !stays(page)).cloned().collect();
                    spare.sort();
                    expected.sort();
                    prop_assert_eq!(spare, expected);
                    let expected = oldest(&model).cloned();
                    prop_assert_eq!(tree.evict(|_| true), expected.clone());
                    model.retain(|page, _| Some(page) != expected.as_ref());
                }
            }
            prop_assert_eq!(tree.pages(), model.len());
        }
        // What is written down is what is there, each page after the one before it.
        let entries = tree.entries().expect("memory");
        let mut paths: Vec<Vec<u32>> = Vec::new();
        for entry in &entries {
            let mut path = entry.above.map_or(Vec::new(), |above| paths[above].clone());
            prop_assert!(path.len().is_multiple_of(KV_PAGE));
            path.extend_from_slice(entry.tokens);
            prop_assert_eq!(&(*entry.key, path.clone()), entry.page);
            prop_assert!(model.contains_key(entry.page));
            paths.push(path);
        }
        prop_assert_eq!(entries.len(), model.len());
        drop(entries);
        while tree.evict(|_| true).is_some() {}
        prop_assert_eq!((tree.pages(), tree.leaves.len()), (0, 0));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn the_tree_is_a_set_of_sequences(steps in prop::collection::vec(step(), 1..60)) {
            compare(&steps)?;
        }
    }

    #[test]
    fn the_least_recently_used_sequence_goes_first_from_its_end() {
        let mut tree = Tree::new();
        let (a, b) = (vec![1; 2 * KV_PAGE + 5], [vec![1; KV_PAGE], vec![2; 3]].concat());
        assert_eq!(tree.insert(0, &a, &pages(0, &a)).expect("memory"), (3, 0));
        assert_eq!(tree.insert(0, &b, &pages(0, &b)).expect("memory"), (1, 0));
        assert_eq!(tree.pages(), 4);
        assert_eq!(tree.find(&0, &a[..70]).expect("memory").1, 70);
        // The last two pages of `a`: the second was used just now, but the third stands on it.
        let evicted: Vec<usize> = std::iter::from_fn(|| tree.evict(|_| true).map(|page| page.1.len())).collect();
        assert_eq!(evicted, [133, 67, 128, 64]);
    }
}
