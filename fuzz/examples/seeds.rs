//! Writes the starting corpus of `gguf_parse`: the good file and the whole table of bad inputs.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds`, in the root of the repository.

use std::{fs, io, path::Path};

use halfbyte_fuzz::{fixtures, raw};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/gguf_parse");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("good"), raw::valid().build())?;
    for fixture in fixtures::all() {
        fs::write(folder.join(fixture.name), fixture.bytes)?;
    }
    Ok(())
}
