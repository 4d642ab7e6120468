//! The configuration is changed through the admin endpoint and through the command line; both tell what came of it.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vestibule_tests::gateway::binary;

use super::{Told, eventually};

const FILE: &str = "reload: { watch: false }\nroutes: [{ name: it, respond: { body: blue } }]";

impl Told {
    /// Puts another text in place of one in its file.
    fn edit(&self, from: &str, to: &str) {
        let file = self.edge.gateway.config();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }

    fn body(&self) -> String {
        self.edge.get("a.test", "/").text()
    }

    fn reloads(&self) -> Vec<Value> {
        self.page("/reloads").json()["reloads"].as_array().unwrap().clone()
    }

    /// Runs the command line against this gateway.
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--admin", &format!("http://127.0.0.1:{}", self.admin)]);
        command.env("RUST_LOG", "error").output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_reload_is_applied_or_is_refused_with_every_problem_and_both_are_told_of() {
    let told = Told::start(FILE);
    let first = told.page("/config").json();
    assert_eq!((&first["trigger"], told.reloads().len()), (&"start".into(), 1));
    told.edit("blue", "green");
    let entry = told.post("/reload", "").json();
    assert_eq!(
        (&entry["result"], &entry["trigger"], &entry["change"]),
        (&"applied".into(), &"admin".into(), &"reload".into())
    );
    assert_eq!((&entry["other"], told.body().as_str()), (&first["config"], "green"));
    let second = told.page("/config").json();
    assert_eq!((&second["config"], &second["trigger"]), (&entry["config"], &"admin".into()));
    assert_eq!(second["loaded"], entry["time"]);

    told.edit("respond:", "respnd:");
    told.edit("name: it", "name: it, timeouts: { request: soon }");
    let refused = told.post("/reload", "");
    assert_eq!(refused.status, 422);
    let problem = refused.json();
    let check =
        Command::new(binary()).args(["check", "-c"]).arg(told.edge.gateway.config()).output().unwrap();
    let rows: Vec<String> = problem["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let part = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let hint = row["hint"].as_str().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            format!("{}  {}\n{}{hint}", part("at"), part("path"), part("message"))
        })
        .collect();
    assert_eq!((rows.len(), rows.join("\n\n")), (2, text(&check.stderr).trim_end().to_owned()));
    assert_eq!(told.body(), "green");

    let reloads = told.reloads();
    assert_eq!(reloads.len(), 3);
    assert_eq!((&reloads[0]["result"], &reloads[0]["problems"]), (&"refused".into(), &problem["problems"]));
    assert_eq!(reloads[1], entry);
    assert_eq!(reloads[2]["trigger"], "start");
    assert_eq!(told.page("/config").json(), second);
}

#[test]
fn reloads_are_counted_and_the_running_configuration_is_told_of() {
    let told = Told::start(FILE);
    let count = |trigger: &str, result: &str| {
        let labels = format!("vestibule_config_reloads_total{{result=\"{result}\",trigger=\"{trigger}\"}}");
        told.samples(&labels).get("").cloned()
    };
    let value = |name: &str| told.samples(&format!("vestibule_config_{name}")).remove("").unwrap();
    assert_eq!(
        (count("start", "applied").as_deref(), value("last_reload_successful").as_str()),
        (Some("1"), "1")
    );
    let begun: f64 = value("last_reload_success_timestamp_seconds").parse().unwrap();

    told.edit("respond:", "respnd:");
    assert_eq!(told.post("/reload", "").status, 422);
    assert_eq!(count("admin", "refused").as_deref(), Some("1"));
    assert_eq!(value("last_reload_successful"), "0");
    assert_eq!(value("last_reload_success_timestamp_seconds").parse::<f64>().unwrap(), begun);

    told.edit("respnd:", "respond:");
    told.edit("blue", "green");
    assert_eq!(told.post("/reload", "").status, 200);
    assert_eq!(count("admin", "applied").as_deref(), Some("1"));
    assert_eq!(value("last_reload_successful"), "1");
    assert!(value("last_reload_success_timestamp_seconds").parse::<f64>().unwrap() > begun);
    assert_eq!(value("reload_duration_seconds_count"), "3");
    let running = told.page("/config").json()["config"].as_str().unwrap().to_owned();
    let info = told.samples("vestibule_config_info");
    assert_eq!(info.into_iter().collect::<Vec<_>>(), [(format!("{{config=\"{running}\"}}"), "1".to_owned())]);
}

#[test]
fn the_command_line_tells_what_came_of_each_change() {
    let told = Told::start(FILE);
    let first = told.page("/config").json()["config"].as_str().unwrap().to_owned();
    let said = |output: &Output| (output.status.code(), text(&output.stdout), text(&output.stderr));
    let last = || told.reloads()[0]["message"].as_str().unwrap().to_owned() + "\n";

    assert_eq!(said(&told.run(&["reload"])), (Some(0), last(), String::new()));
    told.edit("blue", "green");
    let json = told.run(&["reload", "--now", "--format", "json"]);
    assert_eq!((json.status.code(), text(&json.stdout).lines().count()), (Some(0), 1));
    assert_eq!(serde_json::from_slice::<Value>(&json.stdout).unwrap(), told.reloads()[0]);
    assert_eq!(told.body(), "green");

    assert_eq!(said(&told.run(&["rollback"])), (Some(0), last(), String::new()));
    assert_eq!((told.body().as_str(), &told.page("/config").json()["config"]), ("blue", &first.into()));
    for (command, words) in [
        ("rollback", "there is no snapshot before this one to go back to\n"),
        ("promote", "no candidate is on trial\n"),
        ("abort", "no candidate is on trial\n"),
    ] {
        assert_eq!(said(&told.run(&[command])), (Some(1), String::new(), words.to_owned()));
    }

    let stage = [
        "reload",
        "--stage",
        "20%",
        "--for",
        "1h",
        "--guard",
        "p99 < 2x",
        "--header",
        "x-side",
        "--min-requests",
        "7",
    ];
    assert_eq!(said(&told.run(&stage)), (Some(0), last(), String::new()));
    let status = told.page("/stage").json();
    let asked = (&status["share"], &status["for"], &status["header"], &status["min_requests"]);
    assert_eq!(asked, (&"20%".into(), &"1h".into(), &"x-side".into(), &7.into()));
    assert_eq!(
        (&status["guards"][0]["guard"], status["guards"].as_array().unwrap().len()),
        (&"p99 < 2x".into(), 1)
    );
    assert_eq!(said(&told.run(&["abort"])), (Some(0), last(), String::new()));
    assert_eq!(told.run(&["reload", "--stage"]).status.code(), Some(0));
    assert_eq!(told.page("/stage").json()["share"], "10%");
    assert_eq!(said(&told.run(&["promote"])), (Some(0), last(), String::new()));
    assert_eq!(told.body(), "green");

    told.edit("respond:", "respnd:");
    let check =
        Command::new(binary()).args(["check", "-c"]).arg(told.edge.gateway.config()).output().unwrap();
    let (code, stdout, stderr) = said(&told.run(&["reload"]));
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert_eq!(stderr, format!("{}\n{}", text(&check.stderr), last()));
    let json = told.run(&["reload", "--format", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let problem: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&problem["status"], &problem["problems"]), (&422.into(), &told.reloads()[0]["problems"]));

    for (arguments, words) in [
        (&["reload", "--stage", "200%"][..], "`200%` is not a share"),
        (&["reload", "--stage", "--guard", "p98 < 1s"], "p99"),
        (&["reload", "--for", "1m"], "--stage"),
        (&["reload", "--stage", "--now"], "cannot be used with"),
    ] {
        let output = told.run(arguments);
        assert!(output.status.code() == Some(2) && text(&output.stderr).contains(words), "{output:?}");
    }
}

#[test]
fn a_stage_is_followed_to_its_end() {
    let told = Told::start(FILE);
    told.edit("blue", "green");
    let stage = ["reload", "--wait", "--stage", "100%", "--for", "1s", "--min-requests"];
    let output = told.run(&[&stage[..], &["1000"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("1000 are needed to judge it"), "{output:?}");
    assert_eq!((told.body().as_str(), &told.reloads()[0]["result"]), ("blue", &"rolled_back".into()));

    let output = told.run(&[&stage[..], &["0"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let entry = &told.reloads()[0];
    assert_eq!((told.body().as_str(), &entry["result"]), ("green", &"promoted".into()));
    let lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert!(lines[0].contains("on trial"), "{lines:?}");
    assert_eq!(lines.last().map(String::as_str), entry["message"].as_str());
    let progress = "candidate: 0 requests, 0 failed; running: 0 requests, 0 failed";
    assert!(lines[1..lines.len() - 1].iter().all(|line| line.ends_with(progress)), "{lines:?}");
}

#[test]
fn a_compilation_may_take_longer_than_a_client() {
    let told = Told::start(FILE);
    // A file that is read only once somebody has written it.
    let pipe = told.edge.gateway.config().with_file_name("page.txt");
    let path = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: plain system call; the path ends in a NUL byte.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    told.edit("body: blue", "file: page.txt");
    let begun = Instant::now();
    thread::scope(|scope| {
        let answer = scope.spawn(|| told.post("/reload", ""));
        thread::sleep(Duration::from_secs(11));
        assert!(!answer.is_finished(), "the answer did not wait");
        fs::File::options().write(true).open(&pipe).unwrap().write_all(b"green").unwrap();
        assert_eq!(answer.join().unwrap().json()["result"], "applied");
    });
    assert!(begun.elapsed() > Duration::from_secs(10));
    eventually("it is in force", || told.body() == "green");
}
