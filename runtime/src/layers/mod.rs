//! Steps that models share; a model composes them in the order of its paper.

mod attention;
mod embed;
mod head;
mod linear;
mod mlp;

pub(crate) use attention::Attention;
pub(crate) use embed::embed;
pub(crate) use head::{Want, head};
pub(crate) use linear::Linear;
pub(crate) use mlp::Mlp;

use halfbyte_kernels::{Kernels, ops};

use crate::{RuntimeError, cancel::CancelToken, exec::Team};

/// What every step needs: the kernels of this machine, the threads, and the caller's wish to stop.
#[derive(Clone, Copy)]
pub(crate) struct Exec<'a> {
    pub(crate) kernels: &'a Kernels,
    pub(crate) team: &'a Team,
    pub(crate) cancel: &'a CancelToken,
}

impl Exec<'_> {
    /// Fails if the caller has cancelled; asked once a layer.
    pub(crate) fn check(&self) -> Result<(), RuntimeError> {
        if self.cancel.is_cancelled() { Err(RuntimeError::Cancelled) } else { Ok(()) }
    }
}

/// `out = x / sqrt(mean(x²) + eps) * weight` for each row of `x: (tokens, weight.len())`.
pub(crate) fn rms_norm(
    exec: Exec<'_>,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) -> Result<(), RuntimeError> {
    let width = weight.len();
    exec.team.chunks(out, width, &|token, out| {
        let row = x.get(token * width..(token + 1) * width).unwrap_or(&[]);
        ops::rms_norm(exec.kernels, row, weight, eps, out)
    })
}
