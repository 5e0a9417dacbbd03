//! A dataset's samples as a run of a cross-validation sees them.

use fovea_core::fold::{FoldError, sides};
use fovea_core::spec::FoldSpec;

use super::{Index, Sample};

impl Index {
    /// The index in which `fold` is the validation split, and all other samples of the training and validation split are the
    /// training split, both numbered anew. The test part stays as it is. Without a fold, this index.
    ///
    /// # Errors
    /// There are fewer patients than folds.
    pub fn folded(mut self, fold: Option<FoldSpec>) -> Result<Self, FoldError> {
        let Some(fold) = fold else {
            return Ok(self);
        };
        let pool = [self.train, self.validation].concat();
        let patients: Vec<u32> = pool.iter().map(|sample| sample.patient).collect();
        let grades: Vec<u8> = pool.iter().map(|sample| sample.grade).collect();
        let side = |samples: Vec<u32>| -> Vec<Sample> {
            let numbered = (0..).zip(samples);
            let sample = |(ordinal, number): (u32, u32)| Sample {
                ordinal,
                ..pool[number as usize].clone()
            };
            numbered.map(sample).collect()
        };
        [self.train, self.validation] = sides(fold, &patients, &grades)?.map(side);
        Ok(self)
    }
}
