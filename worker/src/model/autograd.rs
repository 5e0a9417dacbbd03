//! Rust functions in libtorch's autograd, and backward passes that are taken in parts.
//!
//! tch has no call for either, so a little C++ (`autograd.cpp`) makes the node of the graph; forward and backward are
//! computed here. libtorch calls [`run`] and [`forget`]: neither unwinds into C++.

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::Tensor;

use crate::shim::{self, ShimError};

/// The backward pass of a function with one output, with the values that it needs.
pub trait Backward {
    /// Gradients by the inputs, given that by the output. Those that are not `needed` are ignored; None means zero. A panic
    /// becomes an error of [`gradients`].
    fn backward(&self, gradient: &Tensor, needed: &[bool]) -> Vec<Option<Tensor>>;
}

/// Whether a gradient by any of `inputs` may be asked for: autograd is on, and one of them wants it.
pub fn records(inputs: &[&Tensor]) -> bool {
    let inputs = pointers(inputs);
    let mut records = false;
    // SAFETY: valid tensors and a place for the result; nothing is kept.
    let code = unsafe { fovea_records(inputs.as_ptr(), inputs.len(), &mut records) };
    shim::check("fovea_records", code).expect("tensors that exist can be asked");
    records
}

/// `output`, computed without a graph, as a function of `inputs`. It is to be called where [`records`] is true.
///
/// # Panics
/// If libtorch refuses, which it does for tensors that cannot have a gradient.
pub fn attach<B: Backward + 'static>(output: Tensor, inputs: &[&Tensor], backward: B) -> Tensor {
    let operation: Box<Box<dyn Backward>> = Box::new(Box::new(backward));
    let inputs = pointers(inputs);
    let mut attached = std::ptr::null_mut();
    // SAFETY: valid tensors and a place for the result. C++ takes ownership of the operation in any case, and gives it
    // to `forget` once.
    let code = unsafe {
        fovea_attach(
            output.as_ptr().cast(),
            inputs.as_ptr(),
            inputs.len(),
            Box::into_raw(operation).cast(),
            run,
            forget,
            &mut attached,
        )
    };
    shim::check("fovea_attach", code).unwrap_or_else(|error| panic!("{error}"));
    // SAFETY: a fresh tensor, which is ours.
    unsafe { Tensor::from_ptr(attached.cast()) }
}

/// Gradients of the sum of `outputs` by each of `inputs`, given those by the outputs; an output without one is a scalar that
/// is added as it is. The graph between them is used up.
///
/// # Errors
/// If libtorch cannot compute them: because something was changed since the forward pass, say, or a [`Backward`]
/// panicked.
pub fn gradients(
    outputs: &[(&Tensor, Option<&Tensor>)],
    inputs: &[&Tensor],
) -> Result<Vec<Tensor>, ShimError> {
    let inputs = pointers(inputs);
    let mut results = vec![std::ptr::null_mut(); inputs.len()];
    let by_outputs: Vec<*const c_void> = outputs
        .iter()
        .map(|(_, by)| by.map_or(std::ptr::null(), |tensor| tensor.as_ptr().cast()))
        .collect();
    let outputs: Vec<&Tensor> = outputs.iter().map(|(output, _)| *output).collect();
    let outputs = pointers(&outputs);
    // SAFETY: valid tensors, as many places as inputs, and as many gradients or null as outputs.
    let code = unsafe {
        fovea_gradients(
            outputs.as_ptr(),
            by_outputs.as_ptr(),
            outputs.len(),
            inputs.as_ptr(),
            inputs.len(),
            results.as_mut_ptr(),
        )
    };
    shim::check("fovea_gradients", code)?;
    // SAFETY: without an error, all of them are fresh tensors, which are ours.
    let own = |at: *mut c_void| unsafe { Tensor::from_ptr(at.cast()) };
    Ok(results.into_iter().map(own).collect())
}

fn pointers(tensors: &[&Tensor]) -> Vec<*const c_void> {
    let pointer = |tensor: &&Tensor| tensor.as_ptr() as *const c_void;
    tensors.iter().map(pointer).collect()
}

/// See `fovea_backward` in `autograd.cpp`. A panic is caught, and its message given to C++.
extern "C" fn run(
    operation: *mut c_void,
    gradient: *mut c_void,
    needed: *const bool,
    results: *mut *mut c_void,
    inputs: usize,
    text: *mut c_char,
    room: usize,
) -> c_int {
    let done = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: what `attach` gave the node, which is not forgotten yet; arrays of `inputs` places; and a fresh tensor,
        // which is ours from here on.
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
                // C++ deletes it.
                *place = std::mem::ManuallyDrop::new(result).as_mut_ptr().cast();
            }
        }
    }));
    let Err(panic) = done else { return 0 };
    // SAFETY: `room` bytes of C++'s, which C++ has initialised and nobody else uses meanwhile.
    let text = unsafe { std::slice::from_raw_parts_mut(text.cast::<u8>(), room) };
    store(&message(&*panic), text);
    // Dropping what somebody panicked with could panic again.
    std::mem::forget(panic);
    -1
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!(
        "a backward pass panicked: {}",
        text.unwrap_or("without a message")
    )
}

/// Stores as much of `message` as there is room for, and a zero behind it.
fn store(message: &str, text: &mut [u8]) {
    let Some(last) = text.len().checked_sub(1) else {
        return;
    };
    let mut len = message.len().min(last);
    while !message.is_char_boundary(len) {
        len -= 1;
    }
    text[..len].copy_from_slice(&message.as_bytes()[..len]);
    text[len] = 0;
}

/// See `fovea_drop` in `autograd.cpp`.
extern "C" fn forget(operation: *mut c_void) {
    // SAFETY: what `attach` made of a box; C++ gives it back once.
    let operation = unsafe { Box::from_raw(operation.cast::<Box<dyn Backward>>()) };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(operation))) {
        // The panic has been reported by its hook, and there is nobody to give it to.
        std::mem::forget(panic);
    }
}

type Run = extern "C" fn(
    *mut c_void,
    *mut c_void,
    *const bool,
    *mut *mut c_void,
    usize,
    *mut c_char,
    usize,
) -> c_int;

// See `autograd.cpp`.
unsafe extern "C" {
    fn fovea_records(inputs: *const *const c_void, count: usize, records: *mut bool) -> c_int;
    fn fovea_attach(
        output: *const c_void,
        inputs: *const *const c_void,
        count: usize,
        operation: *mut c_void,
        backward: Run,
        drop: extern "C" fn(*mut c_void),
        attached: *mut *mut c_void,
    ) -> c_int;
    fn fovea_gradients(
        outputs: *const *const c_void,
        by_outputs: *const *const c_void,
        output_count: usize,
        inputs: *const *const c_void,
        count: usize,
        results: *mut *mut c_void,
    ) -> c_int;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tch::{Device, Kind, no_grad};

    use super::*;

    /// Doubles, or panics, and counts how often it was dropped.
    struct Double {
        panics: Option<String>,
        dropped: Arc<AtomicUsize>,
    }

    impl Backward for Double {
        fn backward(&self, gradient: &Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
            if let Some(message) = &self.panics {
                panic!("{message}");
            }
            vec![Some(gradient * 2.0)]
        }
    }

    impl Drop for Double {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            if self.panics.is_some() {
                panic!("a panic while dropping");
            }
        }
    }

    fn doubled(x: &Tensor, panics: Option<&str>, dropped: &Arc<AtomicUsize>) -> Tensor {
        let backward = Double {
            panics: panics.map(str::to_owned),
            dropped: Arc::clone(dropped),
        };
        attach(no_grad(|| x * 2.0), &[x], backward)
    }

    fn input() -> Tensor {
        Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true)
    }

    #[test]
    fn a_function_is_used_once_and_dropped_once() {
        let (x, dropped) = (input(), Arc::default());
        let y = doubled(&x, None, &dropped).sum(None);
        let found = gradients(&[(&y, None)], &[&x]).unwrap().remove(0);
        assert_eq!(found, x.full_like(2.0));
        assert_eq!(dropped.load(Ordering::Relaxed), 1, "the graph is used up");
        let again = gradients(&[(&y, None)], &[&x]).unwrap_err();
        assert_eq!(again.call, "fovea_gradients");
        assert!(!again.reason.is_empty());
        drop(y);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_panic_in_a_backward_pass_is_an_error_with_its_message() {
        let long = format!("reason {}", "ü".repeat(1000));
        for message in ["the reason", &long] {
            let (x, dropped) = (input(), Arc::default());
            let y = doubled(&x, Some(message), &dropped).sum(None);
            let error = gradients(&[(&y, None)], &[&x]).unwrap_err();
            let start = "a backward pass panicked: ";
            let found = error.reason.strip_prefix(start).expect(&error.reason);
            assert!(message.starts_with(found) && found.len() > 8, "{found}");
            // It panics when it is dropped, too, and that does not unwind into C++ either.
            drop(y);
            assert_eq!(dropped.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn what_has_no_graph_has_no_gradient() {
        let (x, y) = (input(), Tensor::ones([1], (Kind::Float, Device::Cpu)));
        let error = gradients(&[(&y, None)], &[&x]).unwrap_err();
        assert!(error.reason.contains("does not require grad"), "{error}");
        assert!(records(&[&y, &x]));
        assert!(!records(&[&y]) && !no_grad(|| records(&[&x])));
    }
}
