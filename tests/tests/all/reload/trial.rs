//! A candidate on trial: who sees it, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use vestibule_tests::client::Client;
use vestibule_tests::gateway::Gateway;
use vestibule_tests::origin::{Answer, Origin, Reply};
use vestibule_tests::ports;

/// Two origins, and a gateway that goes to the first.
struct Trial {
    gateway: Gateway,
    port: u16,
    green: String,
    section: &'static str,
    _origins: [Origin; 2],
}

impl Trial {
    /// Of each `one_in` requests, green fails one.
    fn start(one_in: usize, section: &'static str) -> Self {
        let blue = Origin::script(|_| Answer::Reply(Reply::ok("blue")));
        let count = AtomicUsize::new(0);
        let green =
            Origin::script(move |_| match count.fetch_add(1, Ordering::Relaxed) % one_in == one_in - 1 {
                true => Answer::Reply(Reply::new(500, "green")),
                false => Answer::Reply(Reply::ok("green")),
            });
        let port = ports::free();
        let gateway = Gateway::start(&yaml(port, &blue.address(), section));
        let green_address = green.address();
        Self { gateway, port, green: green_address, section, _origins: [blue, green] }
    }

    /// Puts green on trial while clients from 200 addresses ask, until the gateway has judged; gives what each of them
    /// was answered meanwhile, and the gateway's word.
    fn run(&self) -> (BTreeMap<Ipv4Addr, Vec<(u16, String)>>, String) {
        let told = self.gateway.reload(&yaml(self.port, &self.green, self.section));
        assert!(told.starts_with("signal: staged: config "), "{told}");
        let judged = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asking: Vec<_> = (0..4_u8)
                .map(|thread| {
                    let judged = &judged;
                    scope.spawn(move || {
                        let mut answers = BTreeMap::<_, Vec<_>>::new();
                        let addresses = (0..50).map(|number| Ipv4Addr::new(127, 0, 1 + thread, 1 + number));
                        let mut clients: Vec<_> = addresses
                            .map(|address| (address, Client::plain_from(address, self.port)))
                            .collect();
                        while !judged.load(Ordering::Relaxed) {
                            for (address, client) in &mut clients {
                                let answer = client.get("a.test", "/");
                                let answer = (answer.status, answer.text());
                                if !judged.load(Ordering::Relaxed) {
                                    answers.entry(*address).or_default().push(answer);
                                }
                            }
                        }
                        answers
                    })
                })
                .collect();
            let deadline = Instant::now() + vestibule_tests::PATIENCE;
            let word = loop {
                let word = self.gateway.reloads().into_iter().find(|told| told.starts_with("stage: "));
                if let Some(word) = word {
                    break word;
                }
                assert!(Instant::now() < deadline, "it was not judged:\n{}", self.gateway.stderr());
                std::thread::sleep(Duration::from_millis(1));
            };
            judged.store(true, Ordering::Relaxed);
            (asking.into_iter().flat_map(|thread| thread.join().unwrap()).collect(), word)
        })
    }

    fn ask(&self, from: [u8; 4], side: Option<&str>) -> String {
        let mut client = Client::plain_from(from.into(), self.port);
        let side = side.map(|side| format!("X-Side: {side}\r\n")).unwrap_or_default();
        client.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{side}\r\n"));
        client.response().text()
    }
}

fn yaml(port: u16, origin: &str, section: &str) -> String {
    format!(
        "version: 1\nreload: {section}\nlisteners: {{ web: {{ address: \"127.0.0.1:{port}\" }} }}\n\
         upstreams: {{ app: {{ endpoints: [\"{origin}\"] }} }}\nroutes: [{{ name: app, upstream: app }}]\n"
    )
}

#[test]
fn a_candidate_that_fails_one_request_in_twenty_is_rolled_back_and_only_its_share_has_seen_it() {
    let section =
        "{ watch: false, stage: { share: 10%, for: 15s, guards: 'error_rate < 1%', min_requests: 100 } }";
    let trial = Trial::start(20, section);
    let began = Instant::now();
    let (answers, word) = trial.run();
    assert!(began.elapsed() < Duration::from_secs(15), "it waited for the end of the stage");
    assert!(word.starts_with("stage: rolled_back: config "), "{word}");
    assert!(word.contains(" is dropped and ") && word.contains("error_rate < 1%: "), "{word}");
    let mut green = 0;
    for (address, answers) in &answers {
        let sides: BTreeSet<&str> = answers.iter().map(|(_, body)| body.as_str()).collect();
        assert!(sides.len() <= 1, "{address} has seen both sides");
        let failed = answers.iter().filter(|(status, _)| *status != 200).count();
        if sides.contains("green") {
            green += 1;
        } else {
            assert_eq!(failed, 0, "{address} is outside the share");
        }
    }
    assert!((5..45).contains(&green), "{green} of 200 clients are in a share of 10%");
    for (address, _) in answers {
        assert_eq!(trial.ask(address.octets(), None), "blue", "after the rollback");
    }
}

#[test]
fn a_good_candidate_is_promoted_at_the_end_and_everybody_gets_it() {
    let section = "{ watch: false, stage: { share: 25%, for: 2s, guards: ['error_rate < 1%', 'p50 < 10s'], min_requests: 20 } }";
    let trial = Trial::start(usize::MAX, section);
    let began = Instant::now();
    let (answers, word) = trial.run();
    assert!(began.elapsed() >= Duration::from_secs(2), "it was judged before the end");
    assert!(word.starts_with("stage: promoted: config "), "{word}");
    assert!(word.contains("error_rate < 1%: ") && word.contains("p50 < 10s: "), "{word}");
    assert!(answers.values().flatten().all(|(status, _)| *status == 200));
    let of_green = |answers: &Vec<(u16, String)>| answers.iter().all(|(_, body)| body == "green");
    let green = answers.values().filter(|answers| of_green(answers)).count();
    assert!((25..80).contains(&green), "{green} of 200 clients are in a share of 25%");
    for (address, _) in answers {
        assert_eq!(trial.ask(address.octets(), None), "green", "after the promotion");
    }
}

#[test]
fn a_candidate_that_nobody_asked_is_not_promoted() {
    let trial = Trial::start(usize::MAX, "{ watch: false, stage: { for: 1s, min_requests: 1 } }");
    trial.gateway.reload(&yaml(trial.port, &trial.green, trial.section));
    trial.gateway.wait_for("reload by stage: rolled_back: config ");
    trial.gateway.wait_for("the candidate answered no request in 1s; 1 are needed to judge it");
    assert_eq!(trial.ask([127, 0, 0, 1], None), "blue");
}

#[test]
fn a_tester_chooses_a_side_by_the_header_that_the_file_names_and_the_upstream_does_not_see_it() {
    let section = "{ watch: false, stage: { share: 0.01%, for: 1h, header: x-side } }";
    let trial = Trial::start(usize::MAX, section);
    trial.gateway.reload(&yaml(trial.port, &trial.green, section));
    assert_eq!(trial.ask([127, 0, 0, 1], None), "blue");
    assert_eq!(trial.ask([127, 0, 0, 1], Some("candidate")), "green");
    assert_eq!(trial.ask([127, 0, 0, 1], Some("running")), "blue");
    assert_eq!(trial.ask([127, 0, 0, 1], Some("other")), "blue");
    let [blue, green] = &trial._origins;
    let seen = blue.requests().into_iter().chain(green.requests());
    assert!(seen.into_iter().all(|request| request.header("x-side").is_none()));
}

#[test]
fn a_stranger_does_not_choose() {
    let section = "{ watch: false, stage: { share: 0.01%, for: 1h } }";
    let trial = Trial::start(usize::MAX, section);
    trial.gateway.reload(&yaml(trial.port, &trial.green, section));
    for name in ["candidate", "running"] {
        assert_eq!(trial.ask([127, 0, 0, 1], Some(name)), "blue");
    }
}

#[test]
fn files_that_say_again_what_runs_end_the_stage_and_what_is_refused_does_not() {
    let section = "{ watch: false, stage: { share: 100%, for: 1h } }";
    let trial = Trial::start(usize::MAX, section);
    let blue = trial._origins[0].address();
    trial.gateway.reload(&yaml(trial.port, &trial.green, section));
    assert_eq!(trial.ask([127, 0, 0, 1], None), "green");
    let told = trial.gateway.reload("version: 1\nroutes: 5\n");
    assert!(told.starts_with("signal: refused: "), "{told}");
    assert_eq!(trial.ask([127, 0, 0, 1], None), "green", "the stage goes on");
    let told = trial.gateway.reload(&yaml(trial.port, &trial.green, section));
    assert!(told.starts_with("signal: unchanged: ") && told.contains("on trial already"), "{told}");
    let told = trial.gateway.reload(&yaml(trial.port, &blue, section));
    assert!(told.starts_with("signal: aborted: "), "{told}");
    assert_eq!(trial.ask([127, 0, 0, 1], None), "blue");
}
