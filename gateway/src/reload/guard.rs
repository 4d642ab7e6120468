//! A guard of a staged reload: `error_rate < 1%`, `p99 < 1.5x`. What was asked, and whether two sides' figures keep it.
//!
//! Pure: no clock, no counter. When a guard is judged is the stage's affair.

use std::fmt;
use std::time::Duration;

use vestibule_plugins::decode::shown;
use vestibule_plugins::problem::did_you_mean;
use vestibule_plugins::{DurationText, Percent, duration};

use super::side::Figures;

/// What must hold of the candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The share of its requests that failed is below this.
    ErrorRate(Limit<Percent>),
    /// So many of its requests took less than this.
    Latency(Quantile, Limit<Duration>),
}

/// What a figure must be below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit<T> {
    /// This value.
    Below(T),
    /// So many times the running side's figure of the same period.
    Times(Factor),
}

/// A factor from 0.01 to 1000, exact to a hundredth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor {
    hundredths: u32,
}

/// The share of requests that are at least as fast as a latency that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Half of them: the median.
    P50,
    /// 90%.
    P90,
    /// 95%.
    P95,
    /// 99%.
    P99,
}

/// How a guard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The figures keep it.
    Holds,
    /// They do not.
    Broken,
    /// There is no figure, or none to compare it with.
    Unknown,
}

const ERROR_RATE: &str = "error_rate";

impl Quantile {
    const ALL: [Self; 4] = [Self::P50, Self::P90, Self::P95, Self::P99];

    /// As a guard names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P95 => "p95",
            Self::P99 => "p99",
        }
    }

    /// Between 0 and 1: 0.99 for `p99`.
    pub fn fraction(self) -> f64 {
        match self {
            Self::P50 => 0.5,
            Self::P90 => 0.9,
            Self::P95 => 0.95,
            Self::P99 => 0.99,
        }
    }

    /// With fewer requests than this it is their maximum, and tells of one unlucky request.
    fn least_requests(self) -> u64 {
        match self {
            Self::P50 => 2,
            Self::P90 => 10,
            Self::P95 => 20,
            Self::P99 => 100,
        }
    }
}

impl Guard {
    /// What a guard may be, as a message says it.
    pub const EXPECTED: &str = "a guard such as `error_rate < 1%` or `p99 < 1.5x`";

    /// Reads `p99 < 1.5x`; blanks are free.
    ///
    /// # Errors
    /// What was given and what is allowed; behind `\nhint: `, where it is known, what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let is_operator = |c: char| matches!(c, '<' | '>' | '=' | '!' | '≤' | '≥');
        let given = shown(text);
        let begin = text.find(is_operator).unwrap_or(text.len());
        let (name, rest) = text.split_at(begin);
        let limit = rest.trim_start_matches(is_operator);
        let (operator, _) = rest.split_at(rest.len() - limit.len());
        let name = name.trim();
        let measure = Measure::named(name).ok_or_else(|| unknown_measure(&given, name))?;
        let limit: String = limit.chars().filter(|c| !c.is_whitespace()).collect();
        match (operator, limit.as_str()) {
            ("<", "") | ("", _) => Err(format!(
                "`{given}` has no limit\nhint: write `{name} < {}`, or another limit",
                measure.example()
            )),
            ("<", limit) => measure.below(limit),
            (other, limit) => Err(format!(
                "a guard compares with `<` alone, got `{}`\nhint: write `{name} < {}`",
                shown(other),
                if measure.below(limit).is_ok() { limit } else { measure.example() }
            )),
        }
    }

    /// Requests that the candidate must have answered before the guard is judged ahead of the stage's end; the running
    /// side as many, where the guard compares with it. Never 0.
    pub fn least_requests(&self, min_requests: u64) -> u64 {
        let own = match self {
            Self::ErrorRate(_) => 1,
            Self::Latency(quantile, _) => quantile.least_requests(),
        };
        min_requests.max(own)
    }

    /// Whether both sides have answered enough for the guard to be judged ahead of the stage's end.
    pub fn has_enough(&self, candidate: &Figures, running: &Figures, min_requests: u64) -> bool {
        let least = self.least_requests(min_requests);
        candidate.requests >= least && (!self.compares() || running.requests >= least)
    }

    /// Whether the figures keep it.
    ///
    /// Where `error_rate` is compared with a running side that had no error, it is compared with what one error among
    /// that side's requests would be: nothing is below a multiple of 0, and a flawless minute is no promise.
    pub fn judge(&self, candidate: &Figures, running: &Figures) -> Standing {
        let is_kept = match self {
            Self::ErrorRate(limit) => below_in_errors(candidate, running, *limit),
            Self::Latency(quantile, limit) => below_in_time(candidate, running, *quantile, *limit),
        };
        match is_kept {
            Some(true) => Standing::Holds,
            Some(false) => Standing::Broken,
            None => Standing::Unknown,
        }
    }

    /// The figure that it is about, of one side; `None` where that has answered no request.
    ///
    /// Digits are cut off, not rounded: a figure that is told as the limit has reached it.
    pub fn figure(&self, side: &Figures) -> Option<String> {
        match self {
            Self::ErrorRate(_) => side.error_rate(),
            Self::Latency(quantile, _) => side.quantile(*quantile).map(latency),
        }
    }

    /// The guard and the figures of both sides, in words.
    pub fn tell(&self, candidate: &Figures, running: &Figures) -> String {
        let (Some(figure), standing) = (self.figure(candidate), self.judge(candidate, running)) else {
            return format!("{self}: not judged, since the candidate answered no request");
        };
        let requests = candidate.requests;
        let of_candidate = match self {
            Self::ErrorRate(_) => format!("{figure} of {} failed", counted(requests)),
            Self::Latency(..) => format!("{figure} in {}", counted(requests)),
        };
        let of_running = match (self.figure(running), self) {
            (None, _) if standing == Standing::Unknown => {
                "not judged, since the running side answered no request".to_owned()
            }
            (None, _) => "running: no request".to_owned(),
            (Some(figure), Self::ErrorRate(Limit::Times(_))) if running.failed == 0 => {
                format!("running: {figure} of {}, taken as 1", running.requests)
            }
            (Some(figure), Self::ErrorRate(_)) => format!("running: {figure} of {}", running.requests),
            (Some(figure), Self::Latency(..)) => format!("running: {figure} in {}", running.requests),
        };
        format!("{self}: {of_candidate} ({of_running})")
    }

    fn compares(&self) -> bool {
        matches!(self, Self::ErrorRate(Limit::Times(_)) | Self::Latency(_, Limit::Times(_)))
    }
}

/// All in whole numbers, so that what is exactly at the limit is not below it.
fn below_in_errors(candidate: &Figures, running: &Figures, limit: Limit<Percent>) -> Option<bool> {
    let (failed, requests) = (u128::from(candidate.failed), u128::from(candidate.requests));
    if requests == 0 {
        return None;
    }
    match limit {
        Limit::Below(share) => {
            let all = u128::from(Percent::ALL.basis_points());
            Some(failed * all < u128::from(share.basis_points()) * requests)
        }
        Limit::Times(_) if running.requests == 0 => None,
        Limit::Times(factor) => {
            let of_running = u128::from(running.failed.max(1)) * u128::from(factor.hundredths);
            Some(failed * 100 * u128::from(running.requests) < of_running * requests)
        }
    }
}

fn below_in_time(
    candidate: &Figures,
    running: &Figures,
    quantile: Quantile,
    limit: Limit<Duration>,
) -> Option<bool> {
    let took = candidate.quantile(quantile)?;
    match limit {
        Limit::Below(limit) => Some(took < limit),
        Limit::Times(factor) => {
            let of_running = running.quantile(quantile)?.as_nanos();
            Some(took.as_nanos() * 100 < of_running * u128::from(factor.hundredths))
        }
    }
}

fn counted(requests: u64) -> String {
    format!("{requests} request{}", if requests == 1 { "" } else { "s" })
}

/// Three digits and a unit.
fn latency(took: Duration) -> String {
    let nanos = took.as_nanos();
    let (unit, name) = match nanos {
        0..1_000_000 => (1_000, "us"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let whole = nanos / unit;
    let hundredths = nanos % unit * 100 / unit;
    match (whole, hundredths) {
        (100.., _) | (_, 0) => format!("{whole}{name}"),
        (10.., 0..10) => format!("{whole}{name}"),
        (10.., _) => format!("{whole}.{}{name}", hundredths / 10),
        _ => format!("{}{name}", format!("{whole}.{hundredths:02}").trim_end_matches('0')),
    }
}

impl fmt::Display for Guard {
    /// In the form that is read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ErrorRate(Limit::Below(share)) => write!(f, "{ERROR_RATE} < {share}"),
            Self::ErrorRate(Limit::Times(factor)) => write!(f, "{ERROR_RATE} < {factor}"),
            Self::Latency(quantile, Limit::Below(limit)) => {
                write!(f, "{} < {}", quantile.name(), DurationText(*limit))
            }
            Self::Latency(quantile, Limit::Times(factor)) => write!(f, "{} < {factor}", quantile.name()),
        }
    }
}

impl Factor {
    /// `1.5x`.
    pub const ONE_AND_A_HALF: Self = Self { hundredths: 150 };
    const MOST: u32 = 100_000;

    /// Reads `1.5`, without its `x`.
    fn parse(text: &str) -> Option<Self> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return None;
        }
        let hundredths = format!("{whole}{decimals:0<2}").parse().ok()?;
        (1..=Self::MOST).contains(&hundredths).then_some(Self { hundredths })
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", f64::from(self.hundredths) / 100.0)
    }
}

/// What stands before the `<`.
#[derive(Clone, Copy)]
enum Measure {
    ErrorRate,
    Latency(Quantile),
}

impl Measure {
    fn named(name: &str) -> Option<Self> {
        let quantile = Quantile::ALL.into_iter().find(|quantile| quantile.name() == name);
        match name {
            ERROR_RATE => Some(Self::ErrorRate),
            _ => quantile.map(Self::Latency),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ErrorRate => ERROR_RATE,
            Self::Latency(quantile) => quantile.name(),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::ErrorRate => "1%",
            Self::Latency(_) => "250ms",
        }
    }

    fn below(self, limit: &str) -> Result<Guard, String> {
        if let Some(factor) = limit.strip_suffix(['x', 'X']) {
            let factor = Factor::parse(factor).ok_or_else(|| {
                format!(
                    "`{}` is no factor; write a number from `0.01x` to `1000x` with at most two decimals",
                    shown(limit)
                )
            })?;
            return Ok(match self {
                Self::ErrorRate => Guard::ErrorRate(Limit::Times(factor)),
                Self::Latency(quantile) => Guard::Latency(quantile, Limit::Times(factor)),
            });
        }
        match self {
            Self::ErrorRate => {
                let share = Percent::parse(limit).ok().filter(|share| share.basis_points() > 0);
                share.map(|share| Guard::ErrorRate(Limit::Below(share)))
            }
            Self::Latency(quantile) => {
                let longest = Duration::from_secs(3600);
                let time = duration::parse(limit).ok().filter(|time| !time.is_zero() && *time <= longest);
                time.map(|time| Guard::Latency(quantile, Limit::Below(time)))
            }
        }
        .ok_or_else(|| self.no_limit(limit))
    }

    fn no_limit(self, limit: &str) -> String {
        let allowed = match self {
            Self::ErrorRate => "a share from `0.01%` to `100%`",
            Self::Latency(_) => "a duration from `1ms` to `1h`",
        };
        let whole = !limit.is_empty() && limit.bytes().all(|byte| byte.is_ascii_digit());
        let unit = match self {
            Self::ErrorRate => "%",
            Self::Latency(_) => "ms",
        };
        // A number without a unit has one that is likely; whether it is in bounds is looked at again.
        let hint = match whole && self.below(&format!("{limit}{unit}")).is_ok() {
            true => format!("\nhint: write `{} < {limit}{unit}`", self.name()),
            false => String::new(),
        };
        format!(
            "`{}` is no limit of `{}`; write {allowed}, or a multiple of the running side's such as `1.5x`{hint}",
            shown(limit),
            self.name()
        )
    }
}

fn unknown_measure(given: &str, name: &str) -> String {
    let names = || [ERROR_RATE].into_iter().chain(Quantile::ALL.map(Quantile::name));
    let hint = did_you_mean(name, names()).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let allowed: Vec<_> = names().map(|name| format!("`{name}`")).collect();
    format!("expected {}, got `{given}`; what is measured is {}{hint}", Guard::EXPECTED, allowed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reload::side::{Answer, Answers};

    fn figures(failed: u64, good: u64, took: Duration) -> Figures {
        let answers = Answers::new();
        for number in 0..failed + good {
            answers.note(if number < failed { Answer::Failed } else { Answer::Good }, took);
        }
        answers.figures()
    }

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn a_guard_is_read_whatever_its_blanks_and_told_in_one_form() {
        fn check(text: &str, told: &str) {
            let guard = Guard::parse(text).unwrap();
            assert_eq!(guard.to_string(), told, "{text}");
            assert_eq!(Guard::parse(told), Ok(guard));
        }
        check("error_rate < 1%", "error_rate < 1%");
        check("error_rate<1.00 %", "error_rate < 1%");
        check("  error_rate  <\t0.05%  ", "error_rate < 0.05%");
        check("error_rate < 100%", "error_rate < 100%");
        check("error_rate < 2x", "error_rate < 2x");
        check("p99 < 1.5x", "p99 < 1.5x");
        check("p99<1.50X", "p99 < 1.5x");
        check("p50 < 0.01x", "p50 < 0.01x");
        check("p50 < 1000 x", "p50 < 1000x");
        check("p90 < 250 ms", "p90 < 250ms");
        check("p95 < 1500ms", "p95 < 1s500ms");
        check("p95 < 1m 30s", "p95 < 1m30s");
        check("p99 < 1h", "p99 < 1h");
    }

    #[test]
    fn what_is_no_guard_is_refused_with_what_is_one() {
        fn check(text: &str, refused: &str) {
            assert_eq!(Guard::parse(text), Err(refused.to_owned()), "{text}");
        }
        let measures = "what is measured is `error_rate`, `p50`, `p90`, `p95`, `p99`";
        let expected = "expected a guard such as `error_rate < 1%` or `p99 < 1.5x`";
        check("", &format!("{expected}, got ``; {measures}"));
        check("< 1%", &format!("{expected}, got `< 1%`; {measures}"));
        check("latency < 1s", &format!("{expected}, got `latency < 1s`; {measures}"));
        check(
            "error-rate < 1%",
            &format!("{expected}, got `error-rate < 1%`; {measures}\nhint: did you mean `error_rate`?"),
        );
        check("P99 < 1s", &format!("{expected}, got `P99 < 1s`; {measures}\nhint: did you mean `p99`?"));
        check("p999 < 1s", &format!("{expected}, got `p999 < 1s`; {measures}\nhint: did you mean `p99`?"));
        check("p99", "`p99` has no limit\nhint: write `p99 < 250ms`, or another limit");
        check("error_rate <", "`error_rate <` has no limit\nhint: write `error_rate < 1%`, or another limit");
        check("p99 <= 2s", "a guard compares with `<` alone, got `<=`\nhint: write `p99 < 2s`");
        check("p99 > 2s", "a guard compares with `<` alone, got `>`\nhint: write `p99 < 2s`");
        check("error_rate = x", "a guard compares with `<` alone, got `=`\nhint: write `error_rate < 1%`");
        let rate = "is no limit of `error_rate`; write a share from `0.01%` to `100%`, or a multiple of the running \
                    side's such as `1.5x`";
        check("error_rate < 1", &format!("`1` {rate}\nhint: write `error_rate < 1%`"));
        check("error_rate < 0%", &format!("`0%` {rate}"));
        check("error_rate < 101%", &format!("`101%` {rate}"));
        check("error_rate < 0.001%", &format!("`0.001%` {rate}"));
        check("error_rate < 250ms", &format!("`250ms` {rate}"));
        check("error_rate < 1% < 2%", &format!("`1%<2%` {rate}"));
        let time = "is no limit of `p99`; write a duration from `1ms` to `1h`, or a multiple of the running side's such \
                    as `1.5x`";
        check("p99 < 250", &format!("`250` {time}\nhint: write `p99 < 250ms`"));
        check("p99 < 0", &format!("`0` {time}"));
        check("p99 < 0ms", &format!("`0ms` {time}"));
        check("p99 < 1h1ms", &format!("`1h1ms` {time}"));
        check("p99 < 500us", &format!("`500us` {time}"));
        check("p99 < 1%", &format!("`1%` {time}"));
        let factor = "is no factor; write a number from `0.01x` to `1000x` with at most two decimals";
        for text in ["0x", "x", "-1x", "1.555x", "1.x", ".5x", "1000.01x", "1e3x", "99999999999x"] {
            check(&format!("p99 < {text}"), &format!("`{text}` {factor}"));
        }
    }

    #[test]
    fn what_reaches_the_limit_is_not_below_it() {
        fn check(guard: &str, (failed, good): (u64, u64), running: (u64, u64), expected: Standing) {
            let guard = Guard::parse(guard).unwrap();
            let [candidate, running] = [(failed, good), running].map(|(f, g)| figures(f, g, ms(1)));
            let told = guard.tell(&candidate, &running);
            assert_eq!(guard.judge(&candidate, &running), expected, "{told}");
        }
        use Standing::{Broken, Holds, Unknown};
        check("error_rate < 1%", (0, 1), (0, 0), Holds);
        check("error_rate < 1%", (1, 99), (0, 0), Broken);
        check("error_rate < 1%", (1, 100), (0, 0), Holds);
        check("error_rate < 1%", (0, 0), (5, 5), Unknown);
        check("error_rate < 0.01%", (1, 9_999), (0, 0), Broken);
        check("error_rate < 0.01%", (1, 10_000), (0, 0), Holds);
        check("error_rate < 100%", (3, 0), (0, 0), Broken);
        check("error_rate < 100%", (3, 1), (0, 0), Holds);
        check("error_rate < 2x", (0, 50), (0, 0), Unknown);
        check("error_rate < 2x", (0, 0), (0, 50), Unknown);
        check("error_rate < 2x", (2, 98), (1, 99), Broken);
        check("error_rate < 2x", (19, 981), (1, 99), Holds);
        // A running side without an error counts as one with one.
        check("error_rate < 2x", (0, 100), (0, 100), Holds);
        check("error_rate < 2x", (1, 99), (0, 100), Holds);
        check("error_rate < 2x", (2, 98), (0, 100), Broken);
        check("error_rate < 1x", (1, 99), (0, 100), Broken);
        check("error_rate < 1x", (1, 100), (0, 100), Holds);
        check("error_rate < 0.5x", (1, 199), (0, 100), Broken);
        check("error_rate < 0.5x", (1, 200), (0, 100), Holds);
        check("error_rate < 2x", (9, 1), (6, 4), Holds);
    }

    #[test]
    fn a_latency_is_judged_by_its_quantile() {
        fn check(guard: &str, candidate: Duration, running: Option<Duration>, expected: Standing) {
            let guard = Guard::parse(guard).unwrap();
            let candidate = figures(0, 100, candidate);
            let running = running.map_or_else(|| figures(0, 0, ms(0)), |took| figures(0, 100, took));
            let told = guard.tell(&candidate, &running);
            assert_eq!(guard.judge(&candidate, &running), expected, "{told}");
        }
        use Standing::{Broken, Holds, Unknown};
        check("p99 < 250ms", ms(248), None, Holds);
        check("p99 < 250ms", ms(250), None, Broken);
        check("p50 < 1ms", Duration::from_micros(990), None, Holds);
        check("p50 < 1ms", ms(1), None, Broken);
        check("p99 < 1.5x", ms(100), None, Unknown);
        check("p99 < 1x", ms(100), Some(ms(100)), Broken);
        check("p99 < 1.5x", ms(100), Some(ms(100)), Holds);
        check("p99 < 1.5x", ms(148), Some(ms(100)), Holds);
        check("p99 < 1.5x", ms(152), Some(ms(100)), Broken);
        check("p99 < 0.5x", ms(48), Some(ms(100)), Holds);
        check("p99 < 0.5x", ms(52), Some(ms(100)), Broken);
        check("p99 < 2x", Duration::from_micros(19), Some(Duration::from_micros(10)), Holds);
        check("p99 < 2x", Duration::from_micros(21), Some(Duration::from_micros(10)), Broken);
    }

    #[test]
    fn a_quantile_wants_more_requests_than_its_tail_is_rare() {
        fn check(guard: &str, min_requests: u64, candidate: u64, running: u64, expected: bool) {
            let [candidate, running] = [candidate, running].map(|good| figures(0, good, ms(1)));
            let enough = Guard::parse(guard).unwrap().has_enough(&candidate, &running, min_requests);
            assert_eq!(enough, expected, "{guard}, {min_requests}: {}", candidate.requests);
        }
        check("error_rate < 1%", 50, 49, 0, false);
        check("error_rate < 1%", 50, 50, 0, true);
        check("error_rate < 1%", 0, 0, 0, false);
        check("error_rate < 1%", 0, 1, 0, true);
        check("error_rate < 2x", 50, 50, 49, false);
        check("error_rate < 2x", 50, 50, 50, true);
        check("error_rate < 2x", 0, 1, 0, false);
        check("p99 < 1s", 50, 99, 0, false);
        check("p99 < 1s", 50, 100, 0, true);
        check("p99 < 1s", 200, 199, 0, false);
        check("p95 < 1s", 0, 19, 0, false);
        check("p95 < 1s", 0, 20, 0, true);
        check("p90 < 1s", 0, 9, 0, false);
        check("p90 < 1s", 0, 10, 0, true);
        check("p50 < 1s", 0, 1, 0, false);
        check("p50 < 1s", 0, 2, 0, true);
        check("p99 < 1.5x", 50, 100, 99, false);
        check("p99 < 1.5x", 50, 100, 100, true);
    }

    #[test]
    fn the_figures_are_told_in_plain_words() {
        fn check(guard: &str, candidate: &Figures, running: &Figures, told: &str) {
            assert_eq!(Guard::parse(guard).unwrap().tell(candidate, running), told);
        }
        let none = figures(0, 0, ms(0));
        let good = figures(0, 3707, ms(100));
        let bad = figures(21, 391, ms(312));
        check(
            "error_rate < 1%",
            &bad,
            &good,
            "error_rate < 1%: 5.09% of 412 requests failed (running: 0% of 3707)",
        );
        check(
            "error_rate < 2x",
            &bad,
            &good,
            "error_rate < 2x: 5.09% of 412 requests failed (running: 0% of 3707, taken as 1)",
        );
        check("p99 < 1.5x", &bad, &good, "p99 < 1.5x: 312ms in 412 requests (running: 100ms in 3707)");
        check(
            "p99 < 1.5x",
            &bad,
            &none,
            "p99 < 1.5x: 312ms in 412 requests (not judged, since the running side answered no request)",
        );
        check("p99 < 1s", &bad, &none, "p99 < 1s: 312ms in 412 requests (running: no request)");
        check(
            "error_rate < 1%",
            &none,
            &good,
            "error_rate < 1%: not judged, since the candidate answered no request",
        );
        check(
            "error_rate < 1%",
            &figures(0, 1, ms(1)),
            &good,
            "error_rate < 1%: 0% of 1 request failed (running: 0% of 3707)",
        );
    }

    #[test]
    fn a_latency_is_told_by_three_digits_that_are_cut_off() {
        fn check(nanos: u64, told: &str) {
            assert_eq!(latency(Duration::from_nanos(nanos)), told);
        }
        check(10_000, "10us");
        check(10_079, "10us");
        check(999_999, "999us");
        check(1_000_000, "1ms");
        check(1_507_999, "1.5ms");
        check(9_999_999, "9.99ms");
        check(12_399_999, "12.3ms");
        check(249_999_999, "249ms");
        check(250_000_000, "250ms");
        check(1_050_000_000, "1.05s");
        check(3_600_000_000_000, "3600s");
    }
}
