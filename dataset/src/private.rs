//! Folders that only their owner may look into.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Makes a folder for patients' photographs, names and grades, and the missing ones above it, for its owner alone (0700),
/// whatever the umask allows. One that is there keeps its mode.
///
/// # Errors
/// What the system says.
pub fn make_private(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn new_folders_are_for_their_owner_and_others_stay_as_they_are() {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        fs::create_dir(at("there")).unwrap();
        fs::set_permissions(at("there"), Permissions::from_mode(0o750)).unwrap();
        make_private(&at("there/new/below")).unwrap();
        assert_eq!([mode("there/new"), mode("there/new/below")], [0o700; 2]);
        make_private(&at("there")).unwrap();
        assert_eq!(mode("there"), 0o750);
    }
}
