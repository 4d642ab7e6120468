//! The table's tests: what matches, which of the matching wins, that `find` answers as `scan` does, and
//! that its work does not grow with the table.

use std::collections::BTreeSet;

use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::route::{HostRank, ListenerId, Shadows, TextPattern};

fn any() -> Rule {
    Rule::default()
}

fn path(text: &str) -> PathPattern {
    match text.split_once(' ') {
        Some(("exact", path)) => PathPattern::exact(path).unwrap(),
        Some(("regex", regex)) => PathPattern::regex(regex).unwrap(),
        _ => PathPattern::prefix(text).unwrap(),
    }
}

fn header(name: &'static str, pattern: TextPattern) -> (HeaderName, TextPattern) {
    (HeaderName::from_static(name), pattern)
}

fn exact(text: &str) -> TextPattern {
    TextPattern::Exact(text.into())
}

/// Builder methods that only tests need.
impl Rule {
    fn hosts(mut self, hosts: &[&str]) -> Self {
        self.hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        self
    }

    fn paths(mut self, paths: &[&str]) -> Self {
        self.paths = paths.iter().map(|text| path(text)).collect();
        self
    }

    fn methods(mut self, methods: &[Method]) -> Self {
        self.methods = methods.to_vec();
        self
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push(header(name, exact(value)));
        self
    }

    fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.into(), exact(value)));
        self
    }

    fn listeners(mut self, listeners: &[ListenerId]) -> Self {
        self.listeners = listeners.to_vec();
        self
    }
}

/// A request that owns its parts. `target` is `host/path?query`.
struct Asked {
    host: String,
    path: String,
    query: Option<String>,
    method: Method,
    headers: HeaderMap,
    listener: ListenerId,
}

impl Asked {
    fn new(target: &str) -> Self {
        let (target, query) = match target.split_once('?') {
            Some((target, query)) => (target, Some(query.to_owned())),
            None => (target, None),
        };
        let (host, path) = target.split_at(target.find('/').unwrap_or(target.len()));
        let (host, path) = (host.to_owned(), path.to_owned());
        Self { host, path, query, method: Method::GET, headers: HeaderMap::new(), listener: 0 }
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, HeaderValue::from_static(value));
        self
    }

    fn listener(mut self, listener: ListenerId) -> Self {
        self.listener = listener;
        self
    }

    fn request(&self) -> Request<'_> {
        Request {
            host: &self.host,
            path: &self.path,
            query: self.query.as_deref(),
            method: &self.method,
            headers: &self.headers,
            listener: self.listener,
        }
    }
}

#[track_caller]
fn check(rules: &[Rule], asked: Asked, rule: Option<usize>) -> Option<Match> {
    let table = Table::new(rules.to_vec());
    let found = table.find(&asked.request());
    let ranks = table.explain(&asked.request());
    assert_eq!(found.map(|found| found.rule), rule, "{ranks:#?}");
    assert_eq!(found, table.scan(&asked.request()), "{ranks:#?}");
    found
}

#[test]
fn a_table_without_rules_matches_nothing() {
    check(&[], Asked::new("a.com/"), None);
}

#[test]
fn a_rule_without_conditions_matches_everything() {
    for target in ["a.com/", "/", "a.com*", "a.com", "[::1]/x//y?z"] {
        check(&[any()], Asked::new(target), Some(0));
    }
}

#[test]
fn the_host_is_matched_without_case_and_last_dot() {
    let rules = [
        any().hosts(&["a.com", "[::1]"]),
        any().hosts(&["*.a.com"]),
        any().hosts(&["*.b.a.com", "*.example.org"]),
    ];
    let check = |host: &str, rule| check(&rules, Asked::new(&format!("{host}/")), rule);
    check("a.com", Some(0));
    check("A.com.", Some(0));
    check("[::1]", Some(0));
    check("x.a.com", Some(1));
    check("X.Y.A.COM", Some(1));
    check("b.a.com", Some(1));
    check("x.b.a.com.", Some(2));
    check("y.x.b.a.com", Some(2));
    check("x.example.org", Some(2));
    check("example.org", None);
    check(".a.com", None);
    check("xa.com", None);
    check("com", None);
    check("a.com..", None);
    check("", None);
    check(".", None);
}

#[test]
fn every_field_given_must_match_and_in_a_list_any_one() {
    let rules = [any()
        .methods(&[Method::GET, Method::PUT])
        .header("x-a", "1")
        .header("x-b", "2")
        .query("p", "1")
        .query("q", "2")
        .listeners(&[3, 4])];
    let asked = |target: &str| Asked::new(target).header("x-a", "1").header("x-b", "2").listener(4);
    check(&rules, asked("a.com/?p=1&q=2"), Some(0));
    check(&rules, asked("a.com/?p=1&q=2").listener(3), Some(0));
    check(&rules, asked("a.com/?p=1&q=2").method(Method::PUT), Some(0));
    check(&rules, asked("a.com/?p=1&q=2").method(Method::HEAD), None);
    check(&rules, asked("a.com/?p=1&q=2").listener(0), None);
    check(&rules, asked("a.com/?p=1"), None);
    check(&rules, asked("a.com/"), None);
    check(&rules, Asked::new("a.com/?p=1&q=2").header("x-a", "1").listener(4), None);
}

#[test]
fn precedence_is_host_path_method_headers_query_and_the_file() {
    let both = |winner: Rule, loser: Rule, asked: &dyn Fn() -> Asked| {
        check(&[winner.clone(), loser.clone()], asked(), Some(0));
        check(&[loser, winner], asked(), Some(1));
    };
    let plain = || Asked::new("x.a.com/api/v1?p=1&q=2").header("x-a", "1").header("x-b", "2");
    let all = |rule: Rule| rule.methods(&[Method::GET]).header("x-a", "1").header("x-b", "2").query("p", "1");

    both(any().hosts(&["x.a.com"]), all(any().hosts(&["*.a.com"]).paths(&["exact /api/v1"])), &plain);
    both(any().hosts(&["*.a.com"]), all(any().hosts(&["*.com"]).paths(&["exact /api/v1"])), &plain);
    both(any().hosts(&["*.com"]), all(any().paths(&["exact /api/v1"])), &plain);
    both(any().paths(&["exact /api/v1"]), all(any().paths(&["/api/v1"])), &plain);
    both(any().paths(&["/api/v1"]), all(any().paths(&["/api"])), &plain);
    both(any().paths(&["/api"]), all(any().paths(&["/"])), &plain);
    both(any().paths(&["/"]), all(any().paths(&["regex ^/api/v1$"])), &plain);
    both(any(), all(any().paths(&["regex ^/api/v1$"])), &plain);
    both(any().methods(&[Method::GET]), any().header("x-a", "1").header("x-b", "2").query("p", "1"), &plain);
    both(any().header("x-a", "1").header("x-b", "2"), any().header("x-a", "1").query("p", "1"), &plain);
    both(any().query("p", "1").query("q", "2"), any().query("p", "1"), &plain);
    both(any().query("p", "1"), any().listeners(&[0]), &plain);

    let same = |rule: Rule| check(&[rule.clone(), rule], plain(), Some(0));
    same(any());
    same(all(any()));
    check(&[any(), any().paths(&["/"])], plain(), Some(0));
    check(&[any().paths(&["/"]), any()], plain(), Some(0));
    check(&[any().paths(&["regex api"]), all(any().paths(&["regex ^/api/v1$"]))], plain(), Some(0));
}

#[test]
fn a_closer_rule_that_fails_gives_way_to_a_looser_one() {
    let rules = [
        any().hosts(&["x.a.com"]).paths(&["exact /api/v1"]).methods(&[Method::POST]),
        any().hosts(&["x.a.com"]).paths(&["/api"]).header("x-a", "1"),
        any().hosts(&["x.a.com"]).paths(&["regex v1$"]).query("p", "1"),
        any().hosts(&["*.a.com"]).paths(&["/other"]),
        any().hosts(&["*.com"]).listeners(&[1]),
        any(),
    ];
    check(&rules, Asked::new("x.a.com/api/v1").method(Method::POST), Some(0));
    check(&rules, Asked::new("x.a.com/api/v1").header("x-a", "1"), Some(1));
    check(&rules, Asked::new("x.a.com/api/v1?p=1"), Some(2));
    check(&rules, Asked::new("x.a.com/other"), Some(3));
    check(&rules, Asked::new("x.a.com/api/v1").listener(1), Some(4));
    check(&rules, Asked::new("x.a.com/api/v1"), Some(5));
}

#[test]
fn of_several_alternatives_in_a_rule_the_closest_counts() {
    let rules = [
        any().hosts(&["*.com", "x.a.com"]).paths(&["/", "regex api", "/api"]),
        any().hosts(&["*.a.com"]).paths(&["exact /api/v1"]),
        any().hosts(&["x.a.com"]).paths(&["/api/v1"]),
    ];
    check(&rules, Asked::new("x.a.com/api/v1"), Some(2));
    check(&rules, Asked::new("x.a.com/api/v2"), Some(0));
    check(&rules, Asked::new("y.a.com/api/v1"), Some(1));
}

#[test]
fn a_match_tells_how_much_of_the_path_its_prefix_took() {
    let check = |rule: Rule, target: &str, prefix_len: Option<usize>| {
        let found = check(&[rule], Asked::new(target), Some(0));
        assert_eq!(found.unwrap().prefix_len, prefix_len, "{target}");
    };
    check(any().paths(&["/api"]), "a.com/api", Some(4));
    check(any().paths(&["/api/"]), "a.com/api", Some(4));
    check(any().paths(&["/api/"]), "a.com/api/", Some(4));
    check(any().paths(&["/api", "/api/v1"]), "a.com/api/v1/x", Some(7));
    check(any().paths(&["/"]), "a.com/api", Some(0));
    check(any(), "a.com/api", Some(0));
    check(any().paths(&["/api", "exact /api"]), "a.com/api", None);
    check(any().paths(&["regex api"]), "a.com/api", None);
}

#[test]
fn explain_tells_the_first_condition_that_failed() {
    let rule = any()
        .hosts(&["a.com"])
        .paths(&["/api"])
        .methods(&[Method::GET])
        .header("x-a", "1")
        .query("q", "2")
        .listeners(&[1]);
    let table = Table::new(vec![any(), rule]);
    let check = |asked: Asked, miss: Miss| {
        let ranks = table.explain(&asked.request());
        assert!(ranks[0].is_ok());
        assert_eq!(ranks[1], Err(miss));
    };
    let name = HeaderName::from_static("x-a");
    check(Asked::new("b.com/x").method(Method::PUT), Miss::Listener);
    check(Asked::new("b.com/x").method(Method::PUT).listener(1), Miss::Host);
    check(Asked::new("a.com/x").method(Method::PUT).listener(1), Miss::Path);
    check(Asked::new("a.com/api").method(Method::PUT).listener(1), Miss::Method);
    check(Asked::new("a.com/api").listener(1), Miss::Header(&name));
    check(Asked::new("a.com/api").listener(1).header("x-a", "1"), Miss::Query("q"));

    let asked = Asked::new("a.com/api?q=2").listener(1).header("x-a", "1");
    let ranks = table.explain(&asked.request());
    let (any, closer) = (ranks[0].unwrap(), ranks[1].unwrap());
    assert!(closer > any);
    assert_eq!((closer.host, closer.path), (HostRank::Exact, PathRank::Prefix(4)));
}

/// Few words, so that rules overlap and requests hit them.
struct Words(Rng);

impl Words {
    fn some<T>(&mut self, most: usize, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        // Half of all lists are empty: a rule with every condition would hardly ever match.
        let count = if self.0.bool() { 0 } else { self.0.usize(1..=most) };
        (0..count).map(|_| make(self)).collect()
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.usize(..of.len())]
    }

    fn name(&mut self) -> String {
        let labels: Vec<_> = (0..self.0.usize(1..=4)).map(|_| self.one(&["a", "b"])).collect();
        labels.join(".")
    }

    fn path(&mut self) -> String {
        let mut path: String = (0..self.0.usize(..=3)).map(|_| self.one(&["/a", "/b", "/ab"])).collect();
        if path.is_empty() || self.0.u8(..4) == 0 {
            path.push('/');
        }
        path
    }

    fn text_pattern(&mut self) -> TextPattern {
        match self.0.u8(..4) {
            0 => exact("1"),
            1 => TextPattern::regex(self.one(&["^1", "2$"])).unwrap(),
            2 => TextPattern::Present(true),
            _ => TextPattern::Present(false),
        }
    }

    fn rule(&mut self) -> Rule {
        Rule {
            hosts: self.some(3, |words| {
                let name = words.name();
                HostPattern::parse(&if words.0.bool() { format!("*.{name}") } else { name }).unwrap()
            }),
            paths: self.some(3, |words| match words.0.u8(..4) {
                0 => PathPattern::exact(&words.path()).unwrap(),
                1 => PathPattern::regex(words.one(&["^/a", "b$", "/b/", "ab"])).unwrap(),
                _ => PathPattern::prefix(&words.path()).unwrap(),
            }),
            methods: self.some(2, |words| words.one(&[Method::GET, Method::POST].each_ref()).clone()),
            headers: self.some(2, |words| (words.header_name(), words.text_pattern())),
            query: self.some(2, |words| (words.one(&["p", "q"]).to_owned(), words.text_pattern())),
            listeners: self.some(2, |words| words.0.u32(..2)),
        }
    }

    fn header_name(&mut self) -> HeaderName {
        HeaderName::from_static(self.one(&["x-a", "x-b"]))
    }

    fn asked(&mut self) -> Asked {
        let mut host = self.name();
        match self.0.u8(..8) {
            0 => host.push('.'),
            1 => host.insert(0, '.'),
            2 => host.make_ascii_uppercase(),
            _ => {}
        }
        let mut path = self.path();
        match self.0.u8(..16) {
            0 => path.insert(0, '/'),
            1 => path = "*".into(),
            2 => path.push_str("//"),
            _ => {}
        }
        let query = self.some(3, |words| words.one(&["p=1", "p=%31", "q=12", "q", "", "p=+2"]));
        let mut headers = HeaderMap::new();
        for name in self.some(3, Self::header_name) {
            headers.append(name, HeaderValue::from_static(self.one(&["1", "12", ""])));
        }
        Asked {
            host,
            path,
            query: (!query.is_empty()).then(|| query.join("&")),
            method: self.one(&[Method::GET, Method::POST].each_ref()).clone(),
            headers,
            listener: self.0.u32(..2),
        }
    }
}

#[test]
fn find_answers_as_scan_does_on_random_tables() {
    let seed = fastrand::u64(..);
    let mut words = Words(Rng::with_seed(seed));
    let mut seen = BTreeSet::new();
    for _ in 0..600 {
        let table = Table::new((0..words.0.usize(..40)).map(|_| words.rule()).collect());
        for _ in 0..20 {
            let asked = words.asked();
            let request = asked.request();
            let ranks = table.explain(&request);
            assert_eq!(
                table.find(&request),
                table.scan(&request),
                "seed {seed}: {request:#?} {table:#?} {ranks:#?}"
            );
            if let Some(best) = ranks.into_iter().flatten().max() {
                let host = match best.host {
                    HostRank::Any => "any host",
                    HostRank::Suffix(_) => "suffix",
                    HostRank::Exact => "exact host",
                };
                let path = match best.path {
                    PathRank::Regex => "regex",
                    PathRank::Prefix(0) => "root",
                    PathRank::Prefix(_) => "prefix",
                    PathRank::Exact => "exact path",
                };
                seen.insert((host, path));
            }
        }
    }
    // Agreement on requests that nobody matches would show little.
    assert_eq!(seen.len(), 3 * 4, "seed {seed}: only {seen:?}");
}

#[test]
fn the_work_does_not_grow_with_the_number_of_routes() {
    let table = |count: usize| {
        let per_host = |i: usize| {
            let rule = match i % 4 {
                0 => any().hosts(&[&format!("h{i}.example.com")]).paths(&["/api/v1"]),
                1 => any().hosts(&[&format!("*.h{i}.example.com")]).paths(&["/api"]),
                2 => any().hosts(&["one.example.com"]).paths(&[&format!("/p{i}/v1")]),
                _ => any().paths(&[&format!("exact /p{i}")]),
            };
            rule.methods(&[Method::GET])
        };
        Table::new((0..count).map(per_host).collect())
    };
    let (small, large) = (table(10), table(10_000));
    let check = |target: &str, rule: Option<usize>| {
        let asked = Asked::new(target);
        let work_in =
            |table: &Table| work::of(|| assert_eq!(table.find(&asked.request()).map(|m| m.rule), rule));
        assert_eq!(work_in(&small), work_in(&large), "{target}");
        assert!(work_in(&large) <= 10, "{target}: {}", work_in(&large));
    };
    check("h8.example.com/api/v1/x/y", Some(8));
    check("a.b.h5.example.com/api/v1", Some(5));
    check("one.example.com/p6/v1/x", Some(6));
    check("one.example.com/p7", Some(7));
    check("none.example.org/none/at/all", None);
    check(&format!("one.example.com{}", "/".repeat(8_000)), None);
    check(&format!("{}example.com/", "a.".repeat(8_000)), None);
}

#[test]
fn a_path_of_slashes_is_probed_only_at_depths_that_have_prefixes() {
    let deep = "/a".repeat(4_000);
    let table = Table::new(vec![any().paths(&[&deep]), any().paths(&["/b"])]);
    let check = |path: &str, rule: Option<usize>, probes: usize| {
        let asked = Asked::new(&format!("a.com{path}"));
        let work = work::of(|| assert_eq!(table.find(&asked.request()).map(|found| found.rule), rule));
        assert_eq!(work, probes, "a path of {} bytes", path.len());
    };
    // Each match examines one candidate besides its probes.
    check(&format!("{deep}/x"), Some(0), 1 + 1);
    check("/b/x", Some(1), 1 + 1);
    check(&format!("/b{}", "/".repeat(8_000)), Some(1), 2 + 1);
    check(&"/".repeat(8_000), None, 2);
}

#[test]
fn a_rule_whose_requests_others_take_never_wins() {
    let seed = fastrand::u64(..);
    let mut words = Words(Rng::with_seed(seed));
    let (mut named, mut of_several) = (0, 0);
    for _ in 0..150 {
        let mut rules: Vec<_> = (0..words.0.usize(..40)).map(|_| words.rule()).collect();
        // As many conditions as a random rule has, few are ever covered.
        for rule in &mut rules {
            if words.0.bool() {
                (rule.headers, rule.query) = Default::default();
            }
        }
        let shadows = Shadows::new(&rules);
        let takers: Vec<Vec<_>> =
            (0..rules.len()).map(|rule| (0..2).map(|it| shadows.takers(rule, it)).collect()).collect();
        named += takers.iter().flatten().flatten().count();
        of_several += takers.iter().flatten().flatten().filter(|takers| takers.len() > 1).count();
        let table = Table::new(rules.clone());
        for _ in 0..60 {
            let asked = words.asked();
            let request = asked.request();
            let Some(found) = table.find(&request) else { continue };
            let wrong = &takers[found.rule][request.listener as usize];
            assert!(
                wrong.is_none(),
                "seed {seed}: {found:?} wins {request:#?}, yet {wrong:?} take it: {table:#?}"
            );
            // Whoever is said to take another's requests does, or gives way to one that ranks higher still.
            for (rule, by) in takers.iter().enumerate() {
                let Some(by) = &by[request.listener as usize] else { continue };
                let ranks = table.explain(&request);
                let Ok(rank) = ranks[rule] else { continue };
                assert!(
                    by.iter().any(|&by| ranks[by].is_ok_and(|it| it > rank)),
                    "seed {seed}: {rule} by {by:?}"
                );
            }
        }
    }
    eprintln!("{named} named, {of_several} of several");
    assert!(named > 150 && of_several > 5, "seed {seed}: only {named} and {of_several} were named");
}

#[test]
fn requests_are_taken_by_the_same_place_with_no_more_conditions_or_by_a_prefix_above_a_regex() {
    let check = |rules: &[Rule], takers: Option<&[usize]>| {
        let found = Shadows::new(rules).takers(rules.len() - 1, 0);
        assert_eq!(found, takers.map(|takers| takers.iter().copied().collect()), "{rules:#?}");
    };
    let (get, post) = (&[Method::GET][..], &[Method::POST][..]);
    check(&[any()], None);
    check(&[any(), any()], Some(&[0]));
    check(&[any().paths(&["/a/"]), any().paths(&["/a"])], Some(&[0]));
    check(&[any(), any().paths(&["/a"])], None);
    check(&[any().paths(&["/a"]), any().paths(&["exact /a"])], None);
    check(&[any(), any().hosts(&["a.com"])], None);
    check(&[any().hosts(&["a.com", "*.b.com"]), any().hosts(&["*.b.com"])], Some(&[0]));
    check(&[any().hosts(&["*.b.com"]), any().hosts(&["a.b.com"])], None);
    check(&[any(), any().methods(get)], None);
    check(
        &[any().methods(get), any().methods(post), any().methods(&[Method::GET, Method::POST])],
        Some(&[0, 1]),
    );
    check(&[any().methods(get), any()], None);
    check(&[any().header("x-a", "1"), any().header("x-a", "1")], Some(&[0]));
    check(&[any().header("x-a", "1"), any().header("x-a", "2")], None);
    check(&[any().query("a", "1"), any().header("x-a", "1")], None);
    let matches = |pattern: &TextPattern| Rule { headers: vec![header("x-a", pattern.clone())], ..any() };
    let (one, two) = (TextPattern::regex("^1").unwrap(), TextPattern::regex("^2").unwrap());
    check(&[matches(&one), any().header("x-a", "1")], Some(&[0]));
    check(&[matches(&two), any().header("x-a", "1")], None);
    check(&[matches(&one), matches(&one)], Some(&[0]));
    check(&[matches(&one), matches(&two)], None);
    check(&[matches(&TextPattern::Present(true)), matches(&one)], Some(&[0]));
    check(&[matches(&TextPattern::Present(false)), matches(&one)], None);
    // More conditions rank higher, wherever they stand in the file.
    let mut twice = any().header("x-a", "1");
    twice.headers.push(header("x-a", TextPattern::Present(true)));
    let later = [any().header("x-a", "1"), twice];
    assert_eq!(Shadows::new(&later).takers(0, 0), Some([1].into()));
    check(&[any().listeners(&[0]), any()], Some(&[0]));
    check(&[any().listeners(&[1]), any()], None);
    // A regex ranks below every prefix, whatever else its rule asks for.
    check(&[any(), any().paths(&["regex ^/a"]).methods(get).header("x-a", "1")], Some(&[0]));
    check(&[any().header("x-a", "1"), any().paths(&["regex ^/a"])], None);
    check(&[any().paths(&["/api"]), any().paths(&["regex ^/api/v[0-9]+"])], Some(&[0]));
    for regex in ["^/api", "^/apis/", "^/api/?x", "/api/x", "^/api/x|y", "^/api/*", "(?i)^/api/x"] {
        let rules = [any().paths(&["/api"]), any().paths(&[&format!("regex {regex}")])];
        check(&rules, None);
    }
    check(&[any().paths(&["regex ^/a"]), any().paths(&["regex ^/a"]).header("x-a", "1")], Some(&[0]));
    check(&[any().paths(&["regex ^/b"]), any().paths(&["regex ^/a"])], None);
    // One taker for each of its paths, or none at all.
    let (one, two) = (any().paths(&["/a"]), any().paths(&["/b"]));
    check(&[one.clone(), two, any().paths(&["/a", "/b"])], Some(&[0, 1]));
    check(&[one, any().paths(&["/a", "/b"])], None);
}

#[test]
fn thousands_of_rules_under_one_place_are_compared_with_few_others() {
    let numbered = |number: usize| any().hosts(&["a.com"]).header("x-a", &number.to_string());
    let mut rules: Vec<_> = (0..10_000).map(numbered).collect();
    rules.push(numbered(5_000));
    let begun = std::time::Instant::now();
    let shadows = Shadows::new(&rules);
    let found: Vec<_> = (0..rules.len()).filter_map(|rule| Some((rule, shadows.takers(rule, 0)?))).collect();
    eprintln!("10,001 rules of one place: {:?}", begun.elapsed());
    assert_eq!(found, [(10_000, [5_000].into())], "the twin is found among thousands");
}
