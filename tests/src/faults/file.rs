//! A file whose bits have rotted.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Flips one bit in the middle of a file. Its length stays, so that only its content can give it away.
///
/// # Errors
/// If the file is empty, or what the system says.
pub fn corrupt_file(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if length == 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is empty", path.display()),
        ));
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, length / 2)?;
    byte[0] ^= 1;
    file.write_all_at(&byte, length / 2)
}
