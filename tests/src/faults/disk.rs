//! A small disk, which can be filled up.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A small tmpfs over a folder, unmounted when dropped.
///
/// Mount it before starting what shall use it: a process in a mount namespace of its own, such as one that
/// [`Partition`](super::Partition) starts, has the mounts there were when it started.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
}

impl SmallDisk {
    /// Mounts `bytes` of space (rounded up to pages) over an existing folder, hiding what is in it.
    ///
    /// # Errors
    /// What the system says; mounting takes root.
    pub fn mount(folder: &Path, bytes: u64) -> io::Result<Self> {
        let options = CString::new(format!("size={bytes}")).expect("digits hold no NUL");
        let target = c_path(folder)?;
        // Safety: every pointer is to a string that ends in NUL and outlives the call.
        let result = unsafe {
            libc::mount(
                c"fovea-small-disk".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Takes all the space that is left, and returns how many bytes that was. A second call takes what has been freed
    /// since.
    ///
    /// # Errors
    /// What the system says, other than that the disk is full.
    pub fn fill(&self) -> io::Result<u64> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        let block = vec![0; 1 << 16];
        let mut taken = 0;
        loop {
            match file.write(&block) {
                Ok(written) => taken += written as u64,
                Err(e) if e.kind() == io::ErrorKind::StorageFull => return Ok(taken),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Gives back the space that `fill` took.
    ///
    /// # Errors
    /// What the system says.
    pub fn free(&self) -> io::Result<()> {
        match fs::remove_file(self.filler()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Not a name that a program would take for one of its own temporary files and remove.
    fn filler(&self) -> PathBuf {
        self.folder.join("taken-by-the-test")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Ok(target) = c_path(&self.folder) {
            // Detached rather than unmounted, because a process may still have files open there.
            // Safety: a string that ends in NUL and outlives the call.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}
