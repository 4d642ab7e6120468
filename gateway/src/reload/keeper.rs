//! The one task that changes what is in force: one change after the other, each made whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};
use vestibule_plugins::{DurationText, Path, Problem};

use super::control::{Asked, Change, Control, How, Readiness};
use super::entry::{Entry, Kind, Outcome, ProblemRow, Trigger};
use super::stage::{Stage, StageSettings, Verdict};
use super::watch::Watch;
use crate::observe::access_log::told;
use crate::server::{Prepared, Serving, fixed};
use crate::snapshot::live::Live;
use crate::snapshot::problem::Report;
use crate::snapshot::sources::Digest;
use crate::snapshot::{self, Snapshot, Sources, Workshop};

/// How often a stage is judged.
const GLANCE: Duration = Duration::from_millis(250);

/// Whether the files of the configuration are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watching {
    /// As the section `reload` says.
    AsFileSays,
    /// Never.
    Never,
}

/// Makes the changes.
pub struct Keeper {
    path: PathBuf,
    workshop: Arc<Workshop>,
    watching: Watching,
    control: Control,
    asked: mpsc::Receiver<Asked>,
    serving: Serving,
    running: Known,
    before: Option<Known>,
    trial: Option<Trial>,
    sources: Sources,
    watch: Option<Watch>,
    changes: u64,
}

/// A snapshot, and by what it is known whether the files still say the same.
#[derive(Clone)]
struct Known {
    snapshot: Arc<Snapshot>,
    digest: Digest,
}

/// A candidate, and what it will need when it is promoted.
struct Trial {
    stage: Arc<Stage>,
    digest: Digest,
    prepared: Prepared,
}

/// What came of a change, before it is written down.
struct Done {
    outcome: Outcome,
    message: String,
    other: Option<String>,
    problems: Vec<ProblemRow>,
    warnings: usize,
}

impl Keeper {
    /// Loads the files and serves what they say. Within a tokio runtime.
    ///
    /// # Errors
    /// An address, the access log or the resolver cannot be had: each problem.
    pub async fn start(
        path: PathBuf,
        first: (Snapshot, Sources),
        workshop: Arc<Workshop>,
        watching: Watching,
    ) -> Result<Self, Report> {
        let began = Instant::now();
        let (snapshot, sources) = first;
        let snapshot = Arc::new(snapshot);
        let live = Arc::new(Live::new(snapshot.clone()));
        let (control, asked) = Control::new(live.clone());
        let mut serving = Serving::new(&snapshot, live, &workshop);
        let located = |problems: Vec<Problem>| snapshot.places.report(problems);
        // Every address before anything else: a start that cannot succeed ends at once.
        let mut prepared = serving.bind(&snapshot).map_err(located)?;
        if let Some(admin) = prepared.take_admin() {
            let listening = admin.listen().map_err(|problem| located(vec![problem]))?;
            serving.serve_admin(listening, &control);
        }
        serving.resolve(&snapshot).await.map_err(|problem| located(vec![problem]))?;
        let ready = prepared.listen().map_err(located)?;
        serving.put_in_force(snapshot.clone(), ready, &control).await;
        control.set_readiness(Readiness::Serving);

        let running = Known { snapshot: snapshot.clone(), digest: sources.digest() };
        let mut keeper = Self {
            path,
            workshop,
            watching,
            control,
            asked,
            serving,
            running,
            before: None,
            trial: None,
            sources,
            watch: None,
            changes: 0,
        };
        keeper.watch_or_not();
        let done = Done {
            warnings: snapshot.warnings.count(),
            ..Done::new(Outcome::Applied, format!("the gateway started with config {}", snapshot.hash))
        };
        keeper.write_down(Kind::Reload, Trigger::Start, began, done);
        let addresses: Vec<String> =
            snapshot.listeners.iter().map(|it| format!("{} {}", it.name, it.address)).collect();
        log::info!("ready: listening on {} (config {})", addresses.join(", "), snapshot.hash);
        Ok(keeper)
    }

    /// The handle to it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Makes changes, as they are asked for, as files change and as stages end, until told to stop; then hands back what
    /// serves, to be drained.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Serving {
        let mut glance = interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                // What is being loaded is given up, which may take for ever.
                _ = &mut stop => break,
                () = self.next(&mut glance) => {}
            }
        }
        self.control.set_readiness(Readiness::Draining);
        self.serving
    }

    async fn next(&mut self, glance: &mut Interval) {
        tokio::select! {
            biased;
            Some(Asked { change, trigger, answer }) = self.asked.recv() => {
                let entry = self.make(change, trigger).await;
                // Who asked may have gone away.
                let _ = answer.send(entry);
            }
            () = changed(&mut self.watch) => {
                self.make(Change::Reload(How::AsFileSays), Trigger::Files).await;
            }
            _ = glance.tick(), if self.trial.is_some() => self.glance().await,
        }
    }

    /// May be given up: where it waits, nothing has changed as yet or all has.
    async fn make(&mut self, change: Change, trigger: Trigger) -> Arc<Entry> {
        let began = Instant::now();
        let (kind, done) = match change {
            Change::Reload(how) => (Kind::Reload, self.reload(how, trigger).await),
            Change::Promote => {
                let why = "promoted by hand".to_owned();
                (Kind::Promote, self.promote(why).await.unwrap_or_else(Done::nothing_on_trial))
            }
            Change::Abort => (Kind::Abort, self.abort().unwrap_or_else(Done::nothing_on_trial)),
            Change::Rollback => (Kind::Rollback, self.roll_back().await),
        };
        self.write_down(kind, trigger, began, done)
    }

    async fn reload(&mut self, how: How, trigger: Trigger) -> Done {
        let (loaded, sources) = self.load().await;
        self.sources = sources;
        let digest = self.sources.digest();
        self.watch_or_not();
        let candidate = match loaded {
            Ok(snapshot) => Arc::new(snapshot),
            Err(report) => return self.refused(&report, None),
        };
        if digest == self.running.digest {
            return self.nothing_new(trigger);
        }
        if self.trial.as_ref().is_some_and(|trial| trial.digest == digest) && !matches!(how, How::AtOnce) {
            return Done::new(Outcome::Unchanged, format!("config {} is on trial already", candidate.hash));
        }
        let locate = |problems| candidate.places.report(problems);
        let settings = match settings(&how, &candidate) {
            Ok(settings) => settings,
            Err(problems) => return Done::not_possible(problems),
        };
        let mut problems = fixed(&self.running.snapshot.server, &candidate.server);
        let prepared = match self.serving.prepare(&candidate).await {
            Ok(prepared) if problems.is_empty() => prepared,
            prepared => {
                problems.extend(prepared.err().unwrap_or_default());
                return self.refused(&locate(problems), Some(&candidate));
            }
        };
        let warnings = candidate.warnings.count();
        let known = Known { snapshot: candidate, digest };
        let done = match settings {
            Some(settings) => self.stage(known, settings, prepared),
            None => self.apply(known, prepared).await,
        };
        Done { warnings, ..done }
    }

    /// Off the threads that serve requests.
    async fn load(&self) -> (Result<Snapshot, Report>, Sources) {
        let (path, workshop) = (self.path.clone(), self.workshop.clone());
        let loading = tokio::task::spawn_blocking(move || snapshot::load_noting(&path, &workshop));
        loading.await.unwrap_or_else(|panic| {
            let message = format!("the gateway failed while it loaded the files: {panic}; report this line");
            (Err(Report::io(&self.path, message, None)), self.sources.clone())
        })
    }

    fn nothing_new(&mut self, trigger: Trigger) -> Done {
        if trigger != Trigger::Files {
            self.serving.reopen_log();
        }
        let running = &self.running.snapshot.hash;
        match self.trial.take() {
            None => {
                Done::new(Outcome::Unchanged, format!("the files say what runs already (config {running})"))
            }
            Some(trial) => {
                self.serving.put_on_trial(None);
                let candidate = &trial.stage.candidate.hash;
                Done {
                    other: Some(candidate.clone()),
                    ..Done::new(
                        Outcome::Aborted,
                        format!("the files say again what runs (config {running}); {candidate} is dropped"),
                    )
                }
            }
        }
    }

    fn refused(&self, report: &Report, candidate: Option<&Snapshot>) -> Done {
        let number = report.count();
        let noun = if number == 1 { "problem" } else { "problems" };
        let running = &self.running.snapshot.hash;
        let message = format!("{number} {noun}; nothing has changed, config {running} goes on");
        Done {
            other: candidate.map(|candidate| candidate.hash.clone()),
            problems: ProblemRow::of(report),
            ..Done::new(Outcome::Refused, message)
        }
    }

    /// Puts a snapshot in force at once.
    async fn apply(&mut self, next: Known, prepared: Prepared) -> Done {
        let ready = match prepared.listen() {
            Ok(ready) => ready,
            Err(problems) => {
                return self.refused(&next.snapshot.places.report(problems), Some(&next.snapshot));
            }
        };
        let dropped = self.trial.take().map(|trial| trial.stage.candidate.hash.clone());
        self.serving.put_in_force(next.snapshot.clone(), ready, &self.control).await;
        let before = std::mem::replace(&mut self.running, next);
        self.watch_or_not();
        let (old, new) = (before.snapshot.hash.clone(), &self.running.snapshot.hash);
        let mut message = format!("config {new} runs in place of {old}");
        if let Some(dropped) = dropped {
            message += &format!("; {dropped}, which was on trial, is dropped");
        }
        self.before = Some(before);
        Done { other: Some(old), ..Done::new(Outcome::Applied, message) }
    }

    /// Lets a candidate take its share.
    fn stage(&mut self, candidate: Known, settings: StageSettings, prepared: Prepared) -> Done {
        let (share, lasts) = (settings.share, settings.lasts);
        let Known { snapshot, digest } = candidate;
        let hash = snapshot.hash.clone();
        let stage = Arc::new(Stage::new(&self.running.snapshot, snapshot, settings, Instant::now()));
        self.serving.put_on_trial(Some(stage.clone()));
        let dropped = self.trial.replace(Trial { stage, digest, prepared });
        let mut message =
            format!("config {hash} takes {share} of the clients for {}, on trial", DurationText(lasts));
        if let Some(dropped) = dropped {
            message += &format!("; {}, which was on trial, is dropped", dropped.stage.candidate.hash);
        }
        Done { other: Some(hash), ..Done::new(Outcome::Staged, message) }
    }

    async fn glance(&mut self) {
        let Some(trial) = &self.trial else { return };
        let began = Instant::now();
        let (kind, done) = match trial.stage.judge(trial.stage.began.elapsed()) {
            Verdict::GoesOn => return,
            Verdict::Promote { why } => (Kind::Promote, self.promote(why).await),
            Verdict::RollBack { why } => (Kind::Rollback, self.drop_candidate(Outcome::RolledBack, &why)),
        };
        if let Some(done) = done {
            self.write_down(kind, Trigger::Stage, began, done);
        }
    }

    async fn promote(&mut self, why: String) -> Option<Done> {
        let Trial { stage, digest, prepared } = self.trial.take()?;
        let candidate = Known { snapshot: stage.candidate.clone(), digest };
        let done = self.apply(candidate, prepared).await;
        if done.outcome == Outcome::Refused {
            // An address was lost to another program while the candidate was on trial.
            self.serving.put_on_trial(None);
            return Some(Done { outcome: Outcome::RolledBack, ..done });
        }
        // It was opened when the stage began, and may have been moved away since.
        self.serving.reopen_log();
        Some(Done { outcome: Outcome::Promoted, message: format!("{}: {why}", done.message), ..done })
    }

    fn abort(&mut self) -> Option<Done> {
        self.drop_candidate(Outcome::Aborted, "dropped by hand")
    }

    fn drop_candidate(&mut self, outcome: Outcome, why: &str) -> Option<Done> {
        let trial = self.trial.take()?;
        self.serving.put_on_trial(None);
        let (running, candidate) = (&self.running.snapshot.hash, trial.stage.candidate.hash.clone());
        let message = format!("config {candidate} is dropped and {running} goes on: {why}");
        Some(Done { other: Some(candidate), ..Done::new(outcome, message) })
    }

    async fn roll_back(&mut self) -> Done {
        if let Some(done) = self.drop_candidate(Outcome::RolledBack, "rolled back by hand") {
            return done;
        }
        let Some(before) = self.before.take() else {
            let message = "there is no snapshot before this one to go back to";
            return Done::not_possible(vec![Problem::new(Path::root(), message)]);
        };
        let prepared = match self.serving.prepare(&before.snapshot).await {
            Ok(prepared) => prepared,
            Err(problems) => {
                let done = self.refused(&before.snapshot.places.report(problems), Some(&before.snapshot));
                self.before = Some(before);
                return done;
            }
        };
        let done = self.apply(before.clone(), prepared).await;
        if done.outcome == Outcome::Refused {
            self.before = Some(before);
            return done;
        }
        // What was left is in the files still; going back to it is what a reload does.
        self.before = None;
        let message = format!(
            "{}; the files still say otherwise: mend them before the next reload or restart",
            done.message
        );
        Done { outcome: Outcome::RolledBack, message, ..done }
    }

    /// Watches what was last loaded, whether it is in force or was refused.
    fn watch_or_not(&mut self) {
        let on = self.watching == Watching::AsFileSays && self.running.snapshot.reload.watch;
        match (&mut self.watch, on) {
            (Some(watch), true) => watch.follow(&self.sources),
            (None, true) => match Watch::start(&self.sources) {
                Ok(watch) => self.watch = Some(watch),
                Err(error) => log::error!(
                    "the files cannot be watched: {error}; SIGHUP and the admin endpoint reload as ever"
                ),
            },
            (_, false) => self.watch = None,
        }
    }

    fn write_down(&mut self, kind: Kind, trigger: Trigger, began: Instant, done: Done) -> Arc<Entry> {
        self.changes += 1;
        let took = began.elapsed();
        let now = Timestamp::now();
        let entry = Arc::new(Entry {
            number: self.changes,
            time: told(now.checked_sub(took).unwrap_or(now)),
            trigger,
            change: kind,
            result: done.outcome,
            message: done.message,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            config: self.running.snapshot.hash.clone(),
            other: done.other,
            problems: done.problems,
            warnings: done.warnings,
        });
        if entry.result == Outcome::Refused {
            let problems: String = entry.problems.iter().map(|problem| format!("\n{problem}")).collect();
            log::error!("reload by {}: refused: {}{problems}", trigger.code(), entry.message);
        } else if trigger != Trigger::Start {
            log::info!("reload by {}: {}: {}", trigger.code(), entry.result.code(), entry.message);
        }
        let running = &self.running.snapshot;
        running.metrics.reloaded(&entry);
        running.metrics.certificates(&running.certificates());
        self.control.remember(entry.clone());
        entry
    }
}

impl Done {
    fn new(outcome: Outcome, message: String) -> Self {
        Self { outcome, message, other: None, problems: Vec::new(), warnings: 0 }
    }

    /// What was asked for makes no sense, whatever the files say.
    fn not_possible(problems: Vec<Problem>) -> Self {
        let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
        let done = Self::new(Outcome::Refused, told.join("; "));
        Self { problems: problems.into_iter().map(ProblemRow::from).collect(), ..done }
    }

    fn nothing_on_trial() -> Self {
        Self::not_possible(vec![Problem::new(Path::root(), "no candidate is on trial")])
    }
}

/// The settings of the stage by which a candidate comes in force; none where it does so at once.
fn settings(how: &How, candidate: &Snapshot) -> Result<Option<StageSettings>, Vec<Problem>> {
    let section = candidate.reload.stage.as_ref();
    let over = match how {
        How::AtOnce => return Ok(None),
        How::AsFileSays => return Ok(section.cloned()),
        How::Staged(over) => over,
    };
    // As it stands in what was asked, not in a file.
    let at = Path::root().key("stage");
    let mut problems = Vec::new();
    let asked = section.map_or_else(|| over.clone(), |section| over.over(&section.into()));
    let settings = snapshot::reload::stage(&asked, &at, &mut problems);
    if problems.is_empty() { Ok(settings) } else { Err(problems) }
}

/// Returns when the files may have changed; never where they are not watched.
async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
