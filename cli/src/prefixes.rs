//! `--prefix FILE`: what `halfbyte prefix save` wrote, for a session to begin with.

use std::path::{Path, PathBuf};

use anyhow::Context;
use halfbyte::{PrefixCache, Session};

use crate::console;

/// What need not be run.
#[derive(clap::Args)]
pub(crate) struct PrefixArg {
    /// Begin with what FILE knows of the prompt: "halfbyte prefix save" wrote it, with the same other options
    #[arg(long, value_name = "FILE")]
    prefix: Option<PathBuf>,
}

impl PrefixArg {
    /// Lets `session` begin with what is in the file, if one is named.
    pub(crate) fn give(&self, session: &mut Session) -> anyhow::Result<()> {
        let Some(path) = &self.prefix else { return Ok(()) };
        let prefixes = PrefixCache::new(session.model(), usize::MAX);
        load(&prefixes, path)?;
        Ok(session.set_prefixes(&prefixes)?)
    }

    /// Says on stderr if nothing in the file was of use for the prompt of `session`.
    pub(crate) fn advise(&self, session: &Session) {
        if let Some(path) = &self.prefix
            && session.stats().cached_tokens == 0
        {
            let path = path.display();
            console::note(&format!(
                "note: {path} knows nothing of this prompt (another text, or another --kv or --ctx?)"
            ));
        }
    }
}

/// Adds what is in the file `path` to `prefixes`. Returns how many pages that is.
pub(crate) fn load(prefixes: &PrefixCache, path: &Path) -> anyhow::Result<usize> {
    prefixes.load(path).with_context(|| format!("cannot use {}", path.display()))
}
