//! Functions of our own in libtorch's autograd, and backward passes that are taken in parts.
//!
//! tch has no call for either, so a little C++ (`autograd.cpp`) makes the node of the graph; forward and
//! backward are computed here.

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

/// The backward pass of a function with one output, and what it keeps for it.
pub trait Backward {
    /// Gradients by the inputs, given that by the output. Only those `needed` count; None means zero.
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>>;
}

/// Whether a gradient by any of `inputs` may be asked for: autograd is on, and one of them wants it.
pub fn records(inputs: &[&Tensor]) -> bool {
    let inputs = pointers(inputs);
    // SAFETY: valid tensors, of which nothing is kept.
    unsafe { fovea_records(inputs.as_ptr(), inputs.len()) }
}

/// `output`, computed without a graph, as a function of `inputs`. For use where [`records`] says so.
pub fn attach<B: Backward + 'static>(output: Tensor, inputs: &[&Tensor], backward: B) -> Tensor {
    let operation: Box<Box<dyn Backward>> = Box::new(Box::new(backward));
    let inputs = pointers(inputs);
    // SAFETY: valid tensors; the node takes the operation over, and gives it back to `forget` once; and
    // what comes back is ours.
    unsafe {
        let attached = fovea_attach(
            output.as_ptr().cast(),
            inputs.as_ptr(),
            inputs.len(),
            Box::into_raw(operation).cast(),
            run,
            forget,
        );
        Tensor::from_ptr(attached.cast())
    }
}

/// Gradients of `output` by each of `inputs`, given that by `output` itself; without it, `output` is a scalar. The
/// graph between them is used up.
///
/// # Panics
/// If libtorch says that it cannot: say, because something was changed since the forward pass.
pub fn gradients(output: &Tensor, by_output: Option<&Tensor>, inputs: &[&Tensor]) -> Vec<Tensor> {
    let inputs = pointers(inputs);
    let mut results = vec![std::ptr::null_mut(); inputs.len()];
    let by_output = by_output.map_or(std::ptr::null(), |tensor| tensor.as_ptr().cast());
    // SAFETY: valid tensors, and as many places as inputs; what comes back is ours: all of them, or a text.
    unsafe {
        let problem = fovea_gradients(
            output.as_ptr().cast(),
            by_output,
            inputs.as_ptr(),
            inputs.len(),
            results.as_mut_ptr(),
        );
        if !problem.is_null() {
            let text = CStr::from_ptr(problem).to_string_lossy().into_owned();
            libc::free(problem.cast());
            panic!("the backward pass failed: {text}");
        }
        let results = results.into_iter();
        results.map(|at| Tensor::from_ptr(at.cast())).collect()
    }
}

fn pointers(tensors: &[&Tensor]) -> Vec<*const c_void> {
    let pointer = |tensor: &&Tensor| tensor.as_ptr() as *const c_void;
    tensors.iter().map(pointer).collect()
}

/// See `fovea_backward` in `autograd.cpp`. A panic must not cross into C++.
extern "C" fn run(
    operation: *mut c_void,
    gradient: *mut c_void,
    needed: *const bool,
    results: *mut *mut c_void,
    inputs: usize,
) -> bool {
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: what `attach` gave the node, which is not forgotten yet; arrays of `inputs` places; and
        // a tensor that is ours from here on.
        let (operation, needed, results, gradient) = unsafe {
            (
                &**operation.cast::<Box<dyn Backward>>(),
                std::slice::from_raw_parts(needed, inputs),
                std::slice::from_raw_parts_mut(results, inputs),
                Tensor::from_ptr(gradient.cast()),
            )
        };
        for (place, result) in results
            .iter_mut()
            .zip(operation.backward(&gradient, needed))
        {
            if let Some(result) = result {
                // The other side deletes it.
                *place = std::mem::ManuallyDrop::new(result).as_mut_ptr().cast();
            }
        }
    }));
    done.is_ok()
}

extern "C" fn forget(operation: *mut c_void) {
    // SAFETY: what `attach` made of a box; the node gives it back once.
    let operation = unsafe { Box::from_raw(operation.cast::<Box<dyn Backward>>()) };
    // Nothing that is kept panics when it goes; if it did, the process would end.
    drop(operation);
}

type Run = extern "C" fn(*mut c_void, *mut c_void, *const bool, *mut *mut c_void, usize) -> bool;

unsafe extern "C" {
    fn fovea_records(inputs: *const *const c_void, count: usize) -> bool;
    fn fovea_attach(
        output: *const c_void,
        inputs: *const *const c_void,
        count: usize,
        operation: *mut c_void,
        backward: Run,
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_void;
    fn fovea_gradients(
        output: *const c_void,
        by_output: *const c_void,
        inputs: *const *const c_void,
        count: usize,
        results: *mut *mut c_void,
    ) -> *mut c_char;
}
