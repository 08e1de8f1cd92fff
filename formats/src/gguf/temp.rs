//! A temporary file beside its target, so that the rename which puts it in place is one step on one file system.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use crate::FormatError;

/// How many names are tried before giving up.
const ATTEMPTS: u32 = 100;

/// Removed when dropped, unless it was renamed.
#[derive(Debug)]
pub(super) struct TempFile {
    path: PathBuf,
    /// The name it will have.
    pub(super) target: PathBuf,
    renamed: bool,
}

impl TempFile {
    /// A new, empty file in the folder of `target`.
    pub(super) fn beside(target: &Path) -> Result<(Self, File), FormatError> {
        let failed = |source| FormatError::Io { action: "create", path: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut refusal = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..ATTEMPTS {
            let mut temp = OsString::from(".");
            temp.push(name);
            temp.push(format!(".tmp-{}-{attempt}", process::id()));
            let path = target.with_file_name(temp);
            match File::create_new(&path) {
                Ok(file) => return Ok((Self { path, target: target.to_owned(), renamed: false }, file)),
                // Another writer of this process has that name, or a dead one left it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refusal = error,
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(refusal))
    }

    /// Puts the file in place of the target and makes that durable.
    pub(super) fn rename(mut self) -> Result<(), FormatError> {
        let target = self.target.clone();
        let failed = |action| {
            let path = target.clone();
            move |source| FormatError::Io { action, path, source }
        };
        fs::rename(&self.path, &target).map_err(failed("rename"))?;
        self.renamed = true;
        // The name is on disk when its folder is. Only Unix lets a folder be opened for that.
        #[cfg(unix)]
        {
            let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = File::open(folder.unwrap_or(Path::new(".")));
            folder.and_then(|folder| folder.sync_all()).map_err(failed("sync"))?;
        }
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here; the file is marked as temporary by its name.
            let _ = fs::remove_file(&self.path);
        }
    }
}
