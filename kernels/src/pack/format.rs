//! What the code of a panel format is.

use halfbyte_formats::quant::{GROUP, Group, GroupFormat, PanelType, Q4_0, Q4_K, Q5_0, Q5_K, Q6_K, Q8_0, U4Group};

use super::u4::U4;
use crate::panel::{Kind, ROWS};

/// A format of panels. Plain code: what it costs is paid per row of an embedding, or by the scalar tier.
pub(crate) trait PanelFormat {
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

/// The function that decodes one row of a panel of `ty`: `(panel, row < 16, out)`.
pub(crate) const fn row_decoder(ty: PanelType) -> fn(&[u8], usize, &mut [f32]) {
    match ty {
        PanelType::Q4_0 => decode_row::<Q4_0>,
        PanelType::Q5_0 => decode_row::<Q5_0>,
        PanelType::Q8_0 => decode_row::<Q8_0>,
        PanelType::Q4_K => decode_row::<Q4_K>,
        PanelType::Q5_K => decode_row::<Q5_K>,
        PanelType::Q6_K => decode_row::<Q6_K>,
        PanelType::U4 { group: U4Group::G32, zeros: false } => decode_row::<U4<32, false>>,
        PanelType::U4 { group: U4Group::G32, zeros: true } => decode_row::<U4<32, true>>,
        PanelType::U4 { group: U4Group::G64, zeros: false } => decode_row::<U4<64, false>>,
        PanelType::U4 { group: U4Group::G64, zeros: true } => decode_row::<U4<64, true>>,
        PanelType::U4 { group: U4Group::G128, zeros: false } => decode_row::<U4<128, false>>,
        PanelType::U4 { group: U4Group::G128, zeros: true } => decode_row::<U4<128, true>>,
    }
}

/// `out[k] = w[row][k]`, in the roundings of the block formats.
fn decode_row<P: PanelFormat>(panel: &[u8], row: usize, out: &mut [f32]) {
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

/// The function that writes panels of `ty` from row-major blocks: `(16 rows, panel)`. `None` if no blocks have its values.
pub(super) const fn row_packer(ty: PanelType) -> Option<fn(&[&[u8]; ROWS], &mut [u8])> {
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
