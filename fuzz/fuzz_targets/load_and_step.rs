//! Whatever file is accepted can be run: prompts, text, tokens, truncation end in a result or a typed error.

#![no_main]

use halfbyte::{Compat, Gguf, LoadOptions, Model, RuntimeError, Sampling, SessionOptions, StopRules};
use halfbyte_fuzz::model;
use libfuzzer_sys::fuzz_target;

fn run(input: &model::Model) -> Result<(), RuntimeError> {
    let mut options = LoadOptions::default();
    options.threads = Some(1);
    if input.compat {
        options.compat = Compat::LlamaCpp;
    }
    let model = Model::from_gguf(&Gguf::from_bytes(input.build())?, None, &options)?;
    let mut shape = SessionOptions::default();
    shape.context = Some(model.config().context.min(48));
    shape.batch = 5;
    let mut session = model.session(&shape)?;
    if let Some(temperature) = input.temperature {
        let mut sampling = Sampling::default();
        sampling.temperature = temperature;
        // A refusal leaves the default.
        let _ = session.set_sampling(sampling);
    }
    let mut stop = StopRules::default();
    stop.max_tokens = Some(8);
    session.set_stop(stop)?;
    for prompt in input.prompts.iter().take(3) {
        let tokens: Vec<u32> = prompt.iter().map(|&id| u32::from(id) % 44).collect();
        let before = session.tokens().len();
        match session.push_tokens(&tokens) {
            Ok(()) => assert_eq!(session.tokens().len(), before + tokens.len()),
            Err(_) => assert_eq!(session.tokens().len(), before, "a refused push has no effect"),
        }
        while session.next_token()?.is_some() {}
        assert!(session.tokens().len() <= session.context());
    }
    session.truncate(usize::from(input.cut) % 16);
    let _ = session.push_text(&input.text);
    for piece in session.by_ref() {
        assert!(!piece?.is_empty());
    }
    Ok(())
}

fuzz_target!(|input: model::Model| {
    if let Err(error) = run(&input) {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
});
