//! Which cores compute if nobody says how many threads: one thread per fast core that this process may use.
//!
//! A core many times slower than another costs more than it gives, as do two threads on one core, which share the units
//! that multiply. Neither counts here. What Linux says about cores is read from `/sys` and `/proc`; where it says
//! nothing, all count. The quota of a cgroup is what [`available_parallelism`] knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    thread::available_parallelism,
};

/// Of the fastest core's speed, what a core has at least, in percent: by its capacity, and by its highest frequency if
/// capacities are not given. This is for Arm, where [`is_in_order`] leaves out the small ones, which no share can: the
/// middle cores of a Pixel 6 have 42 of the big ones' 100, the small ones of a Snapdragon 660 have 52.
const SHARES: [u64; 2] = [40, 40];
/// The same where nothing says which cores are small. The efficient cores of PCs have 65 to 84 of the others'
/// frequency, which in turn differ by 5 among themselves.
const SHARES_OF_UNKNOWN: [u64; 2] = [50, 85];
/// As many processors as Linux can be built for.
const MAX_PROCESSORS: usize = 8192;

/// The fast cores.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    /// How many.
    pub(crate) count: usize,
    /// Their processors, all threads of each; `None` if there are no slow cores to keep away from.
    pub(crate) bound: Option<BTreeSet<usize>>,
}

impl Cores {
    /// Those of this machine that this process may use, `most` of them.
    pub(crate) fn fast(most: usize) -> Self {
        let available = available_parallelism().map_or(1, usize::from);
        let fast = fast_cores(|path| fs::read_to_string(path).ok()).unwrap_or(Self { count: available, bound: None });
        Self { count: fast.count.min(available).min(most), ..fast }
    }
}

/// Fast cores among the processors this process may use; `None` if the files, of which `read` gives the text, do not
/// say which those are.
fn fast_cores(read: impl Fn(&str) -> Option<String>) -> Option<Cores> {
    let status = read("/proc/self/status")?;
    let allowed = processors(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let online = processors(&read("/sys/devices/system/cpu/online")?)?;
    let of = |processor: usize, file: &str| read(&format!("/sys/devices/system/cpu/cpu{processor}/{file}"));
    let usable: BTreeSet<usize> = allowed.intersection(&online).copied().collect();
    // The threads of a core. The first that may be used stands for all.
    let threads = |processor: usize| {
        let siblings = of(processor, "topology/thread_siblings_list").as_deref().and_then(processors);
        let mut threads: BTreeSet<usize> = siblings.unwrap_or_default().intersection(&usable).copied().collect();
        threads.insert(processor);
        threads
    };
    let all: Vec<usize> = usable.iter().copied().filter(|&n| threads(n).first() == Some(&n)).collect();
    let register = |core: usize| is_in_order(&of(core, "regs/identification/midr_el1")?);
    let mut kinds: Vec<Option<bool>> = all.iter().map(|&core| register(core)).collect();
    if kinds.iter().all(Option::is_none) {
        let told = read("/proc/cpuinfo").as_deref().and_then(parts).unwrap_or_default();
        kinds = all.iter().map(|core| told.get(core).copied()).collect();
    }
    let mut fast = all.clone();
    if kinds.contains(&Some(false)) {
        // Nor one of which nothing is known: it was switched off a moment ago, and small ones are many.
        let mut kinds = kinds.iter();
        fast.retain(|_| kinds.next() == Some(&Some(false)));
    }
    let shares = if kinds.iter().any(Option::is_some) { SHARES } else { SHARES_OF_UNKNOWN };
    for (file, share) in ["cpu_capacity", "cpufreq/cpuinfo_max_freq"].into_iter().zip(shares) {
        let speeds: Option<Vec<u64>> = fast.iter().map(|&core| of(core, file)?.trim().parse().ok()).collect();
        let Some(speeds) = speeds else { continue };
        let most = speeds.iter().max().copied()?;
        // Equal capacities are no news: many machines give 1024 for each.
        if speeds.iter().any(|&speed| speed != most) {
            let mut is_fast = speeds.iter().map(|speed| speed.saturating_mul(100) >= most.saturating_mul(share));
            fast.retain(|_| is_fast.next() == Some(true));
            break;
        }
    }
    let bound = (fast.len() < all.len()).then(|| fast.iter().flat_map(|&core| threads(core)).collect());
    (!fast.is_empty()).then_some(Cores { count: fast.len(), bound })
}

/// Whether a core is one of Arm's small ones, by its main identification register (`MIDR_EL1`, as Linux prints it):
/// implementer in bits 24 to 31, part in bits 4 to 15. `None` if it is no number.
fn is_in_order(midr: &str) -> Option<bool> {
    let midr = hexadecimal(midr)?;
    Some(is_small(midr >> 24 & 0xff, midr >> 4 & 0xfff))
}

fn is_small(implementer: u64, part: u64) -> bool {
    match implementer {
        // Cortex-A32, A34, A53, A35, A55, A510, A520, A520AE, A320.
        0x41 => [0xd01, 0xd02, 0xd03, 0xd04, 0xd05, 0xd46, 0xd80, 0xd88, 0xd8f].contains(&part),
        // Qualcomm's names for Cortex-A53 and A55: Kryo Silver of the series 2, 3 and 4.
        0x51 => [0x801, 0x803, 0x805].contains(&part),
        _ => false,
    }
}

/// The same by processor, from `/proc/cpuinfo`; `None` unless it tells the part of each: kernels before 3.19 name one for
/// all, that of the core they happen to run on.
fn parts(cpuinfo: &str) -> Option<BTreeMap<usize, bool>> {
    let mut parts = BTreeMap::new();
    let (mut processor, mut implementer) = (None, None);
    for (key, value) in cpuinfo.lines().filter_map(|line| line.split_once(':')) {
        match (key.trim_end(), processor) {
            // One without a part came before.
            ("processor", Some(_)) => return None,
            ("processor", None) => processor = Some(value.trim().parse().ok()?),
            ("CPU implementer", _) => implementer = Some(hexadecimal(value)?),
            ("CPU part", Some(number)) => {
                parts.insert(number, is_small(implementer?, hexadecimal(value)?));
                (processor, implementer) = (None, None);
            }
            _ => {}
        }
    }
    processor.is_none().then_some(parts)
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
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
    use super::*;

    /// Files of a core; an empty one is not there.
    #[derive(Clone, Copy, Default)]
    struct Core<'a> {
        siblings: &'a str,
        capacity: &'a str,
        frequency: &'a str,
        midr: &'a str,
    }

    /// A core of an Arm system: the identification register, capacity and highest frequency.
    fn arm<'a>(midr: &'a str, capacity: &'a str, frequency: &'a str) -> Core<'a> {
        Core { siblings: "", capacity, frequency, midr }
    }

    /// A processor of a PC: the threads of its core, and the highest frequency.
    fn pc<'a>(siblings: &'a str, frequency: &'a str) -> Core<'a> {
        Core { siblings, frequency, ..Core::default() }
    }

    const A53: &str = "0x00000000410fd034";
    const A55: &str = "0x00000000412fd050";
    const A73: &str = "0x00000000410fd092";
    const A76: &str = "0x00000000414fd0b1";
    const A520: &str = "0x00000000410fd800";
    const A720: &str = "0x00000000410fd811";
    const X1: &str = "0x00000000411fd440";
    const X4: &str = "0x00000000410fd821";
    const KRYO_GOLD: &str = "0x00000000515f8020";
    const KRYO_SILVER: &str = "0x00000000517f8034";

    /// Files of a made-up machine.
    fn machine(allowed: &str, online: &str, cores: &[Core<'_>]) -> BTreeMap<String, String> {
        let root = "/sys/devices/system/cpu";
        let mut files = BTreeMap::from([
            (
                "/proc/self/status".into(),
                format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems:\t1\n"),
            ),
            (format!("{root}/online"), format!("{online}\n")),
        ]);
        for (n, core) in cores.iter().enumerate() {
            for (file, text) in [
                ("topology/thread_siblings_list", core.siblings),
                ("cpu_capacity", core.capacity),
                ("cpufreq/cpuinfo_max_freq", core.frequency),
                ("regs/identification/midr_el1", core.midr),
            ] {
                if !text.is_empty() {
                    files.insert(format!("{root}/cpu{n}/{file}"), format!("{text}\n"));
                }
            }
        }
        files
    }

    /// How many cores, and what threads are bound to; all processors may be used.
    fn fast(cores: &[Core<'_>]) -> (usize, String) {
        let all = format!("0-{}", cores.len() - 1);
        fast_of(&machine(&all, &all, cores)).expect("enough files")
    }

    fn fast_of(files: &BTreeMap<String, String>) -> Option<(usize, String)> {
        let cores = fast_cores(|path| files.get(path).cloned())?;
        let bound = cores.bound.map(|bound| bound.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
        Some((cores.count, bound.unwrap_or_else(|| "all".to_owned())))
    }

    fn is(count: usize, bound: &str) -> (usize, String) {
        (count, bound.to_owned())
    }

    #[test]
    fn phones_use_their_big_and_middle_cores() {
        // Snapdragon 8 Gen 3: two small ones, five in the middle with two frequencies, one big.
        let (small, big) = (arm(A520, "326", "2265600"), arm(X4, "1024", "3302400"));
        let [slower, faster] = ["2956800", "3148800"].map(|frequency| arm(A720, "836", frequency));
        assert_eq!(fast(&[small, small, slower, slower, slower, faster, faster, big]), is(6, "2,3,4,5,6,7"));
        // Pixel 6: its middle cores are further below the big ones than many a small core is.
        let (small, middle, big) = (arm(A55, "124", ""), arm(A76, "427", ""), arm(X1, "1024", ""));
        assert_eq!(fast(&[small, small, small, small, middle, middle, big, big]), is(4, "4,5,6,7"));
        // Snapdragon 660: the small ones are more than half as fast.
        let (small, big) = (arm(KRYO_SILVER, "535", ""), arm(KRYO_GOLD, "1024", ""));
        assert_eq!(fast(&[small, small, small, small, big, big, big, big]), is(4, "4,5,6,7"));
        // Snapdragon 625: eight small ones and nothing else.
        assert_eq!(fast(&[arm(A53, "1024", "2016000"); 8]), is(8, "all"));
        // Big and middle ones only, one cluster of which sleeps most of the time.
        let (middle, big) = (arm(A720, "425", "2000000"), arm(X4, "1024", "3250000"));
        assert_eq!(fast(&[middle, middle, middle, middle, big, big, big, big]), is(8, "all"));
        // No small ones by name, but some that are as slow.
        let (slow, big) = (arm(A73, "300", ""), arm(X4, "1024", ""));
        assert_eq!(fast(&[slow, big, big]), is(2, "1,2"));
    }

    #[test]
    fn old_kernels_of_phones_tell_frequencies_or_nothing() {
        let (small, middle, big) = (arm(A55, "", "1803000"), arm(A76, "", "2253000"), arm(X1, "", "2802000"));
        assert_eq!(fast(&[small, small, small, small, middle, middle, big, big]), is(4, "4,5,6,7"));
        let (small, big) = (arm(A53, "", ""), arm(A73, "", ""));
        assert_eq!(fast(&[small, small, big, big]), is(2, "2,3"));
        // Without the register the shares are all there is.
        let (small, big) = (arm("", "", "1843200"), arm("", "", "2457600"));
        assert_eq!(fast(&[small, small, big, big]), is(2, "2,3"));
        let (small, middle, big) = (arm("", "250", ""), arm("", "760", ""), arm("", "1024", ""));
        assert_eq!(fast(&[small, small, small, small, middle, middle, middle, big]), is(4, "4,5,6,7"));
        // One register that cannot be read, as that of a core which has just been switched off: it may be a small one.
        let (small, big, off) = (arm(KRYO_SILVER, "535", ""), arm(KRYO_GOLD, "1024", ""), arm("", "535", ""));
        assert_eq!(fast(&[small, off, big, big]), is(2, "2,3"));
        assert_eq!(fast(&[arm(A53, "900", ""), arm("", "1024", "")]), is(2, "all"));
        assert_eq!(fast(&[arm(A53, "900", ""), arm("later", "1024", "")]), is(2, "all"));
    }

    #[test]
    fn kernels_without_the_register_tell_parts() {
        // Snapdragon 636, Linux 4.4: the small cores have 89 percent of the big ones' frequency.
        let told = |parts: &[&str]| {
            let lines = |(n, part): (usize, &&str)| {
                let part =
                    if part.is_empty() { String::new() } else { format!("CPU part\t: {part}\nCPU revision\t: 4\n") };
                format!("processor\t: {n}\nBogoMIPS\t: 38.40\nCPU implementer\t: 0x51\n{part}\n")
            };
            parts.iter().enumerate().map(lines).collect::<String>() + "Hardware\t: Qualcomm Technologies, Inc SDM636\n"
        };
        let cores = [arm("", "", "1612800"), arm("", "", "1612800"), arm("", "", "1804800"), arm("", "", "1804800")];
        let with = |cpuinfo: String| {
            let mut files = machine("0-3", "0-3", &cores);
            files.insert("/proc/cpuinfo".to_owned(), cpuinfo);
            fast_of(&files)
        };
        assert_eq!(with(told(&["0x801", "0x801", "0x800", "0x800"])), Some(is(2, "2,3")));
        assert_eq!(with(told(&["0x801", "0x801", "0x801", "0x801"])), Some(is(4, "all")));
        // One for all, as old kernels have it; one that is missing; what is no number; a PC's.
        for text in [
            told(&["", "", "", "0x800"]),
            told(&["0x801", "0x801", "0x800", ""]),
            told(&["0x801", "0x801", "0x800", "A73"]),
            "processor\t: 0\nvendor_id\t: AuthenticAMD\n\nprocessor\t: 1\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(with(text), Some(is(4, "all")));
        }
    }

    #[test]
    fn only_what_may_be_used_counts() {
        let (small, middle, big) = (arm(A520, "250", ""), arm(A720, "760", ""), arm(X4, "1024", ""));
        let phone = [small, small, small, small, middle, middle, middle, big];
        // In the background Android allows some cores only; the others do not matter then.
        assert_eq!(fast_of(&machine("0-3", "0-7", &phone)), Some(is(4, "all")));
        assert_eq!(fast_of(&machine("0-2,7", "0-7", &phone)), Some(is(1, "7")));
        // One that is off.
        assert_eq!(fast_of(&machine("0-7", "0-5,7", &phone)), Some(is(3, "4,5,7")));
    }

    #[test]
    fn threads_of_a_core_count_once() {
        let near = ["0-1", "2-3", "4-5", "6-7"].map(|s| Core { capacity: "1024", ..pc(s, "5000000") });
        let near: Vec<_> = near.into_iter().flat_map(|core| [core; 2]).collect();
        assert_eq!(fast(&near), is(4, "all"));
        let far: Vec<_> = (0..8).map(|n| pc(["0,4", "1,5", "2,6", "3,7"][n % 4], "")).collect();
        assert_eq!(fast(&far), is(4, "all"));
        // Only the second thread of cores 1 and 2 may be used.
        assert_eq!(fast_of(&machine("0,4-6", "0-7", &far)), Some(is(3, "all")));
    }

    #[test]
    fn a_hybrid_pc_counts_its_performance_cores() {
        let (first, second) = (pc("0-1", "5400000"), pc("2-3", "5600000"));
        let cores = [first, first, second, second, pc("4", "4300000"), pc("5", "4300000")];
        assert_eq!(fast(&cores), is(2, "0,1,2,3"));
        // The same, told by capacities.
        let told = |siblings, capacity| Core { capacity, ..pc(siblings, "1") };
        assert_eq!(fast(&[told("0-1", "1024"), told("0-1", "1024"), told("2", "432"), told("3", "432")]), is(1, "0,1"));
    }

    #[test]
    fn a_machine_that_says_little_counts_what_is_allowed() {
        let silent = [Core::default(); 4];
        assert_eq!(fast(&silent), is(4, "all"));
        // A core without a capacity: those of the others say nothing then.
        assert_eq!(fast(&[arm("", "1024", ""), arm("", "", "")]), is(2, "all"));
        assert_eq!(fast(&[arm("", "fast", ""), arm("", "1024", "")]), is(2, "all"));
        assert_eq!(fast_of(&machine("5", "0-3", &silent)), None);
        for (allowed, online) in
            [("", "0"), ("0", ""), ("0-", "0"), ("3-99999999999", "0"), ("0-8192", "0"), ("x", "0")]
        {
            assert_eq!(fast_of(&machine(allowed, online, &[])), None, "{allowed:?} {online:?}");
        }
        assert_eq!(fast_cores(|_| None), None);
    }

    #[test]
    fn parts_are_told_by_their_implementer() {
        assert_eq!([A53, A55, A520, KRYO_SILVER].map(is_in_order), [Some(true); 4]);
        assert_eq!([A73, A76, A720, X1, X4, KRYO_GOLD].map(is_in_order), [Some(false); 6]);
        // Another implementer's part of the same number.
        assert_eq!(is_in_order("0x00000000610fd034"), Some(false));
        assert_eq!(["", "410fd034", "0x", "0xg", "0x1ffffffffffffffff"].map(is_in_order), [None; 5]);
    }

    #[test]
    fn this_machine_has_a_core() {
        let Cores { count, bound } = Cores::fast(usize::MAX);
        assert!((1..=available_parallelism().map_or(1, usize::from)).contains(&count));
        assert!(bound.is_none_or(|bound| bound.len() >= count));
    }
}
