//! Which features a classifier gets.

use crate::features::Features;

/// The explicit features of a published method, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureSet {
    /// Areas of vessels, microaneurysms, exudates and haemorrhages (Acharya et al., 2009).
    Acharya2009,
    /// Areas of exudates and vessels, and the texture's contrast (Nayak et al., 2008).
    Nayak2008,
    /// All that [`Features`] has.
    All,
}

impl FeatureSet {
    /// Names of the features, in the order of [`FeatureSet::values`].
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Acharya2009 => &[
                "vessel_area",
                "microaneurysm_area",
                "exudate_area",
                "haemorrhage_area",
            ],
            Self::Nayak2008 => &["exudate_area", "vessel_area", "contrast"],
            Self::All => &[
                "vessel_area",
                "microaneurysm_area",
                "exudate_area",
                "haemorrhage_area",
                "microaneurysms",
                "contrast",
                "homogeneity",
                "energy",
                "correlation",
                "entropy",
            ],
        }
    }

    /// The features that belong to it. Areas and numbers are given by their square roots: most photographs have few lesions
    /// and some very many, and their means and deviations would say little.
    pub fn values(self, features: &Features) -> Vec<f64> {
        let Features {
            vessel_area,
            exudate_area,
            microaneurysm_area,
            microaneurysms,
            haemorrhage_area,
            contrast,
            homogeneity,
            energy,
            correlation,
            entropy,
        } = *features;
        let [
            vessel_area,
            exudate_area,
            microaneurysm_area,
            microaneurysms,
            haemorrhage_area,
        ] = [
            vessel_area,
            exudate_area,
            microaneurysm_area,
            microaneurysms,
            haemorrhage_area,
        ]
        .map(f64::sqrt);
        match self {
            Self::Acharya2009 => vec![
                vessel_area,
                microaneurysm_area,
                exudate_area,
                haemorrhage_area,
            ],
            Self::Nayak2008 => vec![exudate_area, vessel_area, contrast],
            Self::All => vec![
                vessel_area,
                microaneurysm_area,
                exudate_area,
                haemorrhage_area,
                microaneurysms,
                contrast,
                homogeneity,
                energy,
                correlation,
                entropy,
            ],
        }
    }
}
