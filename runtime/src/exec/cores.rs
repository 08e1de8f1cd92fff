//! How many threads a model gets if nobody says: one per fast core that this process may use.
//!
//! A step ends with its last unit, so a slow core slows the fast ones down; and two threads on one core share the units
//! that multiply. Neither counts here. What Linux says about cores is read from `/sys` and `/proc`; where it says
//! nothing, all count. The quota of a cgroup is what [`available_parallelism`] knows.

use std::{collections::BTreeSet, fs, thread::available_parallelism};

/// Of the fastest core's capacity, what a fast one has at least, in percent. Android's capacities are relative speeds:
/// the middle cores of three kinds have 60 to 90, the small ones 15 to 40.
const CAPACITY: u64 = 50;
/// The same for the highest frequency, where no capacity is given. Efficient cores of PCs have 65 to 84 of the others',
/// which in turn differ by 5 among themselves.
const FREQUENCY: u64 = 85;
/// As many processors as Linux can be built for.
const MAX_PROCESSORS: usize = 8192;

/// Threads for this machine and process.
pub(crate) fn default_threads() -> usize {
    let available = available_parallelism().map_or(1, usize::from);
    fast_cores(|path| fs::read_to_string(path).ok()).map_or(available, |fast| fast.min(available))
}

/// Fast cores among the processors this process may use; `None` if the files, of which `read` gives the text, do not say
/// which those are.
fn fast_cores(read: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let status = read("/proc/self/status")?;
    let allowed = processors(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let online = processors(&read("/sys/devices/system/cpu/online")?)?;
    let of = |processor: usize, file: &str| read(&format!("/sys/devices/system/cpu/cpu{processor}/{file}"));
    // Of the threads of one core the first that may be used stands for all.
    let is_first = |&processor: &usize| {
        let siblings = of(processor, "topology/thread_siblings_list").as_deref().and_then(processors);
        siblings.and_then(|siblings| siblings.intersection(&allowed).next().copied()).is_none_or(|n| n == processor)
    };
    let cores: Vec<usize> = allowed.intersection(&online).copied().filter(is_first).collect();
    for (file, share) in [("cpu_capacity", CAPACITY), ("cpufreq/cpuinfo_max_freq", FREQUENCY)] {
        let speeds: Option<Vec<u64>> = cores.iter().map(|&core| of(core, file)?.trim().parse().ok()).collect();
        let Some(speeds) = speeds else { continue };
        let most = speeds.iter().max().copied()?;
        // Equal capacities are no news: many machines give 1024 for each.
        if speeds.iter().any(|&speed| speed != most) {
            let is_fast = |speed: &u64| speed.saturating_mul(100) >= most.saturating_mul(share);
            return Some(speeds.iter().filter(|speed| is_fast(speed)).count());
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

/// The members of a list like `0-3,8,10-11`; `None` if it is none.
fn processors(list: &str) -> Option<BTreeSet<usize>> {
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last < MAX_PROCESSORS).then_some(first..=last)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files of a made-up machine. `processors`: siblings, capacity, highest frequency; empty is a file that is not there.
    fn machine(allowed: &str, online: &str, processors: &[(&str, &str, &str)]) -> BTreeMap<String, String> {
        let root = "/sys/devices/system/cpu";
        let mut files = BTreeMap::from([
            (
                "/proc/self/status".into(),
                format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems:\t1\n"),
            ),
            (format!("{root}/online"), format!("{online}\n")),
        ]);
        for (n, &(siblings, capacity, frequency)) in processors.iter().enumerate() {
            for (file, text) in [
                ("topology/thread_siblings_list", siblings),
                ("cpu_capacity", capacity),
                ("cpufreq/cpuinfo_max_freq", frequency),
            ] {
                if !text.is_empty() {
                    files.insert(format!("{root}/cpu{n}/{file}"), format!("{text}\n"));
                }
            }
        }
        files
    }

    fn fast(files: &BTreeMap<String, String>) -> Option<usize> {
        fast_cores(|path| files.get(path).cloned())
    }

    #[test]
    fn a_phone_counts_its_big_and_middle_cores() {
        let (small, middle, big) = (("", "250", ""), ("", "760", ""), ("", "1024", ""));
        let processors = [small, small, small, small, middle, middle, middle, big];
        assert_eq!(fast(&machine("0-7", "0-7", &processors)), Some(4));
        // In the background Android allows some cores only; the others do not matter then.
        assert_eq!(fast(&machine("0-3", "0-7", &processors)), Some(4));
        assert_eq!(fast(&machine("0-2,7", "0-7", &processors)), Some(1));
        // One that is off.
        assert_eq!(fast(&machine("0-7", "0-5,7", &processors)), Some(3));
    }

    #[test]
    fn threads_of_a_core_count_once() {
        let near: Vec<_> =
            (0..8).map(|n| ["0-1", "2-3", "4-5", "6-7"][n / 2]).map(|s| (s, "1024", "5000000")).collect();
        assert_eq!(fast(&machine("0-7", "0-7", &near)), Some(4));
        let far: Vec<_> = (0..8).map(|n| ["0,4", "1,5", "2,6", "3,7"][n % 4]).map(|s| (s, "", "")).collect();
        assert_eq!(fast(&machine("0-7", "0-7", &far)), Some(4));
        // Only the second thread of cores 1 and 2 may be used.
        assert_eq!(fast(&machine("0,4-6", "0-7", &far)), Some(3));
    }

    #[test]
    fn a_hybrid_pc_counts_its_performance_cores() {
        let fast_core = |siblings| (siblings, "", "5400000");
        let processors = [
            fast_core("0-1"),
            fast_core("0-1"),
            ("2-3", "", "5600000"),
            ("2-3", "", "5600000"),
            ("4", "", "4300000"),
            ("5", "", "4300000"),
        ];
        assert_eq!(fast(&machine("0-5", "0-5", &processors)), Some(2));
        // The same, told by capacities.
        let told = [("0-1", "1024", "1"), ("0-1", "1024", "1"), ("2", "432", "1"), ("3", "432", "1")];
        assert_eq!(fast(&machine("0-3", "0-3", &told)), Some(1));
    }

    #[test]
    fn a_machine_that_says_little_counts_what_is_allowed() {
        assert_eq!(fast(&machine("0-3", "0-3", &[("", "", ""); 4])), Some(4));
        // A core without a capacity: those of the others say nothing then.
        assert_eq!(fast(&machine("0-1", "0-1", &[("", "1024", ""), ("", "", "")])), Some(2));
        assert_eq!(fast(&machine("0-1", "0-1", &[("", "fast", ""), ("", "1024", "")])), Some(2));
        assert_eq!(fast(&machine("5", "0-3", &[("", "", ""); 4])), None);
        for (allowed, online) in
            [("", "0"), ("0", ""), ("0-", "0"), ("3-99999999999", "0"), ("0-8192", "0"), ("x", "0")]
        {
            assert_eq!(fast(&machine(allowed, online, &[])), None, "{allowed:?} {online:?}");
        }
        assert_eq!(fast_cores(|_| None), None);
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!((1..=available_parallelism().map_or(1, usize::from)).contains(&default_threads()));
    }
}
