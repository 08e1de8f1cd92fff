//! Which experts a token passes through, and how much each counts.

/// Experts of a token.
pub(crate) const EXPERTS_USED: usize = 2;
/// `router_jitter_noise` of every Phi-MoE model.
const JITTER: f32 = 0.01;
/// llama.cpp keeps the sum of the weights from going below the smallest normal f16.
const SMALLEST_SUM: f32 = 6.103_515_6e-5;

/// The experts of a token, best first, with their weights.
pub(crate) type Routes = [(usize, f32); EXPERTS_USED];

/// From the router's scores to experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Router {
    /// Phi-MoE's own rule, `sparsemixer` in its `modeling_phimoe.py` (Liu et al. 2024): the two best, each weighted
    /// by a softmax over the experts that come near it, which is usually only itself. Weights sum up to 2.
    Sparsemixer,
    /// The two best, weighted by a softmax over all experts and scaled to the sum 1.
    SoftmaxTopTwo,
}

impl Router {
    /// Of at least two scores. The lower index wins a tie; NaN wins over nothing.
    pub(crate) fn choose(self, scores: &[f32]) -> Routes {
        let (first, top) = best(scores, None);
        let (second, runner_up) = best(scores, Some(first));
        match self {
            Self::Sparsemixer => [
                (first, near_weight(scores, first, top, None)),
                (second, near_weight(scores, second, runner_up, Some(first))),
            ],
            Self::SoftmaxTopTwo => {
                let all: f32 = scores.iter().map(|score| (score - top).exp()).sum();
                let (a, b) = (1.0 / all, (runner_up - top).exp() / all);
                let sum = (a + b).max(SMALLEST_SUM);
                [(first, a / sum), (second, b / sum)]
            }
        }
    }
}

/// The largest score, but for that of `taken`, and where it is.
fn best(scores: &[f32], taken: Option<usize>) -> (usize, f32) {
    let mut best = (usize::from(taken == Some(0)), f32::NEG_INFINITY);
    for (expert, &score) in scores.iter().enumerate() {
        if Some(expert) != taken && score > best.1 {
            best = (expert, score);
        }
    }
    best
}

/// The weight of `expert`, whose score is `top`: `1 / Σ exp(s - top)` over the scores `s` that are near it,
/// `(top - s) / max(|s|, top) <= 2 · jitter`, but for that of `taken`.
fn near_weight(scores: &[f32], expert: usize, top: f32, taken: Option<usize>) -> f32 {
    let mut sum = 0.0;
    for (other, &score) in scores.iter().enumerate() {
        let far = (top - score) / score.abs().max(top) > 2.0 * JITTER;
        if other == expert || !far && Some(other) != taken {
            sum += (score - top).exp();
        }
    }
    1.0 / sum
}

#[cfg(test)]
mod tests {
    use super::{Router, Routes};

    fn scores(set: &[(usize, f32)]) -> [f32; 16] {
        let mut scores = [0.0; 16];
        for &(expert, score) in set {
            scores[expert] = score;
        }
        scores
    }

    fn same(found: Routes, experts: [usize; 2], weights: [f64; 2]) {
        for ((found, expert), weight) in found.iter().zip(experts).zip(weights) {
            assert_eq!(found.0, expert);
            assert!((f64::from(found.1) - weight).abs() < 5e-7, "{found:?} is not {weight}");
        }
    }

    /// Values computed by hand from the two definitions, as in the authors' code and in llama.cpp.
    #[test]
    fn both_rules_give_known_weights() {
        let falling = std::array::from_fn::<f32, 16, _>(|i| -1.0 - 0.1 * i as f32);
        let mut low = [-3.0; 16];
        low[..3].copy_from_slice(&[-1.0, -1.01, -1.5]);
        for (scores, experts, reference, llama) in [
            (scores(&[(2, 1.0), (5, 0.99), (7, 0.5)]), [2, 5], [0.502_500, 1.0], [0.502_500, 0.497_500]),
            (scores(&[(3, 4.0), (9, 2.0), (1, 1.97), (0, -1.0)]), [3, 9], [1.0, 0.507_499], [0.880_797, 0.119_203]),
            (falling, [0, 1], [1.0, 1.0], [0.524_979, 0.475_021]),
            (low, [0, 1], [0.502_500, 1.0], [0.502_500, 0.497_500]),
        ] {
            same(Router::Sparsemixer.choose(&scores), experts, reference);
            same(Router::SoftmaxTopTwo.choose(&scores), experts, llama);
        }
    }

    /// Equal scores share the weight, zeros (0 / 0) too; damaged ones still name two experts.
    #[test]
    fn ties_and_damage() {
        same(Router::Sparsemixer.choose(&[0.0; 16]), [0, 1], [1.0 / 16.0, 1.0 / 15.0]);
        same(Router::Sparsemixer.choose(&scores(&[(4, 2.0), (8, 2.0)])), [4, 8], [0.5, 1.0]);
        for damaged in [[f32::NAN; 16], [f32::INFINITY; 16], [f32::NEG_INFINITY; 16]] {
            for router in [Router::Sparsemixer, Router::SoftmaxTopTwo] {
                let [(first, weight), (second, _)] = router.choose(&damaged);
                assert_eq!([first, second], [0, 1]);
                assert!(weight.is_nan(), "{damaged:?} must not pass as a number");
            }
        }
    }
}
