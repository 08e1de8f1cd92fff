//! Encodes many texts with one vocabulary, for comparison with other tokenizers (`scripts/tokenizer_oracle.py`).
//!
//! `tokenizer_stream VOCABULARY.gguf [parse]`: on standard input, for each text, its length in bytes (u32,
//! little-endian) and its bytes; on standard output the number of ids and the ids (u32). `parse` matches special
//! tokens.

use std::io::{self, BufWriter, Read, Write};

use halfbyte::{
    Gguf,
    text::{Special, Tokenizer},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = Gguf::open(arguments.next().ok_or("usage: tokenizer_stream VOCABULARY.gguf [parse]")?)?;
    let tokenizer = Tokenizer::from_metadata(file.metadata())?;
    let special = if arguments.next().is_some() { Special::Parse } else { Special::AsText };

    let mut input = Vec::new();
    io::stdin().lock().read_to_end(&mut input)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let mut rest = input.as_slice();
    while let Some((&len, tail)) = rest.split_first_chunk() {
        let (text, tail) = tail.split_at(u32::from_le_bytes(len) as usize);
        rest = tail;
        let ids = tokenizer.encode(std::str::from_utf8(text)?, special);
        output.write_all(&u32::try_from(ids.len())?.to_le_bytes())?;
        for id in ids {
            output.write_all(&id.to_le_bytes())?;
        }
    }
    output.flush()?;
    Ok(())
}
