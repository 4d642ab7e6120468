//! 500 random mutations of a configuration, good ones and broken ones: after each, what the gateway does is what one does
//! that was started just now with the same files, or with the last good ones.

mod broken;
mod change;
mod origin;
mod random;
mod state;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;
use vestibule_tests::PATIENCE;
use vestibule_tests::gateway::Gateway;

use broken::BREAKS;
use change::{CHANGES, Change, RARE, WATCH, tidy};
use state::{CONFIG, Ports, State, Text, World, write};
use table::{Held, Plan, Table};

const STEPS: usize = 500;
/// How many gateways are started anew at once: one for each core that is left.
const AT_ONCE: usize = 2;

#[test]
fn after_each_of_500_mutations_the_gateway_does_what_one_does_that_was_just_started() {
    let seed = std::env::var("VESTIBULE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let world = World::new();
    let ports: [Ports; AT_ONCE + 1] = std::array::from_fn(|_| Ports::free());
    let mut run = Run::new(&world, seed);
    let mut hashes = Hashes::default();
    let began = Instant::now();
    thread::scope(|scope| {
        let mut started: VecDeque<ScopedJoinHandle<'_, Compared>> = VecDeque::new();
        for step in 0..STEPS {
            if let Some(applied) = run.step(step) {
                let ports = &ports[run.tally.applied % ports.len()];
                let world = &world;
                started.push_back(scope.spawn(move || applied.compare(world, ports)));
            }
            while started.len() > AT_ONCE {
                hashes.note(started.pop_front().unwrap());
            }
        }
        started.into_iter().for_each(|comparing| hashes.note(comparing));
    });
    run.tally.conclude(seed, began.elapsed());
}

/// The gateway that runs all the while, and what is known of it.
struct Run<'a> {
    world: &'a World,
    rng: Rng,
    seed: u64,
    gateway: Gateway,
    /// What runs, and the files that it was made of.
    state: State,
    files: Text,
    /// What is in the folder, which was refused maybe.
    written: Text,
    table: Table,
    hash: Option<String>,
    held: Held,
    /// What ran before, to go back to.
    earlier: Vec<State>,
    was_refused: bool,
    changes: Deck,
    breaks: Deck,
    tally: Tally,
}

/// Every kind once in random order, again and again: none is left out by chance.
#[derive(Default)]
struct Deck(Vec<usize>);

/// What is to be done next.
struct Step {
    kind: &'static str,
    /// The files, and what the reload has to come to.
    files: Text,
    expected: Expected,
}

enum Expected {
    Applied(Box<State>),
    Unchanged,
    /// With a text in the refusal.
    Refused(String),
}

/// A change that was applied: what is to be compared with a gateway of the same files.
struct Applied {
    told: String,
    state: State,
    files: Text,
    table: Table,
    hash: String,
}

/// The hashes of two gateways that do the same.
struct Compared {
    /// The first port of the one that was started.
    ports: u16,
    ours: String,
    /// Unless no answer told it.
    theirs: Option<String>,
}

#[derive(Default)]
struct Tally {
    kinds: BTreeMap<&'static str, usize>,
    applied: usize,
    /// How many of them changed an answer.
    told_apart: usize,
    refused: usize,
    by_files: usize,
    held: usize,
    slowest: Duration,
}

impl<'a> Run<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = world.first();
        let files = state.text();
        write(folder.path(), &files);
        let gateway = Gateway::start_in(folder, CONFIG, &[]);
        let plan = Plan::of(&state, &world.ports);
        let table = Table::of(&plan, &world.ports, &world.client);
        let held = Held::open(&plan, &world.ports, &world.client);
        Self {
            world,
            rng: Rng::with_seed(seed),
            seed,
            gateway,
            state,
            written: files.clone(),
            files,
            table,
            hash: None,
            held,
            earlier: Vec::new(),
            was_refused: false,
            changes: Deck::default(),
            breaks: Deck::default(),
            tally: Tally::default(),
        }
    }

    /// Makes one mutation and checks what can be checked here; gives what is to be compared.
    fn step(&mut self, number: usize) -> Option<Applied> {
        let Step { kind, files, expected } = self.draw();
        *self.tally.kinds.entry(kind).or_default() += 1;
        let trigger = if self.state.is_watched() { "files" } else { "signal" };
        self.tally.by_files += usize::from(trigger == "files");
        let told =
            format!("mutation {number}, {kind}, by {trigger}; to see it again: VESTIBULE_SEED={}", self.seed);
        let outcome = self.reload(&files, trigger, &expected, &told);

        let is_good = matches!(expected, Expected::Applied(_));
        let state = match expected {
            Expected::Applied(state) => *state,
            Expected::Unchanged => self.state.clone(),
            Expected::Refused(why) => {
                self.tally.refused += 1;
                self.finds_in_refusal(trigger, &why, &told);
                self.state.clone()
            }
        };
        self.was_refused = outcome.starts_with("refused");
        let (ports, client) = (&self.world.ports, &self.world.client);
        let plan = Plan::of(&state, ports);
        let mut table = Table::of(&plan, ports, client);
        let held = std::mem::take(&mut self.held).ask_again(&plan, &mut table);
        self.tally.held += held.unwrap_or_else(|wrong| panic!("{told}\n{wrong}{}", shown(&files)));
        self.held = Held::open(&plan, ports, client);
        if !is_good {
            let difference = table.difference(&self.table);
            assert!(difference.is_empty(), "{told}: something has changed\n{difference}{}", shown(&files));
            let hash = table.hashes.iter().any(|hash| self.hash.as_ref().is_some_and(|it| it != hash));
            assert!(!hash, "{told}: {:?} instead of {:?}", table.hashes, self.hash);
            return None;
        }
        // `applied: config NEW runs in place of OLD`.
        let hash = outcome.split(' ').nth(2).unwrap().to_owned();
        assert!(table.hashes.iter().all(|it| *it == hash), "{told}: {:?} and not {hash}", table.hashes);
        self.tally.applied += 1;
        self.tally.told_apart += usize::from(table.for_clients().ne(self.table.for_clients()));
        self.earlier.push(std::mem::replace(&mut self.state, state.clone()));
        self.files.clone_from(&files);
        self.hash = Some(hash.clone());
        self.table = Table { answers: table.answers.clone(), hashes: table.hashes.clone() };
        Some(Applied { told, state, files, table, hash })
    }

    fn draw(&mut self) -> Step {
        let (rng, world) = (&mut self.rng, self.world);
        if self.was_refused && rng.u8(..5) == 0 {
            return Step { kind: "mended", files: self.files.clone(), expected: Expected::Unchanged };
        }
        if !self.state.is_watched() && rng.u8(..60) == 0 {
            return Step {
                kind: "nothing changed",
                files: self.files.clone(),
                expected: Expected::Unchanged,
            };
        }
        if rng.u8(..3) == 0 {
            return self.breaks.draw(rng, &BREAKS, |rng, kind, make| {
                let (files, told) = make(rng, world, &self.state)?;
                (files != self.written).then_some(Step { kind, files, expected: Expected::Refused(told) })
            });
        }
        let (state, files) = (&self.state, &self.files);
        let step = |kind, state: State| {
            let made = state.text();
            let expected = || Expected::Applied(Box::new(state));
            (made != *files).then(|| Step { kind, files: made, expected: expected() })
        };
        let changed = |rng: &mut Rng, kind, make: Change| {
            let mut state = state.clone();
            (make(rng, world, &mut state) && tidy(&mut state)).then(|| step(kind, state))?
        };
        let rare = match rng.u8(..20) {
            0 if !self.earlier.is_empty() => {
                step("went back", self.earlier[rng.usize(..self.earlier.len())].clone())
            }
            1 | 2 => {
                let (kind, make) = RARE[rng.usize(..RARE.len())];
                changed(rng, kind, make)
            }
            // Waiting for the files to be quiet takes longer than all the rest.
            3..=8 if state.is_watched() => changed(rng, WATCH.0, WATCH.1),
            _ => None,
        };
        rare.unwrap_or_else(|| self.changes.draw(rng, &CHANGES, changed))
    }

    /// Writes the files and waits for what comes of it.
    fn reload(&mut self, files: &Text, trigger: &str, expected: &Expected, told: &str) -> String {
        let mut before = self.gateway.reloads_by(trigger);
        let began = Instant::now();
        write(self.gateway.folder(), files);
        self.written.clone_from(files);
        if trigger == "signal" {
            self.gateway.signal(libc::SIGHUP);
        }
        let expected = match expected {
            Expected::Applied(_) => "applied",
            Expected::Unchanged => "unchanged",
            Expected::Refused(_) => "refused",
        };
        let outcome = loop {
            let outcome = self.gateway.reload_by(trigger, before);
            // Files that are written one after the other may be found in between, if this machine is slow enough.
            if outcome.starts_with(expected) || trigger == "signal" {
                break outcome;
            }
            before += 1;
        };
        assert!(
            outcome.starts_with(expected),
            "{told}: {outcome}\n{}\n{}",
            self.gateway.stderr(),
            shown(files)
        );
        self.tally.slowest = self.tally.slowest.max(began.elapsed());
        outcome
    }

    fn finds_in_refusal(&self, trigger: &str, why: &str, told: &str) {
        let deadline = Instant::now() + PATIENCE;
        let refusal = format!("reload by {trigger}: refused: ");
        loop {
            let lines = self.gateway.stderr();
            let last = lines.rfind(&refusal).map_or("", |at| &lines[at..]);
            if last.contains(why) {
                return;
            }
            assert!(Instant::now() < deadline, "{told}: no `{why}` in the refusal: {last}");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Deck {
    /// The next kind by which a step can be made.
    fn draw<T: Copy>(
        &mut self,
        rng: &mut Rng,
        kinds: &[(&'static str, T)],
        mut make: impl FnMut(&mut Rng, &'static str, T) -> Option<Step>,
    ) -> Step {
        loop {
            for place in 0..self.0.len() {
                let (kind, of) = kinds[self.0[place]];
                if let Some(step) = make(rng, kind, of) {
                    self.0.remove(place);
                    return step;
                }
            }
            let mut all: Vec<usize> = (0..kinds.len()).collect();
            rng.shuffle(&mut all);
            self.0.extend(all);
        }
    }
}

impl Applied {
    /// With a gateway that starts with the same files, but for the ports.
    fn compare(self, world: &World, ports: &Ports) -> Compared {
        let Self { told, state, mut files, table, hash } = self;
        let folder = tempfile::tempdir().unwrap();
        let config = String::from_utf8(files[CONFIG].clone()).unwrap();
        let shown = shown(&files);
        files.insert(CONFIG.to_owned(), world.ports.mapped(&config, ports).into_bytes());
        write(folder.path(), &files);
        let gateway = Gateway::start_in(folder, CONFIG, &["--no-watch"]);
        let fresh = Table::of(&Plan::of(&state, &world.ports), ports, &world.client);
        let difference = table.difference(&fresh);
        assert!(difference.is_empty(), "{told}\n{difference}{shown}");
        assert!(fresh.hashes.len() <= 1, "{told}: {:?}", fresh.hashes);
        assert!(gateway.stop().success(), "{told}");
        Compared { ports: ports.0[0], ours: hash, theirs: fresh.hashes.into_iter().next() }
    }
}

/// Which hash of the gateway belongs to which of one that was just started: they differ, since the ports do, but one by one
/// for the same ports.
#[derive(Default)]
struct Hashes(BTreeMap<(u16, String), String>);

impl Hashes {
    fn note(&mut self, comparing: ScopedJoinHandle<'_, Compared>) {
        let compared = comparing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let Compared { ports, ours, theirs: Some(theirs) } = compared else { return };
        for (one, other) in [(ours.clone(), theirs.clone()), (theirs, ours)] {
            let before = self.0.entry((ports, one)).or_insert_with(|| other.clone());
            assert_eq!(*before, other, "two hashes of one configuration, or one of two");
        }
    }
}

impl Tally {
    fn conclude(&self, seed: u64, took: Duration) {
        let Self { kinds, applied, told_apart, refused, by_files, held, slowest } = self;
        let mut told = String::new();
        for (kind, count) in kinds {
            let _ = write!(told, "\n  {count:3} {kind}");
        }
        eprintln!(
            "seed {seed}: {applied} applied, of which {told_apart} changed an answer; {refused} refused; {by_files} by \
             files; {held} requests on connections that were open before; {took:?}, the slowest reload {slowest:?}{told}"
        );
        let again = format!("to see it again: VESTIBULE_SEED={seed}");
        assert!(told_apart * 2 >= *applied, "{told_apart} of {applied} changed an answer; {again}");
        assert!((STEPS / 4..STEPS / 2).contains(refused), "{refused} were refused; {again}");
        // How long the files are watched is left to chance.
        assert!(*by_files > 0, "none by files; {again}");
        assert!(*held > STEPS / 2, "{held} requests on connections that were open; {again}");
        let names =
            CHANGES.iter().chain(&RARE).map(|(name, _)| name).chain(BREAKS.iter().map(|(name, _)| name));
        let absent: Vec<_> = names.filter(|name| !kinds.contains_key(*name)).collect();
        assert!(absent.is_empty(), "never made: {absent:?}; {again}");
    }
}

/// The configuration's own file, for a person.
fn shown(files: &Text) -> String {
    format!("\n{}", String::from_utf8_lossy(&files[CONFIG]))
}
