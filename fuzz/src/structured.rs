//! GGUF files that are right in most places, so that the fuzzer reaches what lies behind the first check.

use arbitrary::{Arbitrary, Result, Unstructured};
use halfbyte_formats::QuantType;

use crate::raw::{self, Raw, kind};

/// Numbers that arithmetic goes wrong on.
const EDGES: [u64; 10] = [0, 1, 255, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX];

/// Keys that the reader itself looks at.
const KEYS: [&str; 10] = [
    "general.alignment",
    "general.architecture",
    "split.no",
    "split.count",
    "split.tensors.count",
    "gpt-oss.k",
    "halfbyte.pack.version",
    "halfbyte.pack.names",
    "halfbyte.pack.types",
    "halfbyte.pack.shapes",
];

/// A number field: the right number in nine of ten.
#[derive(Debug)]
struct Number(Option<u64>);

impl<'a> Arbitrary<'a> for Number {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(match u.int_in_range(0..=19)? {
            0 => Some(*u.choose(&EDGES)?),
            1 => Some(u.arbitrary()?),
            _ => None,
        }))
    }
}

impl Number {
    fn or(&self, right: u64) -> u64 {
        self.0.unwrap_or(right)
    }

    fn or_u32(&self, right: u32) -> u32 {
        self.0.map_or(right, |number| number as u32)
    }
}

/// A file to be built.
#[derive(Arbitrary, Debug)]
pub struct File {
    version: Number,
    entry_count: Number,
    tensor_count: Number,
    alignment: u8,
    entries: Vec<Entry>,
    tensors: Vec<Tensor>,
    /// Bytes of data that are missing or too many.
    extra: i8,
}

#[derive(Arbitrary, Debug)]
struct Entry {
    key: Text,
    known_key: Option<u8>,
    kind: u8,
    wrong_kind: Number,
    count: Number,
    elements: Vec<Element>,
    is_array: bool,
}

#[derive(Arbitrary, Debug)]
struct Text {
    len: Number,
    text: String,
    bytes: Option<Vec<u8>>,
}

#[derive(Arbitrary, Debug)]
struct Element {
    number: u64,
    text: Text,
}

#[derive(Arbitrary, Debug)]
struct Tensor {
    name: Option<Text>,
    rank: Number,
    blocks: u8,
    first: Number,
    dims: Vec<(u8, Number)>,
    ty: u8,
    wrong_ty: Number,
    offset: Number,
}

impl Text {
    fn build(&self) -> Vec<u8> {
        let bytes = self.bytes.as_deref().unwrap_or(self.text.as_bytes());
        [&self.len.or(bytes.len() as u64).to_le_bytes(), bytes].concat()
    }
}

impl Element {
    fn build(&self, kind: u32, size: usize) -> Vec<u8> {
        match kind {
            kind::STRING => self.text.build(),
            // Mostly 0 and 1, now and then a number that is no bool.
            kind::BOOL if self.number % 61 == 60 => vec![2],
            kind::BOOL => vec![(self.number % 2) as u8],
            _ => self.number.to_le_bytes()[..size].to_vec(),
        }
    }
}

impl Entry {
    fn build(&self, no: usize) -> Vec<u8> {
        let (kind, _, element) = kind::SCALARS[usize::from(self.kind) % kind::SCALARS.len()];
        let mut bytes = match self.known_key {
            Some(known) => raw::text(KEYS[usize::from(known) % KEYS.len()]),
            None if self.key.text.is_empty() => raw::text(format!("key-{no}")),
            None => self.key.build(),
        };
        if self.is_array {
            let elements: Vec<u8> = self.elements.iter().flat_map(|e| e.build(kind, element.len())).collect();
            bytes.extend(kind::ARRAY.to_le_bytes());
            let count = self.count.or(self.elements.len() as u64);
            bytes.extend(raw::array(self.wrong_kind.or_u32(kind), count, elements));
        } else {
            bytes.extend(self.wrong_kind.or_u32(kind).to_le_bytes());
            bytes.extend(self.elements.first().map_or(element.to_vec(), |e| e.build(kind, element.len())));
        }
        bytes
    }
}

impl File {
    /// The file's bytes.
    pub fn build(&self) -> Vec<u8> {
        let alignment = 1usize << (self.alignment % 9);
        let mut file =
            Raw { version: self.version.0.map(|version| version as u32), alignment: Some(alignment), ..Raw::new() };
        if alignment != 32 {
            file = file.put_u32("general.alignment", alignment as u32);
        }
        for (no, entry) in self.entries.iter().enumerate() {
            file = file.entry(entry.build(no));
        }
        let mut end = 0;
        for (no, tensor) in self.tensors.iter().take(64).enumerate() {
            let ty = QuantType::ALL[usize::from(tensor.ty) % QuantType::ALL.len()];
            let first = (usize::from(tensor.blocks % 4) + 1) * ty.block_len();
            let mut dims = vec![tensor.first.or(first as u64)];
            dims.extend(tensor.dims.iter().take(4).map(|(right, wrong)| wrong.or(u64::from(right % 3) + 1)));
            let name = tensor.name.as_ref().map_or_else(|| raw::text(format!("blk.{no}")), Text::build);
            let mut bytes = name;
            bytes.extend(tensor.rank.or_u32(dims.len() as u32).to_le_bytes());
            bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(tensor.wrong_ty.or_u32(ty.ggml_id()).to_le_bytes());
            bytes.extend(tensor.offset.or(end as u64).to_le_bytes());
            file = file.describe(bytes);
            let rows: u64 = tensor.dims.iter().take(4).map(|(right, _)| u64::from(right % 3) + 1).product();
            let size = ty.row_bytes(first).unwrap_or(0) * rows as usize;
            end = (end + size).next_multiple_of(alignment);
        }
        file.data = vec![0x5A; end.saturating_add_signed((self.extra / 64).into())];
        file.entry_count = self.entry_count.0.or(Some(file.entries.len() as u64));
        file.tensor_count = self.tensor_count.0.or(Some(file.tensors.len() as u64));
        file.build()
    }
}
