//! A conversation: `cargo run --release --example chat -p halfbyte -- MODEL.gguf`.
//!
//! The format is the model's own, or a built-in one. What the user types is text, so nobody can type a tag.

use std::io::{BufRead, Write};

use halfbyte::{
    Model, SessionOptions, StopRules,
    chat::{ChatTemplate, Message},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: chat MODEL")?;
    let model = Model::open(path)?;
    let template = ChatTemplate::for_model(&model)?;
    let mut session = model.session(&SessionOptions::default())?;
    let mut stop = StopRules::default();
    stop.max_tokens = Some(256);
    session.set_stop(stop)?;

    let mut messages = Vec::new();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        print!("> ");
        std::io::stdout().flush()?;
        let Some(line) = lines.next() else { return Ok(()) };
        messages.push(Message::user(line?));
        session.push_chat(&template, &messages)?;
        let mut answer = String::new();
        for piece in session.by_ref() {
            let piece = piece?;
            print!("{piece}");
            std::io::stdout().flush()?;
            answer.push_str(&piece);
        }
        println!();
        messages.push(Message::assistant(answer));
    }
}
