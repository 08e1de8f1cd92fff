//! MODEL on the command line: a file, or a model inside this program.

use std::{
    ffi::OsString,
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::Context;
use halfbyte::{Gguf, LoadOptions, Model, RuntimeError, text::TokenizerError};

use crate::{
    bundled::{self, Bundled},
    console,
};

/// Where a model comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A GGUF file.
    File(PathBuf),
    /// A model inside this program.
    Bundled(&'static Bundled),
}

impl Default for Source {
    fn default() -> Self {
        Self::Bundled(&bundled::MODELS[0])
    }
}

impl From<OsString> for Source {
    /// A file of that name goes before a bundled model. Names of files need not be text.
    fn from(name: OsString) -> Self {
        let absent = Path::new(&name).metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound);
        match name.to_str().and_then(bundled::find) {
            Some(model) if absent => Self::Bundled(model),
            _ => Self::File(name.into()),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Bundled(model) => f.write_str(model.name),
        }
    }
}

impl Source {
    /// Opens the container only: enough for metadata, tensors and the vocabulary.
    pub(crate) fn gguf(&self) -> anyhow::Result<Gguf> {
        match self {
            Self::File(path) => {
                self.check()?;
                Gguf::open(path).with_context(|| format!("cannot open {self}"))
            }
            Self::Bundled(model) => Ok(Gguf::from_bytes(model.trunk)?),
        }
    }

    /// Loads the model, and keeps this thread, which will run it, on the cores chosen for it.
    pub(crate) fn open(&self, options: &LoadOptions) -> anyhow::Result<Model> {
        match self {
            Self::File(path) => {
                self.check()?;
                self.advise();
                self.ready(Model::open_with(path, options))
            }
            Self::Bundled(model) => self.model(&Gguf::from_bytes(model.trunk)?, None, options),
        }
    }

    /// As [`Source::open`], with its multi-token-prediction layer: from the file itself if it is in there, else from
    /// `mtp-<name>` beside it.
    pub(crate) fn open_with_mtp(&self, options: &LoadOptions) -> anyhow::Result<Model> {
        let trunk = self.gguf()?;
        self.advise();
        let inside = trunk.tensors().iter().any(|tensor| tensor.name.contains(".nextn."));
        let mtp = match self {
            Self::Bundled(model) => model.mtp.map(Gguf::from_bytes).transpose()?,
            Self::File(path) => match sidecar(path).filter(|sidecar| !inside && sidecar.exists()) {
                Some(sidecar) => Some(Self::File(sidecar).gguf()?),
                None => None,
            },
        };
        self.model(&trunk, mtp.as_ref(), options)
    }

    /// As [`Source::open`], of files that are open.
    pub(crate) fn model(&self, trunk: &Gguf, mtp: Option<&Gguf>, options: &LoadOptions) -> anyhow::Result<Model> {
        self.ready(Model::from_gguf(trunk, mtp, options))
    }

    fn ready(&self, model: Result<Model, RuntimeError>) -> anyhow::Result<Model> {
        let model = model.map_err(|error| {
            let unknown_pre = matches!(error, RuntimeError::Tokenizer(TokenizerError::UnknownPre { .. }));
            let way_out = if unknown_pre { " (--pre says how its text is cut into words)" } else { "" };
            anyhow::Error::new(error).context(format!("cannot load {self}{way_out}"))
        })?;
        model.bind_current_thread();
        Ok(model)
    }

    /// Says on stderr what will make the model slow.
    pub(crate) fn advise(&self) {
        if let Self::File(path) = self {
            halfbyte::advice(path).iter().for_each(|advice| console::note(&format!("note: {advice}")));
        }
    }

    /// Says more about a name that is neither a file nor a bundled model than the system would.
    fn check(&self) -> anyhow::Result<()> {
        if let Self::File(path) = self
            && path.metadata().is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            anyhow::bail!("no file {self} and no bundled model of that name (bundled: {})", bundled::names());
        }
        Ok(())
    }
}

/// The name of the file that holds the multi-token-prediction layer of the model at `path`.
pub(crate) fn sidecar(path: &Path) -> Option<PathBuf> {
    let mut name = std::ffi::OsString::from("mtp-");
    name.push(path.file_name()?);
    Some(path.with_file_name(name))
}
