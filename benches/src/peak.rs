//! What the integer units of this core can do at most: loops of nothing but the instruction a kernel lives on.
//!
//! A product that keeps up with such a loop would leave no time for loads, scales or anything else. `vpmaddubsw` adds
//! pairs only, in 16 bits; widening them to 32 bits, which a kernel needs, is not counted here.

#[cfg(target_arch = "x86_64")]
use std::{arch::asm, time::Instant};

use halfbyte_kernels::Isa;

/// Independent sums of a loop: enough to hide a latency of seven cycles at two instructions a cycle.
#[cfg(target_arch = "x86_64")]
const SUMS: u64 = 14;
/// Rounds of a loop, about a millisecond.
#[cfg(target_arch = "x86_64")]
const ROUNDS: u64 = if cfg!(debug_assertions) { 1000 } else { 500_000 };

/// A loop over one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Instruction and width of its registers.
    pub name: &'static str,
    /// The tier that lives on it.
    pub isa: Isa,
    /// 8-bit multiplications of one instruction.
    #[cfg(target_arch = "x86_64")]
    width: u64,
    /// Runs the loop so many times.
    #[cfg(target_arch = "x86_64")]
    run: unsafe fn(u64),
}

#[cfg(target_arch = "x86_64")]
const PROBES: [Probe; 3] = [
    Probe { name: "vpdpbusd_zmm", isa: Isa::Avx512Vnni, width: 64, run: vpdpbusd_zmm },
    Probe { name: "vpdpbusd_ymm", isa: Isa::AvxVnni, width: 32, run: vpdpbusd_ymm },
    Probe { name: "vpmaddubsw_ymm", isa: Isa::Avx2, width: 32, run: vpmaddubsw_ymm },
];
#[cfg(not(target_arch = "x86_64"))]
const PROBES: [Probe; 0] = [];

impl Probe {
    /// Those this CPU runs.
    pub fn available() -> impl Iterator<Item = Self> {
        PROBES.into_iter().filter(|probe| probe.isa.is_available())
    }

    /// The one of a tier.
    pub fn of(isa: Isa) -> Option<Self> {
        Self::available().find(|probe| probe.isa == isa)
    }

    /// Multiplications of one [`run`](Self::run).
    pub fn multiplications(&self) -> u64 {
        #[cfg(target_arch = "x86_64")]
        return SUMS * ROUNDS * self.width;
        #[cfg(not(target_arch = "x86_64"))]
        0
    }

    /// Runs the loop once.
    pub fn run(&self) {
        #[cfg(target_arch = "x86_64")]
        if self.isa.is_available() {
            // SAFETY: the tier is available, and with it the features of its probe.
            unsafe { (self.run)(ROUNDS) };
        }
    }

    /// Multiplications a second, measured now.
    #[cfg(target_arch = "x86_64")]
    pub fn rate(&self) -> f64 {
        let start = Instant::now();
        self.run();
        self.multiplications() as f64 / start.elapsed().as_secs_f64()
    }

    /// Multiplications a second, measured now.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn rate(&self) -> f64 {
        f64::NAN
    }
}

/// A loop of 14 times `$instruction`, with sums in registers 0 to 13 and factors in 14 and 15 of kind `$v`.
#[cfg(target_arch = "x86_64")]
macro_rules! probe {
    ($name:ident, $features:literal, $instruction:literal, $v:literal) => {
        /// # Safety
        /// The CPU has the features of the tier.
        #[target_feature(enable = $features)]
        unsafe fn $name(rounds: u64) {
            // SAFETY: touches nothing but the registers named.
            unsafe {
                asm!(
                    "vmovd xmm14, {factor:e}",
                    concat!("vpbroadcastd ", $v, "14, xmm14"),
                    concat!("vpbroadcastd ", $v, "15, xmm14"),
                    "2:",
                    concat!($instruction, " ", $v, "0, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "1, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "2, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "3, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "4, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "5, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "6, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "7, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "8, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "9, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "10, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "11, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "12, ", $v, "14, ", $v, "15"),
                    concat!($instruction, " ", $v, "13, ", $v, "14, ", $v, "15"),
                    "dec {rounds}",
                    "jnz 2b",
                    factor = in(reg) 0x0305_0107,
                    rounds = inout(reg) rounds => _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                    out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                    out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                    options(nomem, nostack),
                );
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
probe!(vpdpbusd_zmm, "avx512f,avx512vnni", "vpdpbusd", "zmm");
#[cfg(target_arch = "x86_64")]
probe!(vpdpbusd_ymm, "avx2,avxvnni", "{{vex}} vpdpbusd", "ymm");
#[cfg(target_arch = "x86_64")]
probe!(vpmaddubsw_ymm, "avx2", "vpmaddubsw", "ymm");

#[cfg(test)]
mod tests {
    use super::Probe;

    /// A loop that were optimised away, or cost more than its instructions, would show.
    #[test]
    fn rates_are_those_of_a_processor() {
        for probe in Probe::available() {
            let rate = (0..20).map(|_| probe.rate()).fold(0.0, f64::max);
            println!("{}: {:.0} G multiplications/s", probe.name, rate / 1e9);
            assert!((1e9..2e12).contains(&rate), "{}: {rate:e} multiplications a second", probe.name);
        }
    }
}
