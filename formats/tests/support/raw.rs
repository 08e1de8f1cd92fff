//! Builds GGUF files byte by byte, with any field wrong: independent of the writer, checks nothing.

/// Numbers of the value kinds.
pub mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;

    /// Every scalar kind: number, name, an element of it as stored.
    pub const SCALARS: [(u32, &str, &[u8]); 12] = [
        (U8, "u8", &[1]),
        (I8, "i8", &[1]),
        (U16, "u16", &[1, 0]),
        (I16, "i16", &[1, 0]),
        (U32, "u32", &[1, 0, 0, 0]),
        (I32, "i32", &[1, 0, 0, 0]),
        (F32, "f32", &[0, 0, 128, 63]),
        (BOOL, "bool", &[1]),
        (STRING, "string", &[1, 0, 0, 0, 0, 0, 0, 0, b'x']),
        (U64, "u64", &[1, 0, 0, 0, 0, 0, 0, 0]),
        (I64, "i64", &[1, 0, 0, 0, 0, 0, 0, 0]),
        (F64, "f64", &[0, 0, 0, 0, 0, 0, 240, 63]),
    ];
}

/// A file in the making. Counts and offsets are right unless set.
#[derive(Clone, Default)]
pub struct Raw {
    pub version: Option<u32>,
    pub tensor_count: Option<u64>,
    pub entry_count: Option<u64>,
    pub alignment: Option<usize>,
    pub entries: Vec<Vec<u8>>,
    pub tensors: Vec<Vec<u8>>,
    pub data: Vec<u8>,
}

/// Text as stored: length, bytes.
pub fn text(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// An array as stored: element kind, count, elements.
pub fn array(kind: u32, count: u64, elements: impl AsRef<[u8]>) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements.as_ref()].concat()
}

/// A tensor description as stored.
pub fn tensor(name: impl AsRef<[u8]>, dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((dims.len() as u32).to_le_bytes());
    bytes.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
    bytes.extend(ty.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl Raw {
    pub fn new() -> Self {
        Self::default()
    }

    /// An entry from its stored bytes.
    pub fn entry(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.entries.push(bytes.into());
        self
    }

    /// A key with a value of `kind` from its stored bytes.
    pub fn put(self, key: impl AsRef<[u8]>, kind: u32, value: impl AsRef<[u8]>) -> Self {
        self.entry([&text(key)[..], &kind.to_le_bytes(), value.as_ref()].concat())
    }

    pub fn put_str(self, key: &str, value: &str) -> Self {
        self.put(key, kind::STRING, text(value))
    }

    pub fn put_u32(self, key: &str, value: u32) -> Self {
        self.put(key, kind::U32, value.to_le_bytes())
    }

    /// A tensor description from its stored bytes.
    pub fn describe(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.tensors.push(bytes.into());
        self
    }

    /// Bytes of the data section.
    pub fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data.extend(data.as_ref());
        self
    }

    /// The file up to the end of the descriptions.
    pub fn head(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.unwrap_or(3).to_le_bytes());
        file.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        file.extend(self.tensors.concat());
        file
    }

    /// The whole file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = self.head();
        if !self.data.is_empty() {
            file.resize(file.len().next_multiple_of(self.alignment.unwrap_or(32)), 0);
            file.extend(&self.data);
        }
        file
    }
}

/// A small file that is all right and has a bit of everything.
pub fn valid() -> Raw {
    let mut raw = Raw::new().put_str("general.architecture", "gpt-oss").put_u32("general.alignment", 32);
    for (kind, name, element) in kind::SCALARS {
        raw = raw.put(format!("test.{name}"), kind, element);
        raw = raw.put(format!("test.{name}s"), kind::ARRAY, array(kind, 2, element.repeat(2)));
    }
    raw.put("test.empty", kind::ARRAY, array(kind::STRING, 0, []))
        .put("test.Wide-Key x", kind::STRING, text("mit Umlaut: ä"))
        .describe(tensor("token_embd.weight", &[32, 2], 2, 0))
        .describe(tensor("output_norm.weight", &[5], 0, 64))
        .describe(tensor("blk.0.ffn.weight", &[256, 1, 1, 1], 12, 96))
        .data([7; 36])
        .data([0; 28])
        .data([1; 20])
        .data([0; 12])
        .data([3; 144])
        .data([0; 16])
}
