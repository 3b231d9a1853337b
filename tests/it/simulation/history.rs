//! One history, from its seed to its findings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_sink::clock::Clock;
use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::bucket::Bucket;
use super::catalog::Catalog;
use super::chance::chance;
use super::faults::Counters;
use super::group::Group;
use super::instance::{Cluster, Instance};
use super::oracle::{self, Findings};
use super::rogue::Rogue;
use super::setup::{Action, Setup};
use super::store::{TIMEOUT, World};
use super::sweep;
use super::tables::Tables;
use super::topics::Topics;
use super::trace::Trace;

/// How long the instances may take to settle once nothing goes wrong any more.
const SETTLE: Duration = Duration::from_secs(1800);
/// What counts files that were removed as orphans.
pub(super) const ORPHANS: &str = "orphans removed";
/// How long an instance is stopped that is forgotten.
const STOPPED: Duration = Duration::from_secs(70 * 60);
/// How long an instance may take to stop.
const STOP: Duration = Duration::from_secs(120);

/// What came of a history.
pub(super) struct Outcome {
    pub(super) findings: Findings,
    pub(super) trace: Vec<String>,
}

/// Runs the history of `seed` on this thread.
pub(super) fn run(seed: u64, counters: &Arc<Counters>, aloud: bool) -> Outcome {
    fastrand::seed(seed);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // Files of several partitions are encoded on other threads: by one alone they are done in the order they were begun.
    runtime.enable_time().start_paused(true).max_blocking_threads(1);
    let runtime = runtime.build().unwrap();
    // Made inside, where the clock stands still.
    let outcome = runtime.block_on(async { History::new(seed, counters, aloud).run().await });
    runtime.shutdown_background();
    outcome
}

struct History {
    setup: Setup,
    cluster: Cluster,
    rng: Rng,
    rogue: Rogue,
    instances: Vec<Instance>,
    violations: Vec<String>,
}

impl History {
    fn new(seed: u64, counters: &Arc<Counters>, aloud: bool) -> Self {
        let setup = Setup::draw(seed);
        let trace = Trace::new(aloud);
        trace.say(format!("seed {seed}: {setup:?}"));
        let world = Arc::new(World {
            seed,
            bucket: Bucket::default(),
            catalog: Catalog::default(),
            trace,
            counters: Arc::clone(counters),
            rates: setup.rates,
            calm: AtomicBool::new(false),
            requests: Mutex::default(),
        });
        let now = Arc::clone(&world);
        let clock = Clock::from_fn(move || now.wall_millis() * 1000);
        let topics = Topics::new(seed, &setup);
        let group = Group::new(&world, topics.logs.keys().cloned().collect());
        let tables = Tables {
            formats: setup.formats,
            checkpoint_interval: setup.checkpoint_interval,
            partition_by: setup.partition_by,
            has_catalog: setup.has_catalog,
            clock,
        };
        let cluster = Cluster::new(&world, &group, &Arc::new(topics), tables, setup.limits);
        let rng = chance(seed, &["history"]);
        let rogue = Rogue::new(&world, chance(seed, &["rogue"]));
        Self { setup, cluster, rng, rogue, instances: Vec::new(), violations: Vec::new() }
    }

    async fn run(mut self) -> Outcome {
        let world = Arc::clone(&self.cluster.world);
        let rng = chance(world.seed, &["group"]);
        let mut coordinator = JoinSet::new();
        coordinator.spawn(Arc::clone(&self.cluster.group).run(rng));
        for _ in 0..self.setup.instances {
            self.instances.push(self.cluster.start());
        }
        for (wait, action) in self.setup.actions.clone() {
            sleep(wait).await;
            self.rogue.undo().await;
            self.act(action).await;
            self.restart().await;
        }
        sleep(Duration::from_secs(3)).await;
        self.rogue.undo().await;
        world.trace.say("nothing goes wrong any more".to_owned());
        world.calm.store(true, Ordering::SeqCst);
        // Whoever waits for an answer that does not come would not stop in time.
        sleep(Duration::from_millis(TIMEOUT)).await;
        self.settle().await;
        self.stop().await;
        coordinator.shutdown().await;
        let acknowledged = self.cluster.acknowledged.lock().unwrap().clone();
        let (topics, formats) = (&self.cluster.topics, self.setup.formats);
        let mut findings =
            oracle::check(&world, topics, formats, &acknowledged, &self.rogue.deeds).await;
        findings.violations.extend(self.violations);
        for violation in &findings.violations {
            world.trace.say(format!("VIOLATION: {violation}"));
        }
        Outcome { findings, trace: world.trace.lines() }
    }

    async fn act(&mut self, action: Action) {
        if let Action::Foreign(deed) = action {
            for topic in self.cluster.topics.topics() {
                let Cluster { topics, tables, .. } = &self.cluster;
                self.rogue.act(deed, &topic, topics, tables).await;
            }
            return;
        }
        if action == Action::Sweep {
            return self.sweep().await;
        }
        let world = &self.cluster.world;
        let place = self.rng.usize(..self.instances.len());
        let process = &self.instances[place].process;
        world.trace.say(format!("{action:?} of {}", process.name));
        let now = tokio::time::Instant::now();
        let seconds = |rng: &mut Rng, from, to| Duration::from_secs(rng.u64(from..to));
        let counted = match action {
            Action::Crash => {
                process.kill();
                "crash"
            }
            Action::CrashAtRequest { after, answered } => {
                process.die_at(after, answered);
                "crash at a request"
            }
            Action::Pause => {
                process.freeze(now + seconds(&mut self.rng, 3, 30));
                "pause"
            }
            Action::Zombie => {
                process.freeze(now + seconds(&mut self.rng, 60, 150));
                "pause past the session"
            }
            Action::Join => {
                self.instances.push(self.cluster.start());
                "join"
            }
            Action::Leave => {
                self.instances[place].stop();
                "leave"
            }
            Action::Rebalance | Action::Sweep | Action::Foreign(_) => {
                self.cluster.group.rebalance();
                "rebalance"
            }
        };
        world.counters.count(counted);
    }

    /// Removes orphans that are older than an hour, while an instance is stopped that may be in the middle of a commit.
    async fn sweep(&mut self) {
        let place = self.rng.usize(..self.instances.len());
        let process = &self.instances[place].process;
        let world = &self.cluster.world;
        world.trace.say(format!("orphans are removed while {} is stopped", process.name));
        process.freeze(tokio::time::Instant::now() + STOPPED);
        sleep(STOPPED - Duration::from_secs(60)).await;
        for topic in self.cluster.topics.topics() {
            match sweep::sweep(world, &topic, self.setup.has_catalog).await {
                Ok(removed) => world.counters.add(ORPHANS, removed),
                Err(why) => self.violations.push(format!("cannot remove orphans: {why}")),
            }
        }
        sleep(Duration::from_secs(61)).await;
    }

    /// Instances that are over are replaced, as an orchestrator does.
    async fn restart(&mut self) {
        // A table that somebody took back, or that the catalog does not let us into, has to be looked at by a person, who
        // starts the instance again.
        let stuck = |instance: &&Instance| {
            instance.halted().iter().any(|(_, why)| was_taken_back(why) || was_forbidden(why))
        };
        self.instances.iter().filter(stuck).for_each(Instance::stop);
        let mut running = Vec::new();
        for instance in std::mem::take(&mut self.instances) {
            if instance.is_over() {
                self.took_its_leave(instance).await;
                running.push(self.cluster.start());
            } else {
                running.push(instance);
            }
        }
        self.instances = running;
    }

    async fn took_its_leave(&mut self, instance: Instance) {
        self.look_for_halts(&instance);
        instance.ended().await;
    }

    /// No table halts, unless somebody took it back or the catalog refused a request.
    fn look_for_halts(&mut self, instance: &Instance) {
        for (table, why) in instance.halted() {
            if was_taken_back(&why) && self.rogue.has_taken_back(&table) {
                self.cluster.world.counters.count("halted by a restore");
            } else if was_forbidden(&why) && self.setup.has_catalog {
                self.cluster.world.counters.count("halted by the catalog");
            } else {
                let name = &instance.process.name;
                self.violations.push(format!("{name}: table {table} halted: {why}"));
            }
        }
    }

    /// Waits until everything is in the tables.
    async fn settle(&mut self) {
        let wait = async {
            loop {
                self.restart().await;
                if self.is_settled() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(SETTLE, wait).await.is_err() {
            self.violations.push("the instances do not settle".to_owned());
        }
    }

    /// True when everybody runs and everything is in the tables.
    fn is_settled(&self) -> bool {
        if self.instances.iter().any(|instance| instance.process.is_frozen()) {
            return false;
        }
        let mut logs = self.cluster.topics.logs.iter();
        logs.all(|(at, log)| self.instances.iter().any(|i| i.has_settled(at, log.high())))
    }

    async fn stop(&mut self) {
        self.instances.iter().for_each(Instance::stop);
        for instance in std::mem::take(&mut self.instances) {
            let (name, halted) = (instance.process.name.clone(), instance.halted());
            let was_paused = instance.process.thawed_at().is_some();
            self.look_for_halts(&instance);
            match timeout(STOP, instance.ended()).await {
                Err(_) => self.violations.push(format!("{name} does not stop")),
                // One that was stopped for a while may have run out of time to commit what it has.
                Ok(Some(progress))
                    if halted.is_empty() && !was_paused && !progress.is_complete() =>
                {
                    self.violations.push(format!("{name} is not complete"));
                }
                Ok(_) => {}
            }
        }
    }
}

/// True when a table halted as somebody took it back to an earlier version.
fn was_taken_back(why: &str) -> bool {
    why.contains("somebody restored its version") || why.contains(" went back from ")
}

/// True when a table halted as the catalog did not let us do something, or did not take a token that it had just given.
fn was_forbidden(why: &str) -> bool {
    why.contains("the catalog answers 403") || why.contains("the catalog answers 401")
}
