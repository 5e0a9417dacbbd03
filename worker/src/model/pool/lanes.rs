//! The pooling of eight channels at a time: with AVX2, and for any processor. Both give the same bits.
//!
//! Written out, as the compiler does not see that choosing among nine places can be done side by side.

use tch::Kind;

use super::{LANES, Windows, as_lanes, as_lanes_mut};

/// What is pooled.
pub trait Number: Copy + Send + Sync + 'static {
    /// libtorch's name of it.
    const KIND: Kind;

    fn to_f32(self) -> f32;

    /// Itself where `other` is positive, 0 elsewhere; without a branch, so that it is done side by side. An `other`
    /// that is not a number may count as either.
    fn where_positive(self, other: Self) -> Self;

    /// The nearest one.
    fn rounded(value: f32) -> Self;

    /// Gives zeros to `work`, which adds to them, and leaves the sums in `out`, rounded.
    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32]));

    /// # Safety
    /// With AVX2, and where there are eight.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256;

    /// Stores numbers that were loaded.
    ///
    /// # Safety
    /// With AVX2, and where there is room for eight.
    #[cfg(target_arch = "x86_64")]
    unsafe fn store(to: *mut Self, numbers: std::arch::x86_64::__m256);
}

impl Number for f32 {
    const KIND: Kind = Kind::Float;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn where_positive(self, other: Self) -> Self {
        f32::from_bits(self.to_bits() & 0u32.wrapping_sub(u32::from(other > 0.0)))
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        value
    }

    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32])) {
        out.fill(0.0);
        work(out);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(from) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn store(to: *mut Self, numbers: std::arch::x86_64::__m256) {
        // SAFETY: the caller's.
        unsafe { std::arch::x86_64::_mm256_storeu_ps(to, numbers) }
    }
}

/// The upper half of an f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Number for Bf16 {
    const KIND: Kind = Kind::BFloat16;

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn where_positive(self, other: Self) -> Self {
        Self(self.0 & 0u16.wrapping_sub(u16::from(other.0 as i16 > 0)))
    }

    /// To the nearest, halves to even, as libtorch does it.
    #[inline(always)]
    fn rounded(value: f32) -> Self {
        let bits = value.to_bits();
        let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if value.is_nan() { 0x7fc0 } else { up as u16 })
    }

    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32])) {
        let mut sums = vec![0.0; out.len()];
        work(&mut sums);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = Self::rounded(sum);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller's.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves))
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn store(to: *mut Self, numbers: std::arch::x86_64::__m256) {
        use std::arch::x86_64::*;
        // SAFETY: the caller's.
        unsafe {
            let halves = _mm256_srli_epi32::<16>(_mm256_castps_si256(numbers));
            let words = _mm_packus_epi32(
                _mm256_castsi256_si128(halves),
                _mm256_extracti128_si256::<1>(halves),
            );
            _mm_storeu_si128(to.cast(), words);
        }
    }
}

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
                let values = as_lanes(&x[at..at + LANES]);
                let place = _mm256_set1_epi32(i32::from(place));
                // SAFETY: as many numbers as a vector has.
                let values = unsafe { N::load(values.as_ptr()) };
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
            // SAFETY: eight numbers, and eight bytes.
            unsafe {
                N::store(y.as_mut_ptr(), most);
                _mm_storel_epi64(places.as_mut_ptr().cast(), bytes);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn pool_back<'a, N: Number>(
        mut windows: Windows,
        groups: impl Iterator<Item = (&'a [N; LANES], &'a [u8; LANES])>,
        sums: &mut [f32],
    ) {
        for (gradient, places) in groups {
            // SAFETY: eight numbers, and eight bytes.
            let (gradient, winner) = unsafe {
                (
                    N::load(gradient.as_ptr()),
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64(places.as_ptr().cast())),
                )
            };
            for (at, place) in windows.next_group() {
                let sums = as_lanes_mut(&mut sums[at..at + LANES]).as_mut_ptr();
                let is_it = _mm256_cmpeq_epi32(winner, _mm256_set1_epi32(i32::from(place)));
                let share = _mm256_and_ps(gradient, _mm256_castsi256_ps(is_it));
                // SAFETY: as many numbers as a vector has.
                unsafe { _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), share)) };
            }
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::{Moves, Shape};
    use super::*;

    #[test]
    fn both_give_the_same_bits() {
        if !std::arch::is_x86_feature_detected!("avx2") {
            eprintln!("skipped: this processor has no AVX2");
            return;
        }
        let from = Shape {
            height: 7,
            width: 6,
            channels: 3 * LANES,
        };
        // Many equals, infinities, and numbers that are none.
        let x: Vec<f32> = (0..from.len())
            .map(|i| match i * 2_654_435_761 % 1000 {
                0..20 => f32::NAN,
                20..300 => f32::NEG_INFINITY,
                n => (n % 7) as f32,
            })
            .collect();
        for moves in [Moves::ByOne, Moves::ByTwo] {
            let to = moves.pooled(from).len();
            let mut results = Vec::new();
            for wide in [false, true] {
                let (mut y, mut places) = (vec![0f32; to], vec![9; to]);
                let windows = || Windows::new(from, moves);
                let groups = y
                    .chunks_exact_mut(LANES)
                    .zip(places.chunks_exact_mut(LANES));
                let groups = groups.map(|(y, p)| (as_lanes_mut(y), as_lanes_mut(p)));
                match wide {
                    false => any::pool(windows(), &x, groups),
                    // SAFETY: AVX2 is there.
                    true => unsafe { avx2::pool(windows(), &x, groups) },
                }
                let gradient: Vec<f32> = (0..to).map(|i| (i as f32).sin()).collect();
                let mut sums = vec![0f32; x.len()];
                let groups = gradient.chunks_exact(LANES).zip(places.chunks_exact(LANES));
                let groups = groups.map(|(g, p)| (as_lanes(g), as_lanes(p)));
                match wide {
                    false => any::pool_back(windows(), groups, &mut sums),
                    // SAFETY: AVX2 is there.
                    true => unsafe { avx2::pool_back(windows(), groups, &mut sums) },
                }
                let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                results.push((bits(&y), places, bits(&sums)));
            }
            assert!(results[0] == results[1], "{moves:?}");
        }
    }
}
