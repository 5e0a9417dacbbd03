//! The machine that this worker runs on.

/// Its name; None if it has none.
pub fn hostname() -> Option<String> {
    kernel("hostname")
}

/// Its boot id, which is the same for all processes until it boots again, in whatever container; empty if it is not known.
pub fn boot_id() -> String {
    kernel("random/boot_id").unwrap_or_default()
}

fn kernel(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
    Some(text.trim().to_owned())
}
