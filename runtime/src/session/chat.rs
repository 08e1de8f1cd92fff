//! Turns of a conversation in a session.

#![cfg(feature = "chat")]

use super::Session;
use crate::{
    RuntimeError,
    chat::{ChatTemplate, Message},
};

impl Session {
    /// Runs the conversation `messages` up to where the assistant's answer begins, and starts a generation. Returns the
    /// tokens run.
    ///
    /// The whole conversation is rendered, because a template may write what was said differently once more is said;
    /// but only what follows the tokens that the session already has in common with it is run. So an application holds
    /// the messages, adds the answer to them when it is complete, and leaves it away when it is not.
    ///
    /// ```no_run
    /// use halfbyte::{Session, chat::{ChatTemplate, Message}};
    ///
    /// fn answer(session: &mut Session, said: &mut Vec<Message>, text: &str) -> Result<(), halfbyte::RuntimeError> {
    ///     let template = ChatTemplate::for_model(session.model())?;
    ///     let mut messages = said.clone();
    ///     messages.push(Message::user(text));
    ///     session.push_chat(&template, &messages)?;
    ///     let answer = session.by_ref().collect::<Result<String, _>>()?;
    ///     messages.push(Message::assistant(answer));
    ///     *said = messages;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`RuntimeError::Chat`] if there is no prompt; [`RuntimeError::NoVocabulary`]; as [`Session::push_tokens`]. The
    /// session's tokens are then as before the call.
    pub fn push_chat(&mut self, template: &ChatTemplate, messages: &[Message]) -> Result<usize, RuntimeError> {
        let tokenizer = self.sequence.model.tokenizer().ok_or(RuntimeError::NoVocabulary)?;
        let prompt = template.clone().with_tokenizer(tokenizer).render(messages, true)?;
        let tokens = prompt.tokens().unwrap_or(&[]);
        let common = self.sequence.tokens.iter().zip(tokens).take_while(|(held, new)| held == new).count();
        // The last token is always run: its logits are what the answer is made from.
        let common = common.min(tokens.len().saturating_sub(1));
        let (context, new) = (self.context(), tokens.get(common..).unwrap_or(&[]));
        if tokens.len() > context {
            return Err(RuntimeError::ContextFull { need: new.len(), context, used: common });
        }
        let forgotten = self.sequence.tokens.get(common..).unwrap_or(&[]).to_vec();
        self.truncate(common);
        if let Err(error) = self.push_tokens(new) {
            // They are run again when they are needed.
            self.sequence.tokens.truncate(common);
            self.sequence.tokens.extend(forgotten);
            self.sequence.unsettle();
            return Err(error);
        }
        Ok(new.len())
    }
}
