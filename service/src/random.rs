//! Random bytes from the operating system, for keys and identities.

/// `N` random bytes that nobody can predict.
///
/// They come from the kernel by the `getrandom` system call, which needs no file descriptor: a
/// process that has used up its descriptors can still make a key.
///
/// # Panics
/// If the kernel has no source of randomness. Linux always has one since version 3.17.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        panic!("the operating system gives no random bytes: {error}");
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_equal_and_no_length_is_wrong() {
        let keys: std::collections::HashSet<[u8; 16]> = (0..100).map(|_| random_bytes()).collect();
        assert_eq!(keys.len(), 100);
        assert_eq!(random_bytes::<0>(), [0; 0]);
    }
}
