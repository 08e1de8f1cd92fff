//! Requests to a scheduler, and what they have to come to.

use halfbyte::{Finish, Generation, KvType, Model, Priority, Request, Sampling, SessionOptions};

use crate::{bundled, options_on};

/// The bundled model.
#[must_use]
pub fn tiny_mimo(threads: usize) -> Model {
    Model::open_with(bundled("tiny-mimo"), &options_on(threads, None)).expect("the bundled model")
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.word() % n as u64).expect("small")
    }
}

/// A request of up to `most` random tokens, drawn from `random`.
#[must_use]
pub fn random_request(model: &Model, random: &mut Random, most: usize) -> Request {
    let len = 1 + random.below(most);
    let vocab = model.vocab();
    let mut request = Request::new((0..len).map(|_| u32::try_from(random.below(vocab)).expect("an id")).collect());
    request.priority = Priority::ALL[random.below(3)];
    request.sampling = if random.below(2) == 0 { Sampling::greedy() } else { Sampling::default() };
    request.sampling.seed = random.word();
    request.stop.max_tokens = Some(1 + random.below(24));
    request.stop.end_of_text = false;
    request
}

/// What a session alone makes of a request: tokens, text, and why it ended.
#[must_use]
pub fn alone(model: &Model, kv: KvType, request: &Request) -> (Vec<u32>, String, Option<Finish>) {
    let mut options = SessionOptions::default();
    let wanted = request.stop.max_tokens.map(|max| (request.tokens.len() + max).min(model.config().context));
    options.context = request.context.or(wanted);
    options.kv = kv;
    options.batch = 64;
    let mut session = model.session(&options).expect("a session");
    session.set_sampling(request.sampling.clone()).expect("valid");
    session.set_overflow(request.overflow).expect("valid");
    session.push_tokens(&request.tokens).expect("it fits");
    session.set_stop(request.stop.clone()).expect("valid");
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        let token = session.next_token().expect("finite logits");
        text.push_str(session.text());
        match token {
            Some(token) => tokens.push(token),
            None => return (tokens, text, session.finish()),
        }
    }
}

/// What a scheduler makes of a request.
pub fn read(generation: &mut Generation) -> (Vec<u32>, String, Option<Finish>) {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    for piece in generation.by_ref() {
        let piece = piece.expect("no error");
        tokens.extend(piece.token);
        text.push_str(&piece.text);
    }
    (tokens, text, generation.finish())
}
