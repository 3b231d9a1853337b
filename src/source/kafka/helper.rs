//! Calls to the brokers that wait for their answer, on threads of their own, so that reading goes on meanwhile.

use std::sync::{Arc, Weak, mpsc};
use std::thread;

use rdkafka::consumer::BaseConsumer;

use super::control::Control;
use super::group::Group;
use crate::error::{Error, Result};

/// A thread that answers one question at a time.
pub(super) struct Helper<Q, A> {
    questions: mpsc::SyncSender<Q>,
    answers: mpsc::Receiver<A>,
    asked: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Helper<Q, A> {
    /// Starts the thread `name`; it ends when this is dropped. It keeps the consumer alive only during a call.
    pub(super) fn start(
        name: &str,
        (consumer, control): (Weak<BaseConsumer<Group>>, Arc<Control>),
        call: impl Fn(&BaseConsumer<Group>, Q) -> A + Send + 'static,
    ) -> Result<Self> {
        let (questions, question) = mpsc::sync_channel(1);
        let (answer, answers) = mpsc::sync_channel(1);
        let work = move || {
            while let Ok(question) = question.recv() {
                let Some(consumer) = consumer.upgrade() else { return };
                let called = call(&consumer, question);
                drop(consumer);
                if answer.send(called).is_err() {
                    return;
                }
                control.wake();
            }
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| Error::internal("a thread cannot be started").because(error))?;
        Ok(Self { questions, answers, asked: false })
    }

    /// True while a question is open; no other can be asked.
    pub(super) fn is_busy(&self) -> bool {
        self.asked
    }

    /// Asks, unless a question is open.
    pub(super) fn ask(&mut self, question: Q) {
        if !self.asked {
            self.asked = self.questions.try_send(question).is_ok();
        }
    }

    /// The answer, when one came.
    pub(super) fn answer(&mut self) -> Option<A> {
        let answer = self.answers.try_recv().ok()?;
        self.asked = false;
        Some(answer)
    }
}
