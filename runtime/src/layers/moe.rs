//! A feed-forward half-layer of experts: a router sends each token through two of many small SwiGLU layers.

use halfbyte_kernels::ops;

use super::{Exec, Linear, Mlp, Router, linear::Store};
use crate::{RuntimeError, exec::Scratch};

/// Weights of a layer of experts.
pub(crate) struct Moe {
    /// Scores the experts: (experts, hidden).
    pub(crate) gate: Linear,
    pub(crate) router: Router,
    pub(crate) experts: Vec<Mlp>,
}

impl Moe {
    /// `x += Σ w_e · expert_e(h)` over the experts that the router gives each token, for `h = scratch.normed`.
    ///
    /// Each expert runs once, over all tokens it was given. A token's result does not depend on the others: it is
    /// the sum of two products, which is the same in either order.
    pub(crate) fn forward(&self, exec: Exec<'_>, scratch: &mut Scratch, tokens: usize) -> Result<(), RuntimeError> {
        let hidden = self.gate.weight.depth();
        let Scratch { x, normed, delta, inner, up, moe, .. } = scratch;
        let delta = &mut delta[..tokens * hidden];
        let scores = &mut moe.scores[..tokens * self.experts.len()];
        self.gate.forward(exec, normed.of(tokens), Store::Set, scores)?;
        for (scores, routes) in scores.chunks_exact(self.experts.len()).zip(&mut moe.routes) {
            *routes = self.router.choose(scores);
        }
        delta.fill(0.0);
        for (number, expert) in self.experts.iter().enumerate() {
            let weight_of = |token: usize| moe.routes[token].iter().find(|route| route.0 == number);
            moe.tokens.clear();
            moe.tokens.extend((0..tokens).filter(|&token| weight_of(token).is_some()));
            if moe.tokens.is_empty() {
                continue;
            }
            let (count, chosen) = (moe.tokens.len(), &moe.tokens);
            moe.input.fill(exec, count, &[&expert.gate, &expert.up], |row, input| {
                input.copy_from_slice(&normed.f32[chosen[row] * hidden..][..hidden]);
                Ok(())
            })?;
            let output = &mut moe.output[..count * hidden];
            expert.forward(exec, moe.input.of(count), count, inner, up, Store::Set, output)?;
            for (&token, output) in moe.tokens.iter().zip(output.chunks_exact(hidden)) {
                let weight = weight_of(token).map_or(0.0, |route| route.1);
                for (sum, output) in delta[token * hidden..][..hidden].iter_mut().zip(output) {
                    *sum += weight * output;
                }
            }
        }
        ops::add(exec.kernels, &mut x[..tokens * hidden], delta)?;
        Ok(())
    }

    /// Bytes of weights that one token reads.
    pub(crate) fn decode_bytes(&self) -> usize {
        let experts: usize = self.experts.iter().map(Mlp::len_bytes).sum();
        self.gate.len_bytes() + experts / self.experts.len().max(1) * super::EXPERTS_USED
    }
}
