//! Tells the tests whether this machine has AVX2, so that a test that needs it is reported as ignored elsewhere.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(has_avx2)");
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        println!("cargo::rustc-cfg=has_avx2");
    }
}
