//! A staged reload: who is shown the candidate, what both sides answer, and what that says of the candidate.
//!
//! Pure but for the counters: no clock, no swap. Who holds a stage asks it, and does what its verdict says.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::Serialize;
use siphasher::sip::SipHasher24;
use vestibule_plugins::{DurationText, Percent};

use super::guard::{Factor, Guard, Limit, Quantile, Standing};
use super::side::{Answer, Answers, Figures, Side};
use crate::snapshot::Snapshot;

/// How a stage is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSettings {
    /// How many of the clients the candidate answers: 0.01% to 100%.
    pub share: Percent,
    /// After this time the candidate is promoted, unless it was rolled back: 1 second to 24 hours.
    pub lasts: Duration,
    /// What must hold of the candidate. With none it is promoted whatever it answers.
    pub guards: Vec<Guard>,
    /// The header by which a tester chooses a side; `None` where nobody does.
    pub header: Option<HeaderName>,
    /// Requests that the candidate must have answered to be judged, and to be promoted.
    pub min_requests: u64,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self {
            share: Percent::TENTH,
            lasts: Duration::from_secs(60),
            guards: vec![
                Guard::ErrorRate(Limit::Below(Percent::HUNDREDTH)),
                Guard::Latency(Quantile::P99, Limit::Times(Factor::ONE_AND_A_HALF)),
            ],
            header: None,
            min_requests: 50,
        }
    }
}

/// A candidate on trial.
pub struct Stage {
    /// What is tried.
    pub candidate: Arc<Snapshot>,
    /// How.
    pub settings: StageSettings,
    /// Since when.
    pub began: Instant,
    running_hash: String,
    running_answers: Answers,
    candidate_answers: Answers,
}

/// What is to become of the candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is too early to tell.
    GoesOn,
    /// It is to be put in force for everybody.
    Promote {
        /// The figures, in words.
        why: String,
    },
    /// It is to be dropped.
    RollBack {
        /// The figures, in words.
        why: String,
    },
}

impl Stage {
    /// Tries `candidate` beside `running` from the moment `began` on.
    pub fn new(
        running: &Snapshot,
        candidate: Arc<Snapshot>,
        settings: StageSettings,
        began: Instant,
    ) -> Self {
        Self {
            candidate,
            settings,
            began,
            running_hash: running.hash.clone(),
            running_answers: Answers::new(),
            candidate_answers: Answers::new(),
        }
    }

    /// The side that answers this request: the one that the header of the settings names, else the one of the client.
    ///
    /// Where the settings name no header none is looked at: a stranger does not choose. See `place` for which clients
    /// are in a share.
    pub fn choose(&self, client: Option<IpAddr>, headers: &HeaderMap) -> Side {
        let header = self.settings.header.as_ref().and_then(|name| headers.get(name));
        let forced = header.and_then(|value| Side::named(value.as_bytes()));
        forced.unwrap_or_else(|| match place(client) < self.settings.share.basis_points() {
            true => Side::Candidate,
            false => Side::Running,
        })
    }

    /// Counts what a side has answered. Takes no lock.
    pub fn note(&self, side: Side, answer: Answer, took: Duration) {
        let answers = match side {
            Side::Running => &self.running_answers,
            Side::Candidate => &self.candidate_answers,
        };
        answers.note(answer, took);
    }

    /// What is to become of the candidate, so long after the stage began.
    ///
    /// Before the end it is rolled back as soon as a guard is broken that has enough requests to be judged by
    /// (`Guard::has_enough`). At the end each guard is judged by what there is, however little, since `min_requests`
    /// says how much is enough; a comparison with a running side that answered no request is passed over, and the
    /// verdict says so.
    pub fn judge(&self, elapsed: Duration) -> Verdict {
        let (candidate, running) = self.figures();
        let StageSettings { lasts, guards, min_requests, .. } = &self.settings;
        let is_over = elapsed >= *lasts;
        if is_over && candidate.requests < *min_requests {
            return Verdict::RollBack { why: too_few(&candidate, *lasts, *min_requests) };
        }
        let tell = |guards: Vec<&Guard>| {
            let told: Vec<_> = guards.iter().map(|guard| guard.tell(&candidate, &running)).collect();
            told.join("; ")
        };
        let is_broken = |guard: &&Guard| self.standing(guard, &candidate, &running, is_over) == Now::Broken;
        let broken: Vec<_> = guards.iter().filter(is_broken).collect();
        match (broken.is_empty(), is_over) {
            (false, _) => Verdict::RollBack { why: tell(broken) },
            (true, false) => Verdict::GoesOn,
            (true, true) if guards.is_empty() => {
                let why = format!("no guard was set; the candidate answered {}", counted(candidate.requests));
                Verdict::Promote { why }
            }
            (true, true) => Verdict::Promote { why: tell(guards.iter().collect()) },
        }
    }

    /// How it goes, so long after it began.
    pub fn status(&self, elapsed: Duration) -> StageStatus<'_> {
        let (candidate, running) = self.figures();
        let StageSettings { share, lasts, guards, header, min_requests } = &self.settings;
        let left = lasts.saturating_sub(elapsed);
        let is_over = left.is_zero();
        let guards = guards.iter().map(|guard| GuardStatus {
            guard: guard.to_string(),
            standing: self.standing(guard, &candidate, &running, is_over),
            candidate: guard.figure(&candidate),
            running: guard.figure(&running),
        });
        StageStatus {
            share: share.to_string(),
            lasts: DurationText(*lasts).to_string(),
            seconds_left: left.as_secs() + u64::from(left.subsec_nanos() > 0),
            header: header.as_ref().map(HeaderName::as_str),
            min_requests: *min_requests,
            guards: guards.collect(),
            running: SideStatus::new(&self.running_hash, &running),
            candidate: SideStatus::new(&self.candidate.hash, &candidate),
        }
    }

    fn standing(&self, guard: &Guard, candidate: &Figures, running: &Figures, is_over: bool) -> Now {
        if !is_over && !guard.has_enough(candidate, running, self.settings.min_requests) {
            return Now::Waits;
        }
        match guard.judge(candidate, running) {
            Standing::Holds => Now::Holds,
            Standing::Broken => Now::Broken,
            Standing::Unknown => Now::Waits,
        }
    }

    fn figures(&self) -> (Figures, Figures) {
        (self.candidate_answers.figures(), self.running_answers.figures())
    }
}

/// Where a client stands among all of them, from 0 to 9,999: it is in a share of `n` hundredths of a percent where its
/// place is below `n`, so that who is in a share is in every larger one.
///
/// The place is the same in every process and every version: SipHash-2-4 with a key of zeros over the address, its four
/// bytes or, of IPv6, the first eight (a /64 is one household), times 10,000, divided by 2^64. An IPv4 address that is
/// written as IPv6 is the IPv4 address. A client without an address has the last place.
fn place(client: Option<IpAddr>) -> u16 {
    let hash = |bytes: &[u8]| SipHasher24::new_with_keys(0, 0).hash(bytes);
    let hash = match client.map(|client| client.to_canonical()) {
        Some(IpAddr::V4(address)) => hash(&address.octets()),
        Some(IpAddr::V6(address)) => hash(&address.octets()[..8]),
        None => u64::MAX,
    };
    let places = u128::from(Percent::ALL.basis_points());
    // Below 10,000, since the hash is below 2^64.
    ((u128::from(hash) * places) >> 64) as u16
}

fn too_few(candidate: &Figures, lasts: Duration, min_requests: u64) -> String {
    let lasts = DurationText(lasts);
    match candidate.requests {
        0 => format!("the candidate answered no request in {lasts}; {min_requests} are needed to judge it"),
        given => {
            let errors = candidate.error_rate().map(|rate| format!(" ({rate} of them failed)"));
            format!(
                "the candidate answered only {} in {lasts}{}; {min_requests} are needed to judge it",
                counted(given),
                errors.filter(|_| candidate.failed > 0).unwrap_or_default()
            )
        }
    }
}

fn counted(requests: u64) -> String {
    match requests {
        0 => "no request".to_owned(),
        1 => "1 request".to_owned(),
        many => format!("{many} requests"),
    }
}

/// How a stage goes, as the admin endpoint tells it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StageStatus<'a> {
    share: String,
    #[serde(rename = "for")]
    lasts: String,
    seconds_left: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<&'a str>,
    min_requests: u64,
    guards: Vec<GuardStatus>,
    running: SideStatus<'a>,
    candidate: SideStatus<'a>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct GuardStatus {
    guard: String,
    standing: Now,
    /// The figure of each side, absent where it has answered no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<String>,
}

/// How a guard stands at this moment of the stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Now {
    Holds,
    Broken,
    /// There are too few requests to judge it by.
    Waits,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SideStatus<'a> {
    config: &'a str,
    requests: u64,
    errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
}

impl<'a> SideStatus<'a> {
    fn new(config: &'a str, figures: &Figures) -> Self {
        let ms = |quantile| {
            let took: Option<Duration> = figures.quantile(quantile);
            took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e3)
        };
        Self {
            config,
            requests: figures.requests,
            errors: figures.failed,
            p50_ms: ms(Quantile::P50),
            p99_ms: ms(Quantile::P99),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::path::Path;

    use http::HeaderValue;
    use vestibule_plugins::Registry;

    use super::*;
    use crate::config::parse;
    use crate::snapshot::{Workshop, compile};

    const AT_ONCE: Duration = Duration::ZERO;
    const END: Duration = Duration::from_secs(60);

    fn snapshot(body: &str) -> Arc<Snapshot> {
        let yaml = format!(
            "version: 1\nlisteners: {{ web: {{ address: \"127.0.0.1:1\" }} }}\nroutes: [{{ respond: {{ body: {body} }} }}]\n"
        );
        let workshop = Workshop::new(Registry::builtin());
        Arc::new(compile(&parse("x.yaml", &yaml, Path::new(".")).unwrap(), &workshop).unwrap())
    }

    fn stage(settings: StageSettings) -> Stage {
        Stage::new(&snapshot("blue"), snapshot("green"), settings, Instant::now())
    }

    fn guarded(guards: &[&str], min_requests: u64) -> Stage {
        let guards = guards.iter().map(|guard| Guard::parse(guard).unwrap()).collect();
        stage(StageSettings { guards, min_requests, ..StageSettings::default() })
    }

    fn note(stage: &Stage, side: Side, (failed, good): (u64, u64), ms: u64) {
        for number in 0..failed + good {
            let answer = if number < failed { Answer::Failed } else { Answer::Good };
            stage.note(side, answer, Duration::from_millis(ms));
        }
    }

    #[test]
    fn the_defaults_are_those_that_the_file_tells_of() {
        let StageSettings { share, lasts, guards, header, min_requests } = StageSettings::default();
        let guards: Vec<_> = guards.iter().map(ToString::to_string).collect();
        assert_eq!((share.to_string().as_str(), lasts, header, min_requests), ("10%", END, None, 50));
        assert_eq!(guards, ["error_rate < 1%", "p99 < 1.5x"]);
    }

    #[test]
    fn a_client_has_the_same_place_in_every_process_and_version() {
        // By another implementation of SipHash-2-4, tried on the vector of its paper.
        for (address, expected) in [
            ("127.0.0.1", 7879),
            ("10.0.0.1", 3564),
            ("10.0.0.2", 5817),
            ("192.0.2.7", 4361),
            ("203.0.113.255", 4205),
            ("::ffff:192.0.2.7", 4361),
            ("::1", 9073),
            ("2001:db8::1", 964),
            ("2001:db8::ffff:1", 964),
            ("2001:db8:0:1::1", 1960),
        ] {
            assert_eq!(place(Some(address.parse().unwrap())), expected, "{address}");
        }
        assert_eq!(place(None), 9_999);
    }

    #[test]
    fn a_share_of_the_clients_is_near_the_share_that_was_asked_for() {
        fn check(name: &str, addresses: impl Iterator<Item = IpAddr>) {
            let places: Vec<_> = addresses.map(|address| place(Some(address))).collect();
            for share in [1, 10, 100, 1_000, 5_000, 9_000] {
                let count = places.iter().filter(|place| **place < share).count() as f64;
                let all = places.len() as f64;
                let part = f64::from(share) / 10_000.0;
                // What chance allows: four standard deviations, and one client.
                let slack = 4.0 * (all * part * (1.0 - part)).sqrt() + 1.0;
                assert!((count - all * part).abs() <= slack, "{name}: {count} of {all} in {share}");
            }
        }
        let v4 = |number: u32| IpAddr::V4(Ipv4Addr::from_bits(number));
        let v6 = |number: u128| IpAddr::V6(Ipv6Addr::from_bits(number));
        let [net10, net192, net2001] = [0x0a00_0000_u32, 0xc0a8_0000, 0x2001_0db8];
        check("one after the other", (0..65_536).map(|host| v4(net10 + host)));
        check("the first host of each /24", (0..65_536).map(|net| v4(net10 + (net << 8) + 1)));
        for net in 0..256 {
            check("a /24", (0..256).map(|host| v4(net192 + (net << 8) + host)));
        }
        let prefix = u128::from(net2001) << 96;
        check("the /64s of a /48", (0..65_536_u128).map(|net| v6(prefix + (net << 64) + 1)));
        check("a /56 of each customer", (0..65_536_u128).map(|net| v6(prefix + (net << 72) + 1)));
    }

    #[test]
    fn who_is_in_a_share_is_in_every_larger_one() {
        let stages = ["0.01%", "0.5%", "1%", "10%", "20%", "99.99%", "100%"].map(|share| {
            stage(StageSettings { share: Percent::parse(share).unwrap(), ..StageSettings::default() })
        });
        let headers = HeaderMap::new();
        let mut seen = [0; 7];
        for number in 0..20_000 {
            let client = Some(IpAddr::V4(Ipv4Addr::from_bits(number)));
            let sides = stages.each_ref().map(|stage| stage.choose(client, &headers) == Side::Candidate);
            assert!(sides.is_sorted(), "{client:?}: {sides:?}");
            seen.iter_mut().zip(sides).for_each(|(seen, is_in)| *seen += u32::from(is_in));
        }
        assert!(seen[0] > 0 && seen[5] < 20_000 && seen[6] == 20_000, "{seen:?}");
        let unknown = stages.each_ref().map(|stage| stage.choose(None, &headers) == Side::Candidate);
        assert_eq!(unknown, [false, false, false, false, false, false, true]);
    }

    #[test]
    fn a_tester_chooses_a_side_where_the_settings_name_a_header_and_a_stranger_does_not() {
        let named = StageSettings {
            header: Some(HeaderName::from_static("x-vestibule-side")),
            ..StageSettings::default()
        };
        let (open, closed) = (stage(named), stage(StageSettings::default()));
        let (inside, outside) = ("2001:db8::1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let check = |name: &'static str, value: &'static str, expected: [Side; 2]| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            let sides = [inside, outside].map(|client| open.choose(Some(client), &headers));
            assert_eq!(sides, expected, "{name}: {value}");
            let sides = [inside, outside].map(|client| closed.choose(Some(client), &headers));
            assert_eq!(sides, [Side::Candidate, Side::Running], "no header is named");
        };
        check("x-vestibule-side", "candidate", [Side::Candidate, Side::Candidate]);
        check("x-vestibule-side", "running", [Side::Running, Side::Running]);
        check("x-vestibule-side", "green", [Side::Candidate, Side::Running]);
        check("x-vestibule-side", "", [Side::Candidate, Side::Running]);
        check("x-side", "running", [Side::Candidate, Side::Running]);
    }

    #[test]
    fn a_broken_guard_rolls_back_as_soon_as_there_is_enough_to_judge_it_by() {
        let broken = |figures: &str| Verdict::RollBack { why: figures.to_owned() };
        let stage = guarded(&["error_rate < 1%", "p99 < 1.5x"], 50);
        note(&stage, Side::Running, (0, 99), 100);
        note(&stage, Side::Candidate, (2, 47), 300);
        assert_eq!(stage.judge(AT_ONCE), Verdict::GoesOn, "49 of 50 requests");
        note(&stage, Side::Candidate, (0, 1), 300);
        let told = "error_rate < 1%: 4% of 50 requests failed (running: 0% of 99)";
        assert_eq!(stage.judge(AT_ONCE), broken(told), "50 do, but not for a quantile of 99%");
        note(&stage, Side::Candidate, (0, 250), 300);
        assert_eq!(stage.judge(AT_ONCE), Verdict::GoesOn, "the running side has 99 of 100 requests");
        note(&stage, Side::Running, (0, 1), 100);
        let told = "p99 < 1.5x: 301ms in 300 requests (running: 100ms in 100)";
        assert_eq!(stage.judge(AT_ONCE), broken(told));
        note(&stage, Side::Candidate, (1, 0), 300);
        let told = "p99 < 1.5x: 301ms in 301 requests (running: 100ms in 100)";
        assert_eq!(stage.judge(AT_ONCE), broken(told), "3 of 301 are below 1%");
        note(&stage, Side::Candidate, (1, 0), 300);
        let told = "error_rate < 1%: 1.32% of 302 requests failed (running: 0% of 100); \
                    p99 < 1.5x: 301ms in 302 requests (running: 100ms in 100)";
        assert_eq!(stage.judge(AT_ONCE), broken(told), "each broken guard is told");
    }

    #[test]
    fn at_the_end_a_candidate_that_keeps_its_guards_is_promoted() {
        let stage = guarded(&["error_rate < 1%", "error_rate < 2x", "p99 < 1.5x"], 50);
        note(&stage, Side::Running, (0, 900), 100);
        note(&stage, Side::Candidate, (0, 100), 120);
        assert_eq!(stage.judge(END - Duration::from_millis(1)), Verdict::GoesOn);
        let why = "error_rate < 1%: 0% of 100 requests failed (running: 0% of 900); \
                   error_rate < 2x: 0% of 100 requests failed (running: 0% of 900, taken as 1); \
                   p99 < 1.5x: 120ms in 100 requests (running: 100ms in 900)";
        assert_eq!(stage.judge(END), Verdict::Promote { why: why.to_owned() });
    }

    #[test]
    fn at_the_end_little_is_judged_as_it_is_and_too_little_is_rolled_back() {
        fn check(guards: &[&str], min_requests: u64, candidate: (u64, u64), running: u64, expected: Verdict) {
            let stage = guarded(guards, min_requests);
            note(&stage, Side::Candidate, candidate, 300);
            note(&stage, Side::Running, (0, running), 100);
            assert_eq!(stage.judge(END), expected, "{guards:?}, {min_requests}, {candidate:?}, {running}");
        }
        let promote = |why: &str| Verdict::Promote { why: why.to_owned() };
        let back = |why: &str| Verdict::RollBack { why: why.to_owned() };
        let rate: &[_] = &["error_rate < 1%"];
        let few = "the candidate answered no request in 1m; 50 are needed to judge it";
        check(rate, 50, (0, 0), 9, back(few));
        let few = "the candidate answered only 1 request in 1m; 50 are needed to judge it";
        check(rate, 50, (0, 1), 9, back(few));
        let few =
            "the candidate answered only 49 requests in 1m (6.12% of them failed); 50 are needed to judge it";
        check(rate, 50, (3, 46), 9, back(few));
        check(rate, 50, (0, 50), 9, promote("error_rate < 1%: 0% of 50 requests failed (running: 0% of 9)"));
        let none = "error_rate < 1%: not judged, since the candidate answered no request";
        check(rate, 0, (0, 0), 9, promote(none));
        let one = "error_rate < 1%: 100% of 1 request failed (running: 0% of 9)";
        check(rate, 0, (1, 0), 9, back(one));
        // 60 are fewer than a 99% quantile wants, but each of them was slow.
        let slow = "p99 < 250ms: 301ms in 60 requests (running: no request)";
        check(&["p99 < 250ms"], 50, (0, 60), 0, back(slow));
        let slow = "p99 < 1.5x: 301ms in 60 requests (running: 100ms in 2)";
        check(&["p99 < 1.5x"], 50, (0, 60), 2, back(slow));
        let alone =
            "p99 < 1.5x: 301ms in 60 requests (not judged, since the running side answered no request)";
        check(&["p99 < 1.5x"], 50, (0, 60), 0, promote(alone));
        check(&[], 50, (9, 60), 0, promote("no guard was set; the candidate answered 69 requests"));
        check(&[], 0, (0, 0), 0, promote("no guard was set; the candidate answered no request"));
        let few = "the candidate answered only 1 request in 1m; 2 are needed to judge it";
        check(&[], 2, (0, 1), 0, back(few));
    }

    #[test]
    fn its_status_tells_both_sides_and_each_guard() {
        let mut stage = guarded(&["error_rate < 1%", "error_rate < 2x", "p99 < 200ms"], 50);
        note(&stage, Side::Candidate, (0, 60), 250);
        let told = |stage: &Stage, elapsed| serde_json::to_value(stage.status(elapsed)).unwrap();
        let side = |body: &str| snapshot(body).hash.clone();
        assert_eq!(
            told(&stage, Duration::from_millis(17_500)),
            serde_json::json!({
                "share": "10%",
                "for": "1m",
                "seconds_left": 43,
                "min_requests": 50,
                "guards": [
                    { "guard": "error_rate < 1%", "standing": "holds", "candidate": "0%" },
                    { "guard": "error_rate < 2x", "standing": "waits", "candidate": "0%" },
                    { "guard": "p99 < 200ms", "standing": "waits", "candidate": "250ms" }
                ],
                "running": { "config": side("blue"), "requests": 0, "errors": 0 },
                "candidate": {
                    "config": side("green"), "requests": 60, "errors": 0, "p50_ms": 250.61, "p99_ms": 250.61
                }
            })
        );
        note(&stage, Side::Candidate, (0, 40), 250);
        note(&stage, Side::Running, (5, 95), 250);
        stage.settings.header = Some(HeaderName::from_static("x-side"));
        let told = told(&stage, END * 2);
        assert_eq!(told["guards"][2]["standing"], "broken");
        assert_eq!(told["guards"][1]["running"], "5%");
        assert_eq!((&told["running"]["errors"], &told["header"]), (&5.into(), &"x-side".into()));
        assert_eq!(told["seconds_left"], 0);
    }
}
