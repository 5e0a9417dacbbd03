//! Features in units of their spread.

/// Mean and standard deviation of each feature in the samples that it was made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    mean: Vec<f64>,
    deviation: Vec<f64>,
}

impl Scale {
    pub fn of<'a>(rows: impl ExactSizeIterator<Item = &'a Vec<f64>> + Clone) -> Self {
        let n = rows.len().max(1) as f64;
        let features = rows.clone().next().map_or(0, Vec::len);
        let mean = |f: usize| rows.clone().map(|row| row[f]).sum::<f64>() / n;
        let mean: Vec<f64> = (0..features).map(mean).collect();
        let variance = |f: usize| {
            let squares = rows.clone().map(|row| (row[f] - mean[f]).powi(2));
            squares.sum::<f64>() / n
        };
        Self {
            deviation: (0..features).map(|f| variance(f).sqrt()).collect(),
            mean,
        }
    }

    /// (v - mean) / deviation; 0 for a feature that was the same in all samples.
    pub fn row(&self, row: &[f64]) -> Vec<f64> {
        let spread = self.mean.iter().zip(&self.deviation);
        let z = |(v, (mean, deviation)): (&f64, (&f64, &f64))| match *deviation > 0.0 {
            true => (v - mean) / deviation,
            false => 0.0,
        };
        row.iter().zip(spread).map(z).collect()
    }

    pub fn all(&self, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
        rows.iter().map(|row| self.row(row)).collect()
    }
}
