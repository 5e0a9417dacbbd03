//! From logits to probabilities and loss, for each kind of head.

use fovea_core::spec::Head;
use tch::{Kind, Reduction, Tensor};

/// ln of each class's probability, `[batch, classes]`, of logits `[batch, outputs]`.
pub fn log_probabilities(head: Head, logits: &Tensor) -> Tensor {
    match head {
        Head::Softmax => logits.log_softmax(-1, Kind::Float),
        Head::Ordinal => ordinal_log_probabilities(logits),
    }
}

/// The *sum* over the batch of -ln P(label). The mean over the global batch is taken after the gradients of all virtual
/// ranks were added, so that it does not depend on which worker computed which part.
///
/// `logits` is f32 `[batch, outputs]`, `labels` is i64 `[batch]`, `weights` f32 `[classes]`: how often the loss of a sample of
/// each class counts.
///
/// With an ordinal head this is CORN's loss, in which output k is trained by the samples that reach class k, added up
/// without a weight for each output: so it is a likelihood of all classes, in the unit of a softmax's cross-entropy.
pub fn loss_sum(head: Head, logits: &Tensor, labels: &Tensor, weights: Option<&Tensor>) -> Tensor {
    match head {
        Head::Softmax => logits.cross_entropy_loss(labels, weights, Reduction::Sum, -100, 0.0),
        Head::Ordinal => {
            let log_p = ordinal_log_probabilities(logits);
            log_p.g_nll_loss(labels, weights, Reduction::Sum, -100)
        }
    }
}

/// Of z_k with sigmoid(z_k) = P(class > k | class >= k): P(class = c) is the product of sigmoid(z_k) over k < c, times
/// 1 - sigmoid(z_c), which is sigmoid(-z_c), where there is a z_c. It adds up to 1 whatever the logits are.
///
/// Class by class rather than by `cumsum`, whose order of additions on a GPU is not fixed.
fn ordinal_log_probabilities(logits: &Tensor) -> Tensor {
    let beyond = logits.log_sigmoid();
    let stays = (-logits).log_sigmoid();
    let outputs = logits.size()[1];
    let mut columns = Vec::with_capacity(outputs as usize + 1);
    let mut reached: Option<Tensor> = None;
    for k in 0..outputs {
        let after = |log_p: &Tensor| match &reached {
            Some(reached) => reached + log_p.select(1, k),
            None => log_p.select(1, k),
        };
        columns.push(after(&stays));
        reached = Some(after(&beyond));
    }
    columns.extend(reached);
    Tensor::stack(&columns, 1)
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    /// Of logits (0, ln 3) the probabilities are 1/4 and 3/4.
    #[test]
    fn a_class_weight_counts_as_so_many_samples() {
        let logits = Tensor::from_slice(&[0.0f32, 3.0f32.ln(), 0.0, 3.0f32.ln()]).view([2, 2]);
        let labels = Tensor::from_slice(&[0i64, 1]);
        let loss = |weights| loss_sum(Head::Softmax, &logits, &labels, weights).double_value(&[]);
        let plain = loss(None);
        assert!(
            (plain - (4.0f64.ln() + (4.0f64 / 3.0).ln())).abs() < 1e-6,
            "{plain}"
        );
        let weights = Tensor::from_slice(&[0.5f32, 2.0]);
        let weighted = loss(Some(&weights));
        let expected = 0.5 * 4.0f64.ln() + 2.0 * (4.0f64 / 3.0).ln();
        assert!((weighted - expected).abs() < 1e-6, "{weighted}");
    }

    /// sigmoid(ln 3) = 3/4, sigmoid(0) = 1/2, sigmoid(-ln 3) = 1/4.
    #[test]
    fn an_ordinal_head_goes_from_class_to_class() {
        let third = 3.0f32.ln();
        let logits = Tensor::from_slice(&[third, 0.0, -third]).view([1, 3]);
        let log_p = log_probabilities(Head::Ordinal, &logits);
        assert_eq!(log_p.size(), [1, 4]);
        let p: Vec<f32> = Vec::try_from(log_p.exp().view(4)).unwrap();
        let expected = [1.0 / 4.0, 3.0 / 8.0, 9.0 / 32.0, 3.0 / 32.0];
        for (found, expected) in p.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{p:?}");
        }
        // Each class's loss, twice that of class 2.
        let logits = logits.expand([4, 3], false);
        let labels = Tensor::from_slice(&[0i64, 1, 2, 3]);
        let weights = Tensor::from_slice(&[1.0f32, 1.0, 2.0, 1.0]);
        let loss = loss_sum(Head::Ordinal, &logits, &labels, Some(&weights)).double_value(&[]);
        let [a, b, c, d] = expected.map(|p| -f64::from(p).ln());
        assert!((loss - (a + b + 2.0 * c + d)).abs() < 1e-5, "{loss}");
    }

    /// Far from 0 the probabilities are 0 in f32, and the loss is still a number.
    #[test]
    fn an_ordinal_loss_is_finite_where_a_probability_is_zero() {
        let logits = Tensor::from_slice(&[300.0f32, -300.0, 300.0, 300.0]).view([1, 4]);
        let log_p = log_probabilities(Head::Ordinal, &logits);
        let values: Vec<f32> = Vec::try_from(log_p.view(5)).unwrap();
        assert_eq!(values, [-300.0, 0.0, -600.0, -600.0, -300.0]);
        let sum = log_p.exp().sum(Kind::Float).double_value(&[]);
        assert_eq!(sum, 1.0);
    }

    /// Autograd's gradient of each loss, in f64, against central differences.
    #[test]
    fn gradients_are_those_of_finite_differences() {
        tch::manual_seed(5);
        let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 2]);
        let weights = Tensor::from_slice(&[0.5f64, 1.0, 2.0, 0.25, 3.0]);
        for (head, outputs) in [(Head::Softmax, 5i64), (Head::Ordinal, 4)] {
            let logits = Tensor::randn([6, outputs], (Kind::Double, Device::Cpu)) * 2.0;
            for weights in [None, Some(&weights)] {
                let of = |logits: &Tensor| loss_sum(head, logits, &labels, weights);
                let leaf = logits.detach().set_requires_grad(true);
                of(&leaf).backward();
                let gradient: Vec<f64> = Vec::try_from(leaf.grad().view(-1)).unwrap();
                for (at, found) in gradient.iter().enumerate() {
                    let (row, column) = (at as i64 / outputs, at as i64 % outputs);
                    let moved = |by: f64| {
                        let there = logits.copy();
                        let mut element = there.select(0, row).select(0, column);
                        let _ = element.g_add_scalar_(by);
                        of(&there).double_value(&[])
                    };
                    let expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!(
                        (found - expected).abs() < 1e-7 * expected.abs().max(1.0),
                        "{head:?} {row}, {column}: {found}, expected {expected}"
                    );
                }
                assert!(gradient.iter().any(|g| g.abs() > 0.1), "{gradient:?}");
            }
        }
    }
}
