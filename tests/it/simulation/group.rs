//! The consumer group, as its coordinator has it: who is a member, and which partition is whose.
//!
//! A member that is stopped or dead is found out after the session timeout, and its partitions go to others; stopped, it
//! learns that only when it goes on. Rebalances are eager (everybody gives back everything) or cooperative (only what
//! moves is given back), round by round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_sink::position::TopicPartition;
use fastrand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::process::Process;
use super::store::World;

/// A member that does nothing for so long is out.
const SESSION: Duration = Duration::from_secs(45);
/// Orders that a member has not read yet, at most.
const ORDERS: usize = 1024;
/// How often the coordinator looks.
const LOOK: Duration = Duration::from_secs(3);

/// What a member is told.
#[derive(Debug)]
pub(super) enum Order {
    /// These are yours.
    Assign(Vec<TopicPartition>),
    /// Give these back, and say so.
    Revoke(Vec<TopicPartition>, oneshot::Sender<()>),
    /// These were taken from you.
    Lost(Vec<TopicPartition>),
}

struct Member {
    process: Arc<Process>,
    orders: mpsc::Sender<Order>,
    owned: BTreeSet<TopicPartition>,
    /// Since when nothing was heard of it.
    silent: Option<Instant>,
    /// Out of the group, until it is heard of again.
    expelled: bool,
}

/// The group's coordinator.
pub(super) struct Group {
    world: Arc<World>,
    partitions: Vec<TopicPartition>,
    members: Mutex<BTreeMap<String, Member>>,
    /// Somebody came, went, or wants a rebalance.
    changed: Mutex<bool>,
}

impl Group {
    pub(super) fn new(world: &Arc<World>, partitions: Vec<TopicPartition>) -> Arc<Self> {
        let (members, changed) = (Mutex::default(), Mutex::new(true));
        Arc::new(Self { world: Arc::clone(world), partitions, members, changed })
    }

    pub(super) fn join(&self, process: &Arc<Process>) -> mpsc::Receiver<Order> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let process = Arc::clone(process);
        let name = process.name.clone();
        let member =
            Member { process, orders, owned: BTreeSet::new(), silent: None, expelled: false };
        self.members.lock().unwrap().insert(name, member);
        self.rebalance();
        inbox
    }

    /// A member says that it goes.
    pub(super) fn leave(&self, name: &str) {
        self.members.lock().unwrap().remove(name);
        self.rebalance();
    }

    /// Asks for a rebalance.
    pub(super) fn rebalance(&self) {
        *self.changed.lock().unwrap() = true;
    }

    /// The coordinator's life.
    pub(super) async fn run(self: Arc<Self>, mut rng: Rng) {
        loop {
            sleep(LOOK).await;
            self.listen();
            let changed = std::mem::take(&mut *self.changed.lock().unwrap());
            if changed {
                let eager = rng.bool();
                self.world.counters.count(if eager { "eager" } else { "cooperative" });
                self.round(eager, rng.usize(..self.partitions.len().max(1))).await;
            }
        }
    }

    /// Notices who is silent, and who is back.
    fn listen(&self) {
        let mut members = self.members.lock().unwrap();
        let now = Instant::now();
        for member in members.values_mut() {
            let is_silent = member.process.is_frozen() || member.process.is_dead();
            match (is_silent, member.silent) {
                (false, _) => {
                    member.silent = None;
                    if member.expelled {
                        member.expelled = false;
                        *self.changed.lock().unwrap() = true;
                    }
                }
                (true, None) => member.silent = Some(now),
                (true, Some(since)) if now >= since + SESSION && !member.expelled => {
                    member.expel(&self.world);
                    *self.changed.lock().unwrap() = true;
                }
                (true, Some(_)) => {}
            }
        }
        members.retain(|_, member| !(member.expelled && member.process.is_dead()));
    }

    /// Who shall have what.
    fn target(&self, turn: usize) -> BTreeMap<String, BTreeSet<TopicPartition>> {
        let members = self.members.lock().unwrap();
        let names: Vec<_> = members.iter().filter(|(_, m)| !m.expelled).map(|(n, _)| n).collect();
        let mut target: BTreeMap<_, BTreeSet<_>> =
            names.iter().map(|name| ((*name).clone(), BTreeSet::new())).collect();
        for (place, partition) in self.partitions.iter().enumerate() {
            if let Some(name) = names.get((place + turn) % names.len().max(1)) {
                target.entry((*name).clone()).or_default().insert(partition.clone());
            }
        }
        target
    }

    async fn round(&self, eager: bool, turn: usize) {
        let target = self.target(turn);
        let mut revoked = Vec::new();
        for (name, wanted) in &target {
            let mut members = self.members.lock().unwrap();
            let Some(member) = members.get_mut(name) else { continue };
            let owned = member.owned.iter();
            let given: Vec<_> = owned.filter(|at| eager || !wanted.contains(at)).cloned().collect();
            if !given.is_empty() {
                let (done, answer) = oneshot::channel();
                member.orders.try_send(Order::Revoke(given.clone(), done)).ok();
                revoked.push((name.clone(), given, answer));
            }
        }
        for (name, given, answer) in revoked {
            // An answer and a dropped channel both say that nothing more is committed.
            let answered = timeout(SESSION, answer).await.is_ok();
            let mut members = self.members.lock().unwrap();
            let Some(member) = members.get_mut(&name) else { continue };
            if answered {
                member.owned.retain(|at| !given.contains(at));
            } else {
                member.expel(&self.world);
                self.rebalance();
            }
        }
        let mut members = self.members.lock().unwrap();
        let taken: BTreeSet<_> = members.values().flat_map(|m| m.owned.clone()).collect();
        for (name, wanted) in target {
            let Some(member) = members.get_mut(&name).filter(|member| !member.expelled) else {
                self.rebalance();
                continue;
            };
            let gained: Vec<_> = wanted.into_iter().filter(|at| !taken.contains(at)).collect();
            if !gained.is_empty() {
                let list: Vec<_> = gained.iter().map(ToString::to_string).collect();
                self.world.trace.say(format!("group: {name} gains {}", list.join(" ")));
                member.owned.extend(gained.iter().cloned());
                member.orders.try_send(Order::Assign(gained)).ok();
            }
        }
    }
}

impl Member {
    fn expel(&mut self, world: &World) {
        let name = &self.process.name;
        world.trace.say(format!("group: {name} is out"));
        if !self.process.is_dead() {
            world.counters.count("zombie");
        }
        self.expelled = true;
        let lost: Vec<_> = std::mem::take(&mut self.owned).into_iter().collect();
        if !lost.is_empty() {
            self.orders.try_send(Order::Lost(lost)).ok();
        }
    }
}
