//! File descriptors: how many this process may have, and how many it has.
//!
//! Every connection and every open file takes one. A process without a free one can neither accept
//! a connection nor open its own files, so servers raise their limit at the start and keep a reserve
//! from their clients.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard limit, which needs no privilege, and returns
/// the number of descriptors that the process may have from now on.
///
/// Where the system refuses, the limit stays as it is.
pub fn raise_descriptor_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let wanted = Rlimit {
            current: maximum,
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::debug!("cannot raise the limit of file descriptors: {error}");
        }
    }
    descriptor_limit()
}

/// The number of descriptors that the process may have; `u64::MAX` if there is no limit.
pub fn descriptor_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// The number of descriptors that are open now.
///
/// # Errors
/// If /proc/self/fd cannot be listed.
pub fn open_descriptors() -> io::Result<u64> {
    let listed = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    // One of them was the listing itself.
    Ok(listed.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_an_open_file_counts() {
        let limit = raise_descriptor_limit();
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.current, after.maximum);
        assert_eq!(limit, descriptor_limit());
        // Other tests of this process open and close files meanwhile; 200 stand out.
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..200)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        let during = open_descriptors().unwrap();
        drop(files);
        assert!(during >= before + 150, "{before} before, {during} during");
    }
}
