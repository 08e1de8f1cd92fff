//! How much memory a model and a session will take, told before it is taken.

use std::path::Path;

use halfbyte_formats::gguf::{Gguf, Load};
use halfbyte_kernels::KV_PAGE;

use crate::{
    Budget, LoadOptions, Model, RuntimeError, SessionOptions,
    exec::{MAX_BATCH, Scratch},
    kv::KvCache,
    model::Parts,
    session::{self, Sequence},
};

/// What a thread of the team takes of its stack, where panels of weights are built: as measured.
const STACK: usize = 176 << 10;

/// Bytes that a model and one session of it will take, once the session's context is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Estimate {
    /// Files that are mapped: the system may drop their pages, and reads them again.
    pub mapped: usize,
    /// Files that are copied ([`Load::Copy`]).
    pub copied: usize,
    /// Norms, biases and other vectors, which are held as f32.
    pub vectors: usize,
    /// The vocabulary.
    pub vocabulary: usize,
    /// Activations of a pass.
    pub activations: usize,
    /// The history, and the sampler's candidates.
    pub buffers: usize,
    /// Keys and values of a full context.
    pub kv: usize,
    /// Stacks of the threads that compute.
    pub stacks: usize,
}

impl Estimate {
    /// All but mapped files.
    #[must_use]
    pub fn private(&self) -> usize {
        let Self { mapped: _, copied, vectors, vocabulary, activations, buffers, kv, stacks } = *self;
        copied + vectors + vocabulary + activations + buffers + kv + stacks
    }

    /// What a second session would take.
    #[must_use]
    pub fn session(&self) -> usize {
        self.activations + self.buffers + self.kv
    }
}

impl Model {
    /// How much memory the model at `path` and one session will take. Of the file its head, the vectors and the
    /// vocabulary are read; of what is estimated, that alone is in memory for a moment.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), halfbyte::RuntimeError> {
    /// use halfbyte::{LoadOptions, Model, SessionOptions};
    ///
    /// let estimate = Model::estimate("model.gguf", &LoadOptions::default(), &SessionOptions::default())?;
    /// println!("{} MiB beside the file", estimate.private() >> 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Model::open_with`] and [`Model::session`], but for [`RuntimeError::BudgetExceeded`].
    pub fn estimate(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        session: &SessionOptions,
    ) -> Result<Estimate, RuntimeError> {
        let file = Gguf::open(path.as_ref())?;
        let mtp = options.mtp.as_ref().map(Gguf::open).transpose()?;
        let Parts { config, graph, tokenizer, cores, .. } = Parts::new(&file, mtp.as_ref(), options)?;
        let vocab = graph.vocab();
        session::in_range("batch", session.batch, MAX_BATCH)?;
        let context = session::context(&config, session.context)?;

        let tensors = || [Some(&file), mtp.as_ref()].into_iter().flatten().flat_map(Gguf::tensors);
        let bytes = options.file_bytes(path.as_ref())?;
        let elements = |dims: &[usize]| if dims.len() == 1 { dims.iter().product() } else { 0 };
        let is_copied = options.load == Load::Copy;
        let (scratch, batch) = (Budget::default(), session.batch.min(context));
        Scratch::new(&mut scratch.lease(), &config, vocab, batch, context, graph.has_float_middle())?;
        Ok(Estimate {
            mapped: if is_copied { 0 } else { bytes },
            copied: if is_copied { bytes } else { 0 },
            vectors: tensors().map(|tensor| elements(tensor.shape()) * size_of::<f32>()).sum(),
            vocabulary: tokenizer.map_or(0, |tokenizer| tokenizer.len_bytes()),
            activations: scratch.peak(),
            buffers: Sequence::buffer_bytes(vocab, context),
            kv: context.div_ceil(KV_PAGE).saturating_mul(KvCache::page_bytes(&config, session.kv)?),
            stacks: cores.count.saturating_mul(STACK),
        })
    }
}
