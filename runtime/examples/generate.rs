//! Continues a prompt: `cargo run --release --example generate -p halfbyte -- MODEL.gguf "Once upon a time"`.

use std::io::Write;

use halfbyte::{Model, RuntimeError, SessionOptions, StopRules};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: generate MODEL [PROMPT]")?;
    let prompt = arguments.next().unwrap_or_else(|| "Once upon a time".to_owned());

    let model = Model::open(path)?;
    let mut session = model.session(&SessionOptions::default())?;
    let mut stop = StopRules::default();
    stop.max_tokens = Some(128);
    session.set_stop(stop)?;

    print!("{prompt}");
    session.push_text(&prompt)?;
    for piece in session.by_ref() {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!("\n{:.1} tokens/s, ended by {}", session.stats().decode_rate(), ended(&session)?);
    Ok(())
}

fn ended(session: &halfbyte::Session) -> Result<&'static str, RuntimeError> {
    session.finish().map(|finish| finish.name()).ok_or(RuntimeError::EmptySession)
}
