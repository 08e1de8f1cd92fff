//! Prefixes in a file: to be used after a restart.
//!
//! ```text
//! head    "halfpref"  version u32  entries u32  fingerprint u64  checksum u64 (of the 24 bytes before)
//! entry   factors u32  kv type u32  above u32  tokens u32  page bytes u64  checksum u64 (of the 24 bytes before, the
//!         number of the entry, the tokens and the page)  token ids u32 each  page
//! ```
//!
//! All is little-endian; the file ends with the last entry. `above` is 0, or the number, from 1, of the earlier entry
//! whose full page this one follows. A page is stored as it lies in memory, which the fingerprint covers: another
//! model, quantisation, arithmetic or instruction set has another one.
//!
//! Saving writes a temporary file and renames it, so that whoever looks sees the old file or the new one. Loading reads
//! and checks everything before anything becomes part of the cache. Whoever saves holds the lock of `NAME.lock` beside
//! it; nobody waits for it.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use halfbyte_formats::{FormatError, TempFile, open_regular};
use halfbyte_kernels::{KV_PAGE, KvType};

use super::{Key, PrefixCache, each_path, fingerprint::Hash, lock::Lock, tree::Tree};
use crate::{
    FactorSet, RuntimeError,
    kv::{KvCache, Page},
    memory::{push, with_room},
};

const MAGIC: [u8; 8] = *b"halfpref";
const VERSION: u32 = 1;
/// Bytes of the head, and of an entry before its tokens.
const HEAD: usize = 32;

/// Bytes that are read at a time: heads and tokens; pages go where they belong.
const BUFFER: usize = 2 << 10;

/// What can be stored, by its code.
const FACTORS: [FactorSet; 2] = [FactorSet::Short, FactorSet::Long];
const TYPES: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Int8];

impl PrefixCache {
    /// Saves all prefixes in the file `path`, in place of what it was, in one step. Returns how many pages that are.
    /// Beside it stays an empty file, `path` and `.lock`.
    ///
    /// # Errors
    /// [`RuntimeError::Format`] if the system refuses, if `path` is a folder, device or pipe, or, with
    /// [`io::ErrorKind::WouldBlock`], if somebody else is saving the file; [`RuntimeError::OutOfMemory`]. The file is
    /// then what it was.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<usize, RuntimeError> {
        self.save_through(path.as_ref(), || self.shared_entries(), |file| Box::new(file))
    }

    /// As [`PrefixCache::save`], together with the prefixes that are in the file when nobody else saves it any more: so
    /// of several that add to one file, none loses what another added. This cache itself stays as it is. The file is
    /// read whole into memory; if there is none, it is made.
    ///
    /// # Errors
    /// As [`PrefixCache::load`] and [`PrefixCache::save`]. The file is then what it was.
    pub fn add_to(&self, path: impl AsRef<Path>) -> Result<usize, RuntimeError> {
        let path = path.as_ref();
        self.save_through(path, || self.joined_entries(path), |file| Box::new(file))
    }

    /// Saves `entries`, asked for under the lock, with `through` between this and the file.
    pub(super) fn save_through(
        &self,
        path: &Path,
        entries: impl FnOnce() -> Result<Vec<Stored>, RuntimeError>,
        through: impl for<'a> FnOnce(&'a File) -> Box<dyn Write + 'a>,
    ) -> Result<usize, RuntimeError> {
        let failed = |action| io_error(action, path);
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(FormatError::NotRegularFile { path: path.to_owned(), kind: "not a regular file" }.into());
        }
        let _lock = Lock::of(lock_file(path)?).map_err(failed("lock"))?;
        TempFile::sweep(path);
        let (temp, file) = TempFile::beside(path)?;
        let entries = entries()?;
        let written = self.write(&entries, &mut *through(&file)).map_err(failed("write"));
        let count = entries.len();
        drop(entries);
        // While these were held here, nobody got their memory.
        self.shared.model.budget().returned();
        written?;
        file.sync_all().map_err(failed("sync"))?;
        // Windows renames only closed files.
        drop(file);
        temp.rename()?;
        Ok(count)
    }

    /// All entries, each after the one that it follows. Pages are shared, not copied: the cache is free for others
    /// while they are written.
    pub(super) fn shared_entries(&self) -> Result<Vec<Stored>, RuntimeError> {
        listed(&self.shared.lock().tree)
    }

    /// Those in the file `path`, if there is one, and all of this cache's.
    fn joined_entries(&self, path: &Path) -> Result<Vec<Stored>, RuntimeError> {
        // Before anything is read: what is held here is not given up for it.
        let own = self.shared_entries()?;
        let there = match Source::open(path) {
            Err(FormatError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Vec::new(),
            opened => self.parse(&mut opened?, usize::MAX)?,
        };
        let mut tree = Tree::new();
        for list in [&there, &own] {
            each_sequence(list, |key, tokens, pages| tree.insert(key, tokens, pages).map(drop))?;
        }
        listed(&tree)
    }

    fn write(&self, entries: &[Stored], sink: &mut dyn Write) -> io::Result<()> {
        let count = u32::try_from(entries.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut head = Vec::with_capacity(HEAD);
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend(count.to_le_bytes());
        head.extend(self.shared.model.fingerprint().sum().to_le_bytes());
        head.extend(Hash::new().add(&head).sum().to_le_bytes());
        sink.write_all(&head)?;
        for (number, Stored { key, above, tokens, page }) in entries.iter().enumerate() {
            let page = page.as_deref().map_or(&[][..], |page| &**page);
            let tokens: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
            let code = |found: Option<usize>| found.map_or(u32::MAX, |code| code as u32);
            head.clear();
            for word in [
                code(FACTORS.iter().position(|known| *known == key.factors)),
                code(TYPES.iter().position(|known| *known == key.kv)),
                above.map_or(0, |above| above as u32 + 1),
                (tokens.len() / 4) as u32,
            ] {
                head.extend(word.to_le_bytes());
            }
            head.extend((page.len() as u64).to_le_bytes());
            head.extend(entry_sum(&head, number, &tokens, page).to_le_bytes());
            sink.write_all(&head)?;
            sink.write_all(&tokens)?;
            sink.write_all(page)?;
        }
        sink.flush()
    }

    /// Adds the prefixes in the file `path`, as far as there is room for them. Returns how many pages there were.
    ///
    /// # Errors
    /// [`RuntimeError::PrefixFile`] if a single byte is not what was written, or was written for another model;
    /// [`RuntimeError::Format`] if the system refuses, or `path` is a folder, device or pipe;
    /// [`RuntimeError::BudgetExceeded`], [`RuntimeError::OutOfMemory`]. The cache is then what it was; only if memory
    /// ends it may have given up entries for it, or, when all has been checked, have got a part.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<usize, RuntimeError> {
        self.read(&mut Source::open(path.as_ref())?)
    }

    pub(super) fn read(&self, source: &mut Source<'_, impl Read>) -> Result<usize, RuntimeError> {
        let read = self.parse(source, self.limit())?;
        let kept = read.iter().take_while(|entry| entry.page.is_some()).count();
        each_sequence(read.get(..kept).unwrap_or_default(), |key, tokens, pages| self.insert(key, tokens, pages))?;
        Ok(read.len())
    }

    /// The entries of a file, all of it checked. Pages beyond `limit` bytes are not kept, nor are later ones.
    fn parse(&self, source: &mut Source<'_, impl Read>, limit: usize) -> Result<Vec<Stored>, RuntimeError> {
        let invalid = |what, offset| RuntimeError::PrefixFile { what, offset };
        let head: [u8; HEAD] = source.array()?;
        let [magic, counts, fingerprint, sum] = words(&head);
        if magic != u64::from_le_bytes(MAGIC) {
            return Err(invalid("not a file of prefixes", 0));
        }
        if Hash::new().add(&head[..HEAD - 8]).sum() != sum {
            return Err(invalid("wrong checksum of the head", 24));
        }
        let (version, count) = (counts as u32, counts >> 32);
        if version != VERSION {
            return Err(invalid("unknown version", 8));
        }
        if fingerprint != self.shared.model.fingerprint().sum() {
            return Err(invalid("made with another model, quantisation or instruction set", 16));
        }
        let model = &self.shared.model;
        let (mut lease, mut read, mut bytes) = (model.budget().lease(), Vec::<Stored>::new(), 0);
        for number in 0..count {
            let at = source.offset;
            let head: [u8; HEAD] = source.array()?;
            let [kinds, place, page_bytes, sum] = words(&head);
            let factors = FACTORS.get(kinds as u32 as usize).ok_or(invalid("unknown rotation factors", at))?;
            let kv = TYPES.get((kinds >> 32) as usize).ok_or(invalid("unknown type of keys and values", at + 4))?;
            let key = Key { factors: *factors, kv: *kv };
            let (above, tokens) = ((place as u32).checked_sub(1), (place >> 32) as usize);
            let follows = above.is_none_or(|above| {
                read.get(above as usize).is_some_and(|above| above.key == key && above.tokens.len() == KV_PAGE)
            });
            if !follows || !(1..=KV_PAGE).contains(&tokens) {
                return Err(invalid("an entry that follows no other", at + 8));
            }
            if page_bytes != KvCache::page_bytes(model.config(), *kv)? as u64 {
                return Err(invalid("a page of another size", at + 16));
            }
            if source.left < page_bytes {
                return Err(invalid("the file is cut short", at + 16));
            }
            let mut ids = vec![0; 4 * tokens];
            source.fill(&mut ids)?;
            let mut page = KvCache::new_page(&mut lease, model.config(), *kv)?;
            source.fill(&mut page)?;
            if entry_sum(&head[..HEAD - 8], number as usize, &ids, &page) != sum {
                return Err(invalid("wrong checksum of an entry", at + 24));
            }
            let ids: Box<[u32]> = ids.as_chunks().0.iter().map(|&id| u32::from_le_bytes(id)).collect();
            if ids.iter().any(|&id| id as usize >= model.vocab()) {
                return Err(invalid("a token that is not in the vocabulary", at + HEAD as u64));
            }
            bytes += page.len();
            let page = (bytes <= limit).then(|| Arc::new(page));
            let above = above.map(|above| above as usize);
            push("entries of prefixes", &mut read, Stored { key, above, tokens: ids, page })?;
        }
        if source.left > 0 {
            return Err(invalid("bytes after the end", source.offset));
        }
        Ok(read)
    }
}

/// All entries of `tree`, each after the one that it follows.
fn listed(tree: &Tree<Key, Arc<Page>>) -> Result<Vec<Stored>, RuntimeError> {
    let entries = tree.entries()?;
    let mut out = with_room("entries of prefixes", entries.len())?;
    out.extend(entries.into_iter().map(|entry| Stored {
        key: *entry.key,
        above: entry.above,
        tokens: entry.tokens.into(),
        page: Some(Arc::clone(entry.page)),
    }));
    Ok(out)
}

/// Calls `each` with the key, the tokens and the pages of every sequence in `list`.
fn each_sequence(
    list: &[Stored],
    mut each: impl FnMut(Key, &[u32], &[Arc<Page>]) -> Result<(), RuntimeError>,
) -> Result<(), RuntimeError> {
    each_path(
        list,
        |entry| entry.above,
        |path| {
            let mut tokens = with_room("tokens of a prefix", path.len() * KV_PAGE)?;
            let mut pages = with_room("pages of a prefix", path.len())?;
            for entry in path {
                tokens.extend_from_slice(&entry.tokens);
                pages.extend(entry.page.clone());
            }
            path.last().map_or(Ok(()), |end| each(end.key, &tokens, &pages))
        },
    )
}

/// An entry of a file.
pub(super) struct Stored {
    key: Key,
    /// The number of the earlier one that it follows.
    above: Option<usize>,
    tokens: Box<[u32]>,
    /// `None` if there is no room for it in the cache.
    page: Option<Arc<Page>>,
}

/// A file while it is read.
pub(super) struct Source<'a, R> {
    pub(super) inner: R,
    pub(super) path: &'a Path,
    pub(super) offset: u64,
    /// Bytes that are there.
    pub(super) left: u64,
}

impl<'a> Source<'a, BufReader<File>> {
    fn open(path: &'a Path) -> Result<Self, FormatError> {
        let (file, meta) = open_regular(path)?;
        Ok(Self { inner: BufReader::with_capacity(BUFFER, file), path, offset: 0, left: meta.len() })
    }
}

impl<R: Read> Source<'_, R> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RuntimeError> {
        let cut_short = RuntimeError::PrefixFile { what: "the file is cut short", offset: self.offset };
        let len = out.len() as u64;
        let Some(left) = self.left.checked_sub(len) else { return Err(cut_short) };
        match self.inner.read_exact(out) {
            Ok(()) => {}
            // Somebody made the file shorter.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(cut_short),
            Err(error) => return Err(io_error("read", self.path)(error).into()),
        }
        (self.left, self.offset) = (left, self.offset + len);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RuntimeError> {
        let mut out = [0; N];
        self.fill(&mut out)?;
        Ok(out)
    }
}

/// The four words of a head.
fn words(head: &[u8; HEAD]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}

/// The checksum of entry `number`, whose head begins with `head`.
fn entry_sum(head: &[u8], number: usize, tokens: &[u8], page: &[u8]) -> u64 {
    Hash::new().add(head).add(&(number as u64).to_le_bytes()).add(tokens).add(page).sum()
}

/// The file that who writes `path` locks: not the file itself, which a rename replaces.
fn lock_file(path: &Path) -> Result<File, RuntimeError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
    Ok(file.map_err(io_error("open", &name))?)
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FormatError {
    move |source| FormatError::Io { action, path: path.to_owned(), source }
}
