//! A multilayer perceptron with one hidden layer of tanh units and a softmax.

use fovea_core::random::stream;
use rand_chacha::rand_core::RngCore;

/// A perceptron's parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parameters {
    /// Units of the hidden layer.
    pub hidden: usize,
    /// L2 decay of weights, not of biases; scikit-learn's `alpha`.
    pub decay: f64,
}

impl Parameters {
    /// All that are tried, the smoothest first.
    pub fn grid() -> Vec<Self> {
        let of_hidden = |hidden: usize| {
            let decays = [10.0, 1.0, 0.1];
            decays.map(|decay| Self { hidden, decay })
        };
        [2, 4, 8, 16].into_iter().flat_map(of_hidden).collect()
    }
}

/// Steps of the training, each over all samples.
const STEPS: usize = 400;

/// A fitted perceptron.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    net: Net,
    /// Divides the probabilities of classes whose errors counted more or less.
    weights: Vec<f64>,
}

impl Mlp {
    /// Fits all samples at once by Rprop from weights that `seed` draws.
    pub fn fit(
        rows: &[Vec<f64>],
        labels: &[usize],
        weights: &[f64],
        parameters: Parameters,
        seed: u64,
    ) -> Self {
        let shape = Shape {
            inputs: rows.first().map_or(0, Vec::len),
            hidden: parameters.hidden,
            classes: weights.len(),
        };
        let mut net = Net::drawn(shape, seed);
        let mut rprop = Rprop::new(net.values.len());
        for _ in 0..STEPS {
            let (_, gradient) = net.loss(rows, labels, weights, parameters.decay);
            rprop.step(&mut net.values, &gradient);
        }
        Self {
            net,
            weights: weights.to_vec(),
        }
    }

    /// The probability of each class as often as it occurs in the samples, whatever their weights were.
    pub fn probabilities(&self, row: &[f64]) -> Vec<f64> {
        let p = self.net.forward(row).1;
        let p: Vec<f64> = p.iter().zip(&self.weights).map(|(p, w)| p / w).collect();
        let sum: f64 = p.iter().sum();
        p.iter().map(|p| p / sum).collect()
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub inputs: usize,
    pub hidden: usize,
    pub classes: usize,
}

/// The network itself.
#[derive(Debug, Clone)]
pub(super) struct Net {
    pub shape: Shape,
    /// Weights of the hidden layer (inputs x hidden), its biases, weights of the output layer (hidden x classes), its biases.
    pub values: Vec<f64>,
}

impl Net {
    /// Weights are uniform in ± sqrt(6 / (in + out)) (Glorot and Bengio, 2010), biases 0.
    fn drawn(shape: Shape, seed: u64) -> Self {
        let Shape {
            inputs,
            hidden,
            classes,
        } = shape;
        let mut rng = stream("baseline-mlp", &[seed, hidden as u64]);
        let mut uniform = |limit: f64| {
            let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            limit * (2.0 * unit - 1.0)
        };
        let limit = |from: usize, to: usize| (6.0 / (from + to) as f64).sqrt();
        let mut values = Vec::new();
        values.extend((0..inputs * hidden).map(|_| uniform(limit(inputs, hidden))));
        values.extend((0..hidden).map(|_| 0.0));
        values.extend((0..hidden * classes).map(|_| uniform(limit(hidden, classes))));
        values.extend((0..classes).map(|_| 0.0));
        Self { shape, values }
    }

    /// Where the biases of the hidden layer, the weights of the output layer and its biases begin.
    fn offsets(&self) -> (usize, usize, usize) {
        let Shape {
            inputs,
            hidden,
            classes,
        } = self.shape;
        let biases = inputs * hidden;
        (biases, biases + hidden, biases + hidden + hidden * classes)
    }

    /// The hidden layer's output, and the softmax.
    pub fn forward(&self, row: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let Shape {
            hidden, classes, ..
        } = self.shape;
        let (biases, weights, last) = self.offsets();
        let unit = |h: usize| {
            let inputs = row.iter().enumerate();
            let sum: f64 = inputs.map(|(i, v)| v * self.values[i * hidden + h]).sum();
            (sum + self.values[biases + h]).tanh()
        };
        let units: Vec<f64> = (0..hidden).map(unit).collect();
        let logit = |c: usize| {
            let units = units.iter().enumerate();
            let sum: f64 = units
                .map(|(h, v)| v * self.values[weights + h * classes + c])
                .sum();
            sum + self.values[last + c]
        };
        let logits: Vec<f64> = (0..classes).map(logit).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logits.iter().map(|l| (l - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        (units, powers.iter().map(|p| p / sum).collect())
    }

    /// The mean cross-entropy, each sample counted with its class's weight, plus decay / (2 n) times the sum of the squared
    /// weights (as scikit-learn's `MLPClassifier` has it), and its gradient.
    pub fn loss(
        &self,
        rows: &[Vec<f64>],
        labels: &[usize],
        weights: &[f64],
        decay: f64,
    ) -> (f64, Vec<f64>) {
        let Shape {
            inputs,
            hidden,
            classes,
        } = self.shape;
        let (biases, second, last) = self.offsets();
        let n = rows.len().max(1) as f64;
        let mut loss = 0.0;
        let mut gradient = vec![0.0; self.values.len()];
        for (row, &label) in rows.iter().zip(labels) {
            let (units, p) = self.forward(row);
            let weight = weights[label] / n;
            loss -= weight * p[label].max(f64::MIN_POSITIVE).ln();
            let mut back = vec![0.0; hidden];
            for c in 0..classes {
                let error = weight * (p[c] - f64::from(u8::from(c == label)));
                gradient[last + c] += error;
                for h in 0..hidden {
                    gradient[second + h * classes + c] += error * units[h];
                    back[h] += error * self.values[second + h * classes + c];
                }
            }
            for h in 0..hidden {
                let error = back[h] * (1.0 - units[h] * units[h]);
                gradient[biases + h] += error;
                for (i, v) in row.iter().enumerate() {
                    gradient[i * hidden + h] += error * v;
                }
            }
        }
        for at in (0..inputs * hidden).chain(second..last) {
            loss += 0.5 * decay / n * self.values[at].powi(2);
            gradient[at] += decay / n * self.values[at];
        }
        (loss, gradient)
    }
}

/// iRprop- (Igel and Hüsken, 2000): each value has a step of its own, which grows while its slope keeps its sign. It needs no
/// learning rate.
struct Rprop {
    steps: Vec<f64>,
    before: Vec<f64>,
}

impl Rprop {
    fn new(values: usize) -> Self {
        Self {
            steps: vec![0.01; values],
            before: vec![0.0; values],
        }
    }

    fn step(&mut self, values: &mut [f64], gradient: &[f64]) {
        let state = self.steps.iter_mut().zip(&mut self.before);
        for ((value, slope), (step, before)) in values.iter_mut().zip(gradient).zip(state) {
            let mut slope = *slope;
            let same = slope * *before;
            if same > 0.0 {
                *step = (*step * 1.2).min(50.0);
            } else if same < 0.0 {
                *step = (*step * 0.5).max(1e-9);
                slope = 0.0;
            }
            if slope != 0.0 {
                *value -= slope.signum() * *step;
            }
            *before = slope;
        }
    }
}
