//! Steps that models share; a model composes them in the order of its paper.

mod attention;
mod embed;
mod head;
mod input;
mod linear;
mod mlp;
mod moe;
mod norm;
mod router;

pub(crate) use attention::{Attention, Heads, Run};
pub(crate) use embed::embed;
pub(crate) use head::{Want, fill_peaks, head};
pub(crate) use input::{Input, Inputs, TILE};
pub(crate) use linear::{Linear, Store, unit};
pub(crate) use mlp::{Mlp, inner_unit};
pub(crate) use moe::{Dispatch, Expert, Moe};
pub(crate) use norm::Norm;
pub(crate) use router::{EXPERTS_USED, Router, Routes};

use halfbyte_kernels::Kernels;

use crate::{
    RuntimeError,
    cancel::CancelToken,
    exec::{Team, TeamUntil},
};

/// What every step needs: the kernels of this machine, the threads, and the caller's wish to stop.
#[derive(Clone, Copy)]
pub(crate) struct Exec<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) team: TeamUntil<'a>,
    cancel: &'a CancelToken,
}

impl<'a> Exec<'a> {
    pub(crate) fn new(kernels: &'a Kernels, team: &'a Team, cancel: &'a CancelToken) -> Self {
        Self { kernels, team: team.until(cancel), cancel }
    }

    /// Fails if the caller has cancelled. Steps ask by themselves; this is for what lies between them.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        if self.cancel.is_cancelled() { Err(RuntimeError::Cancelled) } else { Ok(()) }
    }
}
