//! Explicit features of a photograph: what an ophthalmologist looks for, measured by morphology, and the texture.
//!
//! Every structuring element, window and scan is symmetric, and every sum is of whole numbers: a photograph that was turned by
//! 90, 180 or 270 degrees has the same features to the bit.

mod exudates;
mod field;
mod mask;
mod optic_disc;
mod overlay;
mod red_lesions;
mod regions;
mod texture;
mod vessels;

use serde::Serialize;

pub use mask::{Mask, SET};
pub use overlay::{LEGEND, overlay};

use crate::photograph::Photograph;
use field::{EVEN, Field};
use red_lesions::RedLesions;
use texture::Texture;

/// The features of a photograph. Areas are shares of the field of view, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Features {
    /// Area of blood vessels.
    pub vessel_area: f64,
    /// Area of exudates.
    pub exudate_area: f64,
    /// Area of microaneurysms.
    pub microaneurysm_area: f64,
    /// Number of microaneurysms.
    pub microaneurysms: f64,
    /// Area of haemorrhages.
    pub haemorrhage_area: f64,
    /// Contrast of the co-occurrence matrix.
    pub contrast: f64,
    /// Its homogeneity.
    pub homogeneity: f64,
    /// Its energy.
    pub energy: f64,
    /// Its correlation.
    pub correlation: f64,
    /// Its entropy, in bits.
    pub entropy: f64,
}

/// Where the features were seen.
#[derive(Debug, Clone)]
pub struct Masks {
    /// The field of view without its rim.
    pub field: Mask,
    pub vessels: Mask,
    /// What was taken for the optic disc; empty if none was seen.
    pub optic_disc: Mask,
    pub exudates: Mask,
    pub microaneurysms: Mask,
    pub haemorrhages: Mask,
}

/// Measures a photograph. One that shows nothing has no areas and even texture.
pub fn measure(photograph: &Photograph) -> (Features, Masks) {
    let field = Field::of(photograph);
    let green = mask::smoothed(&photograph.green);
    let relative = field.relative(&green);
    // What is bright is clipped: the retina between exudates is not dark.
    let dark = mask::mapped(&relative, |v| EVEN.saturating_sub(v));
    let vessels = vessels::vessels(&dark, &field.inner);
    let bright = mask::combined(&photograph.red, &green, |red, green| red / 2 + green / 2);
    let optic_disc = optic_disc::optic_disc(&bright, &vessels, &field.inner);
    let exudates = exudates::exudates(&relative, &field, &optic_disc);
    let red = RedLesions::of(&dark, &field.inner, &vessels, &optic_disc);
    let texture = Texture::of(&photograph.green, &field.inner);
    let share = |mask: &Mask| match field.area {
        0 => 0.0,
        all => mask::area(mask) as f64 / all as f64,
    };
    let features = Features {
        vessel_area: share(&vessels),
        exudate_area: share(&exudates),
        microaneurysm_area: share(&red.microaneurysms),
        microaneurysms: red.number as f64,
        haemorrhage_area: share(&red.haemorrhages),
        contrast: texture.contrast,
        homogeneity: texture.homogeneity,
        energy: texture.energy,
        correlation: texture.correlation,
        entropy: texture.entropy,
    };
    let masks = Masks {
        field: field.inner,
        vessels,
        optic_disc,
        exudates,
        microaneurysms: red.microaneurysms,
        haemorrhages: red.haemorrhages,
    };
    (features, masks)
}

#[cfg(test)]
mod tests;
