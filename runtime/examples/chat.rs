//! A conversation in the ChatML format: `cargo run --release --example chat -p halfbyte -- MODEL.gguf`.
//!
//! The tags are pushed as markup and the user's line as text, so nobody can type a tag.

use std::io::{BufRead, Write};

use halfbyte::{Model, SessionOptions, StopRules};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL")?;
    let model = Model::open(path)?;
    let mut session = model.session(&SessionOptions::default())?;
    let mut stop = StopRules::default();
    stop.max_tokens = Some(256);
    session.set_stop(stop)?;

    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next() else { return Ok(()) };
        session.push_markup("<|im_start|>user\n")?;
        session.push_text(&line?)?;
        session.push_markup("<|im_end|>\n<|im_start|>assistant\n")?;
        for piece in session.by_ref() {
            print!("{}", piece?);
            std::io::stdout().flush()?;
        }
        println!();
        session.push_markup("<|im_end|>\n")?;
    }
}
