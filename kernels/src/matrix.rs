//! Products of f32 matrices into memory that exists already, by the `gemm` crate.
//!
//! Its kernels are faster than libtorch's for 1x1 convolutions and for the products of Winograd's filtering, and it takes
//! any strides. The bits of a product depend on the sizes and on the processor, not on what lies beside a matrix.
//!
//! This module is the only one in the crate with raw pointers: the parts of one output matrix that threads write interleave
//! in memory, so they cannot be slices. [`MatrixMut`] is a checked splitter: it is made from a `&mut [f32]` and can only
//! be divided into parts that do not overlap.

use std::marker::PhantomData;

use crate::Threads;
use crate::threads::share_out;

/// A matrix to be read: a view of a slice, with any distance between rows and between columns.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// Begins with the matrix's first value and holds all the others.
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// Values from a row to the next.
    row_stride: usize,
    /// Values from a column to the next.
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as `[rows, columns]`.
    ///
    /// # Panics
    /// If the length of `values` is another one.
    #[track_caller]
    pub fn dense(values: &'a [f32], rows: usize, columns: usize) -> Self {
        check_dense(values.len(), rows, columns);
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// The transpose, without a copy.
    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// `count` rows from `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    #[track_caller]
    pub fn rows(self, first: usize, count: usize) -> Self {
        check_part("rows", first, count, self.rows);
        Self {
            values: from(self.values, first * self.row_stride),
            rows: count,
            ..self
        }
    }

    /// `count` columns from `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    #[track_caller]
    pub fn columns(self, first: usize, count: usize) -> Self {
        let transposed = self.transposed();
        check_part("columns", first, count, self.columns);
        transposed.rows(first, count).transposed()
    }
}

/// `values` from `at` on; none where an empty matrix would begin beyond the end.
fn from(values: &[f32], at: usize) -> &[f32] {
    values.get(at..).unwrap_or_default()
}

/// A matrix to be written: rows of contiguous values, at one distance from each other.
///
/// Invariant: for all `r < rows` and `c < columns`, the value at `first + r * stride + c` belongs to this view alone for
/// the lifetime `'a`, and `columns <= stride` wherever there are several rows.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    first: *mut f32,
    rows: usize,
    columns: usize,
    /// Values from a row to the next.
    stride: usize,
    values: PhantomData<&'a mut [f32]>,
}

// SAFETY: the view owns its values alone, as a `&mut [f32]` does, which is Send. The pointer is only used for them.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// `values` as `[rows, columns]`.
    ///
    /// # Panics
    /// If the length of `values` is another one.
    #[track_caller]
    pub fn dense(values: &'a mut [f32], rows: usize, columns: usize) -> Self {
        check_dense(values.len(), rows, columns);
        // The invariant holds: row r ends where row r + 1 begins, and the last one where `values` does, which is
        // borrowed for 'a.
        Self {
            first: values.as_mut_ptr(),
            rows,
            columns,
            stride: columns,
            values: PhantomData,
        }
    }

    /// Divides it into groups of `rows` rows each; the last group may have fewer.
    pub fn split_rows(self, rows: usize) -> impl Iterator<Item = MatrixMut<'a>> {
        let rows = rows.max(1);
        // Groups have different rows, so their values are distinct by the invariant, and `self` is gone.
        (0..self.rows).step_by(rows).map(move |first| MatrixMut {
            // No overflow: as `first < self.rows`, this is the place of a value of `self`, or `self` has no columns
            // and the product is at most the length of a slice that exists.
            first: self.first.wrapping_add(first * self.stride),
            rows: rows.min(self.rows - first),
            ..self
        })
    }

    /// Divides it into groups of `columns` columns each.
    ///
    /// # Panics
    /// If the number of columns is not a multiple.
    #[track_caller]
    pub fn split_columns(self, columns: usize) -> impl Iterator<Item = MatrixMut<'a>> {
        assert!(
            columns > 0 && self.columns.is_multiple_of(columns),
            "{} columns cannot be divided into groups of {columns}",
            self.columns
        );
        // Groups have different columns, so their values are distinct by the invariant, and `self` is gone.
        (0..self.columns)
            .step_by(columns)
            .map(move |first| MatrixMut {
                first: self.first.wrapping_add(first),
                columns,
                ..self
            })
    }
}

#[track_caller]
fn check_dense(len: usize, rows: usize, columns: usize) {
    assert!(
        rows.checked_mul(columns) == Some(len),
        "{len} values for a matrix of {rows}x{columns}"
    );
}

#[track_caller]
fn check_part(what: &str, first: usize, count: usize, all: usize) {
    assert!(
        first.checked_add(count).is_some_and(|end| end <= all),
        "{what} {first}..{first}+{count} of a matrix with {all}"
    );
}

/// `out = a b`. What `out` held is overwritten. Threads share the rows.
///
/// # Panics
/// If the sizes do not fit.
#[track_caller]
pub fn product(threads: Threads, out: MatrixMut, a: Matrix, b: Matrix) {
    check_product(&out, a, b);
    let share = out.rows.div_ceil(threads.get()).max(1);
    let mut first = 0;
    let work = out.split_rows(share).map(|out| {
        let a = a.rows(first, out.rows);
        first += out.rows;
        (out, a)
    });
    share_out(threads, work, |(out, a)| multiply(out, a, b));
}

/// [`product`] for each of several matrices. Threads share the products.
///
/// # Panics
/// If the sizes of one product do not fit.
#[track_caller]
pub fn products<'a>(
    threads: Threads,
    each: impl Iterator<Item = (MatrixMut<'a>, Matrix<'a>, Matrix<'a>)>,
) {
    share_out(threads, each, |(out, a, b)| {
        check_product(&out, a, b);
        multiply(out, a, b)
    });
}

#[track_caller]
fn check_product(out: &MatrixMut, a: Matrix, b: Matrix) {
    assert!(
        (a.rows, b.columns, a.columns) == (out.rows, out.columns, b.rows),
        "product: {}x{} times {}x{} does not give {}x{}",
        a.rows,
        a.columns,
        b.rows,
        b.columns,
        out.rows,
        out.columns,
    );
}

/// The one call of `gemm`. The sizes are checked by the callers, and again here, because the safety depends on it.
fn multiply(out: MatrixMut, a: Matrix, b: Matrix) {
    check_product(&out, a, b);
    for matrix in [a, b] {
        assert!(
            reach(matrix).is_some_and(|reach| reach <= matrix.values.len()),
            "product: {matrix:?} reaches beyond its values"
        );
    }
    // A stride of a slice that exists is at most `isize::MAX`, so the casts keep it.
    let [out_stride, a_rows, a_columns, b_rows, b_columns] = [
        out.stride,
        a.row_stride,
        a.column_stride,
        b.row_stride,
        b.column_stride,
    ]
    .map(|stride| stride as isize);
    // SAFETY: `gemm` reads m x k values at `a` and k x n values at `b`, by their strides: both lie within their slices
    // by the assertion above. It writes m x n values at `out`, all of which belong to `out` alone by its invariant
    // (`a` and `b` are borrowed slices, so they cannot overlap it), and does not read them (`read_dst` is false).
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.first,
            1,
            out_stride,
            false,
            a.values.as_ptr(),
            a_columns,
            a_rows,
            b.values.as_ptr(),
            b_columns,
            b_rows,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Values from the first one of a matrix to behind its last one.
fn reach(matrix: Matrix) -> Option<usize> {
    if matrix.rows == 0 || matrix.columns == 0 {
        return Some(0);
    }
    let down = (matrix.rows - 1).checked_mul(matrix.row_stride)?;
    let across = (matrix.columns - 1).checked_mul(matrix.column_stride)?;
    down.checked_add(across)?.checked_add(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{close, exact, noise, refused};

    /// By the definition, in f64. Matrices are dense.
    fn defined(a: &[f32], b: &[f32], [rows, inner, columns]: [usize; 3]) -> Vec<f64> {
        let (a, b) = (exact(a), exact(b));
        let value = |at: usize| {
            let (row, column) = (at / columns, at % columns);
            let terms = (0..inner).map(|i| a[row * inner + i] * b[i * columns + column]);
            terms.sum()
        };
        (0..rows * columns).map(value).collect()
    }

    fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let at = |i: usize| x[i % rows * columns + i / rows];
        (0..rows * columns).map(at).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_product_is_that_of_the_definition(
            rows in 1usize..40, inner in 1usize..40, columns in 1usize..40,
            threads in 1usize..5, seed in 0u64..1000,
        ) {
            let (a, b) = (noise(rows * inner, seed), noise(inner * columns, seed + 1));
            let expected = defined(&a, &b, [rows, inner, columns]);
            let (left, right) = (Matrix::dense(&a, rows, inner), Matrix::dense(&b, inner, columns));
            let by_column = [transposed(&a, rows, inner), transposed(&b, inner, columns)];
            let turned = [
                Matrix::dense(&by_column[0], inner, rows).transposed(),
                Matrix::dense(&by_column[1], columns, inner).transposed(),
            ];
            for (a, b) in [(left, right), (turned[0], turned[1]), (left, turned[1])] {
                let mut out = vec![f32::NAN; rows * columns];
                let into = MatrixMut::dense(&mut out, rows, columns);
                product(Threads::new(threads), into, a, b);
                close(&out, &expected, 1e-5);
            }
        }

        /// The layout of Winograd's places: matrices that interleave in memory, written by several threads.
        #[test]
        fn products_side_by_side_write_their_own_columns(
            count in 1usize..6, rows in 1usize..12, inner in 1usize..12, columns in 1usize..12,
            threads in 1usize..5, seed in 0u64..1000,
        ) {
            let a = noise(rows * count * inner, seed);
            let b = noise(inner * count * columns, seed + 1);
            let (all_a, all_b) = (
                Matrix::dense(&a, rows, count * inner),
                Matrix::dense(&b, inner, count * columns),
            );
            let pairs = || (0..count).map(|i| {
                (all_a.columns(i * inner, inner), all_b.columns(i * columns, columns))
            });
            let mut out = vec![f32::NAN; rows * count * columns];
            let parts = MatrixMut::dense(&mut out, rows, count * columns).split_columns(columns);
            let each = parts.zip(pairs()).map(|(out, (a, b))| (out, a, b));
            products(Threads::new(threads), each);
            for (i, (a, b)) in pairs().enumerate() {
                let mut alone = vec![0.0; rows * columns];
                product(Threads::ONE, MatrixMut::dense(&mut alone, rows, columns), a, b);
                let found = out.chunks(count * columns).flat_map(|row| &row[i * columns..][..columns]);
                prop_assert!(found.eq(alone.iter()), "matrix {i}");
            }
        }

        /// Whatever is split and split again, the parts have all places, and none twice.
        #[test]
        fn parts_of_a_matrix_are_disjoint_and_complete(
            rows in 0usize..9, groups in 1usize..5, width in 1usize..5, share in 0usize..5,
        ) {
            let mut values = vec![0.0; rows * groups * width];
            let start = values.as_ptr() as usize;
            let all = MatrixMut::dense(&mut values, rows, groups * width);
            let mut seen: Vec<usize> = Vec::new();
            for part in all.split_columns(width).flat_map(|part| part.split_rows(share)) {
                for row in 0..part.rows {
                    for column in 0..part.columns {
                        let at = part.first as usize - start + 4 * (row * part.stride + column);
                        seen.push(at / 4);
                    }
                }
            }
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..rows * groups * width));
        }
    }

    #[test]
    fn a_product_of_nothing_is_zero_or_empty() {
        let mut out = vec![f32::NAN; 6];
        let (a, b) = (Matrix::dense(&[], 2, 0), Matrix::dense(&[], 0, 3));
        product(Threads::ONE, MatrixMut::dense(&mut out, 2, 3), a, b);
        assert_eq!(out, [0.0; 6]);
        let values = [1.0; 6];
        let wide = Matrix::dense(&values, 2, 3);
        product(
            Threads::new(2),
            MatrixMut::dense(&mut [], 0, 3),
            wide.rows(2, 0).columns(0, 2),
            wide,
        );
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        let values = [1.0; 24];
        let matrix = |rows, columns| Matrix::dense(&values[..rows * columns], rows, columns);
        let multiply = |rows, columns, a, b| {
            let mut out = vec![0.0; rows * columns];
            product(
                Threads::new(2),
                MatrixMut::dense(&mut out, rows, columns),
                a,
                b,
            );
        };
        refused(
            || multiply(3, 2, matrix(3, 4), matrix(5, 2)),
            "3x4 times 5x2 does not give 3x2",
        );
        refused(
            || multiply(2, 2, matrix(3, 4), matrix(4, 2)),
            "does not give 2x2",
        );
        refused(
            || multiply(3, 3, matrix(3, 4), matrix(4, 2)),
            "does not give 3x3",
        );
        refused(
            || Matrix::dense(&values, 5, 5),
            "24 values for a matrix of 5x5",
        );
        refused(
            || Matrix::dense(&values, usize::MAX, 2),
            "24 values for a matrix",
        );
        refused(|| matrix(3, 4).rows(2, 2), "rows 2..2+2 of a matrix with 3");
        refused(|| matrix(3, 4).columns(usize::MAX, 2), "of a matrix with 4");
        let mut out = [0.0; 12];
        refused(
            || MatrixMut::dense(&mut out[..3], 2, 2).rows,
            "3 values for a matrix of 2x2",
        );
        let whole = MatrixMut::dense(&mut out, 3, 4);
        refused(
            || whole.split_columns(3),
            "4 columns cannot be divided into groups of 3",
        );
    }
}
