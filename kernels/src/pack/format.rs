//! What the code of a panel format is.

use halfbyte_formats::quant::{GROUP, Group, GroupFormat, PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0, U4Group};

use super::u4::U4;
use crate::panel::build::StoredUnit;
use crate::panel::{Kind, ROWS};

/// A format of panels. `group` is plain code: what it costs is paid per row of an embedding, or by the scalar tier.
pub(crate) trait PanelFormat: StoredUnit {
    /// The value that names it.
    const PANEL: PanelType;
    /// What its groups have.
    const KIND: Kind;

    /// Group `index < unit_len / 32` of row `row < 16` in a unit: `unit.len() == unit_bytes`. `None` for anything else.
    fn group(unit: &[u8], index: usize, row: usize) -> Option<Group>;
}

/// A format of panels that holds the values of a block format.
pub(crate) trait BlockPanels: PanelFormat + GroupFormat {
    /// Writes one row of a unit: its bytes and no others. `blocks` are those of its inputs. `None` for other lengths.
    fn put(unit: &mut [u8], row: usize, blocks: &[u8]) -> Option<()>;
}

/// Something that each format has one of.
pub(crate) trait OfFormat {
    /// What it is.
    type Output;
    /// That of one format.
    fn of<P: PanelFormat>(self) -> Self::Output;
}

/// That of the format `ty`.
pub(crate) fn of_format<T: OfFormat>(ty: PanelType, it: T) -> T::Output {
    match ty {
        PanelType::Q4_0 => it.of::<Q4_0>(),
        PanelType::Q5_0 => it.of::<Q5_0>(),
        PanelType::Q8_0 => it.of::<Q8_0>(),
        PanelType::Q4_K => it.of::<Q4_K>(),
        PanelType::Q5_K => it.of::<Q5_K>(),
        PanelType::Q6_K => it.of::<Q6_K>(),
        PanelType::U4 { group: U4Group::G32, zeros: false } => it.of::<U4<32, false>>(),
        PanelType::U4 { group: U4Group::G32, zeros: true } => it.of::<U4<32, true>>(),
        PanelType::U4 { group: U4Group::G64, zeros: false } => it.of::<U4<64, false>>(),
        PanelType::U4 { group: U4Group::G64, zeros: true } => it.of::<U4<64, true>>(),
        PanelType::U4 { group: U4Group::G128, zeros: false } => it.of::<U4<128, false>>(),
        PanelType::U4 { group: U4Group::G128, zeros: true } => it.of::<U4<128, true>>(),
    }
}

/// Decodes row `row < 16` of a panel of `ty` to `out: (depth,)`.
pub(crate) fn decode_row(ty: PanelType, panel: &[u8], row: usize, out: &mut [f32]) {
    struct Decode<'a>(&'a [u8], usize, &'a mut [f32]);
    impl OfFormat for Decode<'_> {
        type Output = ();

        fn of<P: PanelFormat>(self) {
            decode::<P>(self.0, self.1, self.2);
        }
    }
    of_format(ty, Decode(panel, row, out));
}

/// `out[k] = w[row][k]`, in the roundings of the block formats.
fn decode<P: PanelFormat>(panel: &[u8], row: usize, out: &mut [f32]) {
    let units = panel.chunks_exact(P::PANEL.unit_bytes()).zip(out.chunks_exact_mut(P::PANEL.unit_len()));
    for (unit, out) in units {
        for (index, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            let Some(group) = P::group(unit, index, row) else { continue };
            for (k, (out, code)) in out.iter_mut().zip(group.codes).enumerate() {
                *out = group.scales[2 * k / GROUP] * (f32::from(code) - f32::from(P::KIND.zero())) - group.min;
            }
        }
    }
}

/// Writes a panel from row-major blocks: `(16 rows, panel)`.
pub(super) type PackRows = fn(&[&[u8]; ROWS], &mut [u8]);

/// The function that writes panels of `ty`. `None` if no blocks have its values.
pub(super) const fn row_packer(ty: PanelType) -> Option<PackRows> {
    match ty {
        PanelType::Q4_0 => Some(pack_rows::<Q4_0>),
        PanelType::Q5_0 => Some(pack_rows::<Q5_0>),
        PanelType::Q8_0 => Some(pack_rows::<Q8_0>),
        PanelType::Q4_K => Some(pack_rows::<Q4_K>),
        PanelType::Q5_K => Some(pack_rows::<Q5_K>),
        PanelType::Q6_K => Some(pack_rows::<Q6_K>),
        PanelType::U4 { .. } => None,
    }
}

/// Rows of whole units to a panel.
fn pack_rows<P: BlockPanels>(rows: &[&[u8]; ROWS], panel: &mut [u8]) {
    let row_bytes = P::PANEL.unit_len() / P::LEN * P::BYTES;
    for (u, unit) in panel.chunks_exact_mut(P::PANEL.unit_bytes()).enumerate() {
        for (row, blocks) in rows.iter().enumerate() {
            let blocks = blocks.get(u * row_bytes..(u + 1) * row_bytes).unwrap_or_default();
            let written = P::put(unit, row, blocks);
            debug_assert!(written.is_some(), "the lengths were checked");
        }
    }
}
