//! Split files: one model in several files, `name-00001-of-00003.gguf` to `name-00003-of-00003.gguf`.
//!
//! Each shard is a complete GGUF file with the tensors it holds; the metadata of the model stands in the first one.
//! `split.no` (from 0), `split.count` and `split.tensors.count` tie them together.

use std::{
    ffi::OsStr,
    fmt::Display,
    path::{Path, PathBuf},
};

use super::{Gguf, reader::Shard};
use crate::FormatError;

const NO: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS_COUNT: &str = "split.tensors.count";
const ARCHITECTURE: &str = "general.architecture";

/// Five digits stand in a file name.
const MAX_SHARDS: usize = 99_999;

/// Which shard of how many a file is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// From 0, below `count`.
    pub(super) no: usize,
    /// At least 2.
    pub(super) count: usize,
}

impl Shard {
    /// Its place among several shards; `None` for a file that is whole.
    pub(super) fn place(&self) -> Result<Option<Place>, FormatError> {
        let count = match self.metadata.usize(COUNT)? {
            None | Some(1) => return Ok(None),
            Some(count) => count,
        };
        let no = self.metadata.usize(NO)?.ok_or(FormatError::MissingMetadata { key: NO })?;
        if !(1..=MAX_SHARDS).contains(&count) {
            return Err(mismatch(no, COUNT, format_args!("1 to {MAX_SHARDS}"), count));
        }
        if no >= count {
            return Err(mismatch(no, NO, format_args!("less than {count}"), no));
        }
        Ok(Some(Place { no, count }))
    }
}

/// The place among several shards that the name of a file tells, which is that of its metadata if it opens.
pub(super) fn named(path: &Path) -> Option<Place> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (name, count) = name.rsplit_once("-of-")?;
    let (_, no) = name.rsplit_once('-')?;
    let [no, count] = [no, count].map(|number| {
        let is_one = number.len() == 5 && number.bytes().all(|digit| digit.is_ascii_digit());
        number.parse().ok().filter(|_| is_one)
    });
    let (no, count): (usize, usize) = (no?, count?);
    (count > 1 && (1..=count).contains(&no)).then(|| Place { no: no - 1, count })
}

/// The path of shard `no`, given that of the shard at `place`.
pub(super) fn sibling(path: &Path, place: Place, no: usize) -> Result<PathBuf, FormatError> {
    let suffix = |no: usize| format!("-{:05}-of-{:05}.gguf", no + 1, place.count);
    let expected = suffix(place.no);
    let stem = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(&expected));
    match stem {
        Some(stem) => Ok(path.with_file_name(stem.to_owned() + &suffix(no))),
        None => {
            let Place { no, count } = place;
            Err(FormatError::ShardName { path: path.to_owned(), no: no + 1, count, expected })
        }
    }
}

/// One model out of its shards, which must be all there, in order and of one kind.
pub(super) fn join(shards: Vec<Shard>) -> Result<Gguf, FormatError> {
    check(&shards)?;
    let mut shards = shards.into_iter();
    let Some(Shard { version, metadata, mut tensors }) = shards.next() else {
        return Err(mismatch(0, "number of shards", 1, 0));
    };
    for shard in shards {
        tensors.extend(shard.tensors);
    }
    Gguf::from_parts(version, metadata, tensors)
}

fn check(shards: &[Shard]) -> Result<(), FormatError> {
    let tensors: usize = shards.iter().map(|shard| shard.tensors.len()).sum();
    let Some(first) = shards.first() else { return Ok(()) };
    for (no, shard) in shards.iter().enumerate() {
        let place = shard.place()?;
        let (found_no, found_count) = place.map_or((0, 1), |place| (place.no, place.count));
        if found_count != shards.len() {
            return Err(mismatch(no, COUNT, shards.len(), found_count));
        }
        if found_no != no {
            return Err(mismatch(no, NO, no, found_no));
        }
        if let Some(found) = shard.metadata.usize(TENSORS_COUNT)?.filter(|&found| found != tensors) {
            return Err(mismatch(no, TENSORS_COUNT, tensors, found));
        }
        if shard.version != first.version {
            return Err(mismatch(no, "version", first.version, shard.version));
        }
        // Shards after the first need not name the architecture.
        if let (Some(expected), Some(found)) = (first.metadata.str(ARCHITECTURE)?, shard.metadata.str(ARCHITECTURE)?)
            && expected != found
        {
            return Err(mismatch(no, ARCHITECTURE, expected, found));
        }
    }
    Ok(())
}

fn mismatch(no: usize, what: &'static str, expected: impl Display, found: impl Display) -> FormatError {
    let (expected, found) = (expected.to_string(), found.to_string());
    FormatError::ShardMismatch { shard: no.saturating_add(1), what, expected, found }
}
