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
