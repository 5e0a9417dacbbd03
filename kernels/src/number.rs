//! The formats that images are stored in: f32 and bfloat16. The arithmetic is f32 in both cases.

use std::fmt::Debug;

/// Values that are loaded and stored together: one AVX2 vector of f32.
pub(crate) const GROUP: usize = 8;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for super::Bf16 {}
}

/// A storage format of images: f32 or [`Bf16`]. The trait is sealed.
pub trait Number: sealed::Sealed + Copy + Debug + PartialEq + Send + Sync + 'static {
    /// The value as f32, exactly.
    fn to_f32(self) -> f32;

    /// The nearest value of this format; halves go to even. NaN stays NaN.
    fn rounded(value: f32) -> Self;

    /// `self` where `other` is positive, 0 elsewhere. There is no branch, so that the compiler vectorises it. A NaN as
    /// `other` may count as either.
    fn where_positive(self, other: Self) -> Self;

    /// Calls `work` with zeros, to which it adds, and stores the sums in `out`, each rounded once.
    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32]));

    /// Eight values as f32, exactly.
    fn widen(values: &[Self; 8]) -> [f32; 8];

    /// Eight values that [`Number::widen`] gave, back in this format.
    fn narrow(values: [f32; 8]) -> [Self; 8];
}

impl Number for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn rounded(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn where_positive(self, other: Self) -> Self {
        f32::from_bits(self.to_bits() & 0u32.wrapping_sub(u32::from(other > 0.0)))
    }

    #[inline]
    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32])) {
        out.fill(0.0);
        work(out);
    }

    #[inline(always)]
    fn widen(values: &[Self; GROUP]) -> [f32; GROUP] {
        *values
    }

    #[inline(always)]
    fn narrow(values: [f32; GROUP]) -> [Self; GROUP] {
        values
    }
}

/// A bfloat16: the upper half of an f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Bf16(u16);

impl Number for Bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// As libtorch rounds.
    #[inline(always)]
    fn rounded(value: f32) -> Self {
        let bits = value.to_bits();
        let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        Self(if value.is_nan() { 0x7fc0 } else { up as u16 })
    }

    #[inline(always)]
    fn where_positive(self, other: Self) -> Self {
        Self(self.0 & 0u16.wrapping_sub(u16::from(other.0 as i16 > 0)))
    }

    #[inline]
    fn sum_into(out: &mut [Self], work: impl FnOnce(&mut [f32])) {
        let mut sums = vec![0.0; out.len()];
        work(&mut sums);
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = Self::rounded(sum);
        }
    }

    #[inline(always)]
    fn widen(values: &[Self; GROUP]) -> [f32; GROUP] {
        let mut wide = [0.0; GROUP];
        for (wide, value) in wide.iter_mut().zip(values) {
            *wide = value.to_f32();
        }
        wide
    }

    #[inline(always)]
    fn narrow(values: [f32; GROUP]) -> [Self; GROUP] {
        let mut narrow = [Self(0); GROUP];
        for (narrow, value) in narrow.iter_mut().zip(values) {
            *narrow = Self((value.to_bits() >> 16) as u16);
        }
        narrow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bfloat16 survives f32, and lies where its bits say.
    #[test]
    fn bfloat16_is_the_upper_half_of_an_f32() {
        for bits in 0..=u16::MAX {
            let value = Bf16(bits);
            assert_eq!(value.to_f32().to_bits(), u32::from(bits) << 16);
            assert_eq!(Bf16::narrow(Bf16::widen(&[value; GROUP])), [value; GROUP]);
            match value.to_f32().is_nan() {
                true => assert!(Bf16::rounded(value.to_f32()).to_f32().is_nan()),
                false => assert_eq!(Bf16::rounded(value.to_f32()), value),
            }
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_halves_go_to_even() {
        for (value, expected) in [
            (1.0, 1.0),
            (1.0 + 0.00390625, 1.0), // half a step above 1.0, which is even
            (1.0 + 3.0 * 0.00390625, 1.015625), // half a step above an odd one
            (f32::from_bits(0x3f80_8001), 1.0078125), // just above half a step
            (f32::from_bits(0xbf80_8001), -1.0078125),
            (3.4e38, f32::from_bits(0x7f80_0000)),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
        ] {
            assert_eq!(Bf16::rounded(value).to_f32(), expected, "{value}");
        }
        // The exact value lies between its neighbours, and none is nearer.
        for i in 0..200_000u32 {
            let value = f32::from_bits(i.wrapping_mul(2_654_435_761));
            if !value.is_finite() || value.abs() > 3e38 {
                continue;
            }
            let found = Bf16::rounded(value);
            let off = |bits: u16| (f64::from(Bf16(bits).to_f32()) - f64::from(value)).abs();
            assert!(off(found.0) <= off(found.0.wrapping_add(1)), "{value}");
            assert!(
                off(found.0) <= off(found.0.wrapping_sub(1)) || found.0 & 0x7fff == 0,
                "{value}"
            );
        }
    }

    #[test]
    fn a_value_passes_where_the_other_is_positive() {
        for (other, passes) in [
            (1.0, true),
            (1e-38, true),
            (0.0, false),
            (-0.0, false),
            (-2.0, false),
        ] {
            let expected = if passes { -3.0 } else { 0.0 };
            assert_eq!((-3.0f32).where_positive(other), expected);
            let found = Bf16::rounded(-3.0).where_positive(Bf16::rounded(other));
            assert_eq!(found.to_f32(), expected, "{other}");
        }
    }
}
