//! A feed-forward half-layer of experts: a router sends each token through two of many small SwiGLU layers.
//!
//! Tokens are grouped by expert, so each matrix is read once. The steps are the same whatever the router says:
//!
//! ```text
//! router             units: its rows                                       in f32; a step, as to read it takes its time
//! gather             units: (expert that has tokens) × (its inputs)        a token alone needs none
//! gate, up, SwiGLU   units: (expert that has tokens) × (its rows)          a thread reads on in one expert
//! down               units: rows of the stream, for all experts in turn    so sums need no lock and have one order
//! ```

mod dispatch;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};

use halfbyte_kernels::{ActivationType, PackedMatrix, Tile, ops};

pub(crate) use dispatch::Dispatch;

use super::{EXPERTS_USED, Exec, Input, Inputs, Linear, Router, Store, inner_unit, unit};
use crate::{
    RuntimeError,
    exec::{Batch, Batches, Chunks, Groups, MoeScratch, Rows, Scratch},
};

/// Inputs that are a unit of work when they are copied.
const GATHERED: usize = 512;

/// Rows of the router that are a unit of work: it has few, but they are long.
const ROUTER_ROWS: usize = 4;

/// One small feed-forward layer.
pub(crate) struct Expert {
    /// (ffn, hidden).
    gate: PackedMatrix,
    /// (ffn, hidden).
    up: PackedMatrix,
    /// (hidden, ffn).
    down: PackedMatrix,
    /// Whether it has been read, or asked for.
    known: AtomicBool,
}

impl Expert {
    pub(crate) fn new([gate, up]: [PackedMatrix; 2], down: PackedMatrix) -> Self {
        Self { gate, up, down, known: AtomicBool::new(false) }
    }

    fn matrices(&self) -> [&PackedMatrix; 3] {
        [&self.gate, &self.up, &self.down]
    }
}

/// A layer of experts.
pub(crate) struct Moe {
    /// Scores the experts: (experts, hidden).
    gate: Linear,
    router: Router,
    experts: Vec<Expert>,
    /// Whether a gate or an up matrix multiplies 8-bit activations.
    rounds: bool,
    /// Whether a gate or an up matrix multiplies them as they are.
    plain: bool,
    /// Whether a down matrix multiplies 8-bit activations.
    rounds_inner: bool,
    /// Whether all matrices do: then inner activations exist in that form only.
    fused: bool,
}

impl Moe {
    pub(crate) fn new(gate: Linear, router: Router, experts: Vec<Expert>) -> Self {
        let q8 = |matrix: &PackedMatrix| matrix.activations() == ActivationType::Q8;
        let rounds = experts.iter().any(|expert| q8(&expert.gate) || q8(&expert.up));
        let plain = experts.iter().any(|expert| !q8(&expert.gate) || !q8(&expert.up));
        let rounds_inner = experts.iter().any(|expert| q8(&expert.down));
        let fused = experts.iter().all(|expert| expert.matrices().into_iter().all(q8));
        Self { gate, router, experts, rounds, plain, rounds_inner, fused }
    }

    /// `x += Σ w_e · expert_e(h)` over the experts that the router gives each token, for `h = scratch.normed`.
    ///
    /// A token's result does not depend on the others: its experts are added in ascending order of their numbers.
    pub(crate) fn forward(&self, exec: Exec<'_>, scratch: &mut Scratch, tokens: usize) -> Result<(), RuntimeError> {
        let Scratch { x, normed, inner, up, moe, .. } = scratch;
        self.route(exec, normed.of(tokens), tokens, moe)?;
        let MoeScratch { input, dispatch, .. } = moe;
        self.read_ahead(&dispatch.experts);
        let h = normed.of(tokens);
        if tokens > 1 {
            self.gather(exec, h, tokens, dispatch, input)?;
        }
        // A single token is the same for both its experts.
        let input = |batch| if tokens == 1 { h } else { input.batch(batch) };
        if self.fused {
            self.inner_q8(exec, input, dispatch, inner)?;
        } else {
            self.inner_f32(exec, input, dispatch, inner, up)?;
            if self.rounds_inner {
                inner.round_batches(exec, &dispatch.batches)?;
            }
        }
        self.down(exec, inner, dispatch, &mut x[..tokens * self.gate.weight.depth()])
    }

    /// Whether a gate or an up matrix multiplies 8-bit activations.
    pub(crate) fn wants_q8(&self) -> bool {
        self.rounds
    }

    /// Whether inputs and middle of the experts exist in 8 bits only.
    pub(crate) fn is_fused(&self) -> bool {
        self.fused
    }

    /// Scores the experts, chooses, and groups tokens by expert.
    fn route(&self, exec: Exec<'_>, h: Input<'_>, tokens: usize, moe: &mut MoeScratch) -> Result<(), RuntimeError> {
        let experts = self.experts.len();
        let MoeScratch { scores, routes, dispatch, .. } = moe;
        let (scores, routes) = (&mut scores[..tokens * experts], &mut routes[..tokens]);
        self.gate.forward_by(ROUTER_ROWS, exec, h, Store::Set, scores)?;
        for (scores, routes) in scores.chunks_exact(experts).zip(&mut *routes) {
            *routes = self.router.choose(scores);
        }
        dispatch.group(routes);
        Ok(())
    }

    /// Has chosen experts that were never used read, the second while the first is in use. If most experts are chosen
    /// that is left to the system, which reads what is used in large pages.
    fn read_ahead(&self, chosen: &[usize]) {
        let few = 2 * chosen.len() <= self.experts.len();
        for expert in chosen.iter().map(|&number| &self.experts[number]) {
            if !expert.known.load(Ordering::Relaxed) && !expert.known.swap(true, Ordering::Relaxed) && few {
                expert.matrices().into_iter().for_each(|matrix| matrix.storage().read_ahead());
            }
        }
    }

    /// `h` by slots, in each form that matrices multiply. Tokens were rounded before, once for all their experts.
    fn gather(
        &self,
        exec: Exec<'_>,
        h: Input<'_>,
        tokens: usize,
        dispatch: &Dispatch,
        input: &mut Inputs,
    ) -> Result<(), RuntimeError> {
        let (batches, width) = (&dispatch.batches, input.width());
        // To copy an input costs about as much as eight products.
        let cost = 8 * Batch::most_tokens(batches);
        if self.rounds {
            let mut groups = Groups::stacked(&mut input.q8, batches, width, GATHERED)?;
            let split = Batches::new(batches, groups.units(), &mut groups)?;
            exec.team.run(split.units(), cost * GATHERED, split, |_, mut runs| {
                runs.try_for_each(|(number, _, mut out)| {
                    let from = dispatch.tokens(batches[number]).iter().map(|slot| slot.0);
                    ops::gather(h.q8, tokens, width, from, &mut out)
                })
            })?;
        }
        if self.plain {
            let mut rows = Chunks::new(&mut input.f32, width);
            let split = Batches::new(batches, 1, &mut rows)?;
            exec.team.run(split.units(), cost * width, split, |_, runs| {
                for (number, _, rows) in runs {
                    for (row, &(token, _)) in rows.chunks_exact_mut(width).zip(dispatch.tokens(batches[number])) {
                        row.copy_from_slice(&h.f32[token * width..][..width]);
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// `inner = silu(Gate h) · Up h` by slots, rounded.
    fn inner_q8<'a>(
        &self,
        exec: Exec<'_>,
        input: impl Fn(Batch) -> Input<'a> + Sync,
        Dispatch { experts, batches, .. }: &Dispatch,
        inner: &mut Inputs,
    ) -> Result<(), RuntimeError> {
        let most = Batch::most_tokens(batches);
        let unit = inner_unit(most);
        let width = inner.width();
        let mut groups = Groups::stacked(&mut inner.q8, batches, width, unit)?;
        let split = Batches::new(batches, groups.units(), &mut groups)?;
        let cost = 2 * unit * self.gate.weight.depth() * most;
        exec.team.run(split.units(), cost, split, |_, mut runs| {
            runs.try_for_each(|(number, units, mut out)| {
                let Expert { gate, up, .. } = &self.experts[experts[number]];
                let rows = units.start * unit..width.min(units.end * unit);
                ops::swiglu(exec.kernels, [gate, up], rows, input(batches[number]).q8, &mut out)
            })
        })
    }

    /// `inner = silu(Gate h) · Up h` by slots, in f32.
    fn inner_f32<'a>(
        &self,
        exec: Exec<'_>,
        input: impl Fn(Batch) -> Input<'a> + Sync,
        Dispatch { experts, batches, .. }: &Dispatch,
        inner: &mut Inputs,
        up: &mut [f32],
    ) -> Result<(), RuntimeError> {
        let (unit, width) = (Rows::UNIT, inner.width());
        let mut inner = Rows::new(&mut inner.f32, width, unit);
        let mut up = Rows::new(up, width, unit);
        let n = inner.units();
        let split = (Batches::new(batches, n, &mut inner)?, Batches::new(batches, n, &mut up)?);
        let cost = 2 * unit * self.gate.weight.depth() * Batch::most_tokens(batches);
        exec.team.run(split.0.units(), cost, split, |_, (inner, up)| {
            for ((number, units, mut inner), (_, _, mut up)) in inner.zip(up) {
                let (expert, x) = (&self.experts[experts[number]], input(batches[number]));
                let rows = units.start * unit..width.min(units.end * unit);
                for (weight, out) in [(&expert.gate, &mut inner), (&expert.up, &mut up)] {
                    ops::matmul(exec.kernels, weight, rows.clone(), x.to(weight), Store::Set, out)?;
                }
                for token in 0..inner.tokens() {
                    ops::silu_mul(exec.kernels, inner.row_mut(token), up.row_mut(token))?;
                }
            }
            Ok(())
        })
    }

    /// `x += Σ w_e · Down_e inner`: each thread has some rows of the stream, and adds all experts to them.
    fn down(&self, exec: Exec<'_>, inner: &Inputs, dispatch: &Dispatch, x: &mut [f32]) -> Result<(), RuntimeError> {
        let hidden = self.gate.weight.depth();
        let unit = unit(x.len() / hidden);
        let split = Rows::new(x, hidden, unit);
        let slots: usize = dispatch.batches.iter().map(|batch| batch.tokens).sum();
        let cost = unit * inner.width() * slots;
        exec.team.run(split.units(), cost, split, |units, mut out: Tile<'_>| {
            let rows = units.start * unit..hidden.min(units.end * unit);
            dispatch.ascending().try_for_each(|(number, batch)| {
                let down = &self.experts[number].down;
                let (x, to) = (inner.batch(batch).to(down), dispatch.tokens(batch));
                ops::matmul_scatter(exec.kernels, down, rows.clone(), x, to, &mut out)
            })
        })
    }

    /// Bytes of weights that one token reads.
    pub(crate) fn decode_bytes(&self) -> usize {
        let experts: usize = self.experts.iter().flat_map(Expert::matrices).map(|matrix| matrix.data().len()).sum();
        self.gate.len_bytes() + experts / self.experts.len().max(1) * EXPERTS_USED
    }
}
