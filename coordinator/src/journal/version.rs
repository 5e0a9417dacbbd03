//! Versions of the journal's schema.

/// The version that this code writes.
pub(super) const VERSION: i64 = 3;
/// The oldest version that can be migrated.
pub(super) const OLDEST: i64 = 2;
