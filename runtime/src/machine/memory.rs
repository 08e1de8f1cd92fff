//! How much memory this process can still take: what the system has, and what its control groups allow.

use std::{fs, iter};

/// Memory that this process can take before the system has to take some from others, in bytes: `MemAvailable` of Linux,
/// or less if a control group (version 1 or 2, as those of containers and of Android) or the limit of its address space
/// (`RLIMIT_AS`) leaves less. Pages of files that nobody has looked at for long count as free, as they do in
/// `MemAvailable`. `None` where the system does not say.
#[must_use]
pub fn available_memory() -> Option<u64> {
    available(|path| fs::read_to_string(path).ok())
}

/// Of the files of which `read` gives the text.
fn available(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let system = kib(&read("/proc/meminfo").unwrap_or_default(), "MemAvailable:");
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    groups.lines().flat_map(|line| left(line, &read)).chain(system).chain(address_space(&read)).min()
}

/// The number after `name` at the start of a line, which counts KiB, in bytes.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What `RLIMIT_AS` leaves.
fn address_space(read: &impl Fn(&str) -> Option<String>) -> Option<u64> {
    let limits = read("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    // Without a limit the word is no number.
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(kib(&read("/proc/self/status")?, "VmSize:")?))
}

/// Names of the files of a control group.
struct Files {
    roots: &'static [&'static str],
    limit: &'static str,
    used: &'static str,
    /// The line of `memory.stat` with pages of files that were not used lately.
    idle: &'static str,
}

const V1: Files = Files {
    roots: &["/sys/fs/cgroup/memory", "/dev/memcg"],
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    idle: "total_inactive_file ",
};
const V2: Files =
    Files { roots: &["/sys/fs/cgroup"], limit: "memory.max", used: "memory.current", idle: "inactive_file " };

/// What is left in each group that a line `number:controllers:path` of `/proc/self/cgroup` names, and in those around
/// it.
fn left(line: &str, read: &impl Fn(&str) -> Option<String>) -> Vec<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let files = match controllers {
        "" => V2,
        _ if controllers.split(',').any(|name| name == "memory") => V1,
        _ => return Vec::new(),
    };
    let path = path.trim_end_matches('/');
    // A container may see its own group, or none but the outermost, as the root.
    let groups = iter::successors(Some(path), |path| path.rfind('/').map(|end| &path[..end]));
    let places = groups.flat_map(|group| files.roots.iter().map(move |root| format!("{root}{group}")));
    let bytes = |text: &str| text.trim().parse::<u64>().ok();
    let left = places.filter_map(|place| {
        // Without a limit the text is no number, or one close to the largest there is.
        let limit = bytes(&read(&format!("{place}/{}", files.limit))?)?;
        let used = bytes(&read(&format!("{place}/{}", files.used))?)?;
        let stat = read(&format!("{place}/memory.stat")).unwrap_or_default();
        let idle = stat.lines().find_map(|line| bytes(line.strip_prefix(files.idle)?)).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(idle)))
    });
    left.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const MEMINFO: &str =
        "MemTotal:       11500000 kB\nMemFree:          200000 kB\nMemAvailable:    4000000 kB\nCached: 1 kB\n";
    const SYSTEM: u64 = 4_000_000 * 1024;

    fn of(files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<&str, &str> = files.iter().copied().chain([("/proc/meminfo", MEMINFO)]).collect();
        available(|path| files.get(path).map(|&text| text.to_owned()))
    }

    #[test]
    fn a_phone_has_what_the_system_has() {
        assert_eq!(of(&[]), Some(SYSTEM));
        // As on Android: groups without limits.
        let groups = ("/proc/self/cgroup", "4:memory:/\n3:cpuset:/top-app\n0::/uid_10234/pid_4711\n");
        let unlimited = ("/dev/memcg/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(of(&[groups, unlimited, ("/dev/memcg/memory.usage_in_bytes", "7000000000\n")]), Some(SYSTEM));
    }

    #[test]
    fn a_process_has_what_its_address_space_leaves() {
        let of = |limit: &str| {
            let limits =
                format!("Limit  Soft Limit  Hard Limit  Units\nMax address space   {limit}  unlimited  bytes\n");
            of(&[("/proc/self/limits", &limits), ("/proc/self/status", "VmPeak: 9 kB\nVmSize:\t    1000 kB\n")])
        };
        assert_eq!(of("3000000"), Some(3_000_000 - 1000 * 1024));
        assert_eq!(of("3000"), Some(0));
        assert_eq!(of("unlimited"), Some(SYSTEM));
    }

    #[test]
    fn a_container_has_what_its_group_leaves() {
        let group = ("/proc/self/cgroup", "0::/\n");
        let [max, current] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"];
        let stat = ("/sys/fs/cgroup/memory.stat", "anon 7\nfile 9\ninactive_file 300\nactive_file 50\n");
        assert_eq!(of(&[group, (max, "1000\n"), (current, "800\n")]), Some(200));
        assert_eq!(of(&[group, (max, "1000\n"), (current, "800\n"), stat]), Some(500));
        assert_eq!(of(&[group, (max, "1000\n"), (current, "1200\n")]), Some(0));
        assert_eq!(of(&[group, (max, "max\n"), (current, "800\n"), stat]), Some(SYSTEM));
        // A limit that cannot be read is none.
        assert_eq!(of(&[group, (max, "1000\n")]), Some(SYSTEM));
    }

    #[test]
    fn the_tightest_group_around_counts() {
        let group = ("/proc/self/cgroup", "0::/user.slice/app.scope\n");
        let root = "/sys/fs/cgroup/user.slice";
        let (max, current) = (format!("{root}/memory.max"), format!("{root}/memory.current"));
        let (inner_max, inner_current) =
            (format!("{root}/app.scope/memory.max"), format!("{root}/app.scope/memory.current"));
        let inner = [(inner_max.as_str(), "900"), (inner_current.as_str(), "100")];
        assert_eq!(of(&[group, inner[0], inner[1], (&max, "1000"), (&current, "700")]), Some(300));
        assert_eq!(of(&[group, inner[0], inner[1], (&max, "5000"), (&current, "700")]), Some(800));
        // Version 1, where the process sees the whole tree's path but only its own part of the tree.
        let group = ("/proc/self/cgroup", "9:name=systemd:/x\n8:cpu,memory:/docker/0123\n");
        let [limit, usage] = ["limit_in_bytes", "usage_in_bytes"].map(|f| format!("/sys/fs/cgroup/memory/memory.{f}"));
        let stat = ("/sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 40\n");
        assert_eq!(of(&[group, (&limit, "500"), (&usage, "100"), stat]), Some(440));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "MemAvailable: x kB\n", "MemAvailable: 1 MB\n", "MemAvailable: 99999999999999999999 kB\n"] {
            assert_eq!(available(|path| (path == "/proc/meminfo").then(|| text.to_owned())), None, "{text:?}");
        }
        for group in ["", "0", "0:", "0::", ":::::", "x:memory", "0::../..", "0::/é/é"] {
            assert_eq!(of(&[("/proc/self/cgroup", group)]), Some(SYSTEM), "{group:?}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_has_some() {
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
    }
}
