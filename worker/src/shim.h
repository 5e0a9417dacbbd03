// The error convention of all C++ that Rust calls.
//
// Every exported function is `extern "C"` and returns 0, or -1 with a text that `fovea_shim_error` gives to the same thread
// until the next failure. Results are written through pointers, and only on success. The body runs in `fovea::guarded`,
// which catches every exception: none may unwind into Rust, which would abort the process at best.
//
// Functions that only delete an object return nothing: they cannot fail.

#pragma once

#include <exception>

namespace fovea {

// Stores the text of an error for this thread. Returns -1.
int failed(const char *what) noexcept;

template <typename Body> int guarded(Body &&body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception &error) {
    return failed(error.what());
  } catch (...) {
    return failed("a C++ exception that is not a std::exception");
  }
}

} // namespace fovea
