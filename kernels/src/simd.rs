//! Compiles a function for the vector instructions of the processor that it runs on.

/// Defines `$name`, which does what `$any` (an `#[inline(always)]` function) does. It is compiled twice, for AVX2 and for
/// any x86-64, and chooses when it is called. Both give the same bits, because neither contracts a multiplication
/// and an addition into one instruction (FMA is another target feature, which is not enabled).
macro_rules! for_this_processor {
    ($(#[$doc:meta])* $name:ident $(<$generic:ident: $bound:path>)?, $any:ident, ($($arg:ident: $type:ty),*)) => {
        $(#[$doc])*
        pub(crate) fn $name$(<$generic: $bound>)?($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide$(<$generic: $bound>)?($($arg: $type),*) {
                    $any($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: `wide` is a safe function whose only requirement is AVX2, which this processor has.
                    return unsafe { wide($($arg),*) };
                }
            }
            $any($($arg),*)
        }
    };
}

pub(crate) use for_this_processor;
