//! Run language models on phones and small CPUs.
//!
//! A [`Model`] is a memory-mapped GGUF file and what was checked about it: immutable, `Send + Sync`, cheap to clone.
//! A [`Session`] is one conversation with it: it owns its keys and values, its sampler and its buffers, and can move
//! between threads. A [`Scheduler`] shares a model among many callers. There is no global state, no environment
//! variable, no async, and no lifetime in a public type.
//!
//! ```no_run
//! use halfbyte::{Model, SessionOptions};
//!
//! # fn main() -> Result<(), halfbyte::RuntimeError> {
//! let model = Model::open("model.gguf")?;
//! let mut session = model.session(&SessionOptions::default())?;
//! session.push_text("Once upon a time")?;
//! for piece in session.by_ref().take(100) {
//!     print!("{}", piece?);
//! }
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)]

mod budget;
mod cancel;
#[cfg(feature = "chat")]
pub mod chat;
mod compat;
mod config;
mod error;
mod estimate;
mod exec;
mod generate;
mod kv;
mod layers;
mod machine;
mod memory;
mod model;
mod models;
mod pack;
mod prefix;
mod sched;
mod session;
mod stats;
pub mod text;
mod weights;

pub use budget::{Budget, BudgetMode};
pub use cancel::CancelToken;
pub use compat::{Compat, RopeFactors};
pub use config::ModelConfig;
pub use error::RuntimeError;
pub use estimate::Estimate;
pub use exec::FactorSet;
pub use generate::{DEFAULT_SEED, Finish, Overflow, Sampling, StopRules};
pub use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{Gguf, Load, Metadata},
};
pub use halfbyte_kernels::{Isa, KernelError, KvType};
pub use machine::{Advice, advice, available_memory};
pub use model::{LoadOptions, Model};
pub use pack::{PackPlan, PackStep};
pub use prefix::{PrefixCache, PrefixEntry};
pub use sched::{
    ClassStats, ContextPolicy, Generation, Percentiles, Piece, Pressure, Priority, Request, RequestHandle, Scheduler,
    SchedulerOptions, SchedulerStats, Update,
};
pub use session::{Event, Session, SessionOptions};
pub use stats::Stats;

/// What is promised above, checked by the compiler; `'static` says that there is no lifetime in these types.
const _: () = {
    const fn is_shared<T: Clone + Send + Sync + 'static>() {}
    const fn moves<T: Send + 'static>() {}
    is_shared::<Model>();
    is_shared::<text::Tokenizer>();
    is_shared::<Budget>();
    is_shared::<CancelToken>();
    is_shared::<PrefixCache>();
    moves::<Session>();
    moves::<Generation>();
    const fn serves<T: Send + Sync + 'static>() {}
    serves::<Scheduler>();
    moves::<text::Decoder>();
    moves::<RuntimeError>();
    #[cfg(feature = "chat")]
    is_shared::<chat::ChatTemplate>();
};
