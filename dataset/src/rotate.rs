//! Exact rotation of records, the only augmentation of the recipe.

/// Turns a square picture by `quarter_turns` × 90° counter-clockwise, as `numpy.rot90` and
/// `torch.rot90` over (H, W) do. No pixel is interpolated.
///
/// `src` and `dst` hold `size` × `size` × 3 bytes in HWC order; the channels stay together.
/// `quarter_turns` is taken modulo 4.
///
/// # Panics
/// If a buffer has another length.
pub fn rotate90(src: &[u8], size: usize, quarter_turns: u8, dst: &mut [u8]) {
    assert_eq!(src.len(), size * size * 3, "source is not size x size x 3");
    assert_eq!(dst.len(), src.len(), "destination is not size x size x 3");
    if size == 0 {
        return;
    }
    let row = size * 3;
    let last = size - 1;
    // dst[y][x] = src[f(y, x)]; the start and the step in `src` along a row of `dst`.
    match quarter_turns % 4 {
        0 => dst.copy_from_slice(src),
        1 => fill(dst, row, |y| pixels_along(src, (0, last - y), 1, 0, size)),
        2 => fill(dst, row, |y| {
            pixels_along(src, (last - y, last), 0, -1, size)
        }),
        _ => fill(dst, row, |y| pixels_along(src, (last, y), -1, 0, size)),
    }
}

fn fill<'a, I: Iterator<Item = &'a [u8]>>(dst: &mut [u8], row: usize, pixels: impl Fn(usize) -> I) {
    for (y, out) in dst.chunks_exact_mut(row).enumerate() {
        for (to, from) in out.chunks_exact_mut(3).zip(pixels(y)) {
            to.copy_from_slice(from);
        }
    }
}

/// `size` pixels of `src`, from (row, column) on, stepping by (`down`, `right`).
fn pixels_along(
    src: &[u8],
    (y, x): (usize, usize),
    down: isize,
    right: isize,
    size: usize,
) -> impl Iterator<Item = &[u8]> {
    let step = down * size as isize + right;
    let first = (y * size + x) as isize;
    (0..size as isize).map(move |i| {
        let at = (first + i * step) as usize * 3;
        &src[at..at + 3]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A picture whose pixel n is (n, 100 + n, 200 + n).
    fn picture(order: &[u8]) -> Vec<u8> {
        order.iter().flat_map(|n| [*n, 100 + n, 200 + n]).collect()
    }

    fn turned(src: &[u8], size: usize, turns: u8) -> Vec<u8> {
        let mut dst = vec![0; src.len()];
        rotate90(src, size, turns, &mut dst);
        dst
    }

    /// Expected values written down from numpy.rot90([[0,1],[2,3]], k) and of 3 x 3.
    #[test]
    fn agrees_with_numpy_rot90() {
        let two = picture(&[0, 1, 2, 3]);
        assert_eq!(turned(&two, 2, 0), two);
        assert_eq!(turned(&two, 2, 1), picture(&[1, 3, 0, 2]));
        assert_eq!(turned(&two, 2, 2), picture(&[3, 2, 1, 0]));
        assert_eq!(turned(&two, 2, 3), picture(&[2, 0, 3, 1]));
        let three = picture(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(turned(&three, 3, 1), picture(&[2, 5, 8, 1, 4, 7, 0, 3, 6]));
        assert_eq!(turned(&three, 3, 2), picture(&[8, 7, 6, 5, 4, 3, 2, 1, 0]));
        assert_eq!(turned(&three, 3, 3), picture(&[6, 3, 0, 7, 4, 1, 8, 5, 2]));
    }

    proptest! {
        #[test]
        fn turns_add_up(size in 1usize..12, a in 0u8..8, b in 0u8..8, key in any::<u8>()) {
            let src: Vec<u8> = (0..size * size * 3)
                .map(|i| (i as u8).wrapping_mul(31).wrapping_add(key))
                .collect();
            prop_assert_eq!(turned(&turned(&src, size, a), size, b), turned(&src, size, (a + b) % 4));
            prop_assert_eq!(turned(&src, size, 4), src);
        }
    }
}
