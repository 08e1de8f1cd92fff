//! A temporary file beside its target, so that the rename which puts it in place is one step on one file system.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
};

use crate::FormatError;

/// How many names are tried before giving up.
const ATTEMPTS: u32 = 100;

/// A file that is removed when this is dropped, unless it was renamed.
///
/// ```no_run
/// use std::{io::Write, path::Path};
/// use halfbyte_formats::TempFile;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (temp, mut file) = TempFile::beside(Path::new("settings"))?;
/// file.write_all(b"all of it")?;
/// file.sync_all()?;
/// drop(file);
/// temp.rename()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TempFile {
    path: PathBuf,
    target: PathBuf,
    renamed: bool,
}

impl TempFile {
    /// A new, empty file in the folder of `target`.
    ///
    /// # Errors
    /// [`FormatError::Io`] if the system refuses.
    pub fn beside(target: &Path) -> Result<(Self, File), FormatError> {
        let failed = |source| FormatError::Io { action: "create", path: target.to_owned(), source };
        let name = target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let mut refusal = io::Error::from(io::ErrorKind::AlreadyExists);
        for attempt in 0..ATTEMPTS {
            let mut temp = Self::prefix(name);
            temp.push(format!("{}-{attempt}", process::id()));
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

    /// How the names of temporary files for a target called `name` begin.
    fn prefix(name: &OsStr) -> OsString {
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".tmp-");
        prefix
    }

    /// Removes what writers of `target` that died have left: for who knows that nobody else writes it now.
    pub fn sweep(target: &Path) {
        let Some(name) = target.file_name() else { return };
        let (prefix, folder) = (Self::prefix(name), folder(target));
        let stale = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in stale.filter(|e| e.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes())) {
            // What cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
    }

    /// The name the file will have.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the file in place of the target and makes that durable.
    ///
    /// # Errors
    /// [`FormatError::Io`] if the system refuses.
    pub fn rename(mut self) -> Result<(), FormatError> {
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
            File::open(folder(&target)).and_then(|folder| folder.sync_all()).map_err(failed("sync"))?;
        }
        Ok(())
    }
}

fn folder(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            // Nothing can be done about a failure here; the file is marked as temporary by its name.
            let _ = fs::remove_file(&self.path);
        }
    }
}
