//! Numbers of things, in people's grammar. Every text of the client that counts uses it.

/// `1 image`, `2 images`.
pub(crate) fn count<N: TryInto<u64>>(n: N, one: &str, many: &str) -> String {
    let n = number(n);
    format!("{n} {}", plural(n, one, many))
}

/// The word alone: `one` for 1, else `many`.
pub(crate) fn plural<'a, N: TryInto<u64>>(n: N, one: &'a str, many: &'a str) -> &'a str {
    if number(n) == 1 { one } else { many }
}

/// No number of things is negative or above `u64::MAX`.
fn number<N: TryInto<u64>>(n: N) -> u64 {
    n.try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_all_others_are_plural() {
        for (n, text) in [
            (0, "0 packs"),
            (1, "1 pack"),
            (2, "2 packs"),
            (11, "11 packs"),
        ] {
            assert_eq!(count(n, "pack", "packs"), text);
        }
        assert_eq!(count(1u64, "worker is", "workers are"), "1 worker is");
        assert_eq!(plural(1usize, "fetches", "fetch"), "fetches");
        assert_eq!(plural(0usize, "fetches", "fetch"), "fetch");
    }
}
