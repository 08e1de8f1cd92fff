//! Model files that commands write: which paths may be written, how rows become bytes, what is said about it.
//!
//! Data of a tensor is made a part at a time, its rows on all processors, so that the memory it takes does not
//! depend on the model. A file is complete or not there at all: see [`GgufFile`].

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::{self, Path, PathBuf},
    process,
    time::Instant,
};

use anyhow::{Context, bail};
use clap::builder::TypedValueParser;
use halfbyte_formats::{FormatError, QuantType, gguf::GgufFile, quant::Mix};
use indicatif::{BinaryBytes, ProgressBar};
use rayon::prelude::*;

use crate::{args::named, console, signals};

/// Bytes of a tensor that are made before they are written.
const PART_BYTES: usize = 16 << 20;

/// Where to write.
#[derive(clap::Args)]
pub(crate) struct OutputArgs {
    /// The GGUF file to write
    #[arg(value_name = "OUT")]
    pub(crate) out: PathBuf,
    /// Replace files that are already there
    #[arg(long)]
    pub(crate) force: bool,
}

impl OutputArgs {
    /// Refuses the output, and a second one at `also`, if writing there would lose something.
    pub(crate) fn check(&self, also: Option<&Path>) -> anyhow::Result<()> {
        // `./a` is `a`.
        let absolute = |path: &Path| path::absolute(behind_links(path)).unwrap_or_else(|_| path.to_owned());
        if also.is_some_and(|also| absolute(also) == absolute(&self.out)) {
            bail!("{} cannot be two files at once", self.out.display());
        }
        self.vacant(&self.out)?;
        also.map_or(Ok(()), |path| self.vacant(path))
    }

    fn vacant(&self, path: &Path) -> anyhow::Result<()> {
        match fs::metadata(path) {
            _ if path == Path::new("-") => bail!("a model file cannot be written to stdout"),
            Ok(found) if found.is_dir() => bail!("{} is a directory", path.display()),
            // The file would take the place of a device or a pipe, not be written to it.
            Ok(found) if !found.is_file() => bail!("{} is not a regular file", path.display()),
            Ok(_) if !self.force => bail!("{} is already there (--force replaces it)", path.display()),
            // Nothing would be found where it leads, and what is put there may be far from here.
            Err(_) if path.is_symlink() => bail!("{} is a link that leads nowhere", path.display()),
            // A folder that is missing is reported by whoever writes the file, with the system's own words.
            _ => Ok(()),
        }
    }

    /// Where this output and one at `also` are really written, after [`OutputArgs::check`]. From now on whatever ends
    /// the program takes away what is not finished of them.
    pub(crate) fn begin(self, also: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<PathBuf>)> {
        let (out, also) = (behind_links(&self.out), also.map(|path| behind_links(&path)));
        let targets: Vec<PathBuf> = also.iter().chain([&out]).cloned().collect();
        signals::before_end(move || targets.iter().for_each(|target| remove_unfinished(target)))?;
        Ok((out, also))
    }

    /// Refuses to write over `input`.
    pub(crate) fn check_not(&self, input: &Path) -> anyhow::Result<()> {
        let same = fs::canonicalize(input).is_ok_and(|input| fs::canonicalize(&self.out).is_ok_and(|out| input == out));
        if same {
            bail!("{} is the input: write to another file", self.out.display());
        }
        Ok(())
    }
}

/// Where a file for `path` belongs: a link stays, and what it leads to is replaced.
fn behind_links(path: &Path) -> PathBuf {
    let real = if path.is_symlink() { fs::canonicalize(path).ok() } else { None };
    real.unwrap_or_else(|| path.to_owned())
}

/// Removes what this process has written so far of a file that is to be at `target`: `.NAME.tmp-PID-N` beside it, as
/// [`GgufFile`] calls it. What cannot be removed stays; its name says what it is.
fn remove_unfinished(target: &Path) {
    let Some(name) = target.file_name() else { return };
    let prefix = format!(".{}.tmp-{}-", name.display(), process::id());
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Reads a number format by the name it has on the command line.
pub(crate) fn mix() -> impl TypedValueParser<Value = Mix> {
    named(["f32", "f16", "bf16", "q8_0", "q6_k", "q5_0", "q4_0", "q4_k_m", "q4_mixed"], Mix::from_name)
}

/// Writes the tensor `name` row by row: `fill` gets the number of a row, from 0, and its `row_bytes` bytes. Rows are
/// made on all processors, in any order.
pub(crate) fn write_rows<E: Error + Send + Sync + 'static>(
    file: &mut GgufFile,
    name: &str,
    shape: Rows,
    written: &mut Written,
    fill: impl Fn(usize, &mut [u8]) -> Result<(), E> + Sync,
) -> anyhow::Result<()> {
    let Rows { count, row_bytes } = shape;
    let most = (PART_BYTES / row_bytes).clamp(1, count);
    let mut buffer = vec![0; most * row_bytes];
    for first in (0..count).step_by(most) {
        let part = &mut buffer[..most.min(count - first) * row_bytes];
        part.par_chunks_exact_mut(row_bytes)
            .enumerate()
            .try_for_each(|(row, bytes)| fill(first + row, bytes))
            .with_context(|| format!("cannot encode tensor {name}"))?;
        file.write_part(name, part)?;
        written.add(part.len());
    }
    Ok(())
}

/// Rows of a tensor, or of what else it is written in.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// How many.
    pub(crate) count: usize,
    /// Bytes of each, at least one.
    pub(crate) row_bytes: usize,
}

impl Rows {
    /// The rows of a tensor of extents `dims`, the contiguous one first, stored as `ty`.
    pub(crate) fn new(dims: &[usize], ty: QuantType) -> Result<Self, FormatError> {
        let (depth, count) = (dims.first().copied().unwrap_or(1), dims.iter().skip(1).product());
        Ok(Self { count, row_bytes: ty.row_bytes(depth)? })
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(self) -> u64 {
        (self.count as u64).saturating_mul(self.row_bytes as u64)
    }
}

/// How much tensor data is written, shown on a bar.
pub(crate) struct Written {
    bar: ProgressBar,
    bytes: u64,
    start: Instant,
}

impl Written {
    /// None yet of `total` bytes.
    pub(crate) fn new(total: u64) -> Self {
        Self { bar: console::progress(total >> 20, "MiB"), bytes: 0, start: Instant::now() }
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        self.bar.set_position(self.bytes >> 20);
    }

    /// Takes the bar away and says on stdout what is at `path` now.
    pub(crate) fn finish(self, path: &Path) -> io::Result<()> {
        self.bar.finish_and_clear();
        wrote(path, self.start)
    }
}

/// Says on stdout what is at `path`, and that writing it began at `start`.
pub(crate) fn wrote(path: &Path, start: Instant) -> io::Result<()> {
    // Only a moment ago it was there.
    let (bytes, seconds) = (fs::metadata(path).map_or(0, |file| file.len()), start.elapsed().as_secs_f64());
    writeln!(io::stdout(), "wrote {}: {} in {seconds:.1} s", path.display(), BinaryBytes(bytes))
}
