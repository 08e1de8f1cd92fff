//! What of a mapped file gets into memory: of experts, those that were chosen.
//!
//! `mincore` tells which pages of a file are in memory, whoever read them. So the file is new, and put out of memory
//! before the model runs.

#![cfg(target_os = "linux")]

use std::{
    ffi::{c_int, c_void},
    fs::{self, File},
    os::fd::AsRawFd,
    path::PathBuf,
};

use halfbyte::KvType;
use halfbyte_formats::gguf::Gguf;
use halfbyte_tests::{EXPERTS, experts_model, model_on, session_on};

/// Matrices of 3 MB: little more than a large page.
const HIDDEN: usize = 2048;
const FFN: usize = 2560;
/// With embeddings of 8 MB, as what is read on suspicion with the head of a file is to end there.
const VOCAB: usize = 1024;
/// Beside those chosen, of all experts' bytes: large pages that other weights share with them.
const SLACK: f64 = 0.05;

const PAGE: usize = 4096;
const DONT_NEED: c_int = 4;

unsafe extern "C" {
    fn mincore(addr: *mut c_void, len: usize, vec: *mut u8) -> c_int;
    fn posix_fadvise64(fd: c_int, offset: i64, len: i64, advice: c_int) -> c_int;
}

/// A file that is deleted in the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Of the bytes of all experts, how many are in memory.
fn resident(file: &Gguf) -> f64 {
    let (mut pages, mut found) = (0, 0);
    for tensor in file.tensors().iter().filter(|tensor| tensor.name.contains("_exps")) {
        let data: &[u8] = &tensor.data;
        let before = data.as_ptr().addr() % PAGE;
        let mut seen = vec![0; (before + data.len()).div_ceil(PAGE)];
        let start = data.as_ptr().wrapping_sub(before).cast_mut().cast();
        // SAFETY: whole pages of the mapping that the tensor lies in, one byte of `seen` for each; nothing is read from
        // them.
        let failed = unsafe { mincore(start, before + data.len(), seen.as_mut_ptr()) };
        assert_eq!(failed, 0, "{}", tensor.name);
        pages += seen.len();
        found += seen.iter().filter(|&&page| page & 1 == 1).count();
    }
    assert!(pages * PAGE >= EXPERTS * 3 * HIDDEN * FFN / 2, "the experts");
    found as f64 / pages as f64
}

/// The bytes of experts in memory after some tokens of a model of which nothing was in memory before; nothing if the
/// file system keeps its files there, as one without a disk does.
fn resident_after(forced: Option<[usize; 2]>, tokens: &[u32]) -> Option<f64> {
    let name = format!("paging-{}-{forced:?}-{}.gguf", std::process::id(), tokens.len());
    let path = Temporary(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::write(&path.0, experts_model(HIDDEN, FFN, VOCAB, forced).bytes()).expect("room for 160 MB");
    let file = File::open(&path.0).expect("just written");
    file.sync_all().expect("written to the disk");
    // SAFETY: advice about an open file.
    let failed = unsafe { posix_fadvise64(file.as_raw_fd(), 0, 0, DONT_NEED) };
    assert_eq!(failed, 0);

    let file = Gguf::open(&path.0).expect("a valid file");
    if resident(&file) > 0.5 {
        return None;
    }
    let model = model_on(&file, 2, None).expect("a valid model");
    let mut session = session_on(&model, KvType::F16, 64, 256).expect("a session");
    for &token in tokens {
        session.push_tokens(&[token]).expect("it fits");
    }
    session.push_tokens_with(tokens, |_, _| {}).expect("it fits");
    Some(resident(&file))
}

#[test]
fn experts_that_are_never_chosen_are_never_read() {
    let tokens: Vec<u32> = (0..64).collect();
    for forced in [[0, 1], [3, 11], [15, 7]] {
        let Some(found) = resident_after(Some(forced), &tokens) else { return };
        let chosen = forced.len() as f64 / EXPERTS as f64;
        println!("{forced:?}: {found:.3}");
        assert!((chosen..=chosen + SLACK).contains(&found), "{forced:?}: {found:.3} of the experts are in memory");
    }
    // All are chosen by some token, and counted.
    let Some(found) = resident_after(None, &tokens) else { return };
    assert!(found > 0.99, "{found:.3}");
}
