//! Lists what a GGUF file holds: `cargo run --example gguf_info -- model.gguf`.

use std::{env, process::ExitCode};

use halfbyte_formats::{FormatError, gguf::Gguf};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: gguf_info <file>");
        return ExitCode::FAILURE;
    };
    match Gguf::open(path).and_then(|file| list(&file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn list(file: &Gguf) -> Result<(), FormatError> {
    println!("architecture: {}", file.metadata().str("general.architecture")?.unwrap_or("unnamed"));
    for (key, value) in file.metadata().iter() {
        println!("{key}: {}", value.kind());
    }
    for tensor in file.tensors() {
        println!("{} {:?} {}: {} bytes", tensor.name, tensor.dims, tensor.ty.name(), tensor.data.len());
    }
    Ok(())
}
