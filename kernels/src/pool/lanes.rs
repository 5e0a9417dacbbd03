//! Pooling of eight channels at a time: with AVX2, and for any processor. Both give the same bits.
//!
//! It is written by hand because the compiler does not vectorise a choice among nine places.

use super::{LANES, Windows, as_lanes, as_lanes_mut};
use crate::Number;

pub mod any {
    use super::*;

    pub fn pool<'a, N: Number>(
        mut windows: Windows,
        x: &[N],
        groups: impl Iterator<Item = (&'a mut [N; LANES], &'a mut [u8; LANES])>,
    ) {
        for (y, places) in groups {
            for (number, (at, place)) in windows.next_group().enumerate() {
                let values = as_lanes(&x[at..at + LANES]);
                for ((y, winner), value) in y.iter_mut().zip(&mut *places).zip(values) {
                    // A NaN wins, so that it is seen in the end.
                    let (new, old) = (value.to_f32(), y.to_f32());
                    if number == 0 || new > old || new.is_nan() {
                        (*y, *winner) = (*value, place);
                    }
                }
            }
        }
    }

    pub fn pool_back<'a, N: Number>(
        mut windows: Windows,
        groups: impl Iterator<Item = (&'a [N; LANES], &'a [u8; LANES])>,
        sums: &mut [f32],
    ) {
        for (gradient, places) in groups {
            for (at, place) in windows.next_group() {
                let sums = as_lanes_mut(&mut sums[at..at + LANES]);
                for ((sum, g), winner) in sums.iter_mut().zip(gradient).zip(places) {
                    *sum += if *winner == place { g.to_f32() } else { 0.0 };
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub mod avx2 {
    use std::arch::x86_64::*;

    use bytemuck::cast;

    use super::*;

    #[target_feature(enable = "avx2")]
    pub fn pool<'a, N: Number>(
        mut windows: Windows,
        x: &[N],
        groups: impl Iterator<Item = (&'a mut [N; LANES], &'a mut [u8; LANES])>,
    ) {
        for (y, places) in groups {
            let mut most = _mm256_set1_ps(f32::NEG_INFINITY);
            let mut winner = _mm256_setzero_si256();
            for (number, (at, place)) in windows.next_group().enumerate() {
                let place = _mm256_set1_epi32(i32::from(place));
                let values: __m256 = cast(N::widen(as_lanes(&x[at..at + LANES])));
                if number == 0 {
                    (most, winner) = (values, place);
                    continue;
                }
                let wins = _mm256_or_ps(
                    _mm256_cmp_ps::<_CMP_GT_OQ>(values, most),
                    _mm256_cmp_ps::<_CMP_UNORD_Q>(values, values),
                );
                most = _mm256_blendv_ps(most, values, wins);
                winner = _mm256_blendv_epi8(winner, place, _mm256_castps_si256(wins));
            }
            let words = _mm_packus_epi32(
                _mm256_castsi256_si128(winner),
                _mm256_extracti128_si256::<1>(winner),
            );
            let bytes = _mm_packus_epi16(words, words);
            *y = N::narrow(cast(most));
            *places = _mm_cvtsi128_si64(bytes).to_le_bytes();
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn pool_back<'a, N: Number>(
        mut windows: Windows,
        groups: impl Iterator<Item = (&'a [N; LANES], &'a [u8; LANES])>,
        sums: &mut [f32],
    ) {
        for (gradient, places) in groups {
            let gradient: __m256 = cast(N::widen(gradient));
            let winner = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*places)));
            for (at, place) in windows.next_group() {
                let sums = as_lanes_mut(&mut sums[at..at + LANES]);
                let is_it = _mm256_cmpeq_epi32(winner, _mm256_set1_epi32(i32::from(place)));
                let share = _mm256_and_ps(gradient, _mm256_castsi256_ps(is_it));
                *sums = cast(_mm256_add_ps(cast(*sums), share));
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::Stride;
    use super::*;
    use crate::Shape;

    #[test]
    #[cfg_attr(not(has_avx2), ignore = "needs a processor with AVX2")]
    fn both_give_the_same_bits() {
        assert!(std::arch::is_x86_feature_detected!("avx2"));
        let from = Shape {
            height: 7,
            width: 6,
            channels: 3 * LANES,
        };
        // Many equal values, infinities, and NaN.
        let x: Vec<f32> = (0..from.len())
            .map(|i| match i * 2_654_435_761 % 1000 {
                0..20 => f32::NAN,
                20..300 => f32::NEG_INFINITY,
                n => (n % 7) as f32,
            })
            .collect();
        for stride in [Stride::One, Stride::Two] {
            let to = stride.pooled(from).len();
            let mut results = Vec::new();
            for wide in [false, true] {
                let (mut y, mut places) = (vec![0f32; to], vec![9; to]);
                let windows = || Windows::new(from, stride);
                let groups = y
                    .chunks_exact_mut(LANES)
                    .zip(places.chunks_exact_mut(LANES));
                let groups = groups.map(|(y, p)| (as_lanes_mut(y), as_lanes_mut(p)));
                match wide {
                    false => any::pool(windows(), &x, groups),
                    // SAFETY: the processor has AVX2, as checked above.
                    true => unsafe { avx2::pool(windows(), &x, groups) },
                }
                let gradient: Vec<f32> = (0..to).map(|i| (i as f32).sin()).collect();
                let mut sums = vec![0f32; x.len()];
                let groups = gradient.chunks_exact(LANES).zip(places.chunks_exact(LANES));
                let groups = groups.map(|(g, p)| (as_lanes(g), as_lanes(p)));
                match wide {
                    false => any::pool_back(windows(), groups, &mut sums),
                    // SAFETY: the processor has AVX2, as checked above.
                    true => unsafe { avx2::pool_back(windows(), groups, &mut sums) },
                }
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                results.push((bits(&y), places, bits(&sums)));
            }
            assert!(results[0] == results[1], "{stride:?}");
        }
    }
}
