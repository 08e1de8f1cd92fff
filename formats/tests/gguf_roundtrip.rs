//! What is read and written again is the same file; what is written is read back.

use std::{fs, path::Path};

use halfbyte_formats::gguf::{Gguf, GgufWriter};

/// The same metadata and tensors, written anew.
fn rewrite(file: &Gguf) -> Vec<u8> {
    let mut writer = GgufWriter::new();
    for (key, value) in file.metadata().iter() {
        writer.put(key, value.clone()).unwrap();
    }
    for tensor in file.tensors() {
        writer.declare(&tensor.name, &tensor.dims, tensor.ty).unwrap();
    }
    let mut stream = writer.write_to(Vec::new()).unwrap();
    for tensor in file.tensors() {
        stream.write_tensor(&tensor.name, &tensor.data).unwrap();
    }
    stream.finish().unwrap()
}

#[test]
fn real_vocabularies_are_rewritten_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/vocab");
    for name in ["qwen2", "llama-bpe", "phi-3"] {
        let path = folder.join(format!("ggml-vocab-{name}.gguf"));
        let Ok(bytes) = fs::read(&path) else { continue };
        let start = std::time::Instant::now();
        let file = Gguf::open(&path).unwrap();
        println!("{name}: {} entries in {:?}", file.metadata().len(), start.elapsed());
        assert!(rewrite(&file) == bytes, "{name}");
    }
}
