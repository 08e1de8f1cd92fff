//! On what kind of file system a file lies.

use std::path::Path;
#[cfg(any(target_os = "linux", target_os = "android"))]
use std::{fs, os::unix::fs::MetadataExt};

/// The type of the file system at `path` if it is one that is slow to read mapped files from: a process serves it
/// ([FUSE](https://docs.kernel.org/filesystems/fuse/fuse.html)), or it is Android's `sdcardfs`, before Android 11.
pub(super) fn slow_kind(path: &Path) -> Option<String> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let path = fs::canonicalize(path).ok()?;
        let device = fs::metadata(&path).ok()?.dev();
        let device = format!("{}:{}", libc::major(device), libc::minor(device));
        match fs::read_to_string("/proc/self/mountinfo") {
            Ok(mounts) => kind_of(&mounts, &device).filter(|kind| is_slow(kind)).map(str::to_owned),
            Err(_) => is_shared_storage(&path).then(|| "shared storage".to_owned()),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = path;
        None
    }
}

/// The type of the file system on `device`, a line of `/proc/self/mountinfo`: number, parent, device, root, place,
/// options, any number of fields, a dash, type, source, options.
fn kind_of<'a>(mounts: &'a str, device: &str) -> Option<&'a str> {
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device))?;
    line.split_once(" - ")?.1.split(' ').next()
}

fn is_slow(kind: &str) -> bool {
    ["fuse", "fuseblk", "sdcardfs"].contains(&kind) || kind.starts_with("fuse.")
}

/// Whether an absolute path is that of the storage which Android's applications share.
fn is_shared_storage(path: &Path) -> bool {
    ["/sdcard", "/storage", "/mnt/sdcard", "/mnt/media_rw"].iter().any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Some lines of a phone and of a PC.
    const MOUNTS: &str = "\
        25 1 259:64 / / ro,relatime master:1 - ext4 /dev/block/dm-4 ro,seclabel\n\
        48 25 253:60 / /data rw,nosuid,nodev,noatime shared:21 - f2fs /dev/block/dm-60 rw,lazytime\n\
        402 25 0:130 / /storage/emulated rw,nosuid,nodev,noexec,noatime shared:88 - fuse /dev/fuse rw,lazytime,user_id=0\n\
        403 25 0:131 / /mnt/old rw shared:2 master:3 - sdcardfs /data/media rw\n\
        404 25 0:60 / /home/me/net rw - fuse.sshfs me@host: rw\n\
        405 25 8:17 / /media/stick rw - fuseblk /dev/sdb1 rw\n";

    #[test]
    fn file_systems_are_found_by_their_device() {
        let slow = |device| kind_of(MOUNTS, device).filter(|kind| is_slow(kind));
        assert_eq!((kind_of(MOUNTS, "253:60"), slow("253:60")), (Some("f2fs"), None));
        assert_eq!(slow("0:130"), Some("fuse"));
        assert_eq!(slow("0:131"), Some("sdcardfs"));
        assert_eq!(slow("0:60"), Some("fuse.sshfs"));
        assert_eq!(slow("8:17"), Some("fuseblk"));
        assert_eq!(kind_of(MOUNTS, "0:13"), None);
        for broken in ["", "1 2 0:130", "1 2 0:130 / / rw", "1 2 0:130 / / rw - "] {
            assert_eq!(kind_of(broken, "0:130").filter(|kind| is_slow(kind)), None, "{broken:?}");
        }
    }

    #[test]
    fn shared_storage_is_known_by_its_places() {
        for path in ["/sdcard/m.gguf", "/storage/emulated/0/m.gguf", "/mnt/media_rw/0/m"] {
            assert!(is_shared_storage(Path::new(path)), "{path}");
        }
        for path in ["/data/local/tmp/m.gguf", "/sdcards/m", "/data/user/0/app/files/sdcard/m"] {
            assert!(!is_shared_storage(Path::new(path)), "{path}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_in_memory_is_not_slow() {
        assert_eq!(slow_kind(Path::new("/proc/self/mountinfo")), None);
        // The device that `stat` gives is the one that the table has.
        let device = fs::metadata("/proc").expect("there").dev();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("there");
        assert_eq!(kind_of(&mounts, &format!("{}:{}", libc::major(device), libc::minor(device))), Some("proc"));
    }
}
