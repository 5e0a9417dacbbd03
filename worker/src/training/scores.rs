//! Scores as messages between workers: a few little-endian numbers each.

use fovea_core::class_map::ClassMap;
use fovea_core::metrics::Score;

/// Ordinal, label, loss, number of classes, rows and columns of the map (0 without one); then a probability for each class,
/// and the map row by row.
const HEAD: usize = 24;

/// Scores as bytes.
pub(super) fn encode(scores: &[Score]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for score in scores {
        let Score {
            sample,
            label,
            probabilities,
            loss,
            map,
        } = score;
        let classes = probabilities.len() as u32;
        let size = map
            .as_ref()
            .map(|map| [map.height as u32, map.width as u32]);
        let [height, width] = size.unwrap_or_default();
        for number in [*sample, *label, loss.to_bits(), classes, height, width] {
            bytes.extend(number.to_le_bytes());
        }
        let map = map.iter().flat_map(|map| &map.values);
        bytes.extend(
            probabilities
                .iter()
                .chain(map)
                .flat_map(|p| p.to_le_bytes()),
        );
    }
    bytes
}

/// The scores in `bytes`; None if they are something else.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Score>> {
    let u32_at =
        |bytes: &[u8], i: usize| Some(u32::from_le_bytes(bytes.get(i..i + 4)?.try_into().ok()?));
    let mut scores = Vec::new();
    while !bytes.is_empty() {
        let [classes, height, width] =
            [u32_at(bytes, 12)?, u32_at(bytes, 16)?, u32_at(bytes, 20)?].map(|n| n as usize);
        let places = height.checked_mul(width)?;
        let len = classes
            .checked_add(places)?
            .checked_mul(4)?
            .checked_add(HEAD)?;
        let mut floats: Vec<f32> = bytes
            .get(HEAD..len)?
            .chunks_exact(4)
            .map(|p| u32_at(p, 0).map(f32::from_bits))
            .collect::<Option<_>>()?;
        let values = floats.split_off(classes);
        scores.push(Score {
            sample: u32_at(bytes, 0)?,
            label: u32_at(bytes, 4)?,
            loss: f32::from_bits(u32_at(bytes, 8)?),
            probabilities: floats,
            map: (places > 0).then_some(ClassMap {
                height,
                width,
                values,
            }),
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
            map: None,
        };
        let mut mapped = score(4, vec![0.5]);
        mapped.map = Some(ClassMap {
            height: 1,
            width: 2,
            values: vec![-1.5, 2.0],
        });
        let scores = vec![score(3, vec![0.25, 0.75]), mapped, score(u32::MAX, vec![])];
        let bytes = encode(&scores);
        assert_eq!(decode(&bytes), Some(scores));
        assert_eq!(decode(&[]), Some(Vec::new()));
        for cut in [1, 23, 25, 31, 33, 59, 63] {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(decode(&[0xff; HEAD]), None);
    }
}
