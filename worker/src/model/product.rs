//! Products of f32 matrices on the CPU, into memory that is there already, by the `gemm` crate.
//!
//! Its kernels are faster here than those that libtorch has for 1x1 convolutions and for products, and it takes
//! any strides. A number of the result depends on the sizes and on the processor, not on what lies beside it.

use tch::{Device, Kind, Tensor};

use super::kernels::share_out;

/// A matrix in a tensor's memory.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    at: *mut f32,
    rows: usize,
    columns: usize,
    /// From a row to the next.
    row: isize,
    /// From a column to the next.
    column: isize,
}

// SAFETY: it is used within the functions below only, whose callers' tensors outlive it and whose threads write to
// different rows.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    fn of(x: &Tensor) -> Self {
        assert_eq!((x.device(), x.kind()), (Device::Cpu, Kind::Float));
        let (rows, columns) = x.size2().expect("a matrix has two dimensions");
        let strides = x.stride();
        Self {
            at: x.data_ptr().cast(),
            rows: rows as usize,
            columns: columns as usize,
            row: strides[0] as isize,
            column: strides[1] as isize,
        }
    }

    /// Some rows, from `first` on.
    fn rows(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows);
        Self {
            // SAFETY: within the matrix.
            at: unsafe { self.at.offset(first as isize * self.row) },
            rows,
            ..self
        }
    }
}

/// `out = a b`, all `[rows, columns]` with any strides. What `out` held is overwritten.
pub fn product(out: &Tensor, a: &Tensor, b: &Tensor) {
    let [out, a, b] = [out, a, b].map(Matrix::of);
    let threads = tch::get_num_threads().max(1) as usize;
    let share = out.rows.div_ceil(threads).max(1);
    let shares = (0..out.rows).step_by(share).map(|first| {
        let rows = share.min(out.rows - first);
        (out.rows(first, rows), a.rows(first, rows))
    });
    share_out(shares.collect(), |(out, a)| multiply(out, a, b));
}

/// [`product`] of each matrix in `[count, rows, columns]`.
pub fn products(out: &Tensor, a: &Tensor, b: &Tensor) {
    let count = out.size()[0];
    let each = (0..count).map(|i| [out, a, b].map(|t| Matrix::of(&t.get(i))));
    share_out(each.collect(), |[out, a, b]| multiply(out, a, b));
}

fn multiply(out: Matrix, a: Matrix, b: Matrix) {
    assert_eq!(
        (a.rows, b.columns, a.columns),
        (out.rows, out.columns, b.rows),
        "sizes of a product"
    );
    // SAFETY: the matrices lie within their tensors, by their sizes and strides; `out` is written by this thread
    // alone.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            a.columns,
            out.at,
            out.column,
            out.row,
            false,
            a.at,
            a.column,
            a.row,
            b.at,
            b.column,
            b.row,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{apart, noise};
    use super::*;

    #[test]
    fn products_are_those_of_the_definition_for_any_strides_and_threads() {
        let [a, b] = [noise(&[4, 9, 20], 2.0), noise(&[4, 20, 7], 2.0)];
        let expected = a.to_kind(Kind::Double).bmm(&b.to_kind(Kind::Double));
        // Part of a wider matrix, whose other columns must stay.
        let wide =
            |columns: i64| Tensor::full([4, 9, columns + 3], 5.0, (Kind::Float, Device::Cpu));
        for threads in [1, 3] {
            tch::set_num_threads(threads);
            let (one, all) = (wide(7), wide(7));
            products(&all.narrow(2, 2, 7), &a, &b);
            for i in 0..4 {
                // The same matrices, stored column by column.
                let [a, b] = [a.get(i), b.get(i)].map(|t| t.tr().contiguous().tr());
                product(&one.get(i).narrow(1, 2, 7), &a, &b);
            }
            for found in [one, all] {
                assert!(apart(&found.narrow(2, 2, 7), &expected) < 1e-6);
                for (at, width) in [(0, 2), (9, 1)] {
                    let beside = found.narrow(2, at, width);
                    assert_eq!(beside, beside.full_like(5.0));
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "sizes of a product")]
    fn sizes_that_do_not_fit_are_refused() {
        let [a, b] = [noise(&[3, 4], 1.0), noise(&[5, 2], 1.0)];
        product(&noise(&[3, 2], 1.0), &a, &b);
    }
}
