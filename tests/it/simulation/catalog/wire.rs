//! The way to the catalog, as one process has it for one table: requests take time, fail, are done without an answer or
//! answered without being done, now or much later; and the process may be stopped or die at any of them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cdc_sink::clock::Clock;
use cdc_sink::error::Result as Connected;
use cdc_sink::retry;
use cdc_sink::sink::iceberg::{Exchange, RestCatalog, RestOptions, Secret, Unanswered};
use futures::FutureExt;
use reqwest::{Request, StatusCode};
use tokio::time::Instant;

use super::asked::URI;
use super::{Answer, Asked, refused};
use crate::simulation::chance::{chance, one_in};
use crate::simulation::faults::CatalogFault;
use crate::simulation::process::Process;
use crate::simulation::store::{Lane, TIMEOUT, Times, World};

/// When a client has given up, whatever comes later.
const LONGEST: Duration = Duration::from_millis(TIMEOUT);
/// What a server or a proxy says that is broken, or busy; none when the connection is reset.
const BROKEN: [Option<u16>; 6] = [None, Some(429), Some(500), Some(502), Some(503), Some(504)];

/// A way to the catalog on which nothing goes wrong.
#[derive(Debug)]
pub(in super::super) struct Straight(Arc<World>);

#[derive(Debug)]
pub(in super::super) struct Wire(Lane);

/// What becomes of a request.
struct Course {
    fault: Option<CatalogFault>,
    /// How it is answered where that has nothing to do with what was done.
    broken: Option<u16>,
    times: Times,
}

impl Wire {
    /// Connects the process to the catalog; waits until that works.
    pub(in super::super) async fn connect(
        world: &Arc<World>,
        process: &Arc<Process>,
        number: u64,
        clock: &Clock,
    ) -> Connected<RestCatalog> {
        let wire: Arc<dyn Exchange> = Arc::new(Self(Lane::new(world, process, number)));
        retry::hold("the catalog", || {
            RestCatalog::connect_over(Arc::clone(&wire), options(), clock.clone())
        })
        .await
    }

    fn course(&self, asked: &Asked) -> Course {
        let lane = &self.0;
        let (world, text) = (&lane.world, asked.to_string());
        let nth = lane.repeats.next(text.clone()).to_string();
        let mut rng =
            chance(world.seed, &[&lane.process.name, &lane.number.to_string(), &text, &nth]);
        let fault = match world.calm.load(Ordering::SeqCst) {
            true => None,
            false => world.rates.draw_of_catalog(asked.call, &mut rng),
        };
        let effect = lane.moment(rng.u64(1..=3));
        let mut times = Times { effect, answer: effect, lost: one_in(&mut rng, 500) };
        match fault {
            Some(CatalogFault::Slow) => {
                times.effect = lane.moment(rng.u64(50..=300));
                times.answer = times.effect;
            }
            // Before the client has come again, or long after.
            Some(CatalogFault::Late) => {
                let steps = if rng.bool() { 4..=12 } else { 100..=1500 };
                times.effect = lane.moment(rng.u64(steps));
            }
            Some(CatalogFault::Hang | CatalogFault::HangAfter) => times.answer = effect + TIMEOUT,
            _ => {}
        }
        Course { fault, broken: BROKEN[rng.usize(..BROKEN.len())], times }
    }
}

fn options() -> RestOptions {
    let credential = Some(Secret::new("sink:secret"));
    RestOptions { uri: URI.to_owned(), credential, ..RestOptions::default() }
}

/// What the server does of it; none when nothing.
async fn effect(world: &World, asked: &Asked, fault: Option<CatalogFault>) -> Option<Answer> {
    let catalog = &world.catalog;
    let (answer, happened) = match fault {
        Some(CatalogFault::Revoked) => {
            catalog.revoke().await;
            (None, true)
        }
        Some(
            CatalogFault::Before
            | CatalogFault::Hang
            | CatalogFault::Conflict
            | CatalogFault::Forbidden,
        ) => (None, true),
        Some(CatalogFault::Behind) => match catalog.behind(asked).await {
            Some(answer) => (Some(answer), true),
            None => (Some(catalog.answer(world, asked).await), false),
        },
        fault => {
            let answer = catalog.answer(world, asked).await;
            let done = answer.0.is_success();
            let again = fault == Some(CatalogFault::Repeated) && done;
            let answer = if again { catalog.answer(world, asked).await } else { answer };
            (Some(answer), done)
        }
    };
    if let Some(fault) = fault.filter(|_| happened) {
        world.counters.count(&fault.counter());
    }
    answer
}

impl Straight {
    pub(in super::super) async fn connect(world: &Arc<World>) -> Connected<RestCatalog> {
        let now = Arc::clone(world);
        let clock = Clock::from_fn(move || now.wall_millis() * 1000);
        let exchange = Arc::new(Self(Arc::clone(world)));
        RestCatalog::connect_over(exchange, options(), clock).await
    }
}

#[async_trait]
impl Exchange for Straight {
    async fn send(&self, request: Request) -> Result<(StatusCode, Bytes), Unanswered> {
        Ok(self.0.catalog.answer(&self.0, &Asked::new(&request)).await)
    }
}

#[async_trait]
impl Exchange for Wire {
    async fn send(&self, request: Request) -> Result<(StatusCode, Bytes), Unanswered> {
        let lane = &self.0;
        assert!(lane.world.trace.is_at_home());
        let made = Instant::now();
        lane.process.running().await;
        if made.elapsed() > LONGEST {
            return Err("timed out".into());
        }
        let number = lane.process.request();
        lane.process.survives(number, false).await;
        let asked = Asked::new(&request);
        let course = self.course(&asked);
        let (world, name, fault) =
            (Arc::clone(&lane.world), lane.process.name.clone(), course.fault);
        let done = async move {
            let answer = effect(&world, &asked, fault).await;
            let told = fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
            let status = answer.as_ref().map_or("not done", |(status, _)| status.as_str());
            world.trace.say(format!("{name} {asked}:{told} {status}"));
            answer
        };
        let answer = lane.carry(number, course.times, done.boxed()).await.flatten();
        // One that was stopped meanwhile finds its own deadline first.
        if made.elapsed() > LONGEST { Err("timed out".into()) } else { course.reply(answer) }
    }
}

impl Course {
    fn reply(&self, answer: Option<Answer>) -> Result<Answer, Unanswered> {
        match self.fault {
            None | Some(CatalogFault::Slow | CatalogFault::Behind | CatalogFault::Repeated) => {
                answer.ok_or_else(|| "connection reset".into())
            }
            Some(CatalogFault::Before | CatalogFault::After | CatalogFault::Late) => {
                let broken = self.broken.ok_or("connection reset")?;
                Ok(refused(broken, "ServiceFailure"))
            }
            Some(CatalogFault::Hang | CatalogFault::HangAfter) => Err("timed out".into()),
            Some(CatalogFault::Conflict) => Ok(refused(409, "CommitFailedException")),
            Some(CatalogFault::Forbidden) => Ok(refused(403, "ForbiddenException")),
            Some(CatalogFault::Revoked) => Ok(refused(401, "NotAuthorizedException")),
            Some(CatalogFault::Cut) => {
                let (status, body) = answer.ok_or("connection reset")?;
                Ok((status, body.slice(..body.len() / 2)))
            }
        }
    }
}
