//! A model inside an application: one `Model`, a session per request on its own thread, and a deadline that cancels.
//!
//! `cargo run --release --example embed_as_library -p halfbyte -- MODEL.gguf`

use std::{sync::mpsc, thread, time::Duration};

use halfbyte::{Model, RuntimeError, SessionOptions, StopRules};

fn answer(model: &Model, prompt: &str, deadline: Duration) -> Result<String, RuntimeError> {
    let mut session = model.session(&SessionOptions::default())?;
    let mut stop = StopRules::default();
    stop.max_tokens = Some(64);
    session.set_stop(stop)?;

    let cancel = session.cancel_token();
    let (done, finished) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if finished.recv_timeout(deadline) == Err(mpsc::RecvTimeoutError::Timeout) {
            cancel.cancel();
        }
    });
    let mut text = String::new();
    let result = session.push_text(prompt).and_then(|_| {
        for piece in session.by_ref() {
            text.push_str(&piece?);
        }
        Ok(())
    });
    drop(done);
    let _ = watchdog.join();
    match result {
        // What was written before the deadline is still good.
        Ok(()) | Err(RuntimeError::Cancelled) => Ok(text),
        Err(error) => Err(error),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: embed_as_library MODEL")?;
    let model = Model::open(path)?;
    let requests = ["Once upon a time", "The king said", "In the forest"].map(|prompt| {
        let model = model.clone();
        thread::spawn(move || (prompt, answer(&model, prompt, Duration::from_secs(10))))
    });
    for request in requests {
        let (prompt, text) = request.join().map_err(|_| "a request panicked")?;
        println!("{prompt}{}\n", text?);
    }
    Ok(())
}
