//! The store as one process has it for one table: requests take time, fail, are done without an answer or answered without
//! being done, now or much later; and the process may be stopped or die at any of them.
//!
//! Requests of one lane take effect at moments that no other lane's do, so the order of effects is the order of time
//! and the same in every run, whatever threads the libraries use.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::bucket::Bucket;
use super::catalog::Catalog;
use super::chance::{chance, one_in};
use super::faults::{Counters, Fault, Rates, Request};
use super::process::{Process, Repeats};
use super::trace::Trace;

/// Effects of a lane come at a moment of its own, of so many.
const MOMENTS: u64 = 64;
/// When a client gives up.
pub(super) const TIMEOUT: u64 = 60_000;
/// When the simulated clock starts, milliseconds since the epoch.
const START: i64 = 1_767_225_600_000;
/// How long a request may be on its way: it is signed with its time, and S3 takes none that is older.
const SIGNED: Duration = Duration::from_secs(15 * 60);
/// How young files are that a list leaves out.
const UNLISTED: u64 = 20_000;

/// What all stores of a history share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) bucket: Bucket,
    pub(super) catalog: Catalog,
    pub(super) trace: Trace,
    pub(super) counters: Arc<Counters>,
    pub(super) rates: Rates,
    /// Nothing goes wrong any more.
    pub(super) calm: AtomicBool,
    /// Requests that are on their way.
    pub(super) requests: Mutex<JoinSet<()>>,
}

impl World {
    /// Milliseconds since the epoch.
    pub(super) fn wall_millis(&self) -> i64 {
        START + i64::try_from(self.trace.millis()).unwrap()
    }

    /// Sends a request on its way.
    fn send(&self, request: impl Future<Output = ()> + Send + 'static) {
        let mut requests = self.requests.lock().unwrap();
        requests.spawn(request);
        while requests.try_join_next().is_some() {}
    }
}

#[derive(Debug, Clone)]
pub(super) struct Store(Arc<Lane>);

/// A way from one process to a server.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) world: Arc<World>,
    pub(super) process: Arc<Process>,
    /// Tells it from every other lane of the history.
    pub(super) number: u64,
    pub(super) repeats: Repeats,
}

/// When things happen to a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// When it takes effect, and when it is answered, milliseconds since the start.
    pub(super) effect: u64,
    pub(super) answer: u64,
    /// Should the process die before it takes effect, it never does.
    pub(super) lost: bool,
}

/// What becomes of a request.
struct Fate {
    fault: Option<Fault>,
    times: Times,
}

fn reset() -> Error {
    Error::Generic { store: "simulation", source: "connection reset".into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "simulation".into() }
}

fn condition(path: &Path) -> Error {
    Error::Precondition { path: path.to_string(), source: "simulation".into() }
}

impl Store {
    pub(super) fn new(world: &Arc<World>, process: &Arc<Process>, number: u64) -> Self {
        Self(Arc::new(Lane::new(world, process, number)))
    }

    /// Makes a request. `effect` is what it does, and `answer` what is told of that.
    async fn request<T: Send + 'static>(
        &self,
        request: Request,
        path: &Path,
        effect: impl FnOnce(Arc<World>, Option<Fault>) -> BoxFuture<'static, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let lane = &self.0;
        let world = Arc::clone(&lane.world);
        if !world.trace.is_at_home() {
            // A library's own thread, which knows no clock of ours.
            if lane.process.is_dead() {
                return Err(reset());
            }
            let fate = lane.fate(request, path);
            return match fate.fault {
                Some(Fault::Before | Fault::Hang | Fault::Torn | Fault::Late) => Err(reset()),
                fault => effect(world, fault).await,
            };
        }
        let made = Instant::now();
        lane.process.running().await;
        if made.elapsed() > SIGNED {
            return Err(reset());
        }
        let number = lane.process.request();
        lane.process.survives(number, false).await;
        let fate = lane.fate(request, path);
        let (name, fault) = (lane.process.name.clone(), fate.fault);
        let text = path.to_string();
        let done = async move {
            let answer = match fault {
                Some(
                    Fault::Before | Fault::Hang | Fault::ExistsButIsNot | Fault::ConditionButIsNot,
                ) => None,
                fault => Some(effect(Arc::clone(&world), fault).await),
            };
            say(&world, &name, request, &text, fault, answer.as_ref().map(Result::is_ok));
            answer
        };
        let answer = lane.carry(number, fate.times, done.boxed()).await.flatten();
        match fault {
            None | Some(Fault::Slow | Fault::LyingList) => answer.unwrap_or_else(|| Err(reset())),
            Some(Fault::ExistsButIsNot | Fault::AfterThenExists) => Err(exists(path)),
            Some(Fault::ConditionButIsNot) => Err(condition(path)),
            Some(
                Fault::Before
                | Fault::After
                | Fault::Late
                | Fault::Hang
                | Fault::HangAfter
                | Fault::Torn,
            ) => Err(reset()),
        }
    }
}

impl Lane {
    pub(super) fn new(world: &Arc<World>, process: &Arc<Process>, number: u64) -> Self {
        let (world, process) = (Arc::clone(world), Arc::clone(process));
        Self { world, process, number, repeats: Repeats::default() }
    }

    /// Has the process's request of this number take effect at its time, whether somebody still waits or not. What came of
    /// it; none when the answer comes earlier.
    pub(super) async fn carry<T: Send + 'static>(
        &self,
        number: u32,
        times: Times,
        effect: BoxFuture<'static, T>,
    ) -> Option<T> {
        let trace = &self.world.trace;
        let (effect_at, answer_at) = (trace.at(times.effect), trace.at(times.answer));
        let (tell, told) = oneshot::channel();
        let process = Arc::clone(&self.process);
        self.world.send(async move {
            sleep_until(effect_at).await;
            if process.is_dead() && times.lost {
                return;
            }
            tell.send(effect.await).ok();
        });
        let answer = if times.answer < times.effect { None } else { told.await.ok() };
        sleep_until(answer_at).await;
        self.process.running().await;
        self.process.survives(number, true).await;
        answer
    }

    /// The next moment of this lane, `steps` of them ahead.
    pub(super) fn moment(&self, steps: u64) -> u64 {
        let now = self.world.trace.millis();
        (now / MOMENTS + steps) * MOMENTS + self.number % MOMENTS
    }

    fn fate(&self, request: Request, path: &Path) -> Fate {
        let kind = format!("{request:?}");
        let nth = self.repeats.next(format!("{kind} {path}")).to_string();
        let about = [&*self.process.name, &self.number.to_string(), &kind, path.as_ref(), &nth];
        let mut rng = chance(self.world.seed, &about);
        let fault = match self.world.calm.load(Ordering::SeqCst) {
            true => None,
            false => self.world.rates.draw(request, &mut rng),
        };
        if let Some(fault) = fault {
            self.world.counters.count(&format!("{fault:?}"));
        }
        let mut effect = self.moment(rng.u64(1..=3));
        let mut answer = effect;
        match fault {
            Some(Fault::Slow) => {
                effect = self.moment(rng.u64(50..=300));
                answer = effect;
            }
            Some(Fault::Late) => effect = self.moment(rng.u64(100..=1500)),
            Some(Fault::Hang | Fault::HangAfter) => answer = effect + TIMEOUT,
            _ => {}
        }
        let lost = one_in(&mut rng, 500);
        Fate { fault, times: Times { effect, answer, lost } }
    }
}

fn say(
    world: &World,
    name: &str,
    request: Request,
    path: &str,
    fault: Option<Fault>,
    done: Option<bool>,
) {
    if request == Request::Read && fault.is_none() {
        return;
    }
    let fault = fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
    let outcome = match done {
        Some(true) => "done",
        Some(false) => "refused",
        None => "not done",
    };
    world.trace.say(format!("{name} {request:?} {path}:{fault} {outcome}"));
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store of {}", self.0.process.name)
    }
}

/// Hints and checkpoints are put over what is there, or by libraries that may do it twice.
fn kind_of_put(path: &Path, options: &PutOptions) -> Request {
    let path = path.as_ref();
    match options.mode {
        PutMode::Create => Request::Create,
        _ if path.contains("_delta_log/") || path.ends_with("version-hint.text") => {
            Request::Overwrite
        }
        _ => Request::Write,
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let request = kind_of_put(path, &options);
        let own = path.clone();
        self.request(request, path, move |world, fault| {
            Box::pin(async move {
                let payload = match fault {
                    Some(Fault::Torn) => {
                        let whole = Bytes::from(payload);
                        whole.slice(..whole.len() / 2).into()
                    }
                    _ => payload,
                };
                world.bucket.put(&own, payload, options, world.trace.millis()).await
            })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{path} is put in parts: let parts be lost here as well");
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let own = path.clone();
        self.request(Request::Read, path, move |world, _| {
            Box::pin(async move { world.bucket.files.get_opts(&own, options).await })
        })
        .await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (own, ranges) = (path.clone(), ranges.to_vec());
        self.request(Request::Read, path, move |world, _| {
            Box::pin(async move { world.bucket.files.get_ranges(&own, &ranges).await })
        })
        .await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    let own = path.clone();
                    let deleted = store.request(Request::Delete, &path, move |world, _| {
                        Box::pin(
                            async move { world.bucket.delete(&own, world.trace.millis()).await },
                        )
                    });
                    deleted.await.map(|()| path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        let listed = async move {
            let path = prefix.clone().unwrap_or_default();
            let listed = store.request(Request::List, &path, move |world, fault| {
                Box::pin(async move {
                    let mut found: Vec<ObjectMeta> =
                        world.bucket.files.list(prefix.as_ref()).try_collect().await?;
                    if fault == Some(Fault::LyingList) {
                        let since = world.trace.millis().saturating_sub(UNLISTED);
                        let young = world.bucket.put_since(since);
                        found.retain(|meta| !young.contains(&meta.location));
                    }
                    Ok(found)
                })
            });
            match listed.await {
                Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        };
        stream::once(listed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        panic!("{prefix:?} is listed by folders: let such lists lie here as well");
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _options: CopyOptions) -> Result<()> {
        panic!("{from} is copied to {to}: let that go wrong here as well");
    }
}
