//! Work that waits for the disk or computes for long, on a thread for that.

/// The work panicked: a defect of the program. The panic's text is on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("work on a blocking thread panicked; this is a defect in fovea, and its log shows where")]
pub struct Panicked;

/// Does `work` on a thread that may wait, and returns its result.
///
/// # Errors
/// `work` panicked.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Panicked> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) if error.is_panic() => Err(Panicked),
        // The runtime ends, and with it whoever waits here.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_its_caller() {
        assert_eq!(blocking(|| 3).await, Ok(3));
        assert_eq!(
            blocking(|| -> u32 { panic!("on purpose") }).await,
            Err(Panicked)
        );
    }
}
