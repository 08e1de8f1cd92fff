//! What an application outside the workspace does: load a model, share it between threads, generate.

use halfbyte::{Gguf, LoadOptions, Model, RuntimeError, Sampling, SessionOptions, StopRules};

static MODEL: &[u8] = include_bytes!("../../../cli/models/tiny-mimo-q4_0.gguf");

fn tale(model: &Model, seed: u64) -> Result<String, RuntimeError> {
    let mut session = model.session(&SessionOptions::default())?;
    let mut sampling = Sampling::default();
    sampling.seed = seed;
    session.set_sampling(sampling)?;
    let mut stop = StopRules::default();
    stop.max_tokens = Some(16);
    session.set_stop(stop)?;
    session.push_text("Once upon a time")?;
    session.collect()
}

fn main() -> Result<(), RuntimeError> {
    let model = Model::from_gguf(&Gguf::from_bytes(MODEL)?, None, &LoadOptions::default())?;
    let threads = [1, 2].map(|seed| {
        let model = model.clone();
        std::thread::spawn(move || tale(&model, seed))
    });
    for thread in threads {
        let text = thread.join().expect("no panic")?;
        assert!(!text.trim().is_empty(), "the model wrote nothing");
        println!("Once upon a time{text}");
    }
    Ok(())
}
