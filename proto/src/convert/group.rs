//! Plans of groups on the wire.

use fovea_core::group::Variant;
use fovea_core::selection::{Halving, Selection};
use fovea_core::spec::BestBy;

use super::ConvertError;
use super::spec::best_by;
use crate::pb;

impl From<&Variant> for pb::Variant {
    fn from(variant: &Variant) -> Self {
        let Variant { label, spec } = variant;
        Self {
            label: label.clone(),
            spec: Some(spec.into()),
        }
    }
}

impl TryFrom<pb::Variant> for Variant {
    type Error = ConvertError;

    fn try_from(wire: pb::Variant) -> Result<Self, ConvertError> {
        let pb::Variant { label, spec } = wire;
        let spec = spec.ok_or_else(|| ConvertError::missing("variants.spec"))?;
        Ok(Self {
            label,
            spec: spec.try_into()?,
        })
    }
}

impl From<&Selection> for pb::Selection {
    fn from(selection: &Selection) -> Self {
        let Selection {
            by,
            halving,
            patience,
        } = selection;
        let (after_epochs, keep_one_of) = match halving {
            None => (Vec::new(), 0),
            Some(Halving { after, keep_one_of }) => (after.clone(), *keep_one_of),
        };
        Self {
            by: pb::BestBy::from(*by).into(),
            after_epochs,
            keep_one_of,
            patience: patience.unwrap_or(0),
        }
    }
}

impl TryFrom<pb::Selection> for Selection {
    type Error = ConvertError;

    fn try_from(wire: pb::Selection) -> Result<Self, ConvertError> {
        let pb::Selection {
            by,
            after_epochs,
            keep_one_of,
            patience,
        } = wire;
        let known = pb::BestBy::try_from(by);
        let known = known.map_err(|e| ConvertError::new("selection.by", e))?;
        let halving = match (after_epochs.is_empty(), keep_one_of) {
            (true, 0) => None,
            _ => Some(Halving {
                after: after_epochs,
                keep_one_of,
            }),
        };
        Ok(Self {
            by: best_by(known).unwrap_or(BestBy::Auc),
            halving,
            patience: (patience > 0).then_some(patience),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_the_wire() {
        let halving = Some(Halving {
            after: vec![2, 5],
            keep_one_of: 3,
        });
        for (halving, patience) in [
            (None, None),
            (halving.clone(), None),
            (None, Some(4)),
            (halving, Some(4)),
        ] {
            let selection = Selection {
                by: BestBy::Kappa,
                halving,
                patience,
            };
            let back = Selection::try_from(pb::Selection::from(&selection));
            assert_eq!(back, Ok(selection));
        }
        let unknown = pb::Selection {
            by: 99,
            ..pb::Selection::default()
        };
        assert_eq!(
            Selection::try_from(unknown).unwrap_err().field,
            "selection.by"
        );
    }
}
