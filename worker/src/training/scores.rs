//! Scores as messages between workers: a few little-endian numbers each.

use fovea_core::metrics::Score;

/// Ordinal, label, loss, number of classes; then a probability for each class.
const HEAD: usize = 16;

/// Scores as bytes.
pub(super) fn encode(scores: &[Score]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for score in scores {
        let Score {
            sample,
            label,
            probabilities,
            loss,
        } = score;
        let classes = probabilities.len() as u32;
        for number in [*sample, *label, loss.to_bits(), classes] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(probabilities.iter().flat_map(|p| p.to_le_bytes()));
    }
    bytes
}

/// The scores in `bytes`; None if they are something else.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Score>> {
    let u32_at =
        |bytes: &[u8], i: usize| Some(u32::from_le_bytes(bytes.get(i..i + 4)?.try_into().ok()?));
    let mut scores = Vec::new();
    while !bytes.is_empty() {
        let classes = u32_at(bytes, 12)? as usize;
        let len = classes.checked_mul(4)?.checked_add(HEAD)?;
        let probabilities = bytes.get(HEAD..len)?.chunks_exact(4);
        scores.push(Score {
            sample: u32_at(bytes, 0)?,
            label: u32_at(bytes, 4)?,
            loss: f32::from_bits(u32_at(bytes, 8)?),
            probabilities: probabilities
                .map(|p| u32_at(p, 0).map(f32::from_bits))
                .collect::<Option<_>>()?,
        });
        bytes = &bytes[len..];
    }
    Some(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_survive_and_rubbish_is_refused() {
        let score = |sample, probabilities| Score {
            sample,
            label: 1,
            probabilities,
            loss: 0.1,
        };
        let scores = vec![score(3, vec![0.25, 0.75]), score(u32::MAX, vec![])];
        let bytes = encode(&scores);
        assert_eq!(decode(&bytes), Some(scores));
        assert_eq!(decode(&[]), Some(Vec::new()));
        for cut in [1, 15, 17, 23] {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(decode(&[0xff; HEAD]), None);
    }
}
