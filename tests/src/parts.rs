//! A GGUF file taken apart, to be changed in one place and put together again.

use halfbyte_formats::{
    QuantType,
    gguf::{Gguf, GgufWriter, Value},
    quant::{self, Mix, ModelTraits},
};

/// Metadata and tensors of a file, in order.
#[derive(Clone)]
pub struct Parts {
    /// Keys and values.
    pub entries: Vec<(String, Value)>,
    /// Tensors with their data.
    pub tensors: Vec<Part>,
}

/// One tensor.
#[derive(Clone)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Extents, the contiguous one first.
    pub dims: Vec<usize>,
    /// Storage format.
    pub ty: QuantType,
    /// Stored bytes.
    pub data: Vec<u8>,
}

impl Part {
    /// The values of an f32 tensor.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.ty, QuantType::F32, "{}", self.name);
        self.data.as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
    }

    /// The values of a tensor in any format.
    #[must_use]
    pub fn decoded(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.dims.iter().product()];
        quant::decode(self.ty, &self.data, &mut values).expect("whole blocks");
        values
    }

    /// Replaces the values of an f32 tensor by `f` of each.
    pub fn map(&mut self, f: impl Fn(f32) -> f32) {
        self.data = self.values().into_iter().flat_map(|value| f(value).to_le_bytes()).collect();
    }

    /// Stores the tensor as `ty`.
    pub fn encode(&mut self, ty: QuantType) {
        let values = self.decoded();
        let bytes = ty.row_bytes(self.dims[0]).expect("whole blocks") * self.dims[1..].iter().product::<usize>();
        self.data = vec![0; bytes];
        quant::encode(ty, &values, &mut self.data).expect("finite values");
        self.ty = ty;
    }
}

impl Parts {
    /// Takes `file` apart.
    #[must_use]
    pub fn of(file: &Gguf) -> Self {
        let entries = file.metadata().iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let tensors = file
            .tensors()
            .iter()
            .map(|t| Part { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty, data: t.data.to_vec() })
            .collect();
        Self { entries, tensors }
    }

    /// Sets `key`, which may be there or not.
    pub fn put(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        match self.entries.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.entries.push((key.to_owned(), value)),
        }
        self
    }

    /// Removes `key`.
    ///
    /// # Panics
    /// If it is not there: a test that removes nothing tests nothing.
    pub fn drop_key(&mut self, key: &str) -> &mut Self {
        let at = self.entries.iter().position(|(known, _)| known == key).expect("the key");
        self.entries.remove(at);
        self
    }

    /// The tensor called `name`.
    ///
    /// # Panics
    /// If it is not there.
    pub fn tensor(&mut self, name: &str) -> &mut Part {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect("the tensor")
    }

    /// Takes the tensor called `name` out.
    ///
    /// # Panics
    /// If it is not there.
    pub fn take_tensor(&mut self, name: &str) -> Part {
        let at = self.tensors.iter().position(|tensor| tensor.name == name).expect("the tensor");
        self.tensors.remove(at)
    }

    /// Adds an f32 tensor.
    pub fn add_tensor(&mut self, name: &str, dims: &[usize], values: &[f32]) -> &mut Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensors.push(Part { name: name.to_owned(), dims: dims.to_vec(), ty: QuantType::F32, data });
        self
    }

    /// Stores every matrix as `mix` says, by the names it has in a model of `architecture`.
    pub fn quantise(&mut self, mix: Mix, architecture: &str) -> &mut Self {
        let layer = |tensor: &Part| tensor.name.strip_prefix("blk.")?.split('.').next()?.parse().ok();
        let layers = self.tensors.iter().filter_map(layer).max().map_or(0, |last: usize| last + 1);
        let tied = !self.tensors.iter().any(|tensor| tensor.name == "output.weight");
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.dims.len() > 1) {
            let ty = mix.tensor_type(&tensor.name, &tensor.dims, ModelTraits { architecture, layers, tied });
            if ty != tensor.ty {
                tensor.encode(ty);
            }
        }
        self
    }

    /// The bytes of the file.
    ///
    /// # Panics
    /// If the parts break a rule of the container.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = GgufWriter::new();
        for (key, value) in &self.entries {
            head.put(key, value.clone()).expect("a valid entry");
        }
        for tensor in &self.tensors {
            head.declare(&tensor.name, &tensor.dims, tensor.ty).expect("a valid tensor");
        }
        let mut stream = head.write_to(Vec::new()).expect("memory");
        for tensor in &self.tensors {
            stream.write_tensor(&tensor.name, &tensor.data).expect("data as long as its shape");
        }
        stream.finish().expect("memory")
    }

    /// The file, opened.
    ///
    /// # Panics
    /// As [`Parts::bytes`].
    #[must_use]
    pub fn gguf(&self) -> Gguf {
        Gguf::from_bytes(self.bytes()).expect("what the writer wrote")
    }
}
