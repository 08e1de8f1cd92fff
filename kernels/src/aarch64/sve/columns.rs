//! How panels are cut into registers.
//!
//! ```text
//! a line of two panels, 64 bytes each:     |················|················|
//! registers of 32 bytes:                   |····0···|····1··|····2···|····3··|
//! of 48, which predicates shorten:         |······0····|·1··|······2····|·3··|
//! of 64 and more:                          |········0·······|········1·······|
//! ```

/// What one register has of a line.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::aarch64) struct Column {
    /// The panel.
    pub(in crate::aarch64) panel: usize,
    /// Bytes of the line before.
    pub(in crate::aarch64) at: usize,
}

/// The columns of `panels` panels, whose lines are of `line` bytes, for registers of `bytes`.
#[derive(Clone, Copy, Debug)]
pub(in crate::aarch64) struct Columns {
    next: Column,
    panels: usize,
    line: usize,
    bytes: usize,
}

impl Columns {
    #[inline(always)]
    pub(in crate::aarch64) fn new(panels: usize, line: usize, bytes: usize) -> Self {
        Self { next: Column::default(), panels, line, bytes }
    }

    /// The next ones, up to `N`, and how many they are; if less, the last one is repeated.
    #[inline(always)]
    pub(in crate::aarch64) fn take<const N: usize>(&mut self) -> ([Column; N], usize) {
        let (mut found, mut count, mut last) = ([self.next; N], 0, self.next);
        for column in &mut found {
            if self.next.panel < self.panels {
                (last, count) = (self.next, count + 1);
                self.next.at += self.bytes;
                if self.next.at >= self.line {
                    self.next = Column { panel: last.panel + 1, at: 0 };
                }
            }
            *column = last;
        }
        (found, count)
    }
}

#[cfg(test)]
mod tests {
    use super::Columns;

    /// Every byte of a line of every panel is in one column, which begins where the last one ended.
    #[test]
    fn columns_cover_lines() {
        for (bytes, line) in [16, 32, 48, 64, 128, 256].into_iter().flat_map(|bytes| [(bytes, 64), (bytes, 128)]) {
            for panels in 0..=3 {
                let (mut columns, mut covered, mut calls) = (Columns::new(panels, line, bytes), 0, 0);
                loop {
                    let (found, count) = columns.take::<4>();
                    for column in &found[..count] {
                        assert_eq!((column.panel, column.at), (covered / line, covered % line));
                        covered += bytes.min(line - column.at);
                    }
                    assert!(found[count..].iter().all(|c| count == 0 || c.at == found[count - 1].at), "the last one");
                    if count == 0 {
                        break;
                    }
                    calls += 1;
                }
                assert_eq!(covered, panels * line, "{panels} panels, registers of {bytes}");
                assert_eq!(calls, (panels * line.div_ceil(bytes)).div_ceil(4));
            }
        }
    }
}
