//! The numbers of a CPU tensor as a slice.

use tch::Tensor;

/// # Safety
/// `x` must be a contiguous f32 tensor on the CPU, whose numbers nobody changes while the slice is used.
pub unsafe fn values(x: &Tensor) -> &[f32] {
    // SAFETY: see above.
    unsafe { numbers(x) }
}

/// # Safety
/// `x` must be a contiguous f32 tensor on the CPU, whose numbers nobody else reads or changes while the
/// slice is used.
#[allow(clippy::mut_from_ref)] // A tensor is a shared handle; the caller vouches for uniqueness.
pub unsafe fn values_mut(x: &Tensor) -> &mut [f32] {
    // SAFETY: see above.
    unsafe { numbers_mut(x) }
}

/// # Safety
/// As of [`values`], for numbers of the type `T`.
pub unsafe fn numbers<T>(x: &Tensor) -> &[T] {
    debug_assert!(x.is_contiguous());
    // SAFETY: see above; the tensor keeps its storage alive as long as it is borrowed.
    unsafe { std::slice::from_raw_parts(x.data_ptr() as *const T, x.numel()) }
}

/// # Safety
/// As of [`values_mut`], for numbers of the type `T`.
#[allow(clippy::mut_from_ref)] // As above.
pub unsafe fn numbers_mut<T>(x: &Tensor) -> &mut [T] {
    debug_assert!(x.is_contiguous());
    // SAFETY: see above; the tensor keeps its storage alive as long as it is borrowed.
    unsafe { std::slice::from_raw_parts_mut(x.data_ptr() as *mut T, x.numel()) }
}
