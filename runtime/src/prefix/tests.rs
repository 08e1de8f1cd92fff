//! Files of prefixes: what is saved comes back, and nothing else does, whatever happened to the file or to who wrote
//! it.

use std::{
    env, fs,
    fs::File,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use halfbyte_formats::{FormatError, gguf::Gguf};

use super::{fingerprint::Hash, lock::Lock, *};
use crate::{
    Budget, BudgetMode, CancelToken, LoadOptions, RuntimeError,
    exec::Scratch,
    layers::{Exec, Want},
    models::tests::golden,
};

fn model_with(name: &str, budget: Budget) -> Model {
    let mut options = LoadOptions::default();
    (options.threads, options.budget) = (Some(1), budget);
    Model::from_gguf(&Gguf::from_bytes(golden(name)).expect("a golden model"), None, &options).expect("a valid model")
}

fn model() -> Model {
    model_with("mimo", Budget::default())
}

/// The cache of a sequence of `len` tokens, and the tokens.
fn run(model: &Model, kv: KvType, seed: u32, len: u32) -> (KvCache, Vec<u32>) {
    let tokens = tokens(seed, len);
    let never = CancelToken::default();
    let exec = Exec::new(model.kernels(), model.team(), &never);
    let mut scratch = Scratch::of(&mut model.budget().lease(), model, 64, 256).expect("memory");
    let mut cache = KvCache::new(model.budget().lease(), model.config(), kv, 256).expect("memory");
    for part in tokens.chunks(64) {
        model.graph().forward(exec, &mut scratch, &mut cache, part, &mut Want::Last).expect("a pass");
        cache.commit(part.len());
    }
    (cache, tokens)
}

/// A cache with sequences of these kinds.
fn filled(model: &Model, sequences: &[(KvType, u32, u32)]) -> PrefixCache {
    let prefixes = PrefixCache::new(model, usize::MAX);
    for &(kv, seed, len) in sequences {
        let (cache, tokens) = run(model, kv, seed, len);
        prefixes.keep(&cache, &tokens, false);
    }
    prefixes
}

/// What `prefixes` knows of each sequence: how many tokens, and the bytes.
fn known(prefixes: &PrefixCache, sequences: &[(KvType, u32, u32)]) -> Vec<(usize, Vec<Vec<u8>>)> {
    sequences
        .iter()
        .map(|&(kv, seed, len)| {
            let (pages, known) = prefixes.find(FactorSet::Short, kv, &tokens(seed, len)).expect("memory");
            (known, pages.iter().map(|page| page.to_vec()).collect())
        })
        .collect()
}

/// Tokens that differ from the 40th on if their seeds do.
fn tokens(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|n| if n < 40 { n } else { (n * 31 + seed * 7) % 97 }).collect()
}

/// A folder of its own for a test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("halfbyte-prefix-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("prefixes")
    }

    /// The names in it, but for the lock.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("readable").map(|entry| entry.expect("an entry").file_name());
        entries.map(|name| name.into_string().expect("UTF-8")).filter(|name| !name.ends_with(".lock")).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_saved_comes_back() {
    let model = model();
    let folder = Folder::new("round");
    let sequences = [(KvType::F16, 1, 200), (KvType::F16, 2, 130), (KvType::F32, 1, 64), (KvType::F16, 3, 7)];
    let saved = filled(&model, &sequences);
    // Of the first two only the first page can be in common, of which they have 40 tokens; the last one is covered.
    assert_eq!(saved.save(folder.file()).expect("a file"), 4 + 3 + 1);
    assert_eq!(folder.names(), ["prefixes"]);
    let loaded = PrefixCache::new(&model, usize::MAX);
    assert_eq!(loaded.load(folder.file()).expect("valid"), 8);
    assert_eq!(known(&loaded, &sequences), known(&saved, &sequences));
    let entries = |prefixes: &PrefixCache| prefixes.entries().expect("memory");
    assert_eq!((loaded.bytes(), entries(&loaded)), (saved.bytes(), entries(&saved)));
    assert!(known(&loaded, &sequences).iter().zip(sequences).all(|(found, (_, _, len))| found.0 == len as usize));
    // Twice is as good as once, and an empty cache is a file as well.
    assert_eq!(loaded.load(folder.file()).expect("valid"), 8);
    assert_eq!(loaded.bytes(), saved.bytes());
    loaded.clear();
    assert_eq!((loaded.save(folder.file()).expect("a file"), loaded.load(folder.file()).expect("valid")), (0, 0));
}

#[test]
fn every_byte_matters() {
    let model = model();
    let folder = Folder::new("flip");
    let page = KvCache::page_bytes(model.config(), KvType::F16).expect("small");
    let prefixes = PrefixCache::new(&model, usize::MAX);
    let path = folder.file();
    let load = |bytes: &[u8]| {
        prefixes.read(&mut file::Source { inner: bytes, path: &path, offset: 0, left: bytes.len() as u64 })
    };
    let mut tried = 0;
    let mut refused = |bytes: &[u8], what: &str| {
        let found = load(bytes).expect_err(what);
        assert!(matches!(found, RuntimeError::PrefixFile { .. }), "{what}: {found}");
        assert_eq!(prefixes.bytes(), 0, "{what}");
        tried += 1;
    };
    // Files of one page and of two, every byte of them.
    for len in [5, 70] {
        filled(&model, &[(KvType::F16, 1, len)]).save(&path).expect("a file");
        let mut bytes = fs::read(&path).expect("the file");
        assert!(bytes.len() > page, "{}", bytes.len());
        for n in 0..bytes.len() {
            for change in [1 << (n % 8), 0xff] {
                bytes[n] ^= change;
                refused(&bytes, &format!("byte {n} of {}", bytes.len()));
                bytes[n] ^= change;
            }
        }
        for len in 0..bytes.len() {
            refused(&bytes[..len], &format!("the first {len} bytes"));
        }
        refused(&[&bytes[..], &[0]].concat(), "a byte too many");
        assert_eq!(load(&bytes).expect("as it was"), len.div_ceil(64) as usize);
        prefixes.clear();
    }
    println!("{tried} damaged files refused");
    let bytes = fs::read(&path).expect("the file");
    fs::write(&path, &bytes[1..]).expect("a file");
    assert!(prefixes.load(&path).is_err() && prefixes.bytes() == 0);
}

/// Files whose checksums are right and whose numbers are not.
#[test]
fn hostile_numbers() {
    let model = model();
    let folder = Folder::new("hostile");
    filled(&model, &[(KvType::F16, 1, 70)]).save(folder.file()).expect("a file");
    let bytes = fs::read(folder.file()).expect("the file");
    let page = KvCache::page_bytes(model.config(), KvType::F16).expect("small");
    let second = 32 + 32 + 4 * 64 + page;
    let head = |bytes: &mut [u8]| {
        let sum = Hash::new().add(&bytes[..24]).sum();
        bytes[24..32].copy_from_slice(&sum.to_le_bytes());
    };
    let prefixes = PrefixCache::new(&model, usize::MAX);
    for (at, value, message) in [
        (8, 2, "unknown version"),
        (12, u32::MAX, "cut short"),
        (12, 1, "bytes after the end"),
        (12, 3, "cut short"),
        (16, 0, "made with another"),
        (32, 2, "unknown rotation"),
        (36, 3, "unknown type"),
        (36, 0, "a page of another size"),
        (40, 1, "follows no other"),
        (44, 0, "follows no other"),
        (44, 65, "follows no other"),
        (48, u32::MAX, "a page of another size"),
        (52, 1, "a page of another size"),
        (second + 8, 2, "follows no other"),
        (second + 12, 7, "cut short"),
    ] {
        let mut bytes = bytes.clone();
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        if at < 24 {
            head(&mut bytes);
        }
        fs::write(folder.file(), &bytes).expect("a file");
        match prefixes.load(folder.file()) {
            Err(RuntimeError::PrefixFile { what, .. }) => assert!(what.contains(message), "{at}: {what}"),
            other => panic!("{at}: {other:?}"),
        }
        assert_eq!(prefixes.bytes(), 0);
    }
    // A token that the model does not have, under a checksum that is right.
    let mut bytes = bytes;
    bytes[64..68].copy_from_slice(&u32::MAX.to_le_bytes());
    let sum = Hash::new().add(&bytes[32..56]).add(&0_u64.to_le_bytes()).add(&bytes[64..64 + 256]);
    let sum = sum.add(&bytes[64 + 256..64 + 256 + page]).sum();
    bytes[56..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(folder.file(), &bytes).expect("a file");
    let found = prefixes.load(folder.file()).expect_err("no such token").to_string();
    assert!(found.contains("not in the vocabulary"), "{found}");
}

#[test]
fn other_models_and_places() {
    let folder = Folder::new("other");
    let model = model();
    let prefixes = filled(&model, &[(KvType::F16, 1, 70)]);
    prefixes.save(folder.file()).expect("a file");
    // One weight less significant bit.
    let mut bytes = golden("mimo").to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let other = Model::from_gguf(&Gguf::from_bytes(bytes).expect("valid"), None, &options).expect("a valid model");
    for other in [other, model_with("tied", Budget::default())] {
        let found = PrefixCache::new(&other, usize::MAX).load(folder.file()).expect_err("another model").to_string();
        assert!(found.contains("another model"), "{found}");
    }
    let absent = folder.0.join("absent");
    assert!(matches!(prefixes.load(absent), Err(RuntimeError::Format(FormatError::Io { .. }))));
    let nowhere = folder.0.join("no/such/folder");
    assert!(matches!(prefixes.save(nowhere), Err(RuntimeError::Format(FormatError::Io { .. }))));
}

#[test]
fn limits_of_memory() {
    let folder = Folder::new("memory");
    let model = model();
    let sequences = [(KvType::F16, 1, 250), (KvType::F16, 2, 250)];
    filled(&model, &sequences).save(folder.file()).expect("a file");
    let page = KvCache::page_bytes(model.config(), KvType::F16).expect("small");
    // Room for five pages of eight.
    let small = PrefixCache::new(&model, 5 * page);
    assert_eq!(small.load(folder.file()).expect("valid"), 8);
    assert_eq!(small.bytes(), 5 * page);
    let found: Vec<usize> = known(&small, &sequences).into_iter().map(|(known, _)| known).collect();
    assert!(found.contains(&250) && found.iter().any(|&known| known < 250), "{found:?}");
    // A budget that ends at each page in turn: all or nothing.
    for pages in 0..8 {
        let poor = model_with("mimo", Budget::new(pages * page + page / 2, BudgetMode::Enforce));
        let prefixes = PrefixCache::new(&poor, usize::MAX);
        let found = prefixes.load(folder.file()).expect_err("too little");
        assert!(matches!(found, RuntimeError::BudgetExceeded { .. }), "{found}");
        assert_eq!((prefixes.bytes(), poor.budget().used()), (0, 0));
    }
    // What is kept goes when somebody needs the memory, and not what somebody uses.
    let budget = Budget::new(8 * page, BudgetMode::Enforce);
    let exact = model_with("mimo", budget.clone());
    let prefixes = PrefixCache::new(&exact, usize::MAX);
    prefixes.load(folder.file()).expect("it fits");
    let (held, _) = prefixes.find(FactorSet::Short, KvType::F16, &tokens(2, 250)).expect("memory");
    let lease = budget.ask(3 * page).expect("three pages go");
    assert_eq!((prefixes.bytes(), prefixes.evicted(), held.len()), (5 * page, 3, 4));
    assert_eq!(known(&prefixes, &sequences[1..])[0].0, 250);
    assert!(matches!(budget.ask(2 * page), Err(RuntimeError::BudgetExceeded { .. })));
    assert_eq!(prefixes.bytes(), 5 * page, "not one of them goes for nothing");
    drop((lease, held));
    budget.ask(8 * page).expect("all of it");
    assert_eq!(prefixes.bytes(), 0);
}

#[test]
fn two_processes_do_not_meet() {
    let folder = Folder::new("lock");
    let prefixes = filled(&model(), &[(KvType::F16, 1, 70)]);
    prefixes.save(folder.file()).expect("a file");
    let file = File::open(folder.0.join("prefixes.lock")).expect("the file");
    let lock = Lock::of(file).expect("nobody else has it");
    match prefixes.save(folder.file()) {
        Err(RuntimeError::Format(FormatError::Io { action: "lock", source, .. })) => {
            assert_eq!(source.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(source.to_string(), "another program is saving it");
        }
        other => panic!("{other:?}"),
    }
    prefixes.load(folder.file()).expect("what is there is whole");
    drop(lock);
    prefixes.save(folder.file()).expect("free again");
}

#[test]
fn who_adds_loses_nothing_of_others() {
    let folder = Folder::new("add");
    let model = model();
    let all = [(KvType::F16, 1, 200), (KvType::F16, 2, 130), (KvType::F32, 1, 64), (KvType::F16, 1, 70)];
    let caches = all.map(|sequence| filled(&model, &[sequence]));
    // Each of them knew the file before any was saved. The last one is the beginning of the first.
    let pages = caches.each_ref().map(|cache| cache.add_to(folder.file()).expect("a file"));
    assert_eq!((pages, folder.names()), ([4, 7, 8, 8], vec!["prefixes".to_owned()]));
    let loaded = PrefixCache::new(&model, usize::MAX);
    assert_eq!(loaded.load(folder.file()).expect("valid"), 8);
    let expected = all.iter().zip(&caches).flat_map(|(sequence, cache)| known(cache, &[*sequence]));
    assert_eq!(known(&loaded, &all[..3]), expected.take(3).collect::<Vec<_>>());
    assert_eq!(known(&caches[2], &all[..1])[0].0, 0, "it has only what it had");
    // Nor does one that has no room for what is there.
    let small = PrefixCache::new(&model, 0);
    let before = fs::read(folder.file()).expect("the file");
    assert_eq!((small.add_to(folder.file()).expect("a file"), small.bytes()), (8, 0));
    assert_eq!(fs::read(folder.file()).expect("the file"), before);
    // A file that cannot be used is not replaced, and nothing is left beside it.
    fs::write(folder.file(), &before[1..]).expect("written");
    assert!(matches!(caches[0].add_to(folder.file()), Err(RuntimeError::PrefixFile { .. })));
    assert_eq!(fs::read(folder.file()).expect("the file"), &before[1..]);
    assert_eq!(folder.names(), ["prefixes"]);
    let poor = model_with("mimo", Budget::new(1 << 10, BudgetMode::Enforce));
    fs::write(folder.file(), &before).expect("written");
    let found = PrefixCache::new(&poor, usize::MAX).add_to(folder.file());
    assert!(matches!(found, Err(RuntimeError::BudgetExceeded { .. })), "{found:?}");
    assert_eq!((poor.budget().used(), fs::read(folder.file()).expect("the file") == before), (0, true));
}

/// Neither waited for nor replaced, and nothing is left beside them.
#[cfg(unix)]
#[test]
fn only_regular_files_are_used() {
    let folder = Folder::new("pipe");
    let prefixes = filled(&model(), &[(KvType::F16, 1, 70)]);
    let pipe = folder.0.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    for path in [folder.0.clone(), pipe].into_iter().take(if made.is_ok_and(|made| made.success()) { 2 } else { 1 }) {
        for found in [prefixes.save(&path), prefixes.load(&path)] {
            assert!(matches!(found, Err(RuntimeError::Format(FormatError::NotRegularFile { .. }))), "{found:?}");
        }
    }
    assert!(fs::read_dir(&folder.0).expect("a folder").count() <= 1);
}

/// Whoever only reads needs no right to write.
#[test]
fn loading_leaves_nothing_behind() {
    let folder = Folder::new("read");
    let prefixes = filled(&model(), &[(KvType::F16, 1, 70)]);
    prefixes.save(folder.file()).expect("a file");
    fs::remove_file(folder.0.join("prefixes.lock")).expect("its lock");
    prefixes.load(folder.file()).expect("the file");
    assert_eq!(fs::read_dir(&folder.0).expect("a folder").count(), 1);
}

/// What the prefixes of the tests below take to be written: the head, and three writes for each of six pages.
const WRITES: usize = 1 + 3 * 6;

/// Does something else instead of a certain write.
struct Failing<W> {
    inner: W,
    left: usize,
    /// Told what was to be written, and where.
    fail: fn(&mut W, &[u8]) -> io::Result<usize>,
}

impl<W: Write> Failing<W> {
    fn is_last(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        left.is_none()
    }
}

impl<W: Write> Write for Failing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_last() { (self.fail)(&mut self.inner, bytes) } else { self.inner.write(bytes) }
    }

    /// After the last write, and counted as one.
    fn flush(&mut self) -> io::Result<()> {
        if self.is_last() { (self.fail)(&mut self.inner, &[]).map(drop) } else { self.inner.flush() }
    }
}

/// Saves, but for write number `left` or, after the last one, the flush.
fn save_until(
    prefixes: &PrefixCache,
    path: &Path,
    left: usize,
    fail: fn(&mut &File, &[u8]) -> io::Result<usize>,
) -> Result<usize, RuntimeError> {
    prefixes.save_through(path, || prefixes.shared_entries(), |inner| Box::new(Failing { inner, left, fail }))
}

fn no_room(_: &mut &File, _: &[u8]) -> io::Result<usize> {
    Err(io::ErrorKind::StorageFull.into())
}

#[test]
fn a_full_disk_at_every_write() {
    let folder = Folder::new("full");
    let model = model();
    let (old, new) = ([(KvType::F16, 1, 70)], [(KvType::F16, 2, 200), (KvType::F32, 1, 100)]);
    filled(&model, &old).save(folder.file()).expect("a file");
    let before = fs::read(folder.file()).expect("the file");
    let prefixes = filled(&model, &new);
    let kept = known(&prefixes, &new);
    let mut writes = 0;
    while let Err(error) = save_until(&prefixes, &folder.file(), writes, no_room) {
        assert!(matches!(error, RuntimeError::Format(FormatError::Io { action: "write", .. })), "{error}");
        assert_eq!(
            (fs::read(folder.file()).expect("the old file"), folder.names()),
            (before.clone(), vec!["prefixes".into()])
        );
        assert_eq!(known(&prefixes, &new), kept, "the cache in memory is as it was");
        writes += 1;
    }
    assert_eq!(writes, WRITES + 1);
    assert_ne!(fs::read(folder.file()).expect("the new file"), before);
}

/// Who waits for memory looks again once what is saved is not held for that any more.
#[test]
fn what_was_saved_can_be_given_up_again() {
    let folder = Folder::new("held");
    let model = model();
    let prefixes = filled(&model, &[(KvType::F16, 1, 70)]);
    assert!(prefixes.shared.spare() > 0);
    for fail in [true, false] {
        let mut during = None;
        let entries = || prefixes.shared_entries();
        let saved = prefixes.save_through(&folder.file(), entries, |inner| {
            during = Some((prefixes.shared.spare(), model.budget().returns()));
            Box::new(Failing { inner, left: if fail { 0 } else { usize::MAX }, fail: no_room })
        });
        assert_eq!(saved.is_err(), fail);
        assert!(matches!(during, Some((0, returns)) if returns != model.budget().returns()));
        assert_eq!(prefixes.shared.spare(), prefixes.bytes());
    }
}

const CHILD: &str = "HALFBYTE_TEST_PREFIX_CHILD";
/// What the child says when it has come to the write at which it is to be killed.
const READY: &str = "half of a write";

/// Writes half, and waits to be killed.
fn half(file: &mut &File, bytes: &[u8]) -> io::Result<usize> {
    file.write_all(&bytes[..bytes.len() / 2])?;
    println!("{READY}");
    loop {
        thread::park();
    }
}

/// Not a test of its own: what `a_kill_at_every_write` starts.
#[test]
fn child_that_is_killed() {
    let Ok(order) = env::var(CHILD) else { return };
    let (writes, path) = order.split_once(':').expect("writes:path");
    let prefixes = filled(&model(), &[(KvType::F16, 2, 200), (KvType::F32, 1, 100)]);
    save_until(&prefixes, Path::new(path), writes.parse().expect("a number"), half).expect("it went through");
}

/// This program once more, through what runs it: an emulator cannot be asked to start another program.
fn this_binary() -> Command {
    let binary = env::current_exe().expect("this binary");
    let Some(runner) = env::var_os("HALFBYTE_TEST_RUNNER") else { return Command::new(binary) };
    let mut command = Command::new(runner);
    command.arg(binary);
    command
}

/// Saves in a process that is ended by SIGKILL (on Windows, by what comes nearest) at each write in turn.
#[test]
fn a_kill_at_every_write() {
    let folder = Folder::new("kill");
    let model = model();
    let old = [(KvType::F16, 1, 70)];
    filled(&model, &old).save(folder.file()).expect("a file");
    let before = fs::read(folder.file()).expect("the file");
    let mut kills = 0;
    loop {
        let mut child = this_binary();
        child.args(["--exact", "prefix::tests::child_that_is_killed", "--nocapture"]);
        child.env(CHILD, format!("{kills}:{}", folder.file().display())).stdout(Stdio::piped());
        let mut child = child.spawn().expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("piped")).lines();
        let waits = said.map_while(Result::ok).any(|line| line.contains(READY));
        if waits {
            child.kill().expect("it waits for that");
        }
        let ended = child.wait().expect("it ends");
        if !waits {
            assert!(ended.success(), "{ended}");
            break;
        }
        #[cfg(unix)]
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(9));
        assert_eq!(fs::read(folder.file()).expect("the old file"), before, "killed at write {kills}");
        let loaded = PrefixCache::new(&model, usize::MAX);
        assert_eq!(loaded.load(folder.file()).expect("the old file is whole, and free"), 2);
        assert_eq!(folder.names().len(), 2, "what was written has a name of its own");
        kills += 1;
    }
    println!("killed at {kills} writes, {WRITES} and a flush");
    assert_eq!(kills, WRITES + 1);
    let loaded = PrefixCache::new(&model, usize::MAX);
    assert_eq!(loaded.load(folder.file()).expect("the new file"), 6);
    // What those that were killed left was swept away by the one that was not.
    assert_eq!(folder.names(), ["prefixes"]);
}
