//! Random weights in every arrangement.

use halfbyte_formats::quant::{PANEL_ROWS, PanelType};
use halfbyte_formats::{Bytes, QuantType};
use halfbyte_kernels::{Kernels, PackLayout, PackedMatrix, U4Rows, ops, pack_rows, pack_u4};

use crate::Rng;

/// A matrix `(rows, depth)` as it is stored.
#[derive(Clone, Debug)]
pub struct Weights {
    layout: PackLayout,
    rows: usize,
    depth: usize,
    data: Bytes,
}

impl Weights {
    /// Row-major blocks of `ty`.
    pub fn row_major(ty: QuantType, rows: usize, depth: usize, data: Bytes) -> Self {
        Self { layout: PackLayout::RowMajor(ty), rows, depth, data }
    }

    /// The same values for every arrangement of a format.
    ///
    /// # Panics
    /// If `depth` is not a whole number of blocks.
    pub fn random(layout: PackLayout, rows: usize, depth: usize, seed: u64) -> Self {
        let blocks = |ty: QuantType| Rng(seed).blocks(ty, rows * depth / ty.block_len());
        let panels = match layout {
            PackLayout::RowMajor(ty) => return Self::row_major(ty, rows, depth, Bytes::from(blocks(ty))),
            PackLayout::Panels(panels) => panels,
        };
        if let Some(ty) = unpacked(panels) {
            return Self::row_major(ty, rows, depth, Bytes::from(blocks(ty))).packed().expect("it has panels");
        }
        let data = Self::panels(panels, rows, depth, |rows, panel| {
            let PanelType::U4 { group, zeros } = panels else { unreachable!("the others have blocks") };
            let mut rng = Rng(seed + rows.start as u64);
            let scales = rows.len() * depth / group.inputs();
            let codes = rng.nibbles(rows.len() * depth);
            let zero_points = rng.nibbles(if zeros { scales } else { 0 });
            // f16 from 2^-7 to 2^-6.
            let scales: Vec<[u8; 2]> = (0..scales).map(|_| [rng.next() as u8, 0x20 | rng.next() as u8 & 3]).collect();
            let rows = U4Rows { codes: &codes, scales: &scales, zeros: zeros.then_some(&zero_points) };
            pack_u4(group, depth, &rows, panel).expect("valid shape");
        });
        Self { layout, rows, depth, data }
    }

    /// The same weights in panels; `None` if the format has none.
    ///
    /// # Panics
    /// If `depth` is not a whole number of units.
    pub fn packed(&self) -> Option<Self> {
        let PackLayout::RowMajor(ty) = self.layout else { return Some(self.clone()) };
        let panels = PanelType::of(ty)?;
        let row_bytes = self.data.len() / self.rows;
        let data = Self::panels(panels, self.rows, self.depth, |rows, panel| {
            let rows = &self.data[rows.start * row_bytes..rows.end * row_bytes];
            pack_rows(ty, self.depth, rows, panel).expect("valid shape");
        });
        Some(Self { layout: PackLayout::Panels(panels), data, ..*self })
    }

    /// The bytes of all panels, each written by `fill` for a range of rows.
    fn panels(ty: PanelType, rows: usize, depth: usize, fill: impl Fn(std::ops::Range<usize>, &mut [u8])) -> Bytes {
        let mut data = vec![0; ty.matrix_bytes(rows, depth).expect("whole units")];
        let panel_bytes = ty.matrix_bytes(PANEL_ROWS, depth).expect("whole units");
        for (n, panel) in data.chunks_mut(panel_bytes).enumerate() {
            fill(n * PANEL_ROWS..rows.min((n + 1) * PANEL_ROWS), panel);
        }
        Bytes::from(data)
    }

    /// The matrix for a tier.
    ///
    /// # Panics
    /// If data and shape do not fit.
    pub fn matrix(&self, k: &Kernels) -> PackedMatrix {
        let (rows, depth, data) = (self.rows, self.depth, self.data.clone());
        let matrix = match self.layout {
            PackLayout::RowMajor(ty) => k.pack(ty, rows, depth, data),
            PackLayout::Panels(ty) => k.packed(ty, rows, depth, data),
        };
        matrix.expect("valid shape")
    }

    /// The values, as row-major f32.
    ///
    /// # Panics
    /// If data and shape do not fit.
    pub fn decoded(&self) -> Self {
        let matrix = self.matrix(&Kernels::detect());
        let mut row = vec![0.0f32; self.depth];
        let mut data = Vec::with_capacity(4 * self.rows * self.depth);
        for n in 0..self.rows {
            ops::decode_row(&matrix, n, &mut row).expect("right shapes");
            data.extend(row.iter().flat_map(|weight| weight.to_le_bytes()));
        }
        Self::row_major(QuantType::F32, self.rows, self.depth, Bytes::from(data))
    }
}

/// The format whose values panels of `ty` hold.
fn unpacked(ty: PanelType) -> Option<QuantType> {
    QuantType::ALL.into_iter().find(|from| PanelType::of(*from) == Some(ty))
}

/// `q4_0`, `q4_0_packed`, `u4_g128_z`: what stands behind the operation in an id.
pub fn layout_name(layout: PackLayout) -> String {
    match layout {
        PackLayout::RowMajor(ty) => ty.to_string(),
        PackLayout::Panels(ty) if unpacked(ty).is_some() => format!("{}_packed", ty.name()),
        PackLayout::Panels(ty) => ty.name().to_owned(),
    }
}

/// Bytes of a matrix, padding to whole panels included.
///
/// # Panics
/// If `depth` is not a whole number of blocks.
pub fn layout_bytes(layout: PackLayout, rows: usize, depth: usize) -> usize {
    match layout {
        PackLayout::RowMajor(ty) => rows * ty.row_bytes(depth).expect("whole blocks"),
        PackLayout::Panels(ty) => ty.matrix_bytes(rows, depth).expect("whole units"),
    }
}
