//! What must hold for any bytes whatever: shared by the property tests and the fuzz targets.

use std::collections::HashSet;

use halfbyte_formats::{
    FormatError, QuantType,
    gguf::{Array, Gguf, GgufWriter, Value},
};

/// Parses `bytes`. A refusal must have a one-line message; what is accepted must keep every promise of the reader,
/// and must be the same when it is written and read again.
pub fn gguf(bytes: &[u8]) {
    match Gguf::from_bytes(bytes.to_vec()) {
        Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
        Ok(file) => {
            accessors_answer(&file);
            tensors_are_whole(&file, bytes);
            let again = rewrite(&file).expect("what the reader accepts, the writer accepts");
            let file_again = Gguf::from_bytes(again.clone()).expect("what the writer wrote, the reader accepts");
            same_tensors(&file, &file_again);
            assert_eq!(rewrite(&file_again).expect("still"), again);
        }
    }
}

/// The same metadata and tensors, written anew.
pub fn rewrite(file: &Gguf) -> Result<Vec<u8>, FormatError> {
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        writer.put(key, value.clone())?;
    }
    for tensor in file.tensors() {
        writer.declare(&tensor.name, &tensor.dims, tensor.ty)?;
    }
    let mut stream = writer.write_to(Vec::new())?;
    for tensor in file.tensors() {
        stream.write_tensor(&tensor.name, &tensor.data)?;
    }
    stream.finish()
}

/// Each entry is found by its key, and each accessor gives the value or an error, never a panic.
fn accessors_answer(file: &Gguf) {
    let metadata = file.metadata();
    for (key, value) in metadata.iter() {
        assert!(std::ptr::eq(metadata.value(key).expect("its own key finds it"), value));
        let answers = [
            metadata.usize(key).is_ok(),
            metadata.f32(key).is_ok(),
            metadata.bool(key).is_ok(),
            metadata.str(key).is_ok(),
            metadata.strings(key).is_ok(),
            metadata.usizes(key).is_ok(),
            metadata.f32s(key).is_ok(),
            metadata.bools(key).is_ok(),
        ];
        assert!(answers.into_iter().filter(|&ok| ok).count() <= 1, "{key}: a value has one kind");
        if let Value::Array(Array::String(strings)) = value {
            assert_eq!(strings.iter().len(), strings.len());
            assert_eq!(strings.at(strings.len()), None);
        }
    }
    assert_eq!(metadata.value(""), None);
}

/// Each tensor is found by its name and has exactly the bytes of its shape, inside the file, overlapping no other.
fn tensors_are_whole(file: &Gguf, bytes: &[u8]) {
    let mut names = HashSet::new();
    let mut total = 0;
    for tensor in file.tensors() {
        assert!(names.insert(&tensor.name));
        assert!(std::ptr::eq(file.tensor(&tensor.name).expect("its own name finds it"), tensor));
        let rows: usize = tensor.dims.iter().skip(1).product();
        let row = tensor.ty.row_bytes(tensor.dims[0]).expect("rows are whole blocks");
        assert_eq!(tensor.data.len(), rows * row);
        if let Some(ty) = tensor.panels() {
            let rows = tensor.shape().iter().skip(1).product();
            let bytes = ty.matrix_bytes(rows, tensor.shape()[0]).expect("rows are whole units");
            assert_eq!((tensor.ty, tensor.dims.len(), tensor.data.len()), (QuantType::I8, 1, bytes));
        } else {
            assert_eq!(tensor.shape(), tensor.dims);
        }
        total += tensor.data.len();
    }
    assert!(total <= bytes.len());
}

fn same_tensors(a: &Gguf, b: &Gguf) {
    assert_eq!(a.tensors().len(), b.tensors().len());
    for (a, b) in a.tensors().iter().zip(b.tensors()) {
        assert_eq!((&a.name, &a.dims, a.ty), (&b.name, &b.dims, b.ty));
        assert_eq!((a.shape(), a.panels()), (b.shape(), b.panels()));
        assert_eq!(*a.data, *b.data);
    }
}
