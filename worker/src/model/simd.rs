//! Compiling a function for the vectors of the processor that it runs on.

/// Defines `$name`, which does what `$any` (an `#[inline(always)]` function) does, compiled twice: for AVX2
/// and for any x86-64; it chooses when called. Both give the same bits, since neither contracts a
/// multiplication and an addition into one.
macro_rules! for_this_processor {
    ($(#[$doc:meta])* $name:ident, $any:ident, ($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($arg: $type),*) {
                    $any($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has just been found to have AVX2.
                    return unsafe { wide($($arg),*) };
                }
            }
            $any($($arg),*)
        }
    };
}

pub(super) use for_this_processor;
