//! A request that has a place: its sequence, and to whom its tokens go.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use halfbyte_kernels::KV_PAGE;

use super::{
    SchedulerOptions,
    core::Waiting,
    generation::Outlet,
    queue::Priority,
    request::{Piece, Pressure, Request, Update},
    stats::Counters,
};
use crate::{
    Event, Finish, Model, Overflow, RuntimeError,
    generate::Logits,
    kv::KvCache,
    prefix::PrefixCache,
    session::{self, Sequence},
};

/// See the head of this file.
pub(super) struct Running {
    pub(super) priority: Priority,
    /// Where it stood in the queue, and stands among those whose prompts are run: see [`super::queue`].
    pub(super) place: Duration,
    pub(super) sequence: Sequence,
    outlet: Outlet,
    submitted: Instant,
    /// When the last token came.
    last: Option<Instant>,
    cached: bool,
    /// Whether others may have full pages of the prompt while it runs: see [`drops_pages`].
    shares: bool,
    /// Whether the whole prompt was run.
    prompted: bool,
}

/// What became of a token that was chosen.
pub(super) struct Told {
    priority: Priority,
    /// Whether somebody took it.
    pub(super) heard: bool,
    /// Loops that were noticed.
    loops: usize,
    /// Time since it was submitted, of a first token.
    first: Option<Duration>,
    /// Time since the last token, of another one.
    next: Option<Duration>,
}

impl Told {
    /// Counts it.
    pub(super) fn count(&self, counters: &mut Counters) {
        counters.loops += self.loops as u64;
        counters.tokens += u64::from(self.first.or(self.next).is_some());
        let times = counters.class(self.priority);
        self.first.iter().for_each(|&time| times.first_token.add(time));
        self.next.iter().for_each(|&time| times.per_token.add(time));
    }
}

/// What a request that has a turn finds.
pub(super) enum Share {
    /// Memory for all it may need, and what it can take over.
    Ready { sequence: Box<Sequence>, cached: usize, shortened: Option<Event> },
    /// It is refused.
    Refused(RuntimeError),
}

impl Share {
    /// Sets memory aside for a request, or refuses it; `None` lets it wait, because others run and will give theirs
    /// back. It is not asked for again before anything came back.
    pub(super) fn of(
        waiting: &Waiting,
        model: &Model,
        options: &SchedulerOptions,
        prefixes: &PrefixCache,
        others: bool,
    ) -> Option<Self> {
        let request = &waiting.request;
        let returns = model.budget().returns();
        if others && waiting.short_at.get() == Some(returns) {
            return None;
        }
        let asked = match context(request, model) {
            Ok(asked) => asked,
            Err(error) => return Some(Self::Refused(error)),
        };
        match build(waiting, model, options, prefixes, asked) {
            Ok((sequence, cached)) => Some(Self::Ready { sequence, cached, shortened: None }),
            Err(RuntimeError::BudgetExceeded { .. }) if others => {
                waiting.short_at.set(Some(returns));
                None
            }
            Err(error @ RuntimeError::BudgetExceeded { .. }) => {
                let least = (request.tokens.len() + 1).max(request.overflow.least_context()).min(asked);
                let page = KvCache::page_bytes(model.config(), options.kv).unwrap_or(0);
                let budget = model.budget();
                let pressure = Pressure { used: budget.least_used(), limit: budget.limit(), page };
                let ask = || options.policy.as_ref().and_then(|policy| policy.context(asked, least, pressure));
                // It is not ours. One that panics has said nothing.
                let shorter = catch_unwind(AssertUnwindSafe(ask)).unwrap_or(None);
                let Some(given) = shorter.map(|given| given.clamp(least, asked)) else {
                    return Some(Self::Refused(error));
                };
                match build(waiting, model, options, prefixes, given) {
                    Ok((sequence, cached)) => {
                        let shortened = (given < asked).then_some(Event::ContextShortened { asked, given });
                        Some(Self::Ready { sequence, cached, shortened })
                    }
                    Err(error) => Some(Self::Refused(error)),
                }
            }
            Err(error) => Some(Self::Refused(error)),
        }
    }
}

/// The context that a request asks for.
pub(super) fn context(request: &Request, model: &Model) -> Result<usize, RuntimeError> {
    let wanted = match request.stop.max_tokens {
        Some(max) => request.tokens.len().saturating_add(max),
        None => session::DEFAULT_CONTEXT,
    };
    let wanted = wanted.max(request.overflow.least_context()).min(model.config().context);
    let context = session::context(model.config(), request.context.or(Some(wanted)))?;
    request.overflow.check(context)?;
    let need = request.tokens.len();
    if need > context { Err(RuntimeError::ContextFull { need, context, used: 0 }) } else { Ok(context) }
}

/// Whether a request may drop pages before it is over, and make them again: because it slides, or is rotated otherwise
/// from some token on. A page that it shares with others does not come back to it when it is dropped. So all it may
/// need is set aside, whatever it takes over, and its own pages are not shared before the end.
fn drops_pages(request: &Request, model: &Model, context: usize) -> bool {
    let len = request.tokens.len();
    let end = len.saturating_add(request.stop.max_tokens.unwrap_or(usize::MAX));
    let slides = matches!(request.overflow, Overflow::Slide { .. }) && end > context;
    let rotations = model.graph().rotations();
    slides || rotations.set(len, context) != rotations.set(end.min(context), context)
}

/// A sequence with the prompt of a request, what is known of it taken over, and memory set aside for all else that it
/// may need.
fn build(
    waiting: &Waiting,
    model: &Model,
    options: &SchedulerOptions,
    prefixes: &PrefixCache,
    context: usize,
) -> Result<(Box<Sequence>, usize), RuntimeError> {
    let request = &waiting.request;
    // Takes pages that are known first: what is in use is not given up when memory is asked for.
    let factors = model.graph().rotations().set(request.tokens.len(), context);
    let last = request.tokens.len().saturating_sub(1);
    let before = request.tokens.get(..last).filter(|_| request.cached).unwrap_or(&[]);
    let (mut pages, mut known) = prefixes.find(factors, options.kv, before)?;
    let page = KvCache::page_bytes(model.config(), options.kv)?;
    let shared = if drops_pages(request, model, context) { 0 } else { known / KV_PAGE };
    let own = context.div_ceil(KV_PAGE) - shared;
    let bytes = own.saturating_mul(page).saturating_add(Sequence::buffer_bytes(model.vocab(), context));
    let grant = match model.budget().ask(bytes) {
        // The pages from `shared` on were asked for as well: if nobody else holds them, they can go for that.
        Err(RuntimeError::BudgetExceeded { .. }) if pages.len() > shared => {
            pages.truncate(shared);
            known = shared * KV_PAGE;
            model.budget().ask(bytes)?
        }
        asked => asked?,
    };
    let mut sequence = Sequence::new(model.clone(), options.kv, context, grant)?;
    sequence.cancel = waiting.cancel.clone();
    sequence.set_sampling(request.sampling.clone())?;
    sequence.set_stop(request.stop.clone())?;
    sequence.set_overflow(request.overflow)?;
    sequence.cache.rotate_with(factors);
    sequence.extend(&request.tokens)?;
    let known = sequence.cache.adopt(pages, known);
    Ok((Box::new(sequence), known))
}

impl Running {
    pub(super) fn new(waiting: Waiting, place: Duration, sequence: Sequence) -> Self {
        let Waiting { request, outlet, submitted, .. } = waiting;
        let (priority, cached) = (request.priority, request.cached);
        let shares = cached && !drops_pages(&request, &sequence.model, sequence.cache.capacity());
        Self { priority, place, sequence, outlet, submitted, last: None, cached, shares, prompted: false }
    }

    /// Whether its next pass is that of a single token that it chose.
    pub(super) fn decodes(&self) -> bool {
        self.prompted && self.sequence.pending() == 1
    }

    /// Sees to it that there is something to run: slides a full context, and begins anew where other rotations are
    /// right. Whether there is; if not, it is over.
    pub(super) fn prepare(&mut self) -> Result<bool, RuntimeError> {
        let wants = self.sequence.wants_token();
        let heard = self.tell();
        if !wants? {
            self.say(None);
            return Ok(false);
        }
        if !heard {
            return Err(RuntimeError::Cancelled);
        }
        if let Some(factors) = self.sequence.other_factors() {
            let tokens = self.sequence.cache.len();
            self.sequence.cache.rotate_with(factors);
            if tokens > 0 && !self.outlet.send(Update::Event(Event::Rerun { tokens, factors })) {
                return Err(RuntimeError::Cancelled);
            }
        }
        Ok(true)
    }

    /// Whether nothing is to be run for it until what it has told was read. What is not read is never much more than a
    /// context of tokens: without sliding, no sequence tells as much as this.
    pub(super) fn is_stalled(&self) -> bool {
        !self.outlet.has_room(self.sequence.cache.capacity().saturating_mul(2))
    }

    /// Has `event` told with the next ones.
    pub(super) fn add_event(&mut self, event: Event) {
        self.sequence.events.push(event);
    }

    /// Passes on what has happened; false if nobody wants it.
    fn tell(&mut self) -> bool {
        self.sequence.events.drain(..).all(|event| self.outlet.send(Update::Event(event)))
    }

    /// `count` of its tokens were run.
    pub(super) fn commit(&mut self, count: usize, prefixes: &PrefixCache) {
        self.sequence.cache.commit(count);
        if !self.prompted && self.sequence.pending() == 0 {
            self.prompted = true;
            if self.shares {
                prefixes.keep(&self.sequence.cache, &self.sequence.tokens, true);
            }
        }
    }

    /// Chooses the next token by the logits of the last one and passes it on.
    pub(super) fn choose(&mut self, logits: Logits<'_>, start: Instant) -> Result<Told, RuntimeError> {
        self.sequence.text.clear();
        let token = self.sequence.choose(logits, start)?;
        let loops = self.sequence.events.iter().filter(|event| matches!(event, Event::Loop { .. })).count();
        let heard = self.tell();
        let now = Instant::now();
        let (mut first, mut next) = (None, None);
        if token.is_some() {
            match self.last.replace(now) {
                None => first = Some(now - self.submitted),
                Some(last) => next = Some(now - last),
            }
        }
        Ok(Told { priority: self.priority, heard: heard && self.say(token), loops, first, next })
    }

    /// Passes a token and the text that has become certain on, if there is any; false if nobody wants it.
    fn say(&mut self, token: Option<u32>) -> bool {
        if token.is_none() && self.sequence.text.is_empty() {
            return true;
        }
        self.outlet.send(Update::Piece(Piece { token, text: self.sequence.text.clone() }))
    }

    /// Gives its memory back before its `result` is counted and told; what was run is kept for others, unless something
    /// went wrong with it.
    pub(super) fn free(self, result: &Result<Finish, RuntimeError>, prefixes: &PrefixCache) -> Outlet {
        let Self { sequence, outlet, cached, .. } = self;
        if cached && matches!(result, Ok(_) | Err(RuntimeError::Cancelled | RuntimeError::ContextFull { .. })) {
            prefixes.keep(&sequence.cache, &sequence.tokens, false);
        }
        outlet
    }
}
