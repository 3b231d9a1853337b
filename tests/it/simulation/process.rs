//! A process as the world sees it: it may be stopped and go on later, and it may die, at any of its requests.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// When a process dies by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// At its request of this number.
    pub(super) request: u32,
    /// Once the request is answered; else before it is made.
    pub(super) answered: bool,
}

/// A process.
#[derive(Debug)]
pub(super) struct Process {
    /// Unique in the history.
    pub(super) name: String,
    pub(super) number: u32,
    frozen_until: Mutex<Option<Instant>>,
    dead: AtomicBool,
    death: Mutex<Option<Death>>,
    requests: Mutex<u32>,
    /// Told when it has to die.
    pub(super) crash: Notify,
}

impl Process {
    pub(super) fn new(number: u32) -> Self {
        Self {
            name: format!("instance {number}"),
            number,
            frozen_until: Mutex::default(),
            dead: AtomicBool::new(false),
            death: Mutex::default(),
            requests: Mutex::default(),
            crash: Notify::new(),
        }
    }

    /// Stops it (SIGSTOP) until then (SIGCONT).
    pub(super) fn freeze(&self, until: Instant) {
        *self.frozen_until.lock().unwrap() = Some(until);
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen_until.lock().unwrap().is_some_and(|until| until > Instant::now())
    }

    /// When it went on after it was stopped last.
    pub(super) fn thawed_at(&self) -> Option<Instant> {
        *self.frozen_until.lock().unwrap()
    }

    /// Returns when it runs.
    pub(super) async fn running(&self) {
        while let Some(until) = self.thawed_at().filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Nothing that it does from now on has any effect.
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.crash.notify_one();
    }

    /// Dies after so many more requests.
    pub(super) fn die_at(&self, after: u32, answered: bool) {
        let request = *self.requests.lock().unwrap() + after;
        *self.death.lock().unwrap() = Some(Death { request, answered });
    }

    /// Counts a request; its number.
    pub(super) fn request(&self) -> u32 {
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        *requests
    }

    /// Dies if it is to die at this request, and then never returns.
    pub(super) async fn survives(&self, request: u32, answered: bool) {
        if *self.death.lock().unwrap() == Some(Death { request, answered }) {
            self.kill();
        }
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Counts how often something was done.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<String, u32>>);

impl Repeats {
    pub(super) fn next(&self, what: String) -> u32 {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(what).or_default();
        *count += 1;
        *count
    }
}
